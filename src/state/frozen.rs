//! What a checkpoint has to hold of a key group: the group as it was when the checkpoint began, while batches go on
//! changing it.
//!
//! Nothing is copied when it begins. A key that is changed while the checkpoint is on its way leaves behind the value
//! that it had, once; all others are still in the table.

use std::num::NonZeroU32;

use crate::format::segment::Entry;
use crate::state::group::GroupChanges;
use crate::state::order::{Place, in_order};
use crate::state::table::{LOOKED_AT_ONCE, StateTable, numbers_in};
use crate::store::segments::LiveSize;

#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) base: bool,
    pub(super) live: LiveSize,
    /// One bit per key: it is to be in the checkpoint, with the value that it has in the table. In a base this goes for keys
    /// beyond the last bit too: they may come up from segments.
    in_table: Vec<u64>,
    /// The keys that were changed since, with what they had.
    kept: GroupChanges,
}

impl Frozen {
    /// What was changed, one bit per key.
    pub(super) fn delta(changed: Vec<u64>, live: LiveSize) -> Self {
        Frozen { base: false, live, in_table: changed, kept: GroupChanges::default() }
    }

    /// Everything.
    pub(super) fn base(live: LiveSize) -> Self {
        Frozen { base: true, live, in_table: Vec::new(), kept: GroupChanges::default() }
    }

    /// Keeps the value of a key that is about to change, if the checkpoint has to hold it.
    pub(super) fn keep(&mut self, at: usize, table: &StateTable) {
        let (word, bit) = (at / 64, 1 << (at % 64));
        if self.base && word >= self.in_table.len() {
            self.in_table.resize(word + 1, !0);
        }
        if let Some(bits) = self.in_table.get_mut(word)
            && *bits & bit != 0
        {
            *bits &= !bit;
            self.kept.push(at, table.value(at));
        }
    }

    /// What the checkpoint has to hold of what is in memory, ordered by (hash, key), as it was. Without a value are keys that
    /// have none.
    pub(super) fn entries<'a>(&'a self, table: &'a StateTable) -> impl ExactSizeIterator<Item = Entry<'a>> {
        let ordered = in_order(self.places(table), |held| table.key(held.key as usize));
        (0..ordered.len()).map(move |at| {
            if at.is_multiple_of(LOOKED_AT_ONCE) {
                let next = &ordered[at..ordered.len().min(at + LOOKED_AT_ONCE)];
                table.look_at(next.iter().map(|(_, held)| held.key));
            }
            let (hash, Held { key, kept }) = ordered[at];
            let in_table = || table.value(key as usize);
            let value = kept.map_or_else(in_table, |change| self.kept.value(change.get() as usize - 1));
            Entry { hash, key: table.key(key as usize), value }
        })
    }

    /// The keys that it has to hold.
    fn places(&self, table: &StateTable) -> Vec<Place<Held>> {
        let beyond = if self.base { self.in_table.len() * 64..table.len() } else { 0..0 };
        let in_table = numbers_in(&self.in_table).filter(|at| *at < table.len()).chain(beyond.clone());
        let count: u32 = self.in_table.iter().map(|bits| bits.count_ones()).sum();
        let mut places = Vec::with_capacity(count as usize + beyond.len() + self.kept.touched().len());
        places.extend(in_table.map(|at| (table.hash(at), Held { key: at as u32, kept: None })));
        places.extend(
            self.kept.touched().iter().zip(1..).map(|(&key, change)| {
                (table.hash(key as usize), Held { key, kept: NonZeroU32::new(change) })
            }),
        );
        places
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.in_table.capacity() * size_of::<u64>() + self.kept.memory_bytes()
    }
}

/// A key that a checkpoint has to hold, by its number, and which of the kept values it had, counted from one, if it
/// was changed since.
#[derive(Clone, Copy, Debug)]
struct Held {
    key: u32,
    kept: Option<NonZeroU32>,
}
