//! The table in which a map task combines the values of each key before they travel.
//!
//! A task meets most of its keys many times, and each once more when they leave. So keys are found by a hash that costs
//! less than the stored one, which is computed for the distinct keys only, and a key of up to 16 bytes is two integers
//! in the entry that has its value: a value that joins one that is there mostly costs one read of the index and one
//! of the entry. Entries are in the order in which their keys came, whatever the hash.

use std::mem::needs_drop;

use crate::error::Result;
use crate::rdd::shuffle::run::{KEY_ROOM, Run};
use crate::rdd::shuffle::{Aggregator, check_key_bytes, check_records, too_much};
use crate::record::{Data, hash_of};

/// Keys up to this long are held in their entries.
const SHORT: usize = KEY_ROOM;

/// The index has so many slots at first, and at most, as powers of two.
const FIRST_SLOTS: u32 = 13;
const MOST_SLOTS: u32 = 31;

struct Entry<C> {
    /// A short key, filled up with zeros; of a longer one where it begins in the arena, and its hash.
    head: [u64; 2],
    combined: C,
    length: u32,
}

/// Distinct keys and what their values combine to.
pub(super) struct CombiningTable<C> {
    /// The number of a key's entry plus one in the lower bits, as many as choose a slot, and in the rest some of its hash;
    /// 0 for no key. A slot is chosen by the uppermost bits of the hash and searched for from there on.
    slots: Vec<u32>,
    /// Of the number of slots.
    bits: u32,
    entries: Vec<Entry<C>>,
    long_keys: Vec<u8>,
}

impl<C> Default for CombiningTable<C> {
    fn default() -> Self {
        let slots = vec![0; 1 << FIRST_SLOTS];
        CombiningTable { slots, bits: FIRST_SLOTS, entries: Vec::new(), long_keys: Vec::new() }
    }
}

/// Where a key is.
enum Found {
    Entry(usize),
    FreeSlot(usize),
}

impl<C: Data> CombiningTable<C> {
    /// Adds a value to what its key has.
    ///
    /// # Errors
    /// When there are more keys or bytes of them than can be numbered.
    pub(super) fn add<V>(
        &mut self,
        key: &[u8],
        value: V,
        how: &impl Aggregator<V, Combined = C>,
    ) -> Result<()> {
        if key.len() <= SHORT {
            return self.add_short((short_key(key), key.len()), value, how);
        }
        let hash = hash_of(key);
        let found = self.find(hash, |entry, long_keys| {
            entry.head[1] == hash && entry.length as usize == key.len() && entry.long_key(long_keys) == key
        });
        match found {
            Found::Entry(at) => self.merge(at, value, how),
            Found::FreeSlot(slot) => {
                let (head, length) = ([self.long_keys.len() as u64, hash], check_key_bytes(key.len())?);
                self.long_keys.extend_from_slice(key);
                self.insert(slot, hash, Entry { head, combined: how.create(value), length })?;
            }
        }
        Ok(())
    }

    /// The same for a short key and its length.
    #[inline]
    pub(super) fn add_short<V>(
        &mut self,
        (head, length): ([u64; 2], usize),
        value: V,
        how: &impl Aggregator<V, Combined = C>,
    ) -> Result<()> {
        let hash = hash_of_short(head, length);
        match self.find(hash, |entry, _| entry.head == head && entry.length as usize == length) {
            Found::Entry(at) => self.merge(at, value, how),
            Found::FreeSlot(slot) => {
                let length = length as u32;
                self.insert(slot, hash, Entry { head, combined: how.create(value), length })?;
            }
        }
        Ok(())
    }

    /// Joins a value to what an entry has.
    #[inline]
    fn merge<V>(&mut self, at: usize, value: V, how: &impl Aggregator<V, Combined = C>) {
        if needs_drop::<C>() {
            // Out of its place and back, where cloning could cost anything.
            let Entry { head, combined, length } = self.entries.swap_remove(at);
            let last = self.entries.len();
            self.entries.push(Entry { head, combined: how.merge_value(combined, value), length });
            self.entries.swap(at, last);
        } else {
            let combined = &mut self.entries[at].combined;
            *combined = how.merge_value(combined.clone(), value);
        }
    }

