//! Putting the keys of a group into the order of a segment: by hash, and by key where hashes are the same.

use crate::record::{KeyHash, without_group};

/// With fewer, sorting at once costs less than spreading first.
const SPREAD_MIN: usize = 128;

/// No more pieces than this, whose ends stay in the first-level cache.
const PIECES_MAX: usize = 1 << 12;

/// Pieces up to this size are put in order by moving what is out of place.
const INSERTED_MAX: usize = 16;

/// A key's hash beside what tells which key it is: looking hashes up while sorting would miss the cache every time.
pub(super) type Place<T> = (KeyHash, T);

/// Orders places by hash, and by `key` where hashes are the same. Hashes are even: one pass that spreads them over about half as
/// many pieces as there are places leaves little to do in each. Where they are not even it costs what sorting costs.
pub(super) fn in_order<'k, T: Copy>(places: Vec<Place<T>>, key: impl Fn(T) -> &'k [u8]) -> Vec<Place<T>> {
    let mut ordered = places;
    if ordered.len() < SPREAD_MIN {
        ordered.sort_unstable_by_key(|place| place.0);
    } else {
        let ends = spread(&mut ordered);
        let mut rest = ordered.as_mut_slice();
        let mut start = 0;
        for end in ends {
            let (piece, tail) = rest.split_at_mut(end as usize - start);
            sort_piece(piece);
            (rest, start) = (tail, end as usize);
        }
        if !ordered.is_sorted_by_key(|place| place.0) {
            // They are not of one key group.
            ordered.sort_unstable_by_key(|place| place.0);
        }
    }
    for same_hash in ordered.chunk_by_mut(|a, b| a.0 == b.0) {
        if same_hash.len() > 1 {
            same_hash.sort_unstable_by(|a, b| key(a.1).cmp(key(b.1)));
        }
    }
    ordered
}

#[inline]
fn sort_piece<T: Copy>(piece: &mut [Place<T>]) {
    if piece.len() > INSERTED_MAX {
        return piece.sort_unstable_by_key(|place| place.0);
    }
    for end in 1..piece.len() {
        let mut at = end;
        while at > 0 && piece[at - 1].0 > piece[at].0 {
            piece.swap(at - 1, at);
            at -= 1;
        }
    }
}

/// Orders places by the first bits of their hashes alone, those left out that are the number of the key group. Returns where
/// the places of each piece end.
fn spread<T: Copy>(places: &mut Vec<Place<T>>) -> Vec<u32> {
    let bits = (places.len() / 2).clamp(2, PIECES_MAX).ilog2();
    let piece = |place: &Place<T>| (without_group(place.0) >> (64 - bits)) as usize;
    let mut next = vec![0; 1 << bits];
    places.iter().for_each(|place| next[piece(place)] += 1);
    let mut start = 0;
    for next in &mut next {
        start += std::mem::replace(next, start);
    }
    let mut ordered = places.clone();
    for place in places.iter() {
        let at = &mut next[piece(place)];
        ordered[*at as usize] = *place;
        *at += 1;
    }
    *places = ordered;
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Hashes of few values meet often; those of one first byte stay in one piece. Mostly all are of one key group.
        #[test]
        fn it_orders_as_a_sort_does(
            keys in prop::collection::vec(("[a-c]{0,3}", prop_oneof![any::<u64>(), 0u64..5, 7u64 << 56..(7u64 << 56) + 999]), 0..400),
            group in prop::option::weighted(0.8, any::<u8>()),
        ) {
            let of_group = |hash: u64| group.map_or(hash, |group| hash & !(0xff << 48) | u64::from(group) << 48);
            let keys: Vec<_> = keys.into_iter().map(|(key, hash)| (key, of_group(hash))).collect();
            let places = (0..).zip(&keys).map(|(at, (_, hash))| (*hash, at)).collect();
            let ordered = in_order(places, |at: usize| keys[at].0.as_bytes());
            let found: Vec<_> = ordered.iter().map(|(hash, at)| (*hash, &keys[*at].0)).collect();
            let mut expected: Vec<_> = keys.iter().map(|(key, hash)| (*hash, key)).collect();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
