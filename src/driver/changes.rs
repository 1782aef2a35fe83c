//! What each batch changed in the state: recorded when it is done, compared when it is computed again.

use std::fmt;
use std::sync::Arc;

use crate::dstream::Job;
use crate::error::Result;
use crate::format::records::{OperatorChanges, StratumSums};
use crate::id::BatchId;
use crate::record::key_text;
use crate::state::{ChangeSums, OperatorState};

/// What the strata of one batch may take, so that the record of a batch that is done stays small.
const STRATA_BYTES_MAX: usize = 4 << 10;

/// A batch that was computed again and changed the state in another way than before: a closure does not depend on its
/// arguments alone (on a clock, on randomness, on the order of a hash map, on the world outside), or it is not the
/// code that it was.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReplayDifference {
    /// The batch.
    pub batch: BatchId,
    /// The first operator whose changes differ, in the order in which they run: what reads it differs for that
    /// reason alone.
    pub operator: String,
    /// A key whose change differs, as text: JSON-like for the keys the crate knows, else `0x` and its bytes in
    /// hexadecimal digits. `None` when the few bytes that are kept of a batch name none of many.
    pub key: Option<String>,
    /// Its bytes, see [`Key::decode_key`](crate::Key::decode_key).
    pub key_bytes: Option<Vec<u8>>,
}

impl fmt::Display for ReplayDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ReplayDifference { batch, operator, key, .. } = self;
        write!(f, "{batch} changed `{operator}` in another way than before")?;
        key.as_ref().map_or(Ok(()), |key| write!(f, ", the key {key} for one"))
    }
}

/// The states whose changes follow from a batch's plan and the state before: not what outputs add to accumulators,
/// which is recorded as it is, and not the positions of sources, which a source may let go of at any time.
pub(super) struct Watched {
    /// Each with what it goes by in records.
    states: Vec<(u64, Arc<OperatorState>)>,
}

impl Watched {
    pub(super) fn of(job: &Job, partitions: usize) -> Self {
        let stateful = job.stateful.iter().map(|node| node.state().clone());
        let states = job.variables.in_batches().chain(stateful);
        Watched { states: states.map(|state| (state.id(partitions), state)).collect() }
    }

    /// What was changed since the last call.
    pub(super) fn take(&self) -> Vec<ChangeSums> {
        self.states.iter().map(|(_, state)| state.take_changes()).collect()
    }

    /// Changes as they are recorded.
    pub(super) fn records(&self, changes: &[ChangeSums]) -> Vec<OperatorChanges> {
        let mut left = STRATA_BYTES_MAX;
        let record = |((operator, _), sums): (&(u64, _), &ChangeSums)| {
            let mut strata = sums.strata();
            match left.checked_sub(strata.len() * size_of::<StratumSums>()) {
                Some(rest) => left = rest,
                None => strata.clear(),
            }
            OperatorChanges { operator: *operator, hash: sums.hash(), strata }
        };
        self.states.iter().zip(changes).map(record).collect()
    }

    /// The first operator that was changed otherwise than it is recorded. One that is not recorded, since it is new, was
    /// migrated or has other partitions, is passed over. `also` may know more keys of it.
    pub(super) fn first_difference(
        &self,
        batch: BatchId,
        recorded: &[OperatorChanges],
        changes: &[ChangeSums],
        also: impl Fn(&str) -> Option<Arc<OperatorState>>,
    ) -> Result<Option<ReplayDifference>> {
        for ((operator, state), sums) in self.states.iter().zip(changes) {
            let Some(before) = recorded.iter().find(|before| before.operator == *operator) else { continue };
            if before.hash == sums.hash() {
                continue;
            }
            let mut key = None;
            if !before.strata.is_empty() || before.hash == 0 {
                let difference = sums.difference(&before.strata);
                key = state.key_that_differs(&difference)?;
                if let (None, Some(also)) = (&key, also(state.name())) {
                    key = also.key_that_differs(&difference)?;
                }
            }
            return Ok(Some(ReplayDifference {
                batch,
                operator: state.name().to_owned(),
                key: key.as_ref().map(|key| key_text(&state.state_type().key, key)),
                key_bytes: key,
            }));
        }
        Ok(None)
    }
}
