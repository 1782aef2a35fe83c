//! A store opened to be changed, with what its catalog says.

use std::collections::BTreeSet;

use crate::checkpoint::protocol::{History, RETAINED_MIN, retain};
use crate::checkpoint::recovery::{Catalogued, SegmentChecker, read_history};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::format::records::{CheckpointRecord, Record};
use crate::id::{EpochId, SegmentId};
use crate::inspect::{ReadStore, open};
use crate::maintenance::Maintenance;
use crate::store::catalog::{Catalog, remove_epoch, sync_epoch};
use crate::store::extents::sync_extent;
use crate::store::log_scan::list_extents;
use crate::store::pins::Pins;
use crate::store::segments::list_segments;
use crate::store::{Disk, Lock, StorePaths, lock_existing};

/// A store, and everything that its catalog and pins say.
pub(super) struct Opened {
    pub(super) paths: StorePaths,
    pub(super) disk: Disk,
    pub(super) store: [u8; 16],
    pub(super) job: String,
    pub(super) history: History,
    /// Every epoch directory, unfinished ones included.
    pub(super) epochs: Vec<EpochId>,
    pub(super) unfinished: Vec<EpochId>,
    pub(super) idle: Vec<EpochId>,
    pub(super) pins: Pins,
    pub(super) executor: Executor,
    /// Held while the store is changed, `None` for who only plans.
    _lock: Option<Lock>,
}

impl Opened {
    /// Opens the store, with its lock if it is to be changed.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] when it is none, [`ErrorKind::Locked`] when its job runs,
    /// [`ErrorKind::Corrupt`] when its identity is damaged.
    pub(super) fn open(maintenance: &Maintenance) -> Result<Self> {
        let ReadStore { paths, identity, .. } = open(&maintenance.dir)?;
        let lock = maintenance.is_confirmed.then(|| lock_existing(&paths)).transpose()?;
        let Catalogued { history, epochs, unfinished, idle } = read_history(&paths, identity.store)?;
        let pins = Pins::read(&paths, identity.store)?;
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        Ok(Opened {
            paths,
            disk: maintenance.disk.clone(),
            store: identity.store,
            job: identity.job,
            history,
            epochs,
            unfinished,
            idle,
            pins,
            executor: Executor::new(threads, 1)?,
            _lock: lock,
        })
    }

    pub(super) fn checker(&self) -> SegmentChecker<'_> {
        let (paths, executor) = (&self.paths, &self.executor);
        SegmentChecker::new(paths, self.store, executor)
    }

    /// The checkpoint that `text` names, by number or pin; one that no longer counts too, as long as it is known.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is none, or its state was pruned.
    pub(super) fn find(&self, text: &str) -> Result<CheckpointRecord> {
        let pinned = self.pins.pins.iter().find(|pin| pin.name == text).map(|pin| &pin.checkpoint);
        let History { checkpoints, dropped, .. } = &self.history;
        let known = checkpoints.iter().chain(dropped).map(|(_, record)| record);
        let mut known = known.chain(self.pins.pins.iter().map(|pin| &pin.checkpoint));
        let numbered = || text.parse().ok().and_then(|id: u64| known.find(|record| record.checkpoint == id));
        let none = |why: &str| {
            let message = format!("{why} `{text}`: `checkpoints` lists what there is");
            Error::new(ErrorKind::InvalidConfig, message)
        };
        let found = pinned.or_else(numbered).ok_or_else(|| none("there is no checkpoint or pin"))?;
        if self.was_pruned(found)? {
            return Err(none("the state was pruned of checkpoint"));
        }
        Ok(found.clone())
    }

    /// Whether state of a checkpoint that nothing keeps any more is gone.
    fn was_pruned(&self, record: &CheckpointRecord) -> Result<bool> {
        let mut kept = self.history.retained(|_| true);
        retain(&mut kept, RETAINED_MIN);
        let kept = kept.iter().map(|kept| kept.checkpoint);
        let mut kept = kept.chain(self.pins.pins.iter().map(|pin| pin.checkpoint.checkpoint));
        if kept.any(|kept| kept == record.checkpoint) {
            return Ok(false);
        }
        let there: BTreeSet<SegmentId> = list_segments(&self.paths)?.into_iter().collect();
        Ok(record.segments.iter().any(|segment| !there.contains(&SegmentId(segment.segment))))
    }

    /// Reads every byte that a checkpoint needs.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] with the first damage.
    pub(super) fn prove(&self, record: &CheckpointRecord) -> Result<()> {
        let number = record.checkpoint;
        self.checker().check(record).map_err(|error| error.within(format!("checkpoint {number}")))
    }

    /// Begins an epoch after all others, as a start does.
    pub(super) fn begin_epoch(&self) -> Result<Catalog> {
        let (disk, paths) = (&self.disk, &self.paths);
        // What a killed process wrote last may not be durable yet; from here on it is built upon.
        self.epochs.iter().try_for_each(|epoch| sync_epoch(disk, paths, *epoch))?;
        if let Some(newest) = list_extents(paths)?.last() {
            sync_extent(disk, paths, *newest)?;
        }
        // Their numbers come again.
        self.idle.iter().try_for_each(|epoch| remove_epoch(disk, paths, *epoch))?;
        let newest = self.epochs.last().copied().unwrap_or(EpochId(0));
        let start = self.history.next_epoch(self.store, newest, self.history.job.clone());
        Catalog::begin(disk.clone(), paths.clone(), start)
    }

    /// Commits one record in an epoch of its own.
    pub(super) fn commit(&self, record: &impl Record) -> Result<()> {
        self.begin_epoch()?.append(record).map(drop)
    }
}
