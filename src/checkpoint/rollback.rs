//! Going back to a checkpoint, as a pure decision: what is computed again, and what is lost.

use std::ops::Range;

use crate::checkpoint::protocol::History;
use crate::error::Result;
use crate::format::records::{CheckpointRecord, PlanRecord, RollbackRecord};

/// What going back to a checkpoint means.
#[derive(Debug, PartialEq)]
pub(crate) struct Rollback {
    pub(crate) record: RollbackRecord,
    /// Checkpoints that no longer count, oldest first.
    pub(crate) dropped: Vec<u64>,
    /// The batches that the next start computes again.
    pub(crate) replay: Range<u64>,
    /// The batches before those that cannot be computed again.
    pub(crate) lost: Range<u64>,
}

/// Decides how to go back to `target`, which gets `number`. `can_replay` says whether what a plan reads is there.
///
/// Batches are computed again from the first one on behind which none is missing. The ones between that and the
/// target are lost, and the checkpoint then stands for the state after the last of them: no number or time of theirs
/// comes again.
///
/// # Errors
/// Those of `can_replay`.
pub(crate) fn roll_back(
    history: &History,
    target: &CheckpointRecord,
    number: u64,
    mut can_replay: impl FnMut(&PlanRecord) -> Result<bool>,
) -> Result<Rollback> {
    let end = history.newest_batch.max(target.batch) + 1;
    let next_batch = end + history.unreadable;
    let mut from = end;
    while from - 1 > target.batch
        && let Some(plan) = history.plans.get(&(from - 1))
        && can_replay(plan)?
    {
        from -= 1;
    }
    let lost = target.batch + 1..from;
    let mut checkpoint = CheckpointRecord { checkpoint: number, ..target.clone() };
    if !lost.is_empty() {
        checkpoint.batch = from - 1;
        checkpoint.time_ms = time_of(history, checkpoint.batch).max(target.time_ms);
        checkpoint.next_block = next_block_before(history, from).max(target.next_block);
    }
    let is_newer =
        |record: &CheckpointRecord| record.checkpoint > target.checkpoint || record.batch > target.batch;
    let dropped = history.checkpoints.iter().map(|(_, record)| record).filter(|record| is_newer(record));
    Ok(Rollback {
        dropped: dropped.map(|record| record.checkpoint).collect(),
        record: RollbackRecord {
            target: target.checkpoint,
            target_batch: target.batch,
            next_batch,
            checkpoint,
        },
        replay: from..end,
        lost,
    })
}

/// The newest time that is known of the batches up to `batch`.
fn time_of(history: &History, batch: u64) -> u64 {
    let planned = history.plans.range(..=batch).map(|(_, plan)| plan.time_ms);
    let records = history.checkpoints.iter().chain(&history.dropped).map(|(_, record)| record);
    let checkpointed = records.filter(|record| record.batch <= batch).map(|record| record.time_ms);
    planned.chain(checkpointed).max().unwrap_or(0)
}

/// Every block below this one is in a batch before `batch`: plans take blocks in their order, without gaps.
fn next_block_before(history: &History, batch: u64) -> u64 {
    if let Some(plan) = history.plans.get(&batch) {
        let blocks = plan.inputs.iter().flat_map(|input| &input.blocks).map(|block| block.block);
        return blocks.min().unwrap_or(plan.next_block);
    }
    let planned = history.plans.values().map(|plan| plan.next_block);
    let records = history.checkpoints.iter().chain(&history.dropped).map(|(_, record)| record.next_block);
    planned.chain(records).max().unwrap_or(1)
}
