//! Pairs as bytes, ordered by key group: what partial aggregates of windows hold.

use std::ops::Range;

use crate::error::{Error, ErrorKind, Result};
use crate::rdd::shuffle::Grouped;
use crate::record::{Data, DataBuffer, KeyHash, KeyTable, group_of};

/// Of a pair in a chunk: the length of the record and that of the key.
const LENGTHS: usize = 8;

/// Pairs of a key's bytes and a value's archive, by key group and otherwise in their order.
#[derive(Debug, Default)]
pub(super) struct Pairs {
    hashes: Vec<KeyHash>,
    /// Where each key and each value ends. A pair begins where the one before ends.
    ends: Vec<(u32, u32)>,
    bytes: Vec<u8>,
}

impl Pairs {
    /// Of this many pairs, the one at `at` has this hash, this key and this value.
    pub(super) fn by_group<'a>(
        hashes: &[KeyHash],
        mut append: impl FnMut(usize, &mut Vec<u8>) -> Result<u32> + 'a,
    ) -> Result<Self> {
        let mut order: Vec<usize> = (0..hashes.len()).collect();
        order.sort_by_key(|at| group_of(hashes[*at]));
        let mut pairs = Pairs::default();
        for at in order {
            let key_end = append(at, &mut pairs.bytes)?;
            let end = u32::try_from(pairs.bytes.len()).map_err(|_| {
                let message =
                    "the pairs of a partition of a window take more than 4 GiB; use more partitions";
                Error::new(ErrorKind::InvalidGraph, message)
            })?;
            pairs.hashes.push(hashes[at]);
            pairs.ends.push((key_end, end));
        }
        pairs.bytes.shrink_to_fit();
        Ok(pairs)
    }

    /// The bytes that these pairs would take in chunks.
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.hashes.len() * LENGTHS + self.bytes.len()) as u64
    }

    /// The pairs of some key groups.
    pub(super) fn of_groups(&self, groups: &Range<usize>) -> impl Iterator<Item = (KeyHash, &[u8], &[u8])> {
        let place = |group: usize| self.hashes.partition_point(|hash| group_of(*hash) < group);
        (place(groups.start)..place(groups.end)).map(|at| {
            let start = if at == 0 { 0 } else { self.ends[at - 1].1 };
            let (key_end, end) = self.ends[at];
            let (key, value) = (start as usize..key_end as usize, key_end as usize..end as usize);
            (self.hashes[at], &self.bytes[key], &self.bytes[value])
        })
    }

    /// The pairs of a key group, each with a key of its own.
    pub(super) fn grouped<V: Data>(&self, group: usize) -> Result<Grouped<V>> {
        let mut grouped = Grouped::empty();
        let mut buffer = DataBuffer::default();
        for (hash, key, value) in self.of_groups(&(group..group + 1)) {
            let value = V::decode(value, &mut buffer)?;
            grouped.push(hash, key, |values| values.push(value))?;
        }
        Ok(grouped)
    }
}

/// One pair for each key of some groups, in order of first appearance, its values merged in order.
pub(super) fn merged<'a, V: Data>(
    pieces: impl Iterator<Item = &'a Pairs>,
    groups: &Range<usize>,
    merge: impl Fn(V, V) -> V,
) -> Result<Pairs> {
    let mut keys = KeyTable::default();
    let mut values: Vec<Option<V>> = Vec::new();
    let mut buffer = DataBuffer::default();
    for (hash, key, value) in pieces.flat_map(|piece| piece.of_groups(groups)) {
        let value = V::decode(value, &mut buffer)?;
        let (at, new) = keys.try_find_or_insert(hash, key).ok_or_else(|| {
            let message =
                "a partition of a window has more than 2^32 keys or 4 GiB of them; use more partitions";
            Error::new(ErrorKind::InvalidGraph, message)
        })?;
        if new {
            values.push(Some(value));
        } else {
            let earlier = values[at].take();
            values[at] = earlier.map(|earlier| merge(earlier, value));
        }
    }
    let hashes: Vec<KeyHash> = keys.iter().map(|(hash, _)| hash).collect();
    Pairs::by_group(&hashes, |at, bytes| {
        bytes.extend_from_slice(keys.key(at));
        let key_end = bytes.len() as u32;
        let value =
            values[at].as_ref().ok_or_else(|| Error::corrupt("a value was lost while it was merged"))?;
        value.encode_to(bytes, &mut buffer)?;
        Ok(key_end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::KEY_GROUPS;
    use crate::record::hash_of;
    use proptest::prelude::*;

    fn pairs(rows: &[(String, String)]) -> Pairs {
        let hashes: Vec<KeyHash> = rows.iter().map(|(key, _)| hash_of(key.as_bytes())).collect();
        let mut buffer = DataBuffer::default();
        Pairs::by_group(&hashes, |at, bytes| {
            let (key, value) = &rows[at];
            bytes.extend_from_slice(key.as_bytes());
            let key_end = bytes.len() as u32;
            value.encode_to(bytes, &mut buffer)?;
            Ok(key_end)
        })
        .unwrap()
    }

    fn rows(pairs: &[Pairs]) -> Vec<(String, String)> {
        let mut buffer = DataBuffer::default();
        let all = pairs.iter().flat_map(|pairs| pairs.of_groups(&(0..KEY_GROUPS)));
        all.map(|(_, key, value)| {
            let key = String::from_utf8(key.to_vec()).unwrap();
            (key, String::decode(value, &mut buffer).unwrap())
        })
        .collect()
    }

    /// Looks at every key that was there before.
    fn model(rows: &[(String, String)]) -> Vec<(String, String)> {
        let mut merged: Vec<(String, String)> = Vec::new();
        for (key, value) in rows {
            match merged.iter_mut().find(|(known, _)| known == key) {
                Some((_, all)) => all.push_str(value),
                None => merged.push((key.clone(), value.clone())),
            }
        }
        merged.sort_by_key(|(key, _)| group_of(hash_of(key.as_bytes())));
        merged
    }

    proptest! {
        #[test]
        fn pieces_are_merged_in_order_whatever_the_partitions(
            pieces in prop::collection::vec(prop::collection::vec(("[a-d]{0,2}", "[x-z]{0,3}"), 0..20), 0..6),
            cut in 0..=KEY_GROUPS,
        ) {
            let stored: Vec<Pairs> = pieces.iter().map(|rows| pairs(rows)).collect();
            let concat = |a: String, b: String| a + &b;
            let of_groups = |groups: Range<usize>| merged(stored.iter(), &groups, concat).unwrap();
            let found = [of_groups(0..cut), of_groups(cut..KEY_GROUPS)];
            prop_assert_eq!(rows(&found), model(&pieces.concat()));
            for group in 0..KEY_GROUPS {
                let grouped = found[usize::from(group >= cut)].grouped::<String>(group).unwrap();
                let expected = rows(&found).into_iter().filter(|(key, _)| group_of(hash_of(key.as_bytes())) == group);
                let values = (0..grouped.keys.len()).map(|at| {
                    let key = String::from_utf8(grouped.keys.key(at).to_vec()).unwrap();
                    (key, grouped.values(at).concat())
                });
                prop_assert_eq!(values.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
            }
        }
    }
}
