//! Bytes looked at together: a bit for each says what it is.

/// So many bytes have a bit each in a [`u64`].
pub(crate) const WINDOW_BYTES: usize = 64;

/// A bit for each of at most 64 bytes, eight by eight: whether it is one of those. The lowest is that of the first byte.
#[inline(always)]
pub(crate) fn mask_of<const BYTES: usize>(window: &[u8; BYTES], is_one: impl Fn(u8) -> bool) -> u64 {
    const { assert!(BYTES <= WINDOW_BYTES && BYTES.is_multiple_of(8)) };
    // Each in its own bit of a byte: a loop that the compiler does with vectors. Over numbers, because zipped iterators are
    // not inlined everywhere.
    let mut bits = [0; BYTES];
    for at in 0..BYTES {
        bits[at] = if is_one(window[at]) { 1 << (at % 8) } else { 0 };
    }
    let (eights, _) = bits.as_chunks();
    let mut mask = 0;
    for (at, eight) in eights.iter().enumerate() {
        // The highest byte of the product is the sum of all eight, which have no bit in common.
        mask |= (u64::from_le_bytes(*eight).wrapping_mul(0x0101_0101_0101_0101) >> 56) << (8 * at);
    }
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_byte_has_its_bit(window in any::<[u8; WINDOW_BYTES]>(), one in any::<u8>()) {
            let model = |bytes: &[u8]| (0..bytes.len()).filter(|at| bytes[*at] % 8 == one % 8).fold(0, |bits, at| bits | 1 << at);
            prop_assert_eq!(mask_of(&window, |byte| byte % 8 == one % 8), model(&window));
            let half: [u8; 32] = window[..32].try_into().unwrap();
            prop_assert_eq!(mask_of(&half, |byte| byte % 8 == one % 8), model(&half));
        }
    }
}
