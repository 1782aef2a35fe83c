//! The payload of a filter: which keys a part of a segment may hold, told by their hashes.
//!
//! A split block Bloom filter, as Apache Parquet has it: each hash belongs to one block of eight words and sets a bit in
//! each of them, so that a look costs one line of the cache. A key that is there is always found; of those that are
//! not about one in a hundred seems to be.

use crate::error::{Error, Result};

const FILTER_BLOCK_BYTES: usize = 32;

/// A filter has a block for each so many entries, and one for the rest.
const ENTRIES_PER_BLOCK: usize = 24;

/// The odd multipliers that choose a bit of each word.
const SALTS: [u32; 8] =
    [0x47b6_137b, 0x4497_4d91, 0x8824_ad5b, 0xa2b7_289d, 0x7054_95c7, 0x2df1_424b, 0x9efc_4947, 0x5c6b_fb31];

/// The block of a hash: of its low half, because all hashes of a key group share bits of the high one.
#[inline]
fn block_of(hash: u64, blocks: usize) -> usize {
    (((hash & u64::from(u32::MAX)) * blocks as u64) >> 32) as usize
}

/// The number of a hash's bit in the word of its block that goes with `salt`.
#[inline]
fn bit_of(hash: u64, salt: u32) -> u32 {
    ((hash >> 32) as u32).wrapping_mul(salt) >> 27
}

/// The filter of entries with these hashes.
pub(crate) fn filter_of(hashes: &[u64]) -> Vec<u8> {
    let mut blocks = vec![[0_u32; 8]; hashes.len().div_ceil(ENTRIES_PER_BLOCK)];
    let count = blocks.len();
    for hash in hashes {
        for (word, salt) in blocks[block_of(*hash, count)].iter_mut().zip(&SALTS) {
            *word |= 1 << bit_of(*hash, *salt);
        }
    }
    let mut bytes = Vec::with_capacity(count * FILTER_BLOCK_BYTES);
    for word in blocks.as_flattened() {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// A filter whose frame was checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filter<'a> {
    blocks: &'a [[u8; FILTER_BLOCK_BYTES]],
}

impl<'a> Filter<'a> {
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is not made of whole blocks, at least one.
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self> {
        match payload.as_chunks() {
            (blocks @ [_, ..], []) => Ok(Filter { blocks }),
            _ => Err(Error::corrupt(format!("a filter cannot have {} bytes", payload.len()))),
        }
    }

    /// Whether there may be an entry with this hash; if not, there is none.
    #[inline]
    pub(crate) fn may_hold(&self, hash: u64) -> bool {
        let (words, _) = self.blocks[block_of(hash, self.blocks.len())].as_chunks::<4>();
        let mut all = 1;
        // All bits are looked at: of the keys of a part, which are asked for most, all are set.
        for (at, salt) in SALTS.iter().enumerate() {
            all &= u32::from_le_bytes(words[at]) >> bit_of(hash, *salt);
        }
        all == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::hash_of;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_there_is_always_found(hashes in prop::collection::vec(any::<u64>(), 1..2_000)) {
            let bytes = filter_of(&hashes);
            let filter = Filter::parse(&bytes).unwrap();
            prop_assert!(hashes.iter().all(|hash| filter.may_hold(*hash)));
        }

        #[test]
        fn arbitrary_bytes_are_a_filter_or_refused(bytes in any::<Vec<u8>>(), hash in any::<u64>()) {
            match Filter::parse(&bytes) {
                Ok(filter) => drop(filter.may_hold(hash)),
                Err(error) => prop_assert_eq!(error.kind(), crate::ErrorKind::Corrupt),
            }
        }
    }

    /// Also for the keys of one key group, whose hashes have eight bits in common.
    #[test]
    fn few_that_are_not_there_seem_to_be() {
        for entries in [100, 400, 4_000, 100_000] {
            let hashes = |from: u64| {
                let hashes = (from..).map(|key| hash_of(&key.to_be_bytes()));
                hashes.map(|hash| hash & !(0xff << 48) | 7 << 48)
            };
            let held: Vec<u64> = hashes(0).take(entries).collect();
            let bytes = filter_of(&held);
            let filter = Filter::parse(&bytes).unwrap();
            let wrong = hashes(1 << 32).take(20_000).filter(|hash| filter.may_hold(*hash)).count();
            assert!(wrong < 400, "{wrong} of 20,000 beside {entries}");
        }
    }
}