    /// Looks through the slots from the one that `hash` chooses.
    #[inline]
    fn find(&self, hash: u64, is_same: impl Fn(&Entry<C>, &[u8]) -> bool) -> Found {
        let (mut slot, mark) = (home(hash, self.bits), mark(hash, self.bits));
        loop {
            let held = self.slots[slot];
            if held == 0 {
                return Found::FreeSlot(slot);
            }
            let number = held ^ mark;
            if number >> self.bits == 0 {
                let at = number as usize - 1;
                if is_same(&self.entries[at], &self.long_keys) {
                    return Found::Entry(at);
                }
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
    }

    #[inline(never)]
    fn insert(&mut self, slot: usize, hash: u64, entry: Entry<C>) -> Result<()> {
        let number = check_records(self.entries.len() + 1)?;
        self.entries.push(entry);
        self.slots[slot] = mark(hash, self.bits) | number;
        if self.entries.len() > self.slots.len() / 4 * 3 { self.grow() } else { Ok(()) }
    }

    /// Twice the slots.
    fn grow(&mut self) -> Result<()> {
        if self.bits == MOST_SLOTS {
            return Err(too_much("a task meets more than 1.6 billion keys; use more, smaller partitions"));
        }
        self.bits += 1;
        self.slots = vec![0; 1 << self.bits];
        for (entry, number) in self.entries.iter().zip(1..) {
            let hash = entry.hash();
            let mut slot = home(hash, self.bits);
            while self.slots[slot] != 0 {
                slot = (slot + 1) & (self.slots.len() - 1);
            }
            self.slots[slot] = mark(hash, self.bits) | number;
        }
        Ok(())
    }

    /// Moves everything into a run. The table is empty after it and keeps its memory.
    pub(super) fn take_run(&mut self) -> Result<Run<C>> {
        let (entries, long_keys) = (&self.entries, &self.long_keys);
        let hashes: Vec<_> = entries.iter().map(Entry::stored_hash).collect();
        let lengths: Vec<_> = entries.iter().map(|entry| entry.length).collect();
        let places = Run::by_group(&hashes, &lengths, |at, room| entries[at].write_key(long_keys, room))?;
        let run = places.with_values(self.entries.drain(..).map(|entry| entry.combined).collect());
        self.slots.fill(0);
        self.long_keys.clear();
        Ok(run)
    }
}

impl<C> Entry<C> {
    #[inline]
    fn long_key<'a>(&self, long_keys: &'a [u8]) -> &'a [u8] {
        &long_keys[self.head[0] as usize..][..self.length as usize]
    }

    /// The hash that the table goes by.
    #[inline]
    fn hash(&self) -> u64 {
        match self.length as usize {
            length if length <= SHORT => hash_of_short(self.head, length),
            _ => self.head[1],
        }
    }

    /// The hash that is part of the stored format.
    #[inline]
    fn stored_hash(&self) -> u64 {
        match self.length as usize {
            length if length <= SHORT => hash_of(&self.short_bytes()[..length]),
            _ => self.head[1],
        }
    }

    #[inline]
    fn short_bytes(&self) -> [u8; SHORT] {
        let [low, high] = self.head;
        (u128::from(low) | u128::from(high) << 64).to_le_bytes()
    }

    /// Writes the key to where there is room for it and for any short one.
    #[inline]
    fn write_key(&self, long_keys: &[u8], room: &mut [u8]) {
        let length = self.length as usize;
        match room.first_chunk_mut() {
            // All 16 bytes at once: copying a length that is only known here costs a call.
            Some(room) if length <= SHORT => *room = self.short_bytes(),
            _ => room[..length].copy_from_slice(self.long_key(long_keys)),
        }
    }
}

/// The slot, of so many as a power of two, where the search for a key begins.
#[inline]
fn home(hash: u64, bits: u32) -> usize {
    (hash >> (u64::BITS - bits)) as usize
}

/// What a slot has of a hash besides the number of an entry: the bits below those that chose the slot.
#[inline]
fn mark(hash: u64, bits: u32) -> u32 {
    (hash << bits >> 32) as u32 & u32::MAX << bits
}

