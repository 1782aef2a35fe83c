//! A hash index over byte keys that share one arena; entries keep the order in which they came.
//!
//! Everything keyed rests on it: map-side combining, grouping, joins and live state. The hash comes with
//! the key and is never computed again; a lookup touches no allocation of its own.

use std::borrow::Cow;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::record::growth::{append_bytes, make_room, push};
use crate::record::key::KeyHash;

const FULL: &str = "a key table holds at most 2^32 keys and 4 GiB of their bytes";

/// Distinct keys, numbered from 0 in the order of their first insertion.
#[derive(Debug, Default)]
pub(crate) struct KeyTable {
    index: HashTable<u32>,
    hashes: Vec<KeyHash>,
    keys: KeyBytes,
}

impl KeyTable {
    pub(crate) fn with_capacity(keys: usize) -> Self {
        KeyTable {
            index: HashTable::with_capacity(keys),
            hashes: Vec::with_capacity(keys),
            keys: KeyBytes::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    #[inline]
    pub(crate) fn hash(&self, at: usize) -> KeyHash {
        self.hashes[at]
    }

    #[inline]
    pub(crate) fn key(&self, at: usize) -> &[u8] {
        self.keys.get(at)
    }

    #[inline]
    pub(crate) fn find(&self, hash: KeyHash, key: &[u8]) -> Option<usize> {
        let (hashes, keys) = (&self.hashes, &self.keys);
        let same = |&at: &u32| hashes[at as usize] == hash && keys.get(at as usize) == key;
        self.index.find(hash, same).map(|&at| at as usize)
    }

    /// The number of `key`, and whether it is new.
    ///
    /// # Panics
    /// When the table would outgrow 2^32 keys or 4 GiB of key bytes.
    #[inline]
    pub(crate) fn find_or_insert(&mut self, hash: KeyHash, key: &[u8]) -> (usize, bool) {
        let found = self.try_find_or_insert(hash, key);
        assert!(found.is_some(), "{FULL}");
        found.unwrap_or_default()
    }

    /// The same; `None` when the table is full.
    #[inline]
    pub(crate) fn try_find_or_insert(&mut self, hash: KeyHash, key: &[u8]) -> Option<(usize, bool)> {
        let (hashes, keys) = (&self.hashes, &self.keys);
        let same = |&at: &u32| hashes[at as usize] == hash && keys.get(at as usize) == key;
        match self.index.entry(hash, same, |&at| hashes[at as usize]) {
            Entry::Occupied(entry) => Some((*entry.get() as usize, false)),
            Entry::Vacant(entry) => {
                let at = hashes.len();
                if !fits(at, keys.bytes.len(), key.len()) {
                    return None;
                }
                entry.insert(at as u32);
                push(&mut self.hashes, hash);
                self.keys.push(at, key);
                Some((at, true))
            }
        }
    }

    /// Adds keys that are known not to be there, none twice.
    ///
    /// # Panics
    /// When the table would outgrow 2^32 keys or 4 GiB of key bytes.
    #[inline]
    pub(crate) fn insert_new<'k>(&mut self, new: impl ExactSizeIterator<Item = (KeyHash, &'k [u8])> + Clone) {
        let KeyTable { index, hashes, keys } = self;
        let (first, count) = (hashes.len(), new.len());
        let bytes = new.clone().map(|(_, key)| key.len()).sum();
        assert!(fits((first + count).saturating_sub(1), keys.bytes.len(), bytes), "{FULL}");
        make_room(hashes, count);
        hashes.extend(new.clone().map(|(hash, _)| hash));
        keys.extend(first, bytes, new.map(|(_, key)| key));
        index.reserve(count, |&at| hashes[at as usize]);
        for (at, hash) in (first as u32..).zip(&hashes[first..]) {
            index.insert_unique(*hash, at, |&at| hashes[at as usize]);
        }
    }

    /// Makes room for `more` keys like those that are there.
    pub(crate) fn reserve(&mut self, more: usize) {
        let KeyTable { index, hashes, keys } = self;
        index.reserve(more, |&at| hashes[at as usize]);
        hashes.reserve_exact(more);
        if keys.bounds.is_empty() {
            keys.bytes.reserve_exact(more * keys.width);
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (KeyHash, &[u8])> {
        (0..self.len()).map(|at| (self.hash(at), self.key(at)))
    }

    /// The keys' hashes, where each key ends in the bytes of all, and these, in the order of their numbers.
    pub(crate) fn side_by_side(&self) -> (&[KeyHash], Cow<'_, [u32]>, &[u8]) {
        let KeyBytes { bytes, width, bounds } = &self.keys;
        let ends = match bounds.split_first() {
            Some((_, ends)) => Cow::Borrowed(ends),
            None => (1..=self.len()).map(|keys| (keys * width) as u32).collect(),
        };
        (&self.hashes, ends, bytes)
    }

    /// Bytes of memory held.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.allocation_size()
            + self.hashes.capacity() * 8
            + self.keys.bounds.capacity() * 4
            + self.keys.bytes.capacity()
    }
}

/// Keys one behind the other. As long as all are of one width, a number says where its key is.
#[derive(Debug, Default)]
struct KeyBytes {
    bytes: Vec<u8>,
    width: usize,
    /// Where each key begins and the last one ends; empty as long as all are of one width.
    bounds: Vec<u32>,
}

impl KeyBytes {
    #[inline]
    fn get(&self, at: usize) -> &[u8] {
        if self.bounds.is_empty() {
            &self.bytes[at * self.width..][..self.width]
        } else {
            &self.bytes[self.bounds[at] as usize..self.bounds[at + 1] as usize]
        }
    }

