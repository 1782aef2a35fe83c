//! One key group's live table: byte keys to byte values, with what changed since the last checkpoint.

use crate::format::segment::{Entry, entry_bytes};
use crate::record::KeyHash;
use crate::record::growth::push;
use crate::state::index::Index;
use crate::state::order::in_order;
use crate::state::rows::Rows;

/// Bits of 64 keys, one word each for what is asked together.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    /// The keys with a value.
    live: u64,
    /// The keys that were changed since the last checkpoint.
    dirty: u64,
}

/// Keys are numbered in the order in which they came and keep their number until [`compact`].
///
/// [`compact`]: StateTable::compact
#[derive(Debug, Default)]
pub(crate) struct StateTable {
    index: Index,
    rows: Rows,
    marks: Vec<Marks>,
    dirty_keys: usize,
    live_keys: usize,
    /// The live entries' size in a segment.
    live_bytes: u64,
    /// How often keys were given new numbers.
    numbering: u64,
}

/// The places in memory of so many keys are waited for together.
pub(super) const LOOKED_AT_ONCE: usize = 64;

#[inline]
fn bit(at: usize) -> u64 {
    1 << (at % 64)
}

impl StateTable {
    /// Keys with or without a value.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
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

    /// How many keys were changed since the last checkpoint.
    pub(crate) fn changed_keys(&self) -> usize {
        self.dirty_keys
    }

    #[inline]
    pub(crate) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<usize> {
        self.index.find(hash, |at| self.rows.is(at as usize, hash, key)).map(|at| at as usize)
    }

    /// The number of `key`, and whether it is new; a new key has no value.
    #[inline]
    pub(crate) fn find_or_insert(&mut self, hash: KeyHash, key: &[u8]) -> (usize, bool) {
        let rows = &self.rows;
        let is_it = |at: u32| rows.is(at as usize, hash, key);
        let (at, new) = self.index.find_or_insert(hash, is_it);
        if new {
            self.rows.push(hash, key);
            self.mark_new(at as usize, Marks::default());
        }
        (at as usize, new)
    }

    /// Marks the key that has come last.
    #[inline]
    fn mark_new(&mut self, at: usize, marks: Marks) {
        if at.is_multiple_of(64) {
            push(&mut self.marks, marks);
        } else {
            self.marks[at / 64].live |= marks.live;
        }
    }

    /// Looks at what looking these keys up will need, so that the memory that is far away is waited for together.
    pub(super) fn look_ahead(&self, hashes: impl Iterator<Item = KeyHash>) {
        self.look_at(hashes.filter_map(|hash| self.index.guess(hash)));
    }

    /// Looks at the rows of these keys, for the same reason.
    pub(super) fn look_at(&self, numbers: impl Iterator<Item = u32>) {
        std::hint::black_box(numbers.fold(0, |seen, at| seen ^ self.rows.hash(at as usize)));
    }

    /// Adds what a checkpoint holds of the keys that are not there yet; the first entry of a key counts.
    pub(crate) fn restore_absent(&mut self, entries: &[Entry<'_>]) {
        for some in entries.chunks(LOOKED_AT_ONCE) {
            self.index.look_ahead(some.iter().map(|entry| entry.hash));
            some.iter().for_each(|entry| self.restore_if_absent(*entry));
        }
    }

    #[inline]
    fn restore_if_absent(&mut self, Entry { hash, key, value }: Entry<'_>) {
        let Some(value) = value.filter(|value| self.rows.takes(key, value)) else {
            if let (at, true) = self.find_or_insert(hash, key) {
                self.restore(at, value);
            }
            return;
        };
        let rows = &self.rows;
        if let (at, true) = self.index.find_or_insert(hash, |at| rows.is(at as usize, hash, key)) {
            self.rows.push_whole(hash, key, value);
            self.mark_new(at as usize, Marks { live: bit(at as usize), dirty: 0 });
            self.live_keys += 1;
            self.live_bytes += entry_bytes(key, Some(value)) as u64;
        }
    }

    /// Makes room for `more` keys in the index. Rows come as they are needed.
    pub(crate) fn reserve(&mut self, more: usize) {
        self.index.reserve(more);
        self.marks.reserve_exact(more.div_ceil(64));
    }

    pub(crate) fn hash(&self, at: usize) -> KeyHash {
        self.rows.hash(at)
    }

    pub(crate) fn key(&self, at: usize) -> &[u8] {
        self.rows.key(at)
    }

    #[inline]
    fn is_live(&self, at: usize) -> bool {
        self.marks[at / 64].live & bit(at) != 0
    }

    #[inline]
    pub(crate) fn value(&self, at: usize) -> Option<&[u8]> {
        self.is_live(at).then(|| self.rows.value(at))
    }

    pub(super) fn entry(&self, at: u32) -> Entry<'_> {
        let at = at as usize;
        Entry { hash: self.hash(at), key: self.key(at), value: self.value(at) }
    }

