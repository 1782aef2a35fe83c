//! Keeps the memory that state takes within its limit: lets go of key groups that segments hold.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::error::Result;
use crate::format::records::SegmentRef;
use crate::state::{OperatorState, StateMemory};
use crate::store::Store;
use crate::store::late_damage::LateDamage;
use crate::store::segments::Segment;

use super::{Driver, lock};

/// What is kept when the limit is passed, of 4 parts of it: not so much that the next batch passes it again.
const KEPT_QUARTERS: u64 = 3;

/// The state's memory, and the segments from which it can be read again.
pub(super) struct Residency {
    memory: Arc<StateMemory>,
    /// Those of the newest checkpoint.
    segments: BTreeMap<u64, Arc<Segment>>,
    damage: Arc<LateDamage>,
    warned: bool,
}

impl Residency {
    /// Limits the memory of `states` from here on.
    pub(super) fn new(
        limit: u64,
        states: &[Arc<OperatorState>],
        segments: &[Arc<Segment>],
        damage: &Arc<LateDamage>,
    ) -> Self {
        let memory = Arc::new(StateMemory::new(limit));
        states.iter().for_each(|state| state.limit_memory(&memory));
        let segments = segments.iter().map(|segment| (segment.id.0, segment.clone())).collect();
        Residency { memory, segments, damage: damage.clone(), warned: false }
    }

    /// Takes note of what a checkpoint refers to, now that it counts.
    fn follow(&mut self, store: &Store, needed: &[SegmentRef], states: &[Arc<OperatorState>]) -> Result<()> {
        self.segments.retain(|id, _| needed.iter().any(|segment| segment.segment == *id));
        for expected in needed {
            if let Entry::Vacant(place) = self.segments.entry(expected.segment) {
                let opened = Segment::open(&store.paths, store.identity.store, expected)?;
                opened.watch(&self.damage);
                place.insert(Arc::new(opened));
            }
        }
        states.iter().for_each(|state| state.follow_chains(&self.segments));
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.memory.resident() > self.memory.limit()
    }

    /// Lets go of the groups that were used least recently, until there is room. Returns how many.
    fn evict(&mut self, states: &[Arc<OperatorState>]) -> u64 {
        let kept = self.memory.limit() / 4 * KEPT_QUARTERS;
        let evictable = |(operator, state): (usize, &Arc<OperatorState>)| {
            state.evictable().into_iter().map(move |(used, bytes, group)| (used, bytes, operator, group))
        };
        let mut groups: Vec<_> = states.iter().enumerate().flat_map(evictable).collect();
        // Of those used last in the same batch, always the same ones go first, so that the others can stay.
        groups.sort_unstable_by_key(|&(used, _, operator, group)| (used, operator, group));
        let mut evicted = 0;
        for (.., operator, group) in groups {
            if self.memory.resident() <= kept {
                break;
            }
            evicted += u64::from(states[operator].evict(group, &self.segments));
        }
        evicted
    }

    /// Says once that the job reads state from the store.
    fn warn(&mut self, evicted: u64) {
        if evicted > 0 && !std::mem::replace(&mut self.warned, true) {
            tracing::warn!(
                limit_bytes = self.memory.limit(),
                "state takes more than its memory: what was not used lately is read from the store, and batches take longer"
            );
        }
    }
}

impl Driver {
    /// A checkpoint counts: what it holds can be let go of.
    pub(super) fn follow_checkpoint(&mut self, segments: &[SegmentRef]) -> Result<()> {
        let Some(residency) = &mut self.residency else { return Ok(()) };
        residency.follow(&self.store, segments, &self.states)?;
        self.evict_state();
        Ok(())
    }

    fn evict_state(&mut self) {
        let Some(residency) = &mut self.residency else { return };
        let evicted = if residency.is_over() { residency.evict(&self.states) } else { 0 };
        residency.warn(evicted);
        let mut progress = lock(&self.shared.progress);
        progress.state_memory_bytes = residency.memory.resident();
        progress.state_evictions += evicted;
    }

    fn state_is_over(&self) -> bool {
        self.residency.as_ref().is_some_and(Residency::is_over)
    }

    /// After a batch: brings the state's memory below its limit. Where changes alone pass it, and `early` allows it, by
    /// a checkpoint that is not due yet.
    pub(super) fn limit_state(&mut self, early: bool) -> Result<()> {
        self.evict_state();
        if self.state_is_over() {
            // What is in the checkpoint on its way can be let go of after it.
            self.finish_checkpoint()?;
            self.evict_state();
        }
        if early && self.state_is_over() && self.batches_since_checkpoint > 0 {
            tracing::debug!("changes take more than the state's memory: a checkpoint is taken early");
            self.checkpoint_and_wait()?;
        }
        if let Some(residency) = &self.residency {
            residency.memory.next_batch();
        }
        Ok(())
    }
}
