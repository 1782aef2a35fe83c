//! Removing what nothing needs.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::protocol::{Needed, RETAINED_MIN, Retained, needed, retain};
use crate::error::{Error, ErrorKind, Result};
use crate::id::{EpochId, ExtentId, SegmentId};
use crate::inspect::SCHEMA;
use crate::maintenance::Maintenance;
use crate::maintenance::open::Opened;
use crate::store::catalog::remove_epoch;
use crate::store::extents::{ExtentIndex, remove_extent};
use crate::store::log_scan::scan_log;
use crate::store::quarantine;
use crate::store::segments::{list_segments, remove_segment, segment_name};

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PruneReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// Whether it was done; otherwise nothing was changed.
    pub done: bool,
    /// The checkpoints that stay, oldest first, pinned ones not counted.
    pub kept: Vec<u64>,
    /// The files and directories that go, in the order in which they are removed.
    pub removed: Vec<Removal>,
    /// The bytes of all of them.
    pub freed_bytes: u64,
}

/// Something that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Removal {
    /// The file or directory, relative to the store.
    pub place: String,
    /// Its bytes.
    pub bytes: u64,
    /// Why nothing needs it.
    pub why: String,
}

/// One thing to remove, and how.
enum Doomed {
    Segment(SegmentId),
    Extent(ExtentId),
    Epoch(EpochId),
    File(PathBuf),
    Dir(PathBuf),
}

