//! Where in a table each key is, by its hash: open addressing with linear probing, in slots that lie in the order of their tags.
//!
//! A slot has the tag beside the key's number, so that a lookup has one place to wait for before the row itself, and several
//! lookups can wait for theirs together. Their order lets a table that grows move them from the first to the last, without a look
//! at the keys. It is not the order of the hashes, because in that one keys often come: they would crowd together in one
//! place of a table that grows.
//!
//! A tag is the upper half of the hash times an odd number that each process draws: a universal family (Dietzfelbinger, Hagerup,
//! Katajainen and Penttonen, "A Reliable Randomized Algorithm for the Closest-Pair Problem", 1997), so that nobody can choose keys
//! that share their tags. The order of slots is never seen outside.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use crate::record::KeyHash;

/// What hashes are multiplied with in this process.
static FACTOR: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0) | 1);

/// So many slots at least, once there is a key.
const SLOTS_MIN: usize = 16;

/// Every fourth slot is empty at least.
const fn keys_max(slots: usize) -> usize {
    slots / 4 * 3
}

/// A tag beside a number plus one; 0 is for none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot {
    tag: u32,
    number: u32,
}

/// Numbers by hash. What has the same hash is told apart by who asks.
#[derive(Debug)]
pub(super) struct Index {
    slots: Vec<Slot>,
    len: usize,
    factor: u64,
}

impl Default for Index {
    fn default() -> Self {
        Index { slots: Vec::new(), len: 0, factor: *FACTOR }
    }
}

impl Index {
    #[inline]
    fn tag_of(&self, hash: KeyHash) -> u32 {
        (hash.wrapping_mul(self.factor) >> 32) as u32
    }

    /// Where the search for a tag begins.
    #[inline]
    fn home(&self, tag: u32) -> usize {
        ((u64::from(tag) * self.slots.len() as u64) >> 32) as usize
    }

    /// The number of what has this tag and is it, or the slot where it would be.
    #[inline]
    fn search(&self, tag: u32, is_it: impl Fn(u32) -> bool) -> Result<u32, usize> {
        let mut at = self.home(tag);
        loop {
            match self.slots.get(at) {
                Some(Slot { number: 0, .. }) => return Err(at),
                Some(slot) if slot.tag == tag && is_it(slot.number - 1) => return Ok(slot.number - 1),
                Some(_) => at += 1,
                None if self.slots.is_empty() => return Err(0),
                None => at = 0,
            }
        }
    }

    #[inline]
    pub(super) fn find(&self, hash: KeyHash, is_it: impl Fn(u32) -> bool) -> Option<u32> {
        self.search(self.tag_of(hash), is_it).ok()
    }

    /// A number that may be the one of what has this hash, from the first place where it may be: to look at what
    /// is likely needed soon.
    #[inline]
    pub(super) fn guess(&self, hash: KeyHash) -> Option<u32> {
        self.slots.get(self.home(self.tag_of(hash))).and_then(|slot| slot.number.checked_sub(1))
    }

    /// Looks at the first places of these, so that the memory that is far away is waited for together.
    pub(super) fn look_ahead(&self, hashes: impl Iterator<Item = KeyHash>) {
        std::hint::black_box(hashes.filter_map(|hash| self.guess(hash)).fold(0, |seen, at| seen ^ at));
    }

    /// The number of what has this hash and is it; otherwise it gets the next one, as many as there are.
    #[inline]
    pub(super) fn find_or_insert(&mut self, hash: KeyHash, is_it: impl Fn(u32) -> bool) -> (u32, bool) {
        let tag = self.tag_of(hash);
        let mut place = match self.search(tag, &is_it) {
            Ok(number) => return (number, false),
            Err(place) => place,
        };
        if self.len == keys_max(self.slots.len()) {
            self.grow();
            place = self.vacancy(tag);
        }
        let number = self.len as u32;
        self.slots[place] = Slot { tag, number: number + 1 };
        self.len += 1;
        (number, true)
    }

    #[cold]
    fn grow(&mut self) {
        self.reserve((self.len / 3).max(1));
    }

    /// The slot for something new.
    #[inline]
    fn vacancy(&self, tag: u32) -> usize {
        let mut at = self.home(tag);
        while self.slots[at].number != 0 {
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        at
    }

    /// Makes room for `more` numbers. Slots move about in their order, so that this costs little; in a run of taken slots they
    /// are in the order in which they came, so that each looks for its place.
    pub(super) fn reserve(&mut self, more: usize) {
        let keys = self.len + more;
        if keys <= keys_max(self.slots.len()) {
            return;
        }
        let slots = (keys.div_ceil(3) * 4).max(SLOTS_MIN);
        let before = std::mem::replace(&mut self.slots, vec![Slot::default(); slots]);
        for slot in before.into_iter().filter(|slot| slot.number != 0) {
            let place = self.vacancy(slot.tag);
            self.slots[place] = slot;
        }
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::hash_of;
    use proptest::prelude::*;

    /// Hashes that meet in all their bits or in the halves that slots have, from either end of the range.
    fn hash() -> impl Strategy<Value = KeyHash> {
        prop_oneof![
            any::<u64>(),
            0..4_u64,
            (0..4_u64).prop_map(|hash| !hash),
            (0..9_u64).prop_map(|hash| hash << 24 | 1),
            (0..9_u64).prop_map(|hash| !(hash << 48))
        ]
    }

    proptest! {
        #[test]
        fn it_numbers_what_is_new_and_finds_all_again(keys in prop::collection::vec((hash(), 0..3_u8), 0..300), reserved in 0..400_usize) {
            let mut index = Index::default();
            let mut known: Vec<(KeyHash, u8)> = Vec::new();
            index.reserve(reserved);
            for key in &keys {
                let (number, new) = index.find_or_insert(key.0, |at| known[at as usize] == *key);
                let before = known.iter().position(|other| other == key);
                prop_assert_eq!((number as usize, new), (before.unwrap_or(known.len()), before.is_none()));
                if new {
                    known.push(*key);
                }
            }
            for (at, key) in known.iter().enumerate() {
                prop_assert_eq!(index.find(key.0, |at| known[at as usize] == *key), Some(at as u32));
            }
            prop_assert_eq!(index.find(7, |at| known[at as usize] == (7, 9)), None);
        }
    }

    #[test]
    fn keys_that_come_in_the_order_of_their_hashes_do_not_crowd_together() {
        let mut hashes: Vec<_> = (0..50_000_u64).map(|key| hash_of(&key.to_be_bytes())).collect();
        for in_order in [false, true] {
            if in_order {
                hashes.sort_unstable();
            }
            let mut index = Index::default();
            for hash in &hashes {
                index.find_or_insert(*hash, |_| false);
            }
            let away = |(at, slot): (usize, &Slot)| {
                let steps = (at + index.slots.len() - index.home(slot.tag)) % index.slots.len();
                (slot.number != 0).then_some(steps)
            };
            let steps: Vec<_> = index.slots.iter().enumerate().filter_map(away).collect();
            assert!(
                steps.iter().sum::<usize>() < 2 * steps.len(),
                "{} for {}",
                steps.iter().sum::<usize>(),
                steps.len()
            );
        }
    }
}
