//! Going back to a checkpoint.

use std::ops::Range;

use serde::Serialize;

use crate::checkpoint::rollback::roll_back;
use crate::error::{Error, ErrorKind, Result};
use crate::format::records::PlanRecord;
use crate::inspect::SCHEMA;
use crate::maintenance::Maintenance;
use crate::maintenance::open::Opened;
use crate::store::extents::read_block;

/// A job that was put back to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RollbackReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// Whether it was done; otherwise nothing was changed.
    pub done: bool,
    /// The checkpoint that the job goes back to.
    pub checkpoint: u64,
    /// The last batch whose changes are in it.
    pub batch: u64,
    /// The number that it has from now on.
    pub becomes: u64,
    /// Newer checkpoints that no longer count, oldest first. What they need is there until the job's next
    /// checkpoint; with a pin it stays.
    pub dropped: Vec<u64>,
    /// The batches that the next start computes again; `null` for none.
    pub replay: Option<BatchSpan>,
    /// How many of them are done: their outputs are not emitted again.
    pub replayed_done: u64,
    /// The batches that cannot be computed again, because their plans or blocks are gone: what they changed is not in
    /// the state from then on. `null` for none.
    pub lost: Option<BatchSpan>,
}

/// A span of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct BatchSpan {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

impl BatchSpan {
    pub(super) fn of(batches: &Range<u64>) -> Option<Self> {
        (!batches.is_empty()).then(|| BatchSpan { from: batches.start, to: batches.end - 1 })
    }
}

impl Maintenance {
    /// Puts the job back to a checkpoint, given by number or pin: the next start begins there and computes the batches
    /// after it again, with the job's code as it is then. Batches that are done are not emitted again.
    ///
    /// Where plans or blocks right after the checkpoint are gone, as after an old pin, these batches are lost, which
    /// takes `lose_batches`: received input of theirs is gone, and a replayable source goes on from the ranges of the
    /// first batch that is left, or, where none is, reads theirs again in new batches.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no such checkpoint, or batches would be lost without the permission;
    /// [`ErrorKind::Corrupt`] when the checkpoint is damaged; [`ErrorKind::Locked`] when the job runs.
    pub fn rollback(&self, checkpoint: &str, lose_batches: bool) -> Result<RollbackReport> {
        // What a running job removed under a plan only seems to be lost.
        let lost = |report: &RollbackReport| Vec::from_iter(report.lost.map(|lost| format!("{lost:?}")));
        self.settled(|| self.go_back(&Opened::open(self)?, checkpoint, lose_batches), lost)
    }

    fn go_back(&self, store: &Opened, checkpoint: &str, lose_batches: bool) -> Result<RollbackReport> {
        let target = store.find(checkpoint)?;
        store.prove(&target)?;
        let history = &store.history;
        let number = history.newest_checkpoint().max(store.pins.newest_checkpoint()) + 1;
        let rollback = roll_back(history, &target, number, |plan| can_replay(store, plan))?;
        let done = rollback.replay.clone().filter(|batch| history.done.contains_key(batch)).count() as u64;
        let report = RollbackReport {
            schema: SCHEMA,
            directory: self.dir.display().to_string(),
            job: store.job.clone(),
            done: self.is_confirmed,
            checkpoint: target.checkpoint,
            batch: target.batch,
            becomes: number,
            dropped: rollback.dropped,
            replay: BatchSpan::of(&rollback.replay),
            replayed_done: done,
            lost: BatchSpan::of(&rollback.lost),
        };
        if !self.is_confirmed {
            return Ok(report);
        }
        if let (Some(BatchSpan { from, to }), false) = (report.lost, lose_batches) {
            let message = format!(
                "batches {from} to {to} cannot be computed again, their plans or blocks are gone: allow losing \
                 batches to go back without them"
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        store.commit(&rollback.record)?;
        Ok(report)
    }
}

/// Whether every received block that a batch reads is there. Only its job can tell that of files.
pub(super) fn can_replay(store: &Opened, plan: &PlanRecord) -> Result<bool> {
    for block in plan.inputs.iter().flat_map(|input| &input.blocks) {
        match read_block(&store.paths, block) {
            Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
            read => read?,
        };
    }
    Ok(true)
}