    /// Sets or removes a value as part of a batch: the key is part of the next delta.
    #[inline]
    pub(crate) fn change(&mut self, at: usize, value: Option<&[u8]>) {
        self.restore(at, value);
        let marks = &mut self.marks[at / 64];
        self.dirty_keys += usize::from(marks.dirty & bit(at) == 0);
        marks.dirty |= bit(at);
    }

    /// Sets a value that a checkpoint holds already.
    #[inline]
    pub(crate) fn restore(&mut self, at: usize, value: Option<&[u8]>) {
        let is_live = self.is_live(at);
        match value {
            Some(value) if is_live && self.rows.replace(at, value) => {}
            None if !is_live => {}
            _ => self.set(at, value),
        }
    }

    fn set(&mut self, at: usize, value: Option<&[u8]>) {
        if let Some(before) = self.value(at) {
            self.live_bytes -= entry_bytes(self.key(at), Some(before)) as u64;
            self.live_keys -= 1;
            self.rows.clear(at);
            self.marks[at / 64].live &= !bit(at);
        }
        if let Some(value) = value {
            self.live_keys += 1;
            self.live_bytes += entry_bytes(self.key(at), Some(value)) as u64;
            let marks = &self.marks;
            self.rows.set(at, value, |at| marks[at / 64].live & bit(at) != 0);
            self.marks[at / 64].live |= bit(at);
        }
    }

    /// Whether the key was changed since the last checkpoint.
    pub(crate) fn is_dirty(&self, at: usize) -> bool {
        self.marks[at / 64].dirty & bit(at) != 0
    }

    /// The numbers of the keys with a value, ordered by (hash, key).
    pub(crate) fn live(&self) -> Vec<u32> {
        self.ordered(|at| self.is_live(at))
    }

    fn ordered(&self, keep: impl Fn(usize) -> bool) -> Vec<u32> {
        let kept = (0..self.len()).filter(|&at| keep(at)).map(|at| (self.hash(at), at as u32));
        let places = in_order(kept.collect(), |at: u32| self.key(at as usize));
        places.into_iter().map(|(_, at)| at).collect()
    }

    /// The changed keys, one bit per key: a checkpoint is about to hold them.
    pub(crate) fn take_changes(&mut self) -> Vec<u64> {
        self.dirty_keys = 0;
        self.marks.iter_mut().map(|marks| std::mem::take(&mut marks.dirty)).collect()
    }

    /// Whether keys without a value or replaced values take up a good part of the table, those left out that the next
    /// checkpoint has to remove.
    pub(crate) fn is_sparse(&self) -> bool {
        let absent = self.len() - self.live_keys;
        let few = 64 + self.len() / 4;
        let is_idle = || {
            let removed = self.marks.iter().map(|marks| (marks.dirty & !marks.live).count_ones() as usize);
            absent - removed.sum::<usize>() > few
        };
        self.rows.is_sparse() || (absent > few && is_idle())
    }

    /// Rebuilds the table without replaced values and keys that have no value and did not change. Numbers change. Only
    /// for a table that hides nothing below it.
    pub(crate) fn compact(&mut self) {
        self.rebuild(|table, at| table.is_live(at) || table.is_dirty(at));
    }

    /// Rebuilds the table with nothing but what was changed since the last checkpoint. Numbers change. Only for a
    /// table over segments that hold all the rest.
    pub(crate) fn keep_changes(&mut self) {
        self.rebuild(Self::is_dirty);
    }

    fn rebuild(&mut self, keep: impl Fn(&Self, usize) -> bool) {
        let mut rebuilt = StateTable { numbering: self.numbering + 1, ..StateTable::default() };
        for at in (0..self.len()).filter(|&at| keep(self, at)) {
            let (new, _) = rebuilt.find_or_insert(self.hash(at), self.key(at));
            if self.is_dirty(at) {
                rebuilt.change(new, self.value(at));
            } else {
                rebuilt.restore(new, self.value(at));
            }
        }
        *self = rebuilt;
    }

