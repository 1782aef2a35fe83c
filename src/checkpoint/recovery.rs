//! Reading a store back: what is there, where to begin, and what to report.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::checkpoint::protocol::{self, History, Recovery, Retained};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::format::records::{CheckpointRecord, SegmentRef};
use crate::id::{CheckpointId, EpochId, SegmentId};
use crate::state::check_schemas;
use crate::store::StorePaths;
use crate::store::catalog::{list_epochs, note_missing_witnesses, read_epoch};
use crate::store::late_damage::{LateDamage, is_suspect};
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
    /// Those of them whose pages are still to be checked.
    pub(crate) unchecked: Vec<Arc<Segment>>,
    /// Told of what is found in pages that are read later.
    pub(crate) damage: Arc<LateDamage>,
    pub(crate) log: LogContents,
    /// Every epoch directory, unfinished ones included.
    pub(crate) epochs: Vec<EpochId>,
    /// Those that were never finished.
    pub(crate) unfinished: Vec<EpochId>,
    /// The newest of them, in which starts were recorded that did not get as far as a batch.
    pub(crate) idle: Vec<EpochId>,
    pub(crate) pins: Pins,
    /// Damaged segments, ascending, that no checkpoint and no pin needs but those that are passed over.
    pub(crate) damaged: Vec<SegmentId>,
}

impl Found {
    /// The epochs that may not be durable: the newest that holds records, and those after it. All before it were made
    /// durable when it was begun.
    pub(crate) fn newest_epochs(&self) -> &[EpochId] {
        let newest = self.epochs.iter().rposition(|epoch| !self.unfinished.contains(epoch));
        &self.epochs[newest.unwrap_or(0)..]
    }

    /// How many epochs hold no checkpoint that counts.
    pub(crate) fn epochs_without_checkpoint(&self) -> usize {
        let with: BTreeSet<EpochId> = self.retained().iter().map(|retained| retained.epoch).collect();
        self.epochs.iter().filter(|epoch| !with.contains(epoch)).count()
    }

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

/// Reads a store without changing it. Every byte is checked but the pages of state of more than `bytes_max`, which are
/// checked when they are read.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when there is no sound way back into the job,
/// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) for a newer format.
pub(crate) fn read_store(
    paths: &StorePaths,
    store: [u8; 16],
    executor: &Executor,
    bytes_max: u64,
) -> Result<Found> {
    let Catalogued { history, epochs, unfinished, idle } = read_history(paths, store)?;
    let mut checker = SegmentChecker::new(paths, store, executor);
    checker.bytes_max = if is_suspect(paths) { u64::MAX } else { bytes_max };
    let recovery = protocol::choose(&history, |checkpoint| checker.check(checkpoint))?;
    let wanted = recovery.checkpoint.iter().flat_map(|checkpoint| &checkpoint.segments);
    let segments = wanted.map(|segment| checker.open(segment)).collect::<Result<Vec<_>>>()?;
    let (unchecked, damage) = (checker.unchecked(&segments), Arc::<LateDamage>::default());
    segments.iter().for_each(|segment| segment.watch(&damage));
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
    Ok(Found { history, recovery, segments, unchecked, damage, log, epochs, unfinished, idle, pins, damaged })
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
    pub(crate) unfinished: Vec<EpochId>,
    /// The newest of them, in which starts were recorded that did not get as far as a batch.
    pub(crate) idle: Vec<EpochId>,
}

pub(crate) fn read_history(paths: &StorePaths, store: [u8; 16]) -> Result<Catalogued> {
    let epochs = list_epochs(paths)?;
    let contents = epochs.iter().map(|epoch| read_epoch(paths, store, *epoch)).collect::<Result<Vec<_>>>()?;
    let (unfinished, mut finished): (Vec<_>, Vec<_>) =
        contents.into_iter().partition(|contents| contents.unfinished);
    note_missing_witnesses(&mut finished);
    let idle = finished.split_off(protocol::idle_from(&finished));
    let idle = idle.into_iter().map(|contents| contents.epoch).collect();
    Ok(Catalogued {
        history: protocol::fold(&finished),
        epochs,
        unfinished: unfinished.into_iter().map(|contents| contents.epoch).collect(),
        idle,
    })
}

/// Opens segments and checks them, each once however many checkpoints share it.
pub(crate) struct SegmentChecker<'a> {
    paths: &'a StorePaths,
    store: [u8; 16],
    executor: &'a Executor,
    /// Of a larger state only what it takes to open it is checked, until something is found to be damaged.
    bytes_max: u64,
    found_damage: bool,
    checked: BTreeMap<u64, Checked>,
}

