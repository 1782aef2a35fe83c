//! Pairs of a key group whose keys are numbered by who reads them.
//!
//! A stateful operator has a number for every key that it knows. When the pairs are grouped by these numbers, each key
//! that arrives is looked up once, in the state, and not in a table of the batch before that.

use crate::error::Result;
use crate::rdd::shuffle::{Aggregator, Grouped, Run, check_records, replace_at};
use crate::record::{Data, KeyHash};

/// Some keys of one key group, each with its hash.
#[derive(Clone, Copy)]
pub(crate) struct KeySlice<'a> {
    pub(super) hashes: &'a [KeyHash],
    /// Where each key ends.
    pub(super) ends: &'a [u32],
    /// Where the first begins.
    pub(super) start: u32,
    pub(super) bytes: &'a [u8],
}

impl<'a> KeySlice<'a> {
    pub(crate) fn iter(self) -> impl Iterator<Item = (KeyHash, &'a [u8])> + Clone {
        let (bytes, mut start) = (self.bytes, self.start as usize);
        self.hashes.iter().zip(self.ends).map(move |(hash, end)| {
            let end = *end as usize;
            let key = &bytes[start..end];
            start = end;
            (*hash, key)
        })
    }
}

/// Appends the numbers of keys: the same for the same key, whatever was asked before.
pub(crate) type NumberKeys<'a> = dyn FnMut(KeySlice<'_>, &mut Vec<u32>) -> Result<()> + 'a;

/// The distinct keys of one key group by number, with their values, in order of first appearance.
#[derive(Debug)]
pub(crate) struct Numbered<V> {
    numbers: Vec<u32>,
    /// Where each key's values start, and the end of the last.
    starts: Vec<u32>,
    values: Vec<V>,
}

impl<V> Numbered<V> {
    /// Asks for the number of each key.
    pub(super) fn of(grouped: Grouped<V>, number: &mut NumberKeys<'_>) -> Result<Self> {
        let mut numbers = Vec::with_capacity(grouped.keys.len());
        let (hashes, ends, bytes) = grouped.keys.side_by_side();
        if !hashes.is_empty() {
            // All at once: who has them in files reads each page of these once.
            number(KeySlice { hashes, ends: &ends, start: 0, bytes }, &mut numbers)?;
        }
        let Grouped { starts, values, .. } = grouped;
        Ok(Numbered { numbers, starts, values })
    }

    /// Each key's number and its values in the order of their records.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &[V])> {
        self.numbers.iter().zip(self.starts.windows(2)).map(|(number, range)| {
            let values = &self.values[range[0] as usize..range[1] as usize];
            (*number as usize, values)
        })
    }
}

impl<C: Data> Numbered<C> {
    /// One value for each key of the group, merged from what the map side combined.
    pub(super) fn merged<V>(
        runs: &[Run<C>],
        group: usize,
        how: &impl Aggregator<V, Combined = C>,
        number: &mut NumberKeys<'_>,
    ) -> Result<Self> {
        let records = runs.iter().map(|run| run.len_of(group)).sum();
        check_records(records)?;
        let most = runs.iter().map(|run| run.len_of(group)).max().unwrap_or(0);
        let (mut numbers, mut values) = (Vec::with_capacity(most), Vec::with_capacity(most));
        let mut places = Places::for_records(records);
        let mut found = Vec::with_capacity(most);
        for run in runs.iter().filter(|run| run.len_of(group) > 0) {
            found.clear();
            number(run.keys(group), &mut found)?;
            for (key, value) in found.iter().zip(run.values(group)) {
                match places.find_or_insert(*key, &numbers) {
                    Some(place) => {
                        replace_at(&mut values, place, |lower| how.merge_combined(lower, value.clone()));
                    }
                    None => {
                        numbers.push(*key);
                        values.push(value.clone());
                    }
                }
            }
        }
        Ok(Numbered { starts: (0..=values.len() as u32).collect(), numbers, values })
    }
}

/// At which place of a list each number is: open addressing, at most half full.
struct Places {
    /// The place plus one; 0 for none.
    slots: Vec<u32>,
}

impl Places {
    /// For a list of at most so many numbers.
    fn for_records(records: usize) -> Self {
        Places { slots: vec![0; (2 * records).next_power_of_two()] }
    }

