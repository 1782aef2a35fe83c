//! Text records: short ones live inline, longer ones are slices of the block they came in.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::record::words::Words;

/// Text of at most this many bytes is kept inline, without an allocation or a reference.
pub(super) const INLINE_BYTES_MAX: usize = 22;

/// Of 16 bytes as two little-endian integers, those that belong to a text of each length.
const HEAD_MASKS: [[u64; 2]; 17] = {
    let mut masks = [[0; 2]; 17];
    let mut len = 1;
    while len < masks.len() {
        let mask = u128::MAX >> (128 - 8 * len);
        masks[len] = [mask as u64, (mask >> 64) as u64];
        len += 1;
    }
    masks
};

/// A line or a word: any bytes, by convention UTF-8 but never refused for not being so.
///
/// Cheap to make, clone and send: up to 22 bytes live inline, longer text shares the received block
/// that it was cut from. A long `Text` kept for longer than its batch therefore keeps its whole block in
/// memory; [`Text::detach`] copies it out.
///
/// ```
/// use millpond::Text;
///
/// let line = Text::from("a rose is a rose");
/// let words: Vec<Text> = line.words().collect();
/// assert_eq!(words.len(), 5);
/// assert_eq!(words[1], "rose");
/// ```
#[derive(Clone)]
pub struct Text(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Shared { block: Arc<Vec<u8>>, start: u32, len: u32 },
}

impl Text {
    /// The bytes from `start` to `end` of `block`, shared unless they are short.
    ///
    /// # Panics
    /// When the range is not within the block or the block is larger than 4 GiB.
    #[inline(always)]
    pub(crate) fn slice_of(block: &Arc<Vec<u8>>, start: usize, end: usize) -> Self {
        match Text::inline(block, start, end) {
            Some(text) => text,
            None => Text::shared(block, start, end),
        }
    }

    /// Calls `with` on the same. Short and long text go through it in ways of their own: where ways meet, a text would have
    /// to go through memory.
    ///
    /// # Panics
    /// When the range is not within the block or the block is larger than 4 GiB.
    #[inline(always)]
    pub(crate) fn with_slice_of<R>(
        block: &Arc<Vec<u8>>,
        start: usize,
        end: usize,
        with: impl FnOnce(Text) -> R,
    ) -> R {
        match Text::near(block, start, end) {
            Some(near) => with(near),
            None if end - start > INLINE_BYTES_MAX => with(Text::shared(block, start, end)),
            None => with(Text::short(&block[start..end])),
        }
    }

    #[inline]
    fn shared(block: &Arc<Vec<u8>>, start: usize, end: usize) -> Self {
        assert!(start <= end && end <= block.len(), "slice of a block out of range");
        assert!(block.len() <= u32::MAX as usize, "a block is at most 4 GiB");
        Text(Repr::Shared { block: block.clone(), start: start as u32, len: (end - start) as u32 })
    }

    /// The bytes from `start` to `end` of `block` if they are short.
    #[inline(always)]
    fn inline(block: &[u8], start: usize, end: usize) -> Option<Self> {
        match Text::near(block, start, end) {
            None if end - start <= INLINE_BYTES_MAX => Some(Text::short(&block[start..end])),
            near => near,
        }
    }

    /// The same if the block has as many bytes behind `start` as are kept inline.
    #[inline(always)]
    pub(super) fn near(block: &[u8], start: usize, end: usize) -> Option<Self> {
        let near = block.get(start..)?.first_chunk::<INLINE_BYTES_MAX>()?;
        let len = end - start;
        if len > INLINE_BYTES_MAX {
            return None;
        }
        // As many as there is room for, because that many need no loop; what is after `len` is never looked at. In parts
        // that fit registers: on a detour through memory a load waits for the stores of its parts, which costs more than all
        // the rest.
        let (first, rest) = near.split_first_chunk::<8>()?;
        let (second, rest) = rest.split_first_chunk::<8>()?;
        let (third, rest) = rest.split_first_chunk::<4>()?;
        let mut bytes = [0; INLINE_BYTES_MAX];
        let (to_first, to_rest) = bytes.split_first_chunk_mut::<8>()?;
        let (to_second, to_rest) = to_rest.split_first_chunk_mut::<8>()?;
        let (to_third, to_rest) = to_rest.split_first_chunk_mut::<4>()?;
        (*to_first, *to_second, *to_third) = (*first, *second, *third);
        *to_rest.first_chunk_mut::<2>()? = *rest.first_chunk::<2>()?;
        Some(Text(Repr::Inline { len: len as u8, bytes }))
    }

