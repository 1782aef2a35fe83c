//! What became of a damaged store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use millpond::ErrorKind;

use crate::job::{Promises, judge_damaged};

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
}

/// Starts the job on a damaged store and lets it go on.
pub fn judge(store: &Path, files: &Files, promises: &Promises) -> Result<Outcome, String> {
    let judged = catch_unwind(AssertUnwindSafe(|| judge_damaged(store, promises)));
    match judged.map_err(|_| "it panicked".to_owned())?? {
        Ok(report) if !report.walked_back.is_empty() || !report.lost_plans.is_empty() => {
            Ok(Outcome::WalkedBack)
        }
        Ok(report) if !report.damage.is_empty() => Ok(Outcome::SoundAndReported),
        Ok(_) => Ok(Outcome::Sound),
        Err(error) => {
            if !matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) {
                return Err(format!("refused as {error:?}"));
            }
            for (path, bytes) in files {
                if std::fs::read(store.join(path)).ok().as_ref() != Some(bytes) {
                    return Err(format!("refused ({error:?}), but {path} was changed"));
                }
            }
            Ok(Outcome::Refused(error.kind()))
        }
    }
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
