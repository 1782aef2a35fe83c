//! Cutting text into words, by masks of whitespace instead of byte by byte.

use crate::record::text::Text;

/// So many bytes are looked at together.
pub(super) const WINDOW: usize = 32;

/// The words of a [`Text`], in order; see [`Text::words`].
#[derive(Clone, Debug)]
pub struct Words<'a> {
    text: &'a Text,
    /// Where the window begins.
    window: usize,
    /// A bit for each byte of the window, lowest first: whether it is whitespace, taken, or behind the end.
    spaces: u32,
}

impl<'a> Words<'a> {
    #[inline]
    pub(super) fn of(text: &'a Text) -> Self {
        Words { text, window: 0, spaces: spaces_at(text, 0) }
    }
}

impl Iterator for Words<'_> {
    type Item = Text;

    #[inline]
    fn next(&mut self) -> Option<Text> {
        while self.spaces == u32::MAX {
            if self.window + WINDOW >= self.text.len() {
                return None;
            }
            self.window += WINDOW;
            self.spaces = spaces_at(self.text, self.window);
        }
        let first = (!self.spaces).trailing_zeros();
        let start = self.window + first as usize;
        let mut behind = self.spaces & u32::MAX << first;
        while behind == 0 {
            // The word goes on in the next window. One behind the end is all spaces.
            self.window += WINDOW;
            self.spaces = spaces_at(self.text, self.window);
            behind = self.spaces;
        }
        let end = behind.trailing_zeros();
        self.spaces |= (1 << end) - 1;
        Some(self.text.slice(start, self.window + end as usize))
    }
}

/// The bits of the window that begins at `at`.
#[inline]
fn spaces_at(text: &Text, at: usize) -> u32 {
    let length = text.len().saturating_sub(at);
    let behind_end = u32::MAX.checked_shl(length as u32).unwrap_or(0);
    if length == 0 { behind_end } else { whitespace(&text.window(at)) | behind_end }
}

/// A one in each of eight bytes.
const ONES: u64 = 0x0101_0101_0101_0101;

/// A bit for each byte that is ASCII whitespace: 32, or 9 to 13.
#[inline]
fn whitespace(bytes: &[u8; WINDOW]) -> u32 {
    let (eights, _) = bytes.as_chunks::<8>();
    eights.iter().rev().fold(0, |mask, eight| mask << 8 | whitespace_of_eight(u64::from_le_bytes(*eight)))
}

/// The same for eight bytes, all at once: sums of seven bits each leave what was compared in the eighth.
#[inline]
fn whitespace_of_eight(bytes: u64) -> u32 {
    let low = bytes & (0x7f * ONES);
    let not_32 = (low ^ (32 * ONES)) + 0x7f * ONES;
    let from_9 = low + (128 - 9) * ONES;
    let from_14 = low + (128 - 14) * ONES;
    let spaces = (!not_32 | (from_9 & !from_14)) & !bytes & (0x80 * ONES);
    // Shifts the eighth bit of each byte to a place of its own in the uppermost byte, and adds them up.
    (spaces.wrapping_mul(0x0002_0408_1020_4081) >> 56) as u32
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use proptest::prelude::*;

    fn is_space(byte: u8) -> bool {
        matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
    }

    #[test]
    fn each_byte_is_judged_in_each_place() {
        for byte in 0..=u8::MAX {
            for place in 0..WINDOW {
                let mut bytes = [b'x'; WINDOW];
                bytes[place] = byte;
                assert_eq!(whitespace(&bytes), u32::from(is_space(byte)) << place);
            }
        }
    }

    proptest! {
        /// Of short and long texts, within a block and at its end.
        #[test]
        fn words_are_what_is_between_whitespace(
            before in 0usize..40,
            bytes in prop::collection::vec(prop_oneof![4 => Just(b'w'), 2 => Just(b' '), 1 => any::<u8>()], 0..150),
            after in 0usize..40,
        ) {
            let block = [&vec![b'b'; before][..], &bytes, &vec![b'a'; after]].concat();
            let text = Text::slice_of(&Arc::new(block), before, before + bytes.len());
            let words: Vec<Vec<u8>> = text.words().map(|word| word.as_bytes().to_vec()).collect();
            let between = bytes.split(|byte| is_space(*byte)).filter(|word| !word.is_empty());
            prop_assert_eq!(words, between.map(<[u8]>::to_vec).collect::<Vec<_>>());
        }
    }
}
