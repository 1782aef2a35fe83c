//! What a map task hands to a shuffle: its pairs in the order of their key groups.

use std::mem::needs_drop;
use std::ops::Range;

use crate::config::KEY_GROUPS;
use crate::error::Result;
use crate::rdd::shuffle::numbered::KeySlice;
use crate::rdd::shuffle::{check_key_bytes, check_records};
use crate::record::{Data, KeyHash, group_of};

/// Whoever writes a key finds room for so many bytes at least, so that short keys are copied in registers.
pub(crate) const KEY_ROOM: usize = 16;

/// The output of one map task.
#[derive(Debug)]
pub(crate) struct Run<V> {
    /// Where each key group starts, and the end of the last.
    pub(super) starts: Vec<u32>,
    /// Where the keys of each group start.
    pub(super) key_starts: Vec<u32>,
    pub(super) hashes: Vec<KeyHash>,
    pub(super) ends: Vec<u32>,
    pub(super) bytes: Vec<u8>,
    pub(super) values: Vec<V>,
}

/// A run whose values are still in the order in which their pairs came.
pub(crate) struct KeyRun {
    run: Run<()>,
    /// Where each pair went.
    places: Vec<u32>,
}

impl Run<()> {
    /// Orders pairs by key group, keeping their order within each (a counting sort). `write` writes the key of a pair, of
    /// the length that `lengths` says, to the beginning of what it gets, and what is after the key there is of no account.
    ///
    /// Pairs are read in the order in which they came and each group is written in its own, so that large runs are
    /// fetched ahead too.
    ///
    /// # Errors
    /// When there are more pairs or bytes of keys than 32 bits can number.
    pub(crate) fn by_group(
        hashes: &[KeyHash],
        lengths: &[u32],
        write: impl Fn(usize, &mut [u8]),
    ) -> Result<KeyRun> {
        check_records(hashes.len())?;
        let (mut counts, mut sizes) = ([0u32; KEY_GROUPS], [0usize; KEY_GROUPS]);
        for (hash, length) in hashes.iter().zip(lengths) {
            counts[group_of(*hash)] += 1;
            sizes[group_of(*hash)] += *length as usize;
        }
        // What is written behind the last key of a group must not reach the next group.
        let room = |(count, size): (&u32, &usize)| size + if *count > 0 { KEY_ROOM } else { 0 };
        let bytes: usize = counts.iter().zip(&sizes).map(room).sum();
        check_key_bytes(bytes)?;
        let starts = starts_of(counts.iter().copied());
        let mut key_starts = starts_of(counts.iter().zip(&sizes).map(room).map(|size| size as u32));
        key_starts.truncate(KEY_GROUPS);
        let (mut next, mut next_key) = (starts.clone(), key_starts.clone());
        let mut run = Run {
            starts,
            key_starts,
            hashes: vec![0; hashes.len()],
            ends: vec![0; hashes.len()],
            bytes: vec![0; bytes],
            values: Vec::new(),
        };
        let place = |(at, (hash, length)): (usize, (&KeyHash, &u32))| {
            let group = group_of(*hash);
            let (place, start) = (next[group], next_key[group]);
            (next[group], next_key[group]) = (place + 1, start + length);
            write(at, &mut run.bytes[start as usize..]);
            run.hashes[place as usize] = *hash;
            run.ends[place as usize] = start + length;
            place
        };
        let places = hashes.iter().zip(lengths).enumerate().map(place).collect();
        Ok(KeyRun { run, places })
    }
}

/// Where each part starts, one behind the other, and the end of the last.
fn starts_of(sizes: impl Iterator<Item = u32>) -> Vec<u32> {
    let end = |end: &mut u32, size| {
        *end += size;
        Some(*end)
    };
    std::iter::once(0).chain(sizes.scan(0, end)).collect()
}

impl KeyRun {
    /// Puts the values, one for each pair in the order in which they came, beside their keys.
    pub(crate) fn with_values<V: Data>(self, values: Vec<V>) -> Run<V> {
        let KeyRun { run: Run { starts, key_starts, hashes, ends, bytes, .. }, places } = self;
        Run { starts, key_starts, hashes, ends, bytes, values: moved(values, places) }
    }
}