    /// Of bytes that are known to be short.
    #[inline]
    fn short(bytes: &[u8]) -> Self {
        let mut inline = [0; INLINE_BYTES_MAX];
        inline[..bytes.len()].copy_from_slice(bytes);
        Text(Repr::Inline { len: bytes.len() as u8, bytes: inline })
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared { block, start, len } => &block[*start as usize..][..*len as usize],
        }
    }

    /// The number of bytes.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Repr::Inline { len, .. } => usize::from(*len),
            Repr::Shared { len, .. } => *len as usize,
        }
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text as a string slice, if it is UTF-8.
    ///
    /// # Errors
    /// Where the bytes stop being UTF-8.
    pub fn to_str(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(self.as_bytes())
    }

    /// The maximal runs of bytes other than ASCII whitespace (space, `\t`, `\n`, `\r`, `\x0b`, `\x0c`).
    /// Each is inline or a slice of the same block: nothing is allocated.
    #[inline]
    pub fn words(&self) -> Words<'_> {
        match &self.0 {
            Repr::Inline { len, bytes } => Words::of_inline(bytes, usize::from(*len)),
            Repr::Shared { block, start, len } => {
                Words::of_block(block, *start as usize, (*start + *len) as usize)
            }
        }
    }

    /// The part from `start` to `end`, sharing the block unless it is short.
    ///
    /// # Panics
    /// When the range is not within the text.
    #[inline]
    pub fn slice(&self, start: usize, end: usize) -> Self {
        assert!(end <= self.len(), "slice of text out of range");
        let (block, from, _) = self.place();
        self.cut(block, from + start, from + end)
    }

    /// The bytes that it is part of, and from where to where.
    #[inline]
    fn place(&self) -> (&[u8], usize, usize) {
        match &self.0 {
            Repr::Inline { len, bytes } => (bytes, 0, usize::from(*len)),
            Repr::Shared { block, start, len } => {
                let start = *start as usize;
                (block, start, start + *len as usize)
            }
        }
    }

    /// The first 16 bytes as two little-endian integers, filled up with zeros, and the length, if that is all.
    #[inline(always)]
    pub(super) fn head(&self) -> Option<([u64; 2], usize)> {
        let Repr::Inline { len, bytes } = &self.0 else { return None };
        let mask = HEAD_MASKS.get(usize::from(*len))?;
        let part = |at: usize| bytes[at..].first_chunk().map_or(0, |part| u64::from_le_bytes(*part));
        Some(([part(0) & mask[0], part(8) & mask[1]], usize::from(*len)))
    }

    /// What is from `start` to `end` of the bytes that it is part of.
    #[inline(always)]
    pub(super) fn cut(&self, block: &[u8], start: usize, end: usize) -> Self {
        match &self.0 {
            Repr::Shared { block, .. } => Text::slice_of(block, start, end),
            Repr::Inline { .. } => Text::short(&block[start..end]),
        }
    }

    /// The same text in memory of its own, so that it no longer keeps its block.
    #[must_use]
    pub fn detach(&self) -> Self {
        Text::from(self.as_bytes())
    }
}

impl From<&[u8]> for Text {
    fn from(bytes: &[u8]) -> Self {
        Text::inline(bytes, 0, bytes.len())
            .unwrap_or_else(|| Text::shared(&Arc::new(bytes.to_vec()), 0, bytes.len()))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Text::from(text.as_bytes())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Text::from(text.as_bytes())
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_three_words_wide() {
        assert_eq!(size_of::<Text>(), 24);
        assert_eq!(size_of::<Option<Text>>(), 24);
    }

    #[test]
    fn words_are_cut_at_the_six_ascii_spaces_only() {
        let line = Text::from("  one\ttwo\x0bthree\x0c\r\nfour\u{a0}five\u{2003}six\0seven ");
        let words: Vec<String> = line.words().map(|word| word.to_string()).collect();
        assert_eq!(words, ["one", "two", "three", "four\u{a0}five\u{2003}six\0seven"]);
        assert_eq!(Text::from(" \t ").words().count(), 0);
        assert_eq!(Text::from("").words().count(), 0);
    }

    #[test]
    fn long_text_shares_its_block_until_it_is_detached() {
        let block = Arc::new(b"0123456789012345678901234567890123456789".to_vec());
        let long = Text::slice_of(&block, 0, 30);
        let part = long.slice(2, 28);
        assert_eq!(Arc::strong_count(&block), 3);
        assert_eq!(part, "23456789012345678901234567");
        assert_eq!(long.slice(1, 4), "123");
        let own = part.detach();
        drop((long, part));
        assert_eq!(Arc::strong_count(&block), 1);
        assert_eq!(own.len(), 26);
    }
}
