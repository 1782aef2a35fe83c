//! A hash index over byte keys that share one arena; entries keep the order in which they came.
//!
//! What a batch does by key rests on it: map-side combining, grouping and joins. The hash comes with the key and is never
//! computed again; a lookup touches no allocation of its own.

use std::borrow::Cow;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use crate::record::growth::{extend, push};
use crate::record::key::KeyHash;

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
        assert!(found.is_some(), "a key table holds at most 2^32 keys and 4 GiB of their bytes");
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

    pub(crate) fn iter(&self) -> impl Iterator<Item = (KeyHash, &[u8])> + Clone {
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

    /// Appends the key of number `at`.
    #[inline]
    fn push(&mut self, at: usize, key: &[u8]) {
        extend(&mut self.bytes, key);
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
    fn a_key_of_another_width_leaves_those_before_it_as_they_are() {
        let mut table = KeyTable::default();
        let keys = 5_000_u64;
        for key in 0..keys {
            table.find_or_insert(key << 32 | key, &key.to_be_bytes());
        }
        table.find_or_insert(7, b"another width");
        assert!((0..keys).all(|key| table.find(key << 32 | key, &key.to_be_bytes()) == Some(key as usize)));
        assert_eq!((table.key(keys as usize), table.len() as u64), (&b"another width"[..], keys + 1));
    }

    proptest! {
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
