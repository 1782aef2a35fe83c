//! What a rehearsal tells.

use std::fmt;
use std::sync::{Arc, RwLock};

use super::compare::OperatorDifference;
use super::{Rehearsed, ReplayDifference, UpgradePlan};
use crate::dstream::{Boundary, StateView};
use crate::error::{Error, ErrorKind, Result};
use crate::format::records::CheckpointRecord;
use crate::id::{BatchId, BatchTime, CheckpointId};
use crate::record::{Data, Key};
use crate::state::OperatorState;

/// A checkpoint from which all batches after it can still be computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetainedCheckpoint {
    /// Its number.
    pub checkpoint: CheckpointId,
    /// The last batch in it.
    pub batch: BatchId,
    /// That batch's time.
    pub time: BatchTime,
}

impl RetainedCheckpoint {
    pub(super) fn of(record: &CheckpointRecord) -> Self {
        let &CheckpointRecord { checkpoint, batch, time_ms, .. } = record;
        RetainedCheckpoint {
            checkpoint: CheckpointId(checkpoint),
            batch: BatchId(batch),
            time: BatchTime(time_ms),
        }
    }
}

/// What [`StreamingContext::audit`](crate::StreamingContext::audit) found. Its `Display` is a page for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditReport {
    /// The checkpoint that was begun at; 0 is the beginning of the store.
    pub from: CheckpointId,
    /// The checkpoint that was to be proved.
    pub to: CheckpointId,
    /// The batches that were computed again, in order.
    pub batches: Vec<BatchId>,
    /// Of these, the batches that are recorded as done, with what they changed.
    pub batches_compared: usize,
    /// The first batch that changed something else than it did when it was done, with the first operator and a key.
    pub first_difference: Option<ReplayDifference>,
    /// Each operator's state as it was computed, against the checkpoint: first operators in the order in which they run,
    /// then shared variables, then positions of sources.
    pub operators: Vec<OperatorDifference>,
}

impl AuditReport {
    /// Whether every state came out as the checkpoint has it, and every batch changed what it had changed.
    pub fn is_clean(&self) -> bool {
        self.first_difference.is_none() && self.operators.iter().all(OperatorDifference::is_equal)
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "from {} to {}: {} batches computed again", self.from, self.to, self.batches.len())?;
        if let Some(difference) = &self.first_difference {
            writeln!(f, "first difference: {difference}")?;
        }
        self.operators.iter().try_for_each(|operator| writeln!(f, "  {operator}"))?;
        match self.is_clean() {
            true => write!(f, "{} is what its input makes", self.to),
            false => write!(f, "{} is not what its input makes with this code", self.to),
        }
    }
}

/// What would have become of a store with other code: made by
/// [`StreamingContext::fork`](crate::StreamingContext::fork). It is in memory only. Its `Display` is a page for people.
#[derive(Debug)]
#[non_exhaustive]
pub struct Fork {
    /// The checkpoint that was begun at; 0 is the beginning of the store.
    pub from: CheckpointId,
    /// The original's newest sound checkpoint, which the fork is compared with.
    pub to: CheckpointId,
    /// The last batch in both.
    pub batch: BatchId,
    /// The batches that were computed, in order.
    pub batches: Vec<BatchId>,
    /// What became of the state of [`from`](Fork::from): matched, migrated, new or dropped.
    pub plan: UpgradePlan,
    /// The first batch that changed something else than in the original, with the first operator and a key. Only
    /// operators that both have under one name and type count.
    pub first_difference: Option<ReplayDifference>,
    /// Each operator's state against the original: first those of the fork, then those that only the original has.
    pub operators: Vec<OperatorDifference>,
    states: Vec<Arc<OperatorState>>,
}

impl Fork {
    pub(super) fn of(from: CheckpointId, rehearsed: Rehearsed) -> Self {
        let Rehearsed { plan, to: (to, batch), batches, first_difference, operators, states, .. } = rehearsed;
        Fork { from, to, batch, batches, plan, first_difference, operators, states }
    }

    /// How the state of the operator called `name` differs from the original.
    pub fn operator(&self, name: &str) -> Option<&OperatorDifference> {
        self.operators.iter().find(|operator| operator.operator == name)
    }

    /// The fork's state of the operator called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] when there is none of this name with keys `K` and states `S`.
    pub fn state<K: Key, S: Data>(&self, name: &str) -> Result<StateView<K, S>> {
        let state = self.states.iter().find(|state| state.name() == name).ok_or_else(|| {
            Error::new(ErrorKind::Incompatible, format!("the fork has no stateful operator `{name}`"))
        })?;
        let gate = Arc::new(RwLock::new(()));
        StateView::new(state.clone(), Boundary { gate, is_called_by_the_job: Arc::new(|| false) })
    }
}

impl fmt::Display for Fork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fork { from, to, batch, batches, .. } = self;
        writeln!(f, "a fork of {from}, {} batches later, against {to} after {batch}", batches.len())?;
        if let Some(difference) = &self.first_difference {
            writeln!(f, "first difference: {difference}")?;
        }
        let mut lines = self.operators.iter().peekable();
        while let Some(operator) = lines.next() {
            write!(f, "  {operator}")?;
            if lines.peek().is_some() {
                writeln!(f)?;
            }
        }
        Ok(())
    }
}
