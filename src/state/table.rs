//! One key group's live table: byte keys to byte values, with what changed since the last checkpoint.

use crate::format::segment::entry_bytes;
use crate::record::{KeyHash, KeyTable};

/// Replaced values take at most this much, or as much as there are others, until the next checkpoint.
const GARBAGE_MIN: usize = 1 << 20;

/// The length that marks a key without a value: removed, or never set.
const ABSENT: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    offset: u32,
    length: u32,
}

/// Keys are numbered in the order in which they came and keep their number until [`compact`].
///
/// [`compact`]: StateTable::compact
#[derive(Debug, Default)]
pub(crate) struct StateTable {
    keys: KeyTable,
    slots: Vec<Slot>,
    values: Vec<u8>,
    /// One bit per key: changed since the last checkpoint.
    dirty: Vec<u64>,
    dirty_keys: usize,
    live_keys: usize,
    /// The live entries' size in a segment.
    live_bytes: u64,
    /// Bytes of `values` that no slot refers to.
    garbage: usize,
    /// How often keys were given new numbers.
    numbering: u64,
}

impl StateTable {
    /// Keys with or without a value.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Changes whenever keys get other numbers.
    pub(crate) fn numbering(&self) -> u64 {
        self.numbering
    }

    pub(crate) fn live_keys(&self) -> usize {
        self.live_keys
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(crate) fn has_changes(&self) -> bool {
        self.dirty_keys > 0
    }

    pub(crate) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<usize> {
        self.keys.find(hash, key)
    }

    /// The number of `key`, and whether it is new; a new key has no value.
    #[inline]
    pub(crate) fn find_or_insert(&mut self, hash: KeyHash, key: &[u8]) -> (usize, bool) {
        let (at, new) = self.keys.find_or_insert(hash, key);
        if new {
            self.slots.push(Slot { offset: 0, length: ABSENT });
            if at.is_multiple_of(64) {
                self.dirty.push(0);
            }
        }
        (at, new)
    }

    pub(crate) fn hash(&self, at: usize) -> KeyHash {
        self.keys.hash(at)
    }

    pub(crate) fn key(&self, at: usize) -> &[u8] {
        self.keys.key(at)
    }

    #[inline]
    pub(crate) fn value(&self, at: usize) -> Option<&[u8]> {
        let slot = self.slots[at];
        (slot.length != ABSENT).then(|| &self.values[slot.offset as usize..][..slot.length as usize])
    }

    /// Sets or removes a value as part of a batch: the key is part of the next delta.
    #[inline]
    pub(crate) fn change(&mut self, at: usize, value: Option<&[u8]>) {
        self.set(at, value);
        let (word, bit) = (at / 64, 1 << (at % 64));
        if self.dirty[word] & bit == 0 {
            self.dirty[word] |= bit;
            self.dirty_keys += 1;
        }
    }

    /// Sets a value that a checkpoint holds already.
    pub(crate) fn restore(&mut self, at: usize, value: Option<&[u8]>) {
        self.set(at, value);
    }

    fn set(&mut self, at: usize, value: Option<&[u8]>) {
        let before = self.slots[at];
        let key_bytes = entry_bytes(self.keys.key(at), None) as u64;
        if before.length != ABSENT {
            self.live_keys -= 1;
            self.live_bytes -= key_bytes + u64::from(before.length);
        }
        if let Some(value) = value {
            self.live_keys += 1;
            self.live_bytes += key_bytes + value.len() as u64;
            if before.length as usize == value.len() {
                self.values[before.offset as usize..][..value.len()].copy_from_slice(value);
                return;
            }
        }
        if before.length != ABSENT {
            self.garbage += before.length as usize;
        }
        self.slots[at] = Slot { offset: 0, length: ABSENT };
        if let Some(value) = value {
            self.slots[at] = self.append(value);
        }
    }

    /// # Panics
    /// When the values of one key group outgrow 4 GiB.
    fn append(&mut self, value: &[u8]) -> Slot {
        if self.garbage > GARBAGE_MIN && self.garbage > self.values.len() / 2 {
            self.squeeze();
        }
        let offset = self.values.len();
        let fits = offset + value.len() < ABSENT as usize;
        assert!(fits, "the values of one key group take more than 4 GiB (256 groups share the keys)");
        self.values.extend_from_slice(value);
        Slot { offset: offset as u32, length: value.len() as u32 }
    }

    /// Lets go of replaced values; keys keep their numbers.
    fn squeeze(&mut self) {
        let mut values = Vec::with_capacity(self.values.len() - self.garbage);
        for slot in self.slots.iter_mut().filter(|slot| slot.length != ABSENT) {
            let offset = values.len() as u32;
            values.extend_from_slice(&self.values[slot.offset as usize..][..slot.length as usize]);
            slot.offset = offset;
        }
        self.values = values;
        self.garbage = 0;
    }

    /// Whether the key was changed since the last checkpoint.
    pub(crate) fn is_dirty(&self, at: usize) -> bool {
        self.dirty[at / 64] & (1 << (at % 64)) != 0
    }

    /// The numbers of the keys with a value, ordered by (hash, key).
    pub(crate) fn live(&self) -> Vec<u32> {
        self.ordered(|at| self.slots[at].length != ABSENT)
    }

    /// How many keys were changed since the last checkpoint.
    pub(crate) fn changed_keys(&self) -> usize {
        self.dirty_keys
    }

    fn ordered(&self, keep: impl Fn(usize) -> bool) -> Vec<u32> {
        let kept = (0..self.len()).filter(|&at| keep(at)).map(|at| (self.hash(at), at as u32));
        let mut places: Vec<(KeyHash, u32)> = kept.collect();
        // Hashes travel with the numbers: looking each up while sorting would miss the cache every time.
        places.sort_unstable();
        for same_hash in places.chunk_by_mut(|a, b| a.0 == b.0) {
            same_hash.sort_unstable_by(|a, b| self.key(a.1 as usize).cmp(self.key(b.1 as usize)));
        }
        places.into_iter().map(|(_, at)| at).collect()
    }

    /// The changed keys, one bit per key: a checkpoint is about to hold them.
    pub(crate) fn take_changes(&mut self) -> Vec<u64> {
        self.dirty_keys = 0;
        let none = vec![0; self.dirty.len()];
        std::mem::replace(&mut self.dirty, none)
    }

    /// Whether keys without a value or replaced values take up a good part of the table, those left out that the next
    /// checkpoint has to remove.
    pub(crate) fn is_sparse(&self) -> bool {
        if self.garbage > 4096 + self.values.len() / 2 {
            return true;
        }
        let absent = self.len() - self.live_keys;
        let few = 64 + self.len() / 4;
        absent > few && {
            let removed = numbers_in(&self.dirty).filter(|at| self.slots[*at].length == ABSENT).count();
            absent - removed > few
        }
    }

    /// Rebuilds the table without replaced values and keys that have no value and did not change. Numbers change. Only
    /// for a table that hides nothing below it.
    pub(crate) fn compact(&mut self) {
        let mut compacted = StateTable { numbering: self.numbering + 1, ..StateTable::default() };
        for at in 0..self.len() {
            let (value, is_dirty) = (self.value(at), self.is_dirty(at));
            if value.is_none() && !is_dirty {
                continue;
            }
            let (new, _) = compacted.find_or_insert(self.hash(at), self.key(at));
            if is_dirty {
                compacted.change(new, value);
            } else {
                compacted.restore(new, value);
            }
        }
        *self = compacted;
    }

    /// Bytes of memory held.
    #[cfg(test)]
    pub(crate) fn memory_bytes(&self) -> usize {
        self.keys.memory_bytes()
            + self.slots.capacity() * 8
            + self.values.capacity()
            + self.dirty.capacity() * 8
    }
}

/// The numbers of the bits that are set, ascending.
pub(super) fn numbers_in(bits: &[u64]) -> impl Iterator<Item = usize> {
    bits.iter().enumerate().flat_map(|(word, &bits)| {
        let rest = std::iter::successors(Some(bits), |bits| Some(bits & bits.wrapping_sub(1)));
        rest.take_while(|bits| *bits != 0).map(move |bits| word * 64 + bits.trailing_zeros() as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Clone, Debug)]
    enum Step {
        Change(u8, Option<Vec<u8>>),
        Checkpoint,
        Compact,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u8..20, prop::option::of(prop::collection::vec(any::<u8>(), 0..6))).prop_map(|(k, v)| Step::Change(k, v)),
            1 => Just(Step::Checkpoint),
            1 => Just(Step::Compact),
        ]
    }

