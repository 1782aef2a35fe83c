//! What a batch changed in a state, in a few bytes: whether a replay changed the same, and mostly which key it did not.
//!
//! Each change adds a hash of key and value to two sums modulo 2^64, one of them weighted with the key's hash, so that
//! neither order nor threads nor partitions matter. Keys are sampled into **strata**, each with half as many keys as
//! the one before. Where two runs of a batch differ in one key of a stratum, the differences of its sums have the key's
//! hash as their ratio, which only this key fits. After the strata of Eppstein, Goodrich, Uyeda and Varghese, "What's
//! the Difference?" (2011).

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::format::records::StratumSums;
use crate::record::KeyHash;

/// How often keys are halved: some stratum has few of the keys that differ, however many these are.
const STRATA: usize = 16;

/// Makes the hash of a removal differ from those of values.
const REMOVED: u64 = 0x9e37_79b9_7f4a_7c15;

/// The changes of one batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChangeSums {
    /// Of each stratum: the changes, and the changes times the hashes of their keys.
    strata: [[u64; 2]; STRATA],
}

#[inline]
fn stratum_of(hash: KeyHash) -> usize {
    (hash | 1 << (STRATA - 1)).trailing_zeros() as usize
}

impl ChangeSums {
    /// Counts a change in; `None` removes the key.
    #[inline]
    pub(crate) fn add(&mut self, hash: KeyHash, value: Option<&[u8]>) {
        let change = match value {
            Some(value) => xxh3_64_with_seed(value, hash),
            None => xxh3_64_with_seed(&[], hash ^ REMOVED),
        };
        let [sum, weighted] = &mut self.strata[stratum_of(hash)];
        *sum = sum.wrapping_add(change);
        *weighted = weighted.wrapping_add(change.wrapping_mul(hash));
    }

    /// Counts the changes of other keys in.
    pub(crate) fn merge(&mut self, other: &ChangeSums) {
        let sums = self.strata.as_flattened_mut().iter_mut().zip(other.strata.as_flattened());
        sums.for_each(|(sum, other)| *sum = sum.wrapping_add(*other));
    }

    /// Up to the last stratum that has any.
    pub(crate) fn strata(&self) -> Vec<StratumSums> {
        let used = self.strata.iter().rposition(|sums| *sums != [0; 2]).map_or(0, |last| last + 1);
        let stratum = |&[sum, weighted]: &[u64; 2]| StratumSums { sum, weighted };
        self.strata[..used].iter().map(stratum).collect()
    }

    /// All of it in 64 bits; 0 for no change.
    pub(crate) fn hash(&self) -> u64 {
        let strata = self.strata();
        if strata.is_empty() {
            return 0;
        }
        let bytes = |stratum: &StratumSums| [stratum.sum.to_le_bytes(), stratum.weighted.to_le_bytes()];
        xxh3_64(strata.iter().flat_map(bytes).collect::<Vec<_>>().as_flattened())
    }

    /// How these changes differ from those of another run of the batch.
    pub(crate) fn difference(&self, before: &[StratumSums]) -> Difference {
        let before = before.iter().copied().chain(std::iter::repeat(StratumSums { sum: 0, weighted: 0 }));
        let gap = |(&[sum, weighted], before): (&[u64; 2], StratumSums)| {
            [sum.wrapping_sub(before.sum), weighted.wrapping_sub(before.weighted)]
        };
        let mut strata = [[0; 2]; STRATA];
        strata.iter_mut().zip(self.strata.iter().zip(before)).for_each(|(gap_of, pair)| *gap_of = gap(pair));
        Difference { strata }
    }
}

/// By how much two runs of a batch differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Difference {
    strata: [[u64; 2]; STRATA],
}

impl Difference {
    /// The stratum of a key that may be all that differs in it: of several, the highest is the surest.
    #[inline]
    pub(crate) fn fits(&self, hash: KeyHash) -> Option<usize> {
        let stratum = stratum_of(hash);
        let [sum, weighted] = self.strata[stratum];
        (sum != 0 && sum.wrapping_mul(hash) == weighted).then_some(stratum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::hash_of;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    type Changes = BTreeMap<u32, Option<Vec<u8>>>;

    fn hash(key: u32) -> KeyHash {
        hash_of(&key.to_be_bytes())
    }

    fn sums<'a>(changes: impl IntoIterator<Item = (&'a u32, &'a Option<Vec<u8>>)>) -> ChangeSums {
        let mut sums = ChangeSums::default();
        changes.into_iter().for_each(|(key, value)| sums.add(hash(*key), value.as_deref()));
        sums
    }

    fn changes() -> impl Strategy<Value = Changes> {
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..20));
        prop::collection::btree_map(any::<u32>(), value, 1..200)
    }

    #[test]
    fn no_change_hashes_to_nothing() {
        let none = ChangeSums::default();
        assert_eq!((none.hash(), none.strata()), (0, vec![]));
    }

    proptest! {
        #[test]
        fn order_and_partitions_do_not_matter(changes in changes(), at in any::<prop::sample::Index>()) {
            let all = sums(&changes);
            prop_assert_eq!(&sums(changes.iter().rev()), &all);
            let at = at.index(changes.len());
            let mut parts = sums(changes.iter().skip(at));
            parts.merge(&sums(changes.iter().take(at)));
            prop_assert_eq!(parts.hash(), all.hash());
        }

        /// Changed, removed, added or left out: a single key that differs is found, and no other one.
        #[test]
        fn a_single_key_that_differs_is_named(
            before in changes(), at in any::<prop::sample::Index>(), value in prop::option::of(any::<u64>()), left_out in any::<bool>(),
        ) {
            let key = *at.get(&before.keys().copied().collect::<Vec<_>>());
            let mut after = before.clone();
            if left_out {
                after.remove(&key);
            } else {
                after.insert(key, value.map(|value| value.to_le_bytes().repeat(3)));
            }
            prop_assume!(after != before);
            let (before, after_sums) = (sums(&before), sums(&after));
            prop_assert_ne!(before.hash(), after_sums.hash());
            let difference = after_sums.difference(&before.strata());
            let named: Vec<u32> = after.keys().chain([&key]).copied().filter(|key| difference.fits(hash(*key)).is_some()).collect();
            prop_assert!(!named.is_empty() && named.iter().all(|named| *named == key));
        }
    }

    /// However many keys differ, some stratum mostly has one of them.
    #[test]
    fn one_of_many_keys_that_differ_is_mostly_named_and_never_a_wrong_one() {
        let mut named = 0;
        for round in 0..200u32 {
            let keys: Vec<u32> = (0..20_000).map(|key| round * 20_000 + key).collect();
            let value = |changed: bool| Some(vec![u8::from(changed)]);
            let (mut before, mut after) = (ChangeSums::default(), ChangeSums::default());
            for key in &keys {
                before.add(hash(*key), value(false).as_deref());
                after.add(hash(*key), value(key % 20 == 3).as_deref());
            }
            let difference = after.difference(&before.strata());
            let fitting: Vec<_> = keys.iter().filter(|key| difference.fits(hash(**key)).is_some()).collect();
            assert!(fitting.iter().all(|key| **key % 20 == 3));
            named += u32::from(!fitting.is_empty());
        }
        assert!(named > 150, "{named} of 200");
    }
}