    /// Appends keys of so many bytes in all, the first of which has the number `at`.
    #[inline]
    fn extend<'k>(&mut self, at: usize, bytes: usize, keys: impl Iterator<Item = &'k [u8]> + Clone) {
        if at == 0 || !self.bounds.is_empty() || keys.clone().any(|key| key.len() != self.width) {
            (at..).zip(keys).for_each(|(at, key)| self.push(at, key));
            return;
        }
        make_room(&mut self.bytes, bytes);
        for key in keys {
            append_bytes(&mut self.bytes, key);
        }
    }

    /// Appends the key of number `at`.
    #[inline]
    fn push(&mut self, at: usize, key: &[u8]) {
        make_room(&mut self.bytes, key.len());
        append_bytes(&mut self.bytes, key);
        if self.bounds.is_empty() {
            if key.len() == self.width {
                return;
            }
            if at == 0 {
                self.width = key.len();
                return;
            }
            self.bounds = (0..=at).map(|at| (at * self.width) as u32).collect();
        }
        push(&mut self.bounds, self.bytes.len() as u32);
    }
}

/// Whether a table with so many keys and bytes of keys has room for one more: numbers and offsets are 32 bits
/// wide.
#[inline]
fn fits(keys: usize, bytes: usize, more_bytes: usize) -> bool {
    keys < u32::MAX as usize && bytes.saturating_add(more_bytes) <= u32::MAX as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_full_table_takes_no_key() {
        let most = u32::MAX as usize;
        assert!(fits(most - 1, most - 3, 3));
        assert!(!fits(most, 0, 3));
        assert!(!fits(1, most - 3, 4));
        assert!(!fits(1, most, usize::MAX));
    }

    #[test]
    fn keys_of_one_width_take_little_more_than_themselves() {
        for keys in [1_000, 5_000, 60_000, 250_000_u64] {
            let mut table = KeyTable::default();
            for key in 0..keys {
                table.find_or_insert(key << 32 | key, &key.to_be_bytes());
            }
            let per_key = table.memory_bytes() as f64 / keys as f64;
            assert!(per_key < 8.0 * 2.5 + 11.5, "{per_key} bytes for each of {keys} keys");
            table.find_or_insert(7, b"another width");
            assert!(
                (0..keys).all(|key| table.find(key << 32 | key, &key.to_be_bytes()) == Some(key as usize))
            );
            assert_eq!((table.key(keys as usize), table.len() as u64), (&b"another width"[..], keys + 1));
        }
    }

    proptest! {
        #[test]
        fn many_new_keys_are_as_one_after_the_other(
            width in 0..10_usize,
            widths in prop::collection::vec(0..10_usize, 0..40),
            counts in prop::collection::vec(0..70_usize, 0..6),
        ) {
            // Of one width as long as the others do not come in.
            let key = |number: usize| {
                let width = number.checked_sub(90).and_then(|at| widths.get(at)).map_or(width, |width| *width);
                [&number.to_be_bytes()[6..], &vec![7; width]].concat()
            };
            let hash = |number: usize| (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let (mut table, mut one_by_one) = (KeyTable::default(), KeyTable::default());
            for count in counts {
                let first = table.len();
                let keys: Vec<_> = (first..first + count).map(key).collect();
                let keys: Vec<_> = (first..).zip(&keys).map(|(number, key)| (hash(number), key.as_slice())).collect();
                table.insert_new(keys.iter().copied());
                for (hash, key) in keys {
                    one_by_one.find_or_insert(hash, key);
                }
            }
            prop_assert!(table.iter().eq(one_by_one.iter()));
            for number in 0..table.len() {
                prop_assert_eq!(table.find(hash(number), &key(number)), Some(number));
                prop_assert_eq!(table.find_or_insert(hash(number), &key(number)), (number, false));
            }
        }

        /// Hashes of three values only, so that nearly every probe meets a colliding key.
        #[test]
        fn it_numbers_keys_like_a_map_does(keys in prop::collection::vec((0u64..3, "[a-c]{0,3}"), 0..200)) {
            let mut table = KeyTable::default();
            let mut model = BTreeMap::new();
            for (hash, key) in &keys {
                let fresh = model.len();
                let expected = *model.entry((*hash, key.clone())).or_insert(fresh);
                let (at, new) = table.find_or_insert(*hash, key.as_bytes());
                prop_assert_eq!((at, new), (expected, expected == fresh));
                prop_assert_eq!((table.hash(at), table.key(at)), (*hash, key.as_bytes()));
            }
            prop_assert_eq!(table.len(), model.len());
            for ((hash, key), at) in &model {
                prop_assert_eq!(table.find(*hash, key.as_bytes()), Some(*at));
            }
            prop_assert_eq!(table.find(0, b"absent"), None);
            let (hashes, ends, bytes) = table.side_by_side();
            let starts = std::iter::once(0).chain(ends.iter().copied());
            let keys = starts.zip(ends.iter()).map(|(start, end)| &bytes[start as usize..*end as usize]);
            let side_by_side: Vec<_> = hashes.iter().copied().zip(keys).collect();
            prop_assert_eq!(side_by_side, table.iter().collect::<Vec<_>>());
        }
    }
}