    #[test]
    fn replaced_values_do_not_pile_up_between_checkpoints() {
        let mut table = StateTable::default();
        let (kept, _) = table.find_or_insert(1, b"kept");
        table.change(kept, Some(b"value"));
        let (grows, _) = table.find_or_insert(2, b"grows");
        for length in 10_000..12_000 {
            table.change(grows, Some(&vec![length as u8; length]));
            assert_eq!(table.value(grows), Some(&*vec![length as u8; length]));
        }
        assert_eq!(table.value(kept), Some(&b"value"[..]));
        assert!(table.memory_bytes() < 8 << 20, "{} bytes for two values", table.memory_bytes());
    }

    proptest! {
        #[test]
        fn it_behaves_like_a_map_with_a_change_set(steps in prop::collection::vec(step(), 0..200)) {
            let mut table = StateTable::default();
            let mut model: BTreeMap<u8, Vec<u8>> = BTreeMap::new();
            let mut changed: BTreeMap<u8, Option<Vec<u8>>> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Change(key, value) => {
                        let (at, _) = table.find_or_insert(u64::from(key % 3), &[key]);
                        table.change(at, value.as_deref());
                        changed.insert(key, value.clone());
                        match value {
                            Some(value) => drop(model.insert(key, value)),
                            None => drop(model.remove(&key)),
                        }
                    }
                    Step::Checkpoint => {
                        prop_assert_eq!(numbers_in(&table.take_changes()).count(), changed.len());
                        changed.clear();
                    }
                    Step::Compact => {
                        table.compact();
                        let removed = changed.values().filter(|value| value.is_none()).count();
                        prop_assert_eq!(table.len(), model.len() + removed);
                    }
                }
                let rows = |numbers: Vec<u32>| -> BTreeMap<u8, Option<Vec<u8>>> {
                    numbers.into_iter().map(|at| (table.key(at as usize)[0], table.value(at as usize).map(<[u8]>::to_vec))).collect()
                };
                let live: BTreeMap<u8, Option<Vec<u8>>> = model.iter().map(|(k, v)| (*k, Some(v.clone()))).collect();
                prop_assert_eq!(rows(table.live()), live);
                prop_assert_eq!(rows(table.ordered(|at| table.is_dirty(at))), changed.clone());
                prop_assert_eq!(table.changed_keys(), changed.len());
                prop_assert_eq!(table.live_keys(), model.len());
                let bytes: usize = model.iter().map(|(k, v)| entry_bytes(&[*k], Some(v))).sum();
                prop_assert_eq!(table.live_bytes(), bytes as u64);
            }
        }
    }
}
