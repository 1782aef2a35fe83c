//! Putting the keys of a group into the order of a segment: by hash, and by key where hashes are the same.

use crate::record::KeyHash;

/// With fewer, sorting at once costs less than spreading first.
const SPREAD_MIN: usize = 128;

/// A key's hash beside what tells which key it is: looking hashes up while sorting would miss the cache every time.
pub(super) type Place<T> = (KeyHash, T);

/// Orders places by hash, and by `key` where hashes are the same. Hashes are even: one pass over their first byte leaves
/// pieces so small that sorting each costs little. Where they are not even it costs what sorting costs.
pub(super) fn in_order<'k, T: Copy>(places: Vec<Place<T>>, key: impl Fn(T) -> &'k [u8]) -> Vec<Place<T>> {
    let mut ordered = places;
    if ordered.len() < SPREAD_MIN {
        ordered.sort_unstable_by_key(|place| place.0);
    } else {
        let ends = spread(&mut ordered);
        let mut rest = ordered.as_mut_slice();
        let mut start = 0;
        for end in ends {
            let (piece, tail) = rest.split_at_mut(end - start);
            piece.sort_unstable_by_key(|place| place.0);
            (rest, start) = (tail, end);
        }
    }
    for same_hash in ordered.chunk_by_mut(|a, b| a.0 == b.0) {
        same_hash.sort_unstable_by(|a, b| key(a.1).cmp(key(b.1)));
    }
    ordered
}

/// Orders places by the first byte of their hashes alone. Returns where the places of each byte end.
fn spread<T: Copy>(places: &mut Vec<Place<T>>) -> [usize; 256] {
    let byte = |place: &Place<T>| (place.0 >> 56) as usize;
    let mut next = [0; 256];
    places.iter().for_each(|place| next[byte(place)] += 1);
    let mut start = 0;
    for next in &mut next {
        start += std::mem::replace(next, start);
    }
    let mut ordered = places.clone();
    for place in places.iter() {
        let at = &mut next[byte(place)];
        ordered[*at] = *place;
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
        /// Hashes of few values meet often; those of one first byte stay in one piece.
        #[test]
        fn it_orders_as_a_sort_does(
            keys in prop::collection::vec(("[a-c]{0,3}", prop_oneof![any::<u64>(), 0u64..5, 7u64 << 56..(7u64 << 56) + 999]), 0..400),
        ) {
            let places = (0..).zip(&keys).map(|(at, (_, hash))| (*hash, at)).collect();
            let ordered = in_order(places, |at: usize| keys[at].0.as_bytes());
            let found: Vec<_> = ordered.iter().map(|(hash, at)| (*hash, &keys[*at].0)).collect();
            let mut expected: Vec<_> = keys.iter().map(|(key, hash)| (*hash, key)).collect();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}