/// Each value to its place.
fn moved<V: Clone>(mut values: Vec<V>, mut places: Vec<u32>) -> Vec<V> {
    if !needs_drop::<V>() {
        // Copies, then: one way through, however many there are.
        let mut moved = values.clone();
        places.iter().zip(values).for_each(|(place, value)| moved[*place as usize] = value);
        return moved;
    }
    for at in 0..values.len() {
        // What is here goes to its place until what belongs here comes.
        while places[at] as usize != at {
            let place = places[at] as usize;
            values.swap(at, place);
            places.swap(at, place);
        }
    }
    values
}

impl<V> Run<V> {
    /// The pairs of one key group.
    pub(super) fn group(&self, group: usize) -> impl Iterator<Item = (KeyHash, &[u8], &V)> {
        self.keys(group).iter().zip(self.values(group)).map(|((hash, key), value)| (hash, key, value))
    }

    fn places(&self, group: usize) -> Range<usize> {
        self.starts[group] as usize..self.starts[group + 1] as usize
    }

    pub(super) fn keys(&self, group: usize) -> KeySlice<'_> {
        let places = self.places(group);
        let (hashes, ends) = (&self.hashes[places.clone()], &self.ends[places]);
        KeySlice { hashes, ends, start: self.key_starts[group], bytes: &self.bytes }
    }

    pub(super) fn values(&self, group: usize) -> &[V] {
        &self.values[self.places(group)]
    }

    pub(super) fn len_of(&self, group: usize) -> usize {
        self.places(group).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::hash_of;
    use proptest::prelude::*;

    fn run_of<V: Data>(keys: &[Vec<u8>], values: Vec<V>) -> Run<V> {
        let hashes: Vec<_> = keys.iter().map(|key| hash_of(key)).collect();
        let lengths: Vec<_> = keys.iter().map(|key| key.len() as u32).collect();
        let write = |at: usize, room: &mut [u8]| {
            // As much as is allowed, so that what reaches too far shows.
            room[..KEY_ROOM].fill(0xff);
            room[..keys[at].len()].copy_from_slice(&keys[at]);
        };
        Run::by_group(&hashes, &lengths, write).unwrap().with_values(values)
    }

    proptest! {
        #[test]
        fn pairs_are_ordered_by_group_and_in_their_order_within_it(
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..600),
        ) {
            let mut model: Vec<_> = keys.iter().enumerate().map(|(at, key)| (hash_of(key), key.clone(), at as u64)).collect();
            model.sort_by_key(|(hash, ..)| group_of(*hash));
            let numbers = run_of(&keys, (0..keys.len() as u64).collect());
            let texts = run_of(&keys, (0..keys.len()).map(|at| at.to_string()).collect());
            let all = || 0..KEY_GROUPS;
            let rows = |(hash, key, value): (KeyHash, &[u8], u64)| (hash, key.to_vec(), value);
            let of_numbers = all().flat_map(|group| numbers.group(group)).map(|(hash, key, value)| rows((hash, key, *value)));
            prop_assert_eq!(of_numbers.collect::<Vec<_>>(), &model[..]);
            let of_texts = all().flat_map(|group| texts.group(group));
            let of_texts = of_texts.map(|(hash, key, value)| rows((hash, key, value.parse().unwrap())));
            prop_assert_eq!(of_texts.collect::<Vec<_>>(), model);
            prop_assert_eq!(all().map(|group| numbers.len_of(group)).sum::<usize>(), keys.len());
        }
    }

    #[test]
    fn more_bytes_of_keys_than_a_run_can_place_are_refused() {
        let run = |keys: usize| Run::by_group(&vec![0; keys], &vec![1 << 26; keys], |_, _| ());
        let error = run(64).err().unwrap();
        assert!(error.to_string().contains("4 GiB"), "{error}");
        assert_eq!(run(1).unwrap().with_values(vec![()]).len_of(0), 1);
    }
}
