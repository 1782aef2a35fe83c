//! Reading what lies between two checkpoints of a store, for who computes it again without being its job.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::checkpoint::protocol::{History, Recovery};
use crate::checkpoint::recovery::{Catalogued, Found, SegmentChecker, read_history};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::format::records::{CheckpointRecord, PlanRecord};
use crate::id::{CheckpointId, ExtentId};
use crate::store::StorePaths;
use crate::store::extents::LogEnd;
use crate::store::log_scan::{LogContents, list_extents};
use crate::store::pins::Pins;
use crate::store::segments::{Segment, list_segments};

/// Two checkpoints, and the batches from one to the other.
#[derive(Debug)]
pub(crate) struct Between {
    /// As a start finds it that begins at the first, when nothing was planned after the second.
    pub(crate) found: Found,
    pub(crate) to: CheckpointRecord,
    pub(crate) to_segments: Vec<Arc<Segment>>,
}

/// The files that hold bulk, by number.
struct Present {
    segments: BTreeSet<u64>,
    extents: BTreeSet<u64>,
}

impl Present {
    fn list(paths: &StorePaths) -> Result<Self> {
        let segments = list_segments(paths)?.into_iter().map(|segment| segment.0).collect();
        Ok(Present { segments, extents: list_extents(paths)?.into_iter().map(|extent| extent.0).collect() })
    }

    /// The first thing that is needed to compute the batches after `checkpoint` again, up to batch `until`, and gone.
    fn missing(
        &self,
        history: &History,
        checkpoint: Option<&CheckpointRecord>,
        until: u64,
    ) -> Option<String> {
        let mut segments = checkpoint.iter().flat_map(|checkpoint| &checkpoint.segments);
        if let Some(gone) = segments.find(|segment| !self.segments.contains(&segment.segment)) {
            return Some(format!("segment {}", gone.segment));
        }
        if checkpoint.is_none() && !history.from_start {
            return Some("the beginning of the catalog".to_owned());
        }
        let batches = checkpoint.map_or(0, |checkpoint| checkpoint.batch) + 1..=until;
        batches.into_iter().find_map(|batch| match history.plans.get(&batch) {
            None => Some(format!("the plan of batch {batch}")),
            Some(plan) => self.missing_input(plan),
        })
    }

    fn missing_input(&self, plan: &PlanRecord) -> Option<String> {
        let mut blocks = plan.inputs.iter().flat_map(|input| &input.blocks);
        let gone = blocks.find(|block| !self.extents.contains(&block.extent))?;
        Some(format!("block {} of batch {}", gone.block, plan.batch))
    }
}

/// The checkpoints from which all that came after can be computed again, oldest first.
pub(crate) fn retained(paths: &StorePaths, store: [u8; 16]) -> Result<Vec<CheckpointRecord>> {
    let Catalogued { history, .. } = read_history(paths, store)?;
    let present = Present::list(paths)?;
    let newest = history.checkpoints.iter().map(|(_, record)| record.batch).max().unwrap_or(0);
    let all = history.checkpoints.iter().map(|(_, record)| record);
    Ok(all.filter(|record| present.missing(&history, Some(record), newest).is_none()).cloned().collect())
}