struct Checked {
    place: SegmentRef,
    outcome: std::result::Result<Arc<Segment>, String>,
    whole: bool,
}

impl<'a> SegmentChecker<'a> {
    /// Checks every byte.
    pub(crate) fn new(paths: &'a StorePaths, store: [u8; 16], executor: &'a Executor) -> Self {
        let checked = BTreeMap::new();
        SegmentChecker { paths, store, executor, bytes_max: u64::MAX, found_damage: false, checked }
    }

    /// Whether everything that a checkpoint needs is sound.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with the first damage.
    pub(crate) fn check(&mut self, checkpoint: &CheckpointRecord) -> Result<()> {
        let sound = self.check_segments(checkpoint);
        // What stands in for a damaged checkpoint is looked at closely.
        self.found_damage |= sound.is_err();
        sound
    }

    fn check_segments(&mut self, checkpoint: &CheckpointRecord) -> Result<()> {
        let wanted = &checkpoint.segments;
        let is_new = |place: &SegmentRef| {
            self.checked.get(&place.segment).is_none_or(|checked| checked.place != *place)
        };
        let new: Vec<SegmentRef> = wanted.iter().filter(|place| is_new(place)).copied().collect();
        let opened = self.executor.run_stage("open segments", new.len(), |_, at| {
            let opened = Segment::open(self.paths, self.store, &new[at]).map(Arc::new);
            damage_or(opened)
        })?;
        for (place, outcome) in new.into_iter().zip(opened) {
            self.checked.insert(place.segment, Checked { place, outcome, whole: false });
        }
        let segments = wanted.iter().map(|segment| self.open(segment)).collect::<Result<Vec<_>>>()?;
        check_schemas(&checkpoint.operators, &segments)?;
        let bytes: u64 = segments.iter().map(|segment| segment.state_bytes()).sum();
        if self.found_damage || bytes <= self.bytes_max {
            self.check_pages(&segments)?;
        }
        wanted.iter().try_for_each(|segment| self.open(segment).map(drop))
    }

    /// Checks every page of those that were not checked yet.
    fn check_pages(&mut self, segments: &[Arc<Segment>]) -> Result<()> {
        let is_whole = |id: u64| self.checked.get(&id).is_some_and(|checked| checked.whole);
        let left = segments.iter().filter(|segment| !is_whole(segment.id.0));
        let parts: Vec<_> = left.flat_map(Segment::parts).collect();
        let read = self.executor.run_stage("check segments", parts.len(), |_, at| {
            let (operator, part) = &parts[at];
            damage_or(part.verify(operator, || false))
        })?;
        for segment in segments {
            self.checked.entry(segment.id.0).and_modify(|checked| checked.whole = true);
        }
        for ((_, part), damage) in parts.iter().zip(read).filter_map(|(part, read)| Some((part, read.err()?)))
        {
            self.checked.entry(part.segment_id().0).and_modify(|checked| {
                // The first damage names the segment.
                if checked.outcome.is_ok() {
                    checked.outcome = Err(damage);
                }
            });
        }
        Ok(())
    }

    /// The segments that were found damaged, ascending.
    pub(crate) fn damaged(&self) -> Vec<u64> {
        let damaged = self.checked.iter().filter(|(_, checked)| checked.outcome.is_err());
        damaged.map(|(segment, _)| *segment).collect()
    }

    /// Of these segments those whose pages were not checked.
    fn unchecked(&self, segments: &[Arc<Segment>]) -> Vec<Arc<Segment>> {
        let is_whole =
            |segment: &&Arc<Segment>| self.checked.get(&segment.id.0).is_some_and(|checked| checked.whole);
        segments.iter().filter(|segment| !is_whole(segment)).cloned().collect()
    }

    pub(super) fn open(&self, segment: &SegmentRef) -> Result<Arc<Segment>> {
        match self.checked.get(&segment.segment).map(|checked| &checked.outcome) {
            Some(Ok(open)) => Ok(open.clone()),
            Some(Err(damage)) => Err(Error::corrupt(damage.clone())),
            None => Err(Error::corrupt(format!("segment {} was not checked", segment.segment))),
        }
    }
}

/// Damage is a finding, anything else ends the check.
fn damage_or<T>(outcome: Result<T>) -> Result<std::result::Result<T, String>> {
    match outcome {
        Err(error) if error.kind() != ErrorKind::Corrupt => Err(error),
        other => Ok(other.map_err(|error| error.chain())),
    }
}