/// At most 16 bytes as two little-endian integers, filled up with zeros.
#[inline]
fn short_key(key: &[u8]) -> [u64; 2] {
    let length = key.len();
    if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        let last = u64::from_le_bytes(*last);
        // The last eight without those that are among the first eight.
        return [u64::from_le_bytes(*first), last.checked_shr(8 * (SHORT - length) as u32).unwrap_or(0)];
    }
    if let (Some(first), Some(last)) = (key.first_chunk(), key.last_chunk()) {
        // Where the two overlap they are the same.
        let last = u64::from(u32::from_le_bytes(*last)) << (8 * (length - 4));
        return [u64::from(u32::from_le_bytes(*first)) | last, 0];
    }
    [key.iter().rev().fold(0, |low, byte| low << 8 | u64::from(*byte)), 0]
}

/// One multiplication, folded, to which the key is added again: a factor that comes to zero does not hide the other.
#[inline]
fn hash_of_short([low, high]: [u64; 2], length: usize) -> u64 {
    let product =
        u128::from(low ^ 0x243f_6a88_85a3_08d3) * u128::from(high ^ 0x1319_8a2e_0370_7344 ^ length as u64);
    let folded = product as u64 ^ (product >> 64) as u64;
    folded.wrapping_add(low).wrapping_add(high.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEY_GROUPS;
    use crate::record::group_of;
    use proptest::prelude::*;

    /// Every value of a key, in the order in which they came.
    struct Collect;

    impl Aggregator<usize> for Collect {
        type Combined = Vec<usize>;

        fn create(&self, value: usize) -> Vec<usize> {
            vec![value]
        }

        fn merge_value(&self, mut combined: Vec<usize>, value: usize) -> Vec<usize> {
            combined.push(value);
            combined
        }

        fn merge_combined(&self, lower: Vec<usize>, higher: Vec<usize>) -> Vec<usize> {
            [lower, higher].concat()
        }
    }

    type Rows = Vec<(u64, Vec<u8>, Vec<usize>)>;

    /// Looks at every key that was there before.
    fn model(keys: &[Vec<u8>]) -> Rows {
        let mut rows = Rows::new();
        for (at, key) in keys.iter().enumerate() {
            match rows.iter_mut().find(|(_, known, _)| known == key) {
                Some((_, _, values)) => values.push(at),
                None => rows.push((hash_of(key), key.clone(), vec![at])),
            }
        }
        rows.sort_by_key(|(hash, ..)| group_of(*hash));
        rows
    }

    fn rows(run: &Run<Vec<usize>>) -> Rows {
        let groups = (0..KEY_GROUPS).flat_map(|group| run.group(group));
        groups.map(|(hash, key, values)| (hash, key.to_vec(), values.clone())).collect()
    }

    /// Few distinct keys of all lengths around the longest short one, many of which differ in zeros at their ends only.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        let bytes = |most| prop::collection::vec(prop_oneof![3 => Just(0u8), 1 => any::<u8>()], 0..=most);
        prop_oneof![bytes(3), bytes(SHORT), bytes(2 * SHORT)]
    }

    proptest! {
        #[test]
        fn a_run_has_each_key_once_in_order_with_all_that_it_got(
            tasks in prop::collection::vec(prop::collection::vec(key(), 0..200), 1..4),
        ) {
            let mut table = CombiningTable::default();
            for keys in tasks {
                for (at, key) in keys.iter().enumerate() {
                    table.add(key, at, &Collect).unwrap();
                }
                prop_assert_eq!(rows(&table.take_run().unwrap()), model(&keys));
            }
        }

        #[test]
        fn a_short_key_is_its_bytes_and_zeros(key in prop::collection::vec(any::<u8>(), 0..=SHORT)) {
            let entry = Entry { head: short_key(&key), length: key.len() as u32, combined: () };
            let padded = [&key[..], &[0; SHORT][key.len()..]].concat();
            prop_assert_eq!(&entry.short_bytes()[..], &padded[..]);
        }
    }

    #[test]
    fn a_table_that_grows_forgets_nothing() {
        let mut table = CombiningTable::default();
        let keys = 3 << FIRST_SLOTS;
        for round in 0..3 {
            (0..keys).for_each(|key: usize| table.add(&key.to_le_bytes(), round, &Collect).unwrap());
        }
        let run = table.take_run().unwrap();
        assert_eq!(rows(&run).len(), keys);
        assert!(rows(&run).iter().all(|(_, _, values)| *values == [0, 1, 2]));
    }
}