    /// The place of `number` in `numbers`; `None` when it is new and comes next.
    #[inline]
    fn find_or_insert(&mut self, number: u32, numbers: &[u32]) -> Option<usize> {
        let mask = self.slots.len() - 1;
        let mut slot = (u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & mask;
        loop {
            match self.slots[slot] as usize {
                0 => {
                    self.slots[slot] = numbers.len() as u32 + 1;
                    return None;
                }
                place if numbers[place - 1] == number => return Some(place - 1),
                _ => slot = (slot + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::record::KeyTable;
    use proptest::prelude::*;

    struct Concatenate;

    impl Aggregator<()> for Concatenate {
        type Combined = Vec<u32>;

        fn create(&self, (): ()) -> Vec<u32> {
            Vec::new()
        }

        fn merge_value(&self, combined: Vec<u32>, (): ()) -> Vec<u32> {
            combined
        }

        fn merge_combined(&self, lower: Vec<u32>, higher: Vec<u32>) -> Vec<u32> {
            [lower, higher].concat()
        }
    }

    /// Of one key group. Each value says where it comes from.
    fn run(partition: u32, keys: &BTreeMap<String, u64>) -> Run<Vec<u32>> {
        let hashes: Vec<KeyHash> = keys.values().copied().collect();
        let keys: Vec<&String> = keys.keys().collect();
        let lengths: Vec<u32> = keys.iter().map(|key| key.len() as u32).collect();
        let values = (0..keys.len()).map(|at| vec![partition, at as u32]).collect();
        let write = |at: usize, room: &mut [u8]| room[..keys[at].len()].copy_from_slice(keys[at].as_bytes());
        Run::by_group(&hashes, &lengths, write).unwrap().with_values(values)
    }

    proptest! {
        /// The numbers that a state gives its keys are in no order.
        #[test]
        fn keys_are_merged_in_order_of_appearance_by_their_numbers(
            partitions in prop::collection::vec(prop::collection::btree_map("[a-c]{0,3}", 0u64..3, 0..20), 0..6),
            multiplier in prop::sample::select(vec![1u32, 7, 0x9e37_79b1]),
        ) {
            let runs: Vec<_> = (0..).zip(&partitions).map(|(at, keys)| run(at, keys)).collect();
            let number_of = |hash: KeyHash, key: &[u8]| {
                key.iter().fold(hash as u32 + 1, |number, byte| number * 4 + u32::from(byte - b'`')).wrapping_mul(multiplier)
            };
            let mut model: Vec<(usize, Vec<u32>)> = Vec::new();
            for (partition, keys) in (0u32..).zip(&partitions) {
                for (at, (key, hash)) in (0u32..).zip(keys) {
                    let number = number_of(*hash, key.as_bytes()) as usize;
                    match model.iter_mut().find(|(known, _)| *known == number) {
                        Some((_, values)) => values.extend([partition, at]),
                        None => model.push((number, vec![partition, at])),
                    }
                }
            }
            let merged = Numbered::merged(&runs, 0, &Concatenate, &mut |keys, numbers| {
                numbers.extend(keys.iter().map(|(hash, key)| number_of(hash, key)));
                Ok(())
            });
            let rows: Vec<_> = merged.unwrap().iter().map(|(number, values)| (number, values.concat())).collect();
            prop_assert_eq!(rows, model);
        }
    }

    #[test]
    fn the_keys_of_a_group_are_asked_for_at_once() {
        for keys in [vec!["b", "a", "c"], vec!["a", "longer", ""], vec![]] {
            let mut table = KeyTable::default();
            for key in &keys {
                table.find_or_insert(7, key.as_bytes());
            }
            let starts = (0..=keys.len() as u32).collect();
            let grouped = Grouped { keys: table, starts, values: keys.clone() };
            let mut asked: Vec<Vec<Vec<u8>>> = Vec::new();
            let numbered = Numbered::of(grouped, &mut |keys, numbers| {
                asked.push(keys.iter().map(|(_, key)| key.to_vec()).collect());
                numbers.extend((10..).take(keys.iter().count()));
                Ok(())
            });
            let expected: Vec<Vec<Vec<u8>>> = [&keys[..]]
                .into_iter()
                .filter(|keys| !keys.is_empty())
                .map(|keys| keys.iter().map(|key| key.as_bytes().to_vec()).collect())
                .collect();
            assert_eq!(asked, expected);
            let rows: Vec<_> =
                numbered.unwrap().iter().map(|(number, values)| (number, values.concat())).collect();
            assert_eq!(
                rows,
                (10..).zip(keys).map(|(number, key)| (number, key.to_owned())).collect::<Vec<_>>()
            );
        }
    }
}
