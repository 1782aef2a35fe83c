//! Reading a store back: what is there, where to begin, and what to report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::checkpoint::protocol::{self, History, Recovery, Retained};
use crate::error::{Error, Result};
use crate::exec::Executor;
use crate::format::records::{CheckpointRecord, SegmentRef};
use crate::id::{CheckpointId, EpochId, SegmentId};
use crate::store::StorePaths;
use crate::store::catalog::{list_epochs, read_epoch};
use crate::store::log_scan::{LogContents, scan_log};
use crate::store::pins::Pins;
use crate::store::segments::{Segment, list_segments};

/// Everything that a start finds in a store.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) history: History,
    pub(crate) recovery: Recovery,
    /// The segments of the chosen checkpoint, ascending.
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) log: LogContents,
    /// Every epoch directory, unfinished ones included.
    pub(crate) epochs: Vec<EpochId>,
    /// The newest of them, in which starts were recorded that did not get as far as a batch.
    pub(crate) idle: Vec<EpochId>,
    pub(crate) pins: Pins,
    /// Damaged segments, ascending, that no checkpoint and no pin needs but those that are passed over.
    pub(crate) damaged: Vec<SegmentId>,
}

impl Found {
    /// Whether the store was never used.
    pub(crate) fn is_fresh(&self) -> bool {
        self.history.committed_seq == 0
    }

    /// The checkpoints that count: not those that were walked back over.
    pub(crate) fn retained(&self) -> Vec<Retained> {
        let damaged = |id: u64| self.recovery.walked_back.iter().any(|(walked, _)| *walked == id);
        self.history.retained(|record| !damaged(record.checkpoint))
    }

    pub(crate) fn newest_checkpoint(&self) -> CheckpointId {
        CheckpointId(self.history.newest_checkpoint().max(self.pins.newest_checkpoint()))
    }

    /// The newest segment that is there or that some checkpoint refers to.
    pub(crate) fn newest_segment(&self, paths: &StorePaths) -> Result<SegmentId> {
        let on_disk = list_segments(paths)?.last().copied().unwrap_or(SegmentId(0));
        Ok(on_disk.max(SegmentId(self.history.newest_segment())))
    }
}

/// Reads a store without changing it.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when there is no sound way back into the job,
/// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) for a newer format.
pub(crate) fn read_store(paths: &StorePaths, store: [u8; 16], executor: &Executor) -> Result<Found> {
    let Catalogued { history, epochs, idle, .. } = read_history(paths, store)?;
    let mut checker = SegmentChecker { paths, store, executor, checked: BTreeMap::new() };
    let recovery = protocol::choose(&history, |checkpoint| checker.check(checkpoint))?;
    let wanted = recovery.checkpoint.iter().flat_map(|checkpoint| &checkpoint.segments);
    let segments = wanted.map(|segment| checker.open(segment)).collect::<Result<Vec<_>>>()?;
    let pins = Pins::read(paths, store)?;
    let damaged = unneeded(checker.damaged(), &history, &recovery, &pins.segments(paths)?);
    let log = scan_log(paths, store, recovery.next_block)?;
    if let Some(damage) = log.damage.first() {
        let message = format!(
            "{damage}; they are not in any batch yet and would be lost: put the file back from a copy, or move \
             the store away to begin anew"
        );
        return Err(Error::corrupt(message));
    }
    Ok(Found { history, recovery, segments, log, epochs, idle, pins, damaged })
}

/// Of `damaged` segments those that nothing needs but checkpoints that are passed over.
fn unneeded(
    damaged: Vec<u64>,
    history: &History,
    recovery: &Recovery,
    pinned: &BTreeSet<u64>,
) -> Vec<SegmentId> {
    let is_passed_over = |id: u64| recovery.walked_back.iter().any(|(walked, _)| *walked == id);
    let kept = history.checkpoints.iter().filter(|(_, record)| !is_passed_over(record.checkpoint));
    let needed: BTreeSet<u64> =
        kept.flat_map(|(_, record)| &record.segments).map(|segment| segment.segment).collect();
    let free = |segment: &u64| !needed.contains(segment) && !pinned.contains(segment);
    damaged.into_iter().filter(free).map(SegmentId).collect()
}

/// The catalog of a store.
pub(crate) struct Catalogued {
    pub(crate) history: History,
    /// Every epoch directory, unfinished ones included.
    pub(crate) epochs: Vec<EpochId>,
    /// Those that were never finished.
    #[cfg(feature = "tool")]
    pub(crate) unfinished: Vec<EpochId>,
    /// The newest of them, in which starts were recorded that did not get as far as a batch.
    pub(crate) idle: Vec<EpochId>,
}

pub(crate) fn read_history(paths: &StorePaths, store: [u8; 16]) -> Result<Catalogued> {
    let epochs = list_epochs(paths)?;
    let contents = epochs.iter().map(|epoch| read_epoch(paths, store, *epoch)).collect::<Result<Vec<_>>>()?;
    let (_unfinished, mut finished): (Vec<_>, Vec<_>) =
        contents.into_iter().partition(|contents| contents.unfinished);
    let idle = finished.split_off(protocol::idle_from(&finished));
    let idle = idle.into_iter().map(|contents| contents.epoch).collect();
    Ok(Catalogued {
        history: protocol::fold(&finished),
        epochs,
        #[cfg(feature = "tool")]
        unfinished: _unfinished.into_iter().map(|contents| contents.epoch).collect(),
        idle,
    })
}

/// Opens segments and checks every byte of them, each once however many checkpoints share it.
pub(crate) struct SegmentChecker<'a> {
    pub(crate) paths: &'a StorePaths,
    pub(crate) store: [u8; 16],
    pub(crate) executor: &'a Executor,
    pub(crate) checked: BTreeMap<u64, (SegmentRef, std::result::Result<Arc<Segment>, String>)>,
}

impl SegmentChecker<'_> {
    /// Whether everything that a checkpoint needs is sound.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with the first damage.
    pub(crate) fn check(&mut self, checkpoint: &CheckpointRecord) -> Result<()> {
        let unchecked: Vec<SegmentRef> = checkpoint
            .segments
            .iter()
            .filter(|segment| {
                self.checked.get(&segment.segment).is_none_or(|(checked, _)| checked != *segment)
            })
            .copied()
            .collect();
        let opened = self.executor.run_stage("check segments", unchecked.len(), |_, at| {
            let opened = Segment::open(self.paths, self.store, &unchecked[at]).map(Arc::new);
            let checked = opened.and_then(|segment| segment.verify().map(|()| segment));
            Ok(match checked {
                Err(error) if error.kind() != crate::error::ErrorKind::Corrupt => return Err(error),
                other => other.map_err(|error| error.chain()),
            })
        })?;
        for (segment, outcome) in unchecked.into_iter().zip(opened) {
            self.checked.insert(segment.segment, (segment, outcome));
        }
        checkpoint.segments.iter().try_for_each(|segment| self.open(segment).map(drop))
    }

    /// The segments that were found damaged, ascending.
    pub(crate) fn damaged(&self) -> Vec<u64> {
        let damaged = self.checked.iter().filter(|(_, (_, outcome))| outcome.is_err());
        damaged.map(|(segment, _)| *segment).collect()
    }

    fn open(&self, segment: &SegmentRef) -> Result<Arc<Segment>> {
        match self.checked.get(&segment.segment) {
            Some((_, Ok(open))) => Ok(open.clone()),
            Some((_, Err(damage))) => Err(Error::corrupt(damage.clone())),
            None => Err(Error::corrupt(format!("segment {} was not checked", segment.segment))),
        }
    }
}
