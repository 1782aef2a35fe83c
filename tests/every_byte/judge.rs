//! What became of a damaged store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use millpond::ErrorKind;

use crate::job::{Lived, Looks, Promises, live_damaged};

/// The files of a store, by their paths in it.
pub type Files = Vec<(String, Vec<u8>)>;

/// What a start makes of a damaged store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing was lost, and nothing is reported.
    Sound,
    /// Nothing was lost, and damage is reported.
    SoundAndReported,
    /// An older checkpoint was used, or plans are lost, and the report says so; the state is right.
    WalkedBack,
    /// Refused, and left as it was.
    Refused(ErrorKind),
    /// The job ran and ended with a typed error; the next start used an older checkpoint, and its report says so.
    EndedThenWalkedBack,
    /// The job ran and ended with a typed error; the next start was refused, and left the store as it was.
    EndedThenRefused(ErrorKind),
}

/// Starts the job on a damaged store and lets it go on; once more if it ended over damage that was found late.
pub fn judge(store: &Path, files: &Files, promises: &Promises, looks: Looks) -> Result<Outcome, String> {
    match live(store, promises, looks, 9_001)? {
        Lived::Whole(report) if !report.walked_back.is_empty() || !report.lost_plans.is_empty() => {
            Ok(Outcome::WalkedBack)
        }
        Lived::Whole(report) if !report.damage.is_empty() => Ok(Outcome::SoundAndReported),
        Lived::Whole(_) => Ok(Outcome::Sound),
        Lived::Refused(error) => refused(&error, store, files).map(Outcome::Refused),
        Lived::Ended(error, promises) if !matches!(looks, Looks::AtOnce) => {
            judge_next_start(store, &error, &promises)
        }
        Lived::Ended(error, _) => Err(format!("the job failed: {}", error.chain())),
    }
}

/// The start after a job that ended over damage.
fn judge_next_start(store: &Path, error: &millpond::Error, promises: &Promises) -> Result<Outcome, String> {
    if error.kind() != ErrorKind::Corrupt {
        return Err(format!("the job ended with {error:?}"));
    }
    if !store.join("suspect").exists() {
        return Err(format!("the job ended ({error:?}) without a note for the next start"));
    }
    let files = files_of(store);
    match live(store, promises, Looks::Beside, 9_002)? {
        // Its state was checked before anything else: it cannot end late again.
        Lived::Whole(report) if !report.walked_back.is_empty() && !store.join("suspect").exists() => {
            Ok(Outcome::EndedThenWalkedBack)
        }
        Lived::Refused(error) => refused(&error, store, &files).map(Outcome::EndedThenRefused),
        lived => Err(format!("the job ended ({error:?}), and the next start made this of it: {lived:?}")),
    }
}

fn live(store: &Path, promises: &Promises, looks: Looks, push: u32) -> Result<Lived, String> {
    catch_unwind(AssertUnwindSafe(|| live_damaged(store, promises, looks, push)))
        .map_err(|_| "it panicked".to_owned())?
}

/// The kind of a refusal that left everything as it was.
fn refused(error: &millpond::Error, store: &Path, files: &Files) -> Result<ErrorKind, String> {
    if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) {
        return Err(format!("refused as {error:?}"));
    }
    for (path, bytes) in files {
        if std::fs::read(store.join(path)).ok().as_ref() != Some(bytes) {
            return Err(format!("refused ({error:?}), but {path} was changed"));
        }
    }
    Ok(error.kind())
}

/// Writes the files of a store to a directory that is not there yet.
pub fn put(files: &Files, store: &Path) {
    for dir in ["epochs", "log", "state"] {
        std::fs::create_dir_all(store.join(dir)).unwrap();
    }
    for (path, bytes) in files {
        let path = store.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// The files of a store, but for its empty lock.
pub fn files_of(store: &Path) -> Files {
    let mut files = Files::new();
    let mut open = vec![store.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if !path.ends_with("lock") {
                let name = path.strip_prefix(store).unwrap().to_str().unwrap().to_owned();
                files.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    files.sort();
    files
}
