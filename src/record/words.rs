//! The words of a text, found 64 bytes at a time.

use std::fmt;
use std::sync::Arc;

use crate::record::mask::{WINDOW_BYTES, mask_of};
use crate::record::text::{INLINE_BYTES_MAX, Text};

/// The words of a [`Text`], in order; see [`Text::words`].
#[derive(Clone)]
pub struct Words<'a> {
    /// What a long text is cut from. It may go on after the text, which saves copies of short rests.
    block: Option<&'a Arc<Vec<u8>>>,
    /// A short text, and spaces.
    own: [u8; WINDOW_BYTES],
    /// Where the window begins in either.
    window: usize,
    /// Where the text ends.
    end: usize,
    /// The bytes of the window that no word is left in: its lowest bit stands for its first byte.
    spaces: u64,
}

impl fmt::Debug for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl<'a> Words<'a> {
    /// Of a text that is `block` from `start` to `end`.
    #[inline]
    pub(super) fn of_block(block: &'a Arc<Vec<u8>>, start: usize, end: usize) -> Self {
        let spaces = spaces_from(block, start, end);
        Words { block: Some(block), own: [b' '; WINDOW_BYTES], window: start, end, spaces }
    }

    /// Of the first bytes, so many, of a text that is kept inline.
    #[inline]
    pub(super) fn of_inline(bytes: &[u8; INLINE_BYTES_MAX], len: usize) -> Self {
        let mut own = [b' '; WINDOW_BYTES];
        if let Some(room) = own.first_chunk_mut() {
            *room = *bytes;
        }
        Words { block: None, own, window: 0, end: len, spaces: spaces_of(&own) | u64::MAX << len }
    }
}

impl Words<'_> {
    /// Goes on to the next window, if the text does.
    #[inline]
    fn advance(&mut self) -> bool {
        if self.end - self.window <= WINDOW_BYTES {
            return false;
        }
        let Some(block) = self.block else { return false };
        self.window += WINDOW_BYTES;
        self.spaces = spaces_from(block, self.window, self.end);
        true
    }

    /// Where the next word is.
    #[inline]
    fn next_place(&mut self) -> Option<(usize, usize)> {
        while self.spaces == u64::MAX {
            if !self.advance() {
                return None;
            }
        }
        let first = self.spaces.trailing_ones();
        let start = self.window + first as usize;
        let mut after = self.spaces & (u64::MAX << first);
        while after == 0 {
            if !self.advance() {
                self.spaces = u64::MAX;
                return Some((start, self.end));
            }
            after = self.spaces;
        }
        let end = after.trailing_zeros();
        self.spaces |= (1 << end) - 1;
        Some((start, self.window + end as usize))
    }
}

impl Iterator for Words<'_> {
    type Item = Text;

    // Always: a text that is returned from a call goes through memory.
    #[inline(always)]
    fn next(&mut self) -> Option<Text> {
        let (start, end) = self.next_place()?;
        match self.block {
            Some(block) => Some(Text::slice_of(block, start, end)),
            None => Text::near(&self.own, start, end),
        }
    }

    // What `for_each` does: no option is made of a word, which would go through memory too.
    #[inline]
    fn fold<B, F: FnMut(B, Text) -> B>(mut self, init: B, mut each: F) -> B {
        let mut folded = init;
        if let Some(block) = self.block {
            while let Some((start, end)) = self.next_place() {
                folded = Text::with_slice_of(block, start, end, |word| each(folded, word));
            }
        } else {
            while let Some((start, end)) = self.next_place()
                && let Some(word) = Text::near(&self.own, start, end)
            {
                folded = each(folded, word);
            }
        }
        folded
    }
}

/// The spaces among the 64 bytes from `start` on, of which those from `end` on count as such.
#[inline]
fn spaces_from(block: &[u8], start: usize, end: usize) -> u64 {
    let left = end - start;
    let beyond = if left < WINDOW_BYTES { u64::MAX << left } else { 0 };
    let rest = block.get(start..).unwrap_or_default();
    match rest.first_chunk() {
        Some(window) => spaces_of(window) | beyond,
        None => spaces_of_rest(rest) | beyond,
    }
}

/// Of fewer bytes than a window has.
#[inline(never)]
fn spaces_of_rest(rest: &[u8]) -> u64 {
    let mut window = [b' '; WINDOW_BYTES];
    window[..rest.len()].copy_from_slice(rest);
    spaces_of(&window)
}

/// A bit for each byte: whether it is one of the six ASCII spaces.
#[inline]
fn spaces_of(window: &[u8; WINDOW_BYTES]) -> u64 {
    mask_of(window, is_space)
}

#[inline(always)]
fn is_space(byte: u8) -> bool {
    (byte == b' ') | (byte.wrapping_sub(b'\t') < 5)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn is_space(byte: &u8) -> bool {
        b" \t\n\x0b\x0c\r".contains(byte)
    }

    /// Spaces and what is next to them, and anything.
    fn bytes() -> impl Strategy<Value = u8> {
        prop_oneof![prop::sample::select(b" \t\r\x08\x0e\x1f!\x80\x89\xa0ab".to_vec()), any::<u8>()]
    }

    #[test]
    fn every_byte_is_classed_in_every_place() {
        for byte in 0..=u8::MAX {
            for (at, around) in (0..WINDOW_BYTES).flat_map(|at| [(at, b'x'), (at, b' '), (at, 0xff)]) {
                let mut window = [around; WINDOW_BYTES];
                window[at] = byte;
                let found = spaces_of(&window);
                let expected = (0..WINDOW_BYTES).filter(|at| is_space(&window[*at]));
                assert_eq!(found, expected.fold(0, |bits, at| bits | 1 << at), "{byte} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn words_are_what_is_between_spaces(
            block in vec(bytes(), 0..300),
            cuts in any::<(prop::sample::Index, prop::sample::Index)>(),
        ) {
            let (one, other) = (cuts.0.index(block.len() + 1), cuts.1.index(block.len() + 1));
            let (start, end) = (one.min(other), one.max(other));
            let block = Arc::new(block);
            let text = Text::slice_of(&block, start, end);
            let expected = block[start..end].split(is_space).filter(|word| !word.is_empty());
            let words: Vec<Text> = text.words().collect();
            let found: Vec<&[u8]> = words.iter().map(Text::as_bytes).collect();
            prop_assert_eq!(found, expected.collect::<Vec<_>>());
            let mut each = Vec::new();
            text.words().for_each(|word| each.push(word));
            prop_assert_eq!(each, &words[..]);
            prop_assert_eq!(text.words().skip(1).count(), words.len().saturating_sub(1));
        }
    }
}