impl Maintenance {
    /// Removes what a clean-up with `keep` retained checkpoints removes (2 if `None`, as the job does by default; never
    /// what a pin needs), what interrupted writes have left behind, and the quarantine. What stays is read and proved
    /// first.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when `keep` is below 2; [`ErrorKind::Corrupt`] when the newest checkpoint or the catalog is
    /// damaged: a start or `repair` comes first; [`ErrorKind::Locked`] when the job runs.
    pub fn prune(&self, keep: Option<usize>) -> Result<PruneReport> {
        let keep = keep.unwrap_or(RETAINED_MIN);
        if keep < RETAINED_MIN {
            let message = "at least 2 checkpoints are kept: damage to one must not take the state";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        self.carry_out(|store| self.remove_unneeded(store, keep))
    }

    fn remove_unneeded(&self, store: &Opened, keep: usize) -> Result<PruneReport> {
        if let Some(damage) = store.history.damage.first() {
            return Err(Error::corrupt(format!("{damage}: nothing is removed from a damaged catalog")));
        }
        let kept = kept(store, keep)?;
        let doomed = doomed(store, &kept)?;
        let removed: Vec<Removal> = doomed.iter().map(|(doomed, why)| removal(store, doomed, why)).collect();
        let report = PruneReport {
            schema: SCHEMA,
            directory: self.dir.display().to_string(),
            job: store.job.clone(),
            done: self.is_confirmed,
            kept: kept.iter().map(|checkpoint| checkpoint.checkpoint).collect(),
            freed_bytes: removed.iter().map(|removal| removal.bytes).sum(),
            removed,
        };
        if self.is_confirmed {
            doomed.iter().try_for_each(|(doomed, _)| remove(store, doomed))?;
        }
        Ok(report)
    }
}

/// The checkpoints that stay: sound ones, the newest of all among them.
fn kept(store: &Opened, keep: usize) -> Result<Vec<Retained>> {
    let mut checker = store.checker();
    let mut damaged = Vec::new();
    for (at, (_, record)) in store.history.checkpoints.iter().rev().enumerate() {
        match checker.check(record) {
            Err(error) if error.kind() == ErrorKind::Corrupt && at > 0 => damaged.push(record.checkpoint),
            checked => checked.map_err(|error| {
                error.within(format!("the newest checkpoint ({}) is damaged", record.checkpoint))
            })?,
        }
    }
    let mut kept = store.history.retained(|record| !damaged.contains(&record.checkpoint));
    retain(&mut kept, keep);
    Ok(kept)
}

/// What goes, in the order of a clean-up.
fn doomed(store: &Opened, kept: &[Retained]) -> Result<Vec<(Doomed, &'static str)>> {
    let mut all = Vec::new();
    if let Some(Needed { segments, block, epoch }) = needed(kept) {
        let pinned = store.pins.segments(&store.paths)?;
        let unneeded = list_segments(&store.paths)?.into_iter();
        let unneeded =
            unneeded.filter(|segment| !segments.contains(&segment.0) && !pinned.contains(&segment.0));
        all.extend(unneeded.map(|segment| (Doomed::Segment(segment), "no checkpoint that stays needs it")));
        let log = scan_log(&store.paths, store.store, block)?;
        let below = ExtentIndex::new(log.extents).below(block).into_iter();
        all.extend(below.map(|extent| (Doomed::Extent(extent), "all of its blocks are in checkpoints")));
        let interrupted = log.unfinished.into_iter();
        all.extend(interrupted.map(|extent| (Doomed::Extent(extent), "its creation was interrupted")));
        let older = store.epochs.iter().filter(|older| **older < epoch && !store.unfinished.contains(older));
        all.extend(older.map(|older| (Doomed::Epoch(*older), "no checkpoint that stays needs it")));
    }
    let unfinished = store.unfinished.iter();
    all.extend(unfinished.map(|epoch| (Doomed::Epoch(*epoch), "its creation was interrupted")));
    let aside = aside(store)?.into_iter();
    all.extend(aside.map(|file| (Doomed::File(file), "it was being written aside")));
    if !quarantine::list(&store.paths)?.is_empty() {
        all.push((Doomed::Dir(store.paths.quarantine()), "damaged files that were put aside"));
    }
    Ok(all)
}

/// Files that were being written aside when a process died.
fn aside(store: &Opened) -> Result<Vec<PathBuf>> {
    let paths = &store.paths;
    let mut found = Vec::new();
    let epochs = store.epochs.iter().filter(|epoch| !store.unfinished.contains(epoch));
    let epochs = epochs.map(|epoch| paths.epochs().join(epoch.0.to_string()));
    let own = [(paths.root.clone(), Some("millpond.tmp")), (paths.pins(), None)];
    for (dir, only) in own.into_iter().chain(epochs.map(|dir| (dir, Some("witness.tmp")))) {
        let refused = |cause| Error::io(format!("list {}", dir.display()), cause);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => continue,
            Err(cause) => return Err(refused(cause)),
        };
        for entry in entries {
            let path = entry.map_err(refused)?.path();
            let is_aside = path.extension().is_some_and(|end| end == "tmp");
            let is_own = only.is_none_or(|name| path.file_name().is_some_and(|found| found == name));
            if is_aside && is_own && path.is_file() {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn place_of(store: &Opened, doomed: &Doomed) -> PathBuf {
    match doomed {
        Doomed::Segment(segment) => segment_name(*segment),
        Doomed::Extent(extent) => PathBuf::from(format!("log/{}.extent", extent.0)),
        Doomed::Epoch(epoch) => PathBuf::from(format!("epochs/{}", epoch.0)),
        Doomed::File(path) | Doomed::Dir(path) => {
            path.strip_prefix(&store.paths.root).unwrap_or(path).to_owned()
        }
    }
}

fn removal(store: &Opened, doomed: &Doomed, why: &str) -> Removal {
    let place = place_of(store, doomed);
    let bytes = bytes_of(&store.paths.root.join(&place));
    Removal { place: place.display().to_string(), bytes, why: why.to_owned() }
}

/// The bytes of a file, or of all files below a directory.
fn bytes_of(path: &Path) -> u64 {
    match std::fs::metadata(path) {
        Ok(found) if found.is_dir() => {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| bytes_of(&entry.path())).sum()
        }
        found => found.map_or(0, |found| found.len()),
    }
}

fn remove(store: &Opened, doomed: &Doomed) -> Result<()> {
    let (disk, paths) = (&store.disk, &store.paths);
    match doomed {
        Doomed::Segment(segment) => remove_segment(disk, paths, *segment),
        Doomed::Extent(extent) => remove_extent(disk, paths, *extent),
        Doomed::Epoch(epoch) => remove_epoch(disk, paths, *epoch),
        Doomed::File(path) => disk.remove_file(path),
        Doomed::Dir(path) => disk.remove_dir_all(path),
    }
}