/// Reads what lies between checkpoint `from`, or the beginning for 0, and `to`, or the newest sound one.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] when one of them is not there, or not any more, or is not before the other;
/// [`ErrorKind::Corrupt`] when one of them is damaged.
pub(crate) fn read_between(
    paths: &StorePaths,
    store: [u8; 16],
    executor: &Executor,
    from: CheckpointId,
    to: Option<CheckpointId>,
) -> Result<Between> {
    let Catalogued { mut history, epochs, unfinished, idle } = read_history(paths, store)?;
    let mut checker = SegmentChecker::new(paths, store, executor);
    let start = Some(from).filter(|from| from.0 > 0).map(|from| find(&history, from)).transpose()?;
    let to = match to {
        Some(to) => find(&history, to)?,
        None => newest_sound(&history, &mut checker)?,
    };
    let from_batch = start.as_ref().map_or(0, |start| start.batch);
    if from_batch > to.batch {
        let message = format!("{from} is after batch {from_batch}, checkpoint {} is older", to.checkpoint);
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    if let Some(gone) = Present::list(paths)?.missing(&history, start.as_ref(), to.batch) {
        let kept: Vec<String> =
            retained(paths, store)?.iter().map(|kept| kept.checkpoint.to_string()).collect();
        let kept = if kept.is_empty() { "none".to_owned() } else { kept.join(", ") };
        let message =
            format!("{gone} is not in the store any more: begin at a checkpoint that is retained ({kept})");
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    for checkpoint in start.iter().chain([&to]) {
        checker.check(checkpoint).map_err(|error| error.within(CheckpointId(checkpoint.checkpoint)))?;
    }
    let open = |checkpoint: &CheckpointRecord| -> Result<Vec<Arc<Segment>>> {
        checkpoint.segments.iter().map(|segment| checker.open(segment)).collect()
    };
    let segments = start.as_ref().map_or(Ok(Vec::new()), open)?;
    let to_segments = open(&to)?;
    let replay: Vec<PlanRecord> =
        (from_batch + 1..=to.batch).filter_map(|batch| history.plans.remove(&batch)).collect();
    history.plans.clear();
    let recovery = Recovery {
        checkpoint: start,
        replay,
        next_block: to.next_block,
        next_batch: to.batch + 1,
        walked_back: Vec::new(),
        lost_plans: 0..0,
    };
    let (log, pins, damaged) = (nothing_received(), Pins::default(), Vec::new());
    let found = Found {
        history,
        recovery,
        segments,
        unchecked: Vec::new(),
        damage: Arc::default(),
        log,
        epochs,
        unfinished,
        idle,
        pins,
        damaged,
    };
    Ok(Between { found, to, to_segments })
}

/// Reads all that can be computed again: from the beginning of the store, or else from the oldest checkpoint that is sound
/// and has everything after it, up to the newest plan.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] when there is no such checkpoint.
pub(crate) fn read_from_oldest(paths: &StorePaths, store: [u8; 16], executor: &Executor) -> Result<Found> {
    let Catalogued { mut history, epochs, unfinished, idle } = read_history(paths, store)?;
    let mut checker = SegmentChecker::new(paths, store, executor);
    let present = Present::list(paths)?;
    let checkpointed = history.checkpoints.iter().map(|(_, record)| record.batch).max().unwrap_or(0);
    let newest = history.plans.keys().next_back().map_or(checkpointed, |planned| checkpointed.max(*planned));
    let all = history.checkpoints.iter().map(|(_, record)| Some(record.clone()));
    for start in std::iter::once(None).chain(all) {
        if present.missing(&history, start.as_ref(), newest).is_some() {
            continue;
        }
        match start.as_ref().map_or(Ok(()), |start| checker.check(start)) {
            Err(error) if error.kind() == ErrorKind::Corrupt => continue,
            checked => checked?,
        }
        let wanted = start.iter().flat_map(|start| &start.segments);
        let segments = wanted.map(|segment| checker.open(segment)).collect::<Result<_>>()?;
        let first = start.as_ref().map_or(0, |start| start.batch) + 1;
        let recovery = Recovery {
            next_block: start.as_ref().map_or(1, |start| start.next_block),
            checkpoint: start,
            replay: (first..=newest).filter_map(|batch| history.plans.remove(&batch)).collect(),
            next_batch: newest + 1,
            walked_back: Vec::new(),
            lost_plans: 0..0,
        };
        let (log, pins, damaged) = (nothing_received(), Pins::default(), Vec::new());
        return Ok(Found {
            history,
            recovery,
            segments,
            unchecked: Vec::new(),
            damage: Arc::default(),
            log,
            epochs,
            unfinished,
            idle,
            pins,
            damaged,
        });
    }
    let message = "no checkpoint of the store has all batches after it that it takes to compute them again";
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

fn find(history: &History, id: CheckpointId) -> Result<CheckpointRecord> {
    let found = history.checkpoints.iter().rfind(|(_, record)| record.checkpoint == id.0);
    found.map(|(_, record)| record.clone()).ok_or_else(|| {
        Error::new(ErrorKind::InvalidConfig, format!("the store has no {id}, or not any more"))
    })
}

fn newest_sound(history: &History, checker: &mut SegmentChecker<'_>) -> Result<CheckpointRecord> {
    for (_, record) in history.checkpoints.iter().rev() {
        match checker.check(record) {
            Ok(()) => return Ok(record.clone()),
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::new(ErrorKind::InvalidConfig, "the store has no sound checkpoint"))
}

fn nothing_received() -> LogContents {
    let end = LogEnd { next_extent: ExtentId(1), previous: (0, 0), next_block: 1 };
    LogContents { blocks: vec![], extents: vec![], end, unfinished: vec![], damage: vec![], notes: vec![] }
}