    /// All entries, ordered by (hash, key).
    pub(super) fn all(&self) -> Vec<Entry<'_>> {
        self.ordered(|_| true).into_iter().map(|at| self.entry(at)).collect()
    }

    /// Bytes of memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.rows.memory_bytes() + self.marks.capacity() * size_of::<Marks>()
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

    fn step(lengths: std::ops::Range<usize>) -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0u8..20, prop::option::of(prop::collection::vec(any::<u8>(), lengths))).prop_map(|(k, v)| Step::Change(k, v)),
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

    /// The aim is one and a half times what an entry is: key, value, and 16 bytes.
    #[test]
    fn keys_and_values_of_eight_bytes_take_less_than_48_bytes() {
        let mut table = StateTable::default();
        for key in 1..=300_000_u64 {
            let (at, _) =
                table.find_or_insert(crate::record::hash_of(&key.to_be_bytes()), &key.to_be_bytes());
            table.change(at, Some(&key.to_le_bytes()));
            if key >= 500 {
                let per_key = table.memory_bytes() as f64 / key as f64;
                assert!(per_key < 45.0, "{per_key} bytes for each of {key} keys");
            }
        }
        assert_eq!(table.live_bytes(), 300_000 * 32);
    }

    /// What a table has of a key, and whether it was changed.
    type Row = (u64, Vec<u8>, Option<Vec<u8>>, bool);

    fn rows(table: &StateTable) -> Vec<Row> {
        let row = |at| {
            let Entry { hash, key, value } = table.entry(at);
            (hash, key.to_vec(), value.map(<[u8]>::to_vec), table.is_dirty(at as usize))
        };
        (0..table.len() as u32).map(row).collect()
    }

    /// Keys with what each part says of them; few parts are in order, or of one width.
    fn parts() -> impl Strategy<Value = Vec<Vec<(u64, Vec<u8>, Option<Vec<u8>>)>>> {
        let one_width = prop::option::weighted(0.98, prop::collection::vec(any::<u8>(), 3));
        let value =
            prop_oneof![9 => one_width, 1 => prop::option::of(prop::collection::vec(any::<u8>(), 0..70))];
        let entry = (0..400_u16, value)
            .prop_map(|(key, value)| (u64::from(key) / 2, key.to_be_bytes().to_vec(), value));
        let part =
            (prop::collection::vec(entry, 0..300), any::<bool>()).prop_map(|(mut entries, as_written)| {
                if as_written {
                    entries.sort_unstable();
                    entries.dedup_by(|a, b| a.1 == b.1);
                }
                entries
            });
        prop::collection::vec(part, 0..4)
    }

    proptest! {
        /// Over what a batch has changed and touched already.
        #[test]
        fn many_entries_at_once_are_as_one_after_the_other(
            changed in prop::collection::vec((0..400_u16, prop::option::of(prop::collection::vec(any::<u8>(), 3))), 0..5),
            parts in parts(),
        ) {
            let (mut table, mut one_by_one) = (StateTable::default(), StateTable::default());
            for table in [&mut table, &mut one_by_one] {
                for (key, value) in &changed {
                    let (at, _) = table.find_or_insert(u64::from(*key) / 2, &key.to_be_bytes());
                    table.change(at, value.as_deref());
                }
            }
            for part in &parts {
                let entries: Vec<_> = part.iter().map(|(hash, key, value)| Entry { hash: *hash, key, value: value.as_deref() }).collect();
                table.restore_absent(&entries);
                for entry in entries {
                    let (at, new) = one_by_one.find_or_insert(entry.hash, entry.key);
                    if new {
                        one_by_one.restore(at, entry.value);
                    }
                }
            }
            for value in [Some(&b"abc"[..]), None, Some(b"wider")] {
                prop_assert_eq!(rows(&table), rows(&one_by_one));
                let counts = |table: &StateTable| (table.live_keys(), table.live_bytes(), table.changed_keys());
                prop_assert_eq!(counts(&table), counts(&one_by_one));
                for at in 0..table.len() {
                    prop_assert_eq!(table.find(table.hash(at), table.key(at)), Some(at));
                }
                for table in [&mut table, &mut one_by_one] {
                    (0..table.len()).step_by(7).for_each(|at| table.change(at, value));
                }
            }
        }

        #[test]
        fn it_behaves_like_a_map_with_a_change_set(
            // Of one width, of one for long, of many.
            one_width in prop::collection::vec(step(3..4), 0..100), steps in prop::collection::vec(step(0..70), 0..100),
        ) {
            let steps = one_width.into_iter().chain(steps);
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
