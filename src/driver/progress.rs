//! What a job reports about itself.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::checkpoint::matching::StateMatch;
use crate::id::{BatchId, BatchTime, CheckpointId};

use super::ReplayDifference;

/// How far a job has come in this run.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Progress {
    /// The last batch that is done.
    pub last_batch: Option<(BatchId, BatchTime)>,
    /// New batches done; replayed ones are counted apart.
    pub batches: u64,
    /// Batches that the start computed again.
    pub replayed_batches: u64,
    /// Records read from inputs by new batches.
    pub records: u64,
    /// Bytes of blocks and ranges in new batches.
    pub bytes: u64,
    /// Checkpoints committed.
    pub checkpoints: u64,
    /// The memory, in bytes, that the tables of keyed state took after the last batch; only counted where it is
    /// [limited](crate::ContextBuilder::state_memory_bytes_max), else 0.
    pub state_memory_bytes: u64,
    /// How often a key group was let go of, to be read from the store again when it is used.
    pub state_evictions: u64,
    /// From the first record received to the last batch done.
    pub active: Duration,
    /// How long the last batch took.
    pub last_processing: Duration,
    /// For how long there has been nothing to process and nothing new to receive.
    pub idle: Duration,
    /// A batch with input is being processed, or a source holds something back.
    pub(crate) busy: bool,
}

/// What a start found in the store, what it chose and what it did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Whether the store was new.
    pub fresh: bool,
    /// The checkpoint that was restored, and the last batch in it.
    pub checkpoint: Option<(CheckpointId, BatchId)>,
    /// Batches computed again, in order. Those that were done before have not been emitted again.
    pub replayed: Vec<BatchId>,
    /// Of these, the batches whose outputs were emitted (again).
    pub emitted: Vec<BatchId>,
    /// Blocks that were received and in no batch yet.
    pub pending_blocks: usize,
    /// What became of the state of each operator, by name.
    pub operators: BTreeMap<String, StateMatch>,
    /// Damaged checkpoints that were passed over, with what is wrong.
    pub walked_back: Vec<(CheckpointId, String)>,
    /// Damaged files of these that were moved to the quarantine, where they are now in the store. They stay there
    /// until somebody removes them.
    pub quarantined: Vec<String>,
    /// The numbers of batches whose plans are lost: what they read is planned anew, and may be emitted again under other
    /// batch numbers.
    pub lost_plans: std::ops::Range<u64>,
    /// The replayed batches that changed the state in another way than when they were done. The state is what the
    /// replay made of it; what was emitted before does not fit it. See
    /// [`refuse_replay_differences`](crate::ContextBuilder::refuse_replay_differences).
    pub differences: Vec<ReplayDifference>,
    /// Everything else that is wrong with the store.
    pub damage: Vec<String>,
    /// How long the start took, replay included.
    pub took: Duration,
}

impl RecoveryReport {
    /// Writes the report to the log.
    pub(crate) fn log(&self) {
        if self.fresh && self.damage.is_empty() {
            tracing::info!("a new store");
            return;
        }
        for (checkpoint, damage) in &self.walked_back {
            tracing::warn!(%checkpoint, damage, "a damaged checkpoint is passed over");
        }
        for file in &self.quarantined {
            tracing::warn!(file, "a damaged file is kept in quarantine");
        }
        for difference in &self.differences {
            tracing::warn!(%difference, "a replay is not what was: code that is not deterministic, or not what it was");
        }
        for damage in &self.damage {
            tracing::warn!(damage, "the store is damaged");
        }
        if !self.lost_plans.is_empty() {
            tracing::warn!(batches = ?self.lost_plans, "plans are lost: what these batches read is planned anew, and may be emitted again");
        }
        for (operator, outcome) in &self.operators {
            if *outcome != StateMatch::Matched {
                tracing::info!(operator, ?outcome, "state");
            }
        }
        let (checkpoint, batch) = match self.checkpoint {
            Some((checkpoint, batch)) => (checkpoint.to_string(), batch.0),
            None => ("no checkpoint".to_owned(), 0),
        };
        tracing::info!(
            checkpoint,
            batch,
            replayed = self.replayed.len(),
            emitted = self.emitted.len(),
            pending_blocks = self.pending_blocks,
            took_ms = self.took.as_millis() as u64,
            "recovered"
        );
    }
}
