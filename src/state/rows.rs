//! The keys of a table with their values: one row for each, so that who looks a key up meets its hash, the key and the
//! value in one place of memory.
//!
//! Rows are in chunks of the same size: nothing is moved when a table grows, and the allocator can use what one table lets go
//! of for another.

use crate::record::KeyHash;
use crate::record::growth::{append_bytes, extend};

/// Rows in a chunk.
const CHUNK_ROWS: usize = 512;

/// Up to so many rows a table doubles.
const DOUBLED_ROWS: usize = 128;

/// Wider keys and values are not in their row: values because a key without one would take too much.
const WIDTH_MAX: usize = 64;

/// Replaced values take at most this much, or as much as there are others, until the next checkpoint.
const GARBAGE_MIN: usize = 1 << 20;

const HASH_BYTES: usize = size_of::<KeyHash>();

/// What a row has of a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cell {
    /// All of it: everyone is of this width.
    Inline(usize),
    /// Where it is: the end of a key, which begins where the one before ends; offset and length of a value.
    Placed,
}

impl Default for Cell {
    fn default() -> Self {
        Cell::Inline(0)
    }
}

impl Cell {
    fn for_width(width: usize) -> Self {
        if width <= WIDTH_MAX { Cell::Inline(width) } else { Cell::Placed }
    }

    #[inline]
    fn takes(self, width: usize) -> bool {
        self == Cell::Placed || self == Cell::Inline(width)
    }

    fn width_or(self, placed: usize) -> usize {
        match self {
            Cell::Inline(width) => width,
            Cell::Placed => placed,
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Layout {
    key: Cell,
    value: Cell,
    /// Where the value's cell begins in a row.
    value_at: usize,
    /// Bytes of a row.
    bytes: usize,
}

impl Layout {
    fn new(key: Cell, value: Cell) -> Self {
        let value_at = HASH_BYTES + key.width_or(size_of::<u32>());
        Layout { key, value, value_at, bytes: value_at + value.width_or(size_of::<Slot>()) }
    }
}

impl Default for Layout {
    fn default() -> Self {
        Layout::new(Cell::default(), Cell::default())
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    offset: u32,
    length: u32,
}

impl Slot {
    #[inline]
    fn read(cell: &[u8]) -> Self {
        Slot { offset: read_u32(cell), length: read_u32(&cell[size_of::<u32>()..]) }
    }

    #[inline]
    fn write(self, cell: &mut [u8]) {
        let (offset, length) = cell.split_at_mut(size_of::<u32>());
        offset.copy_from_slice(&self.offset.to_le_bytes());
        length.copy_from_slice(&self.length.to_le_bytes());
    }

    fn range(self) -> std::ops::Range<usize> {
        self.offset as usize..self.offset as usize + self.length as usize
    }
}

#[inline]
fn read_u32(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// Keys are numbered in the order in which they came. Which of them have a value is for the caller to know: it asks for
/// no others.
#[derive(Debug, Default)]
pub(super) struct Rows {
    layout: Layout,
    chunks: Vec<Vec<u8>>,
    len: usize,
    /// Some key has had a value: how wide values are is decided.
    has_values: bool,
    /// Keys that are not in their rows.
    keys: Vec<u8>,
    /// Values that are not in their rows.
    values: Vec<u8>,
    /// Bytes of values that no row refers to.
    garbage: usize,
}

impl Rows {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn row(&self, at: usize) -> &[u8] {
        let bytes = self.layout.bytes;
        &self.chunks[at / CHUNK_ROWS][at % CHUNK_ROWS * bytes..][..bytes]
    }

    /// The part of a row that is the value, or says where it is.
    #[inline]
    fn value_cell(&mut self, at: usize) -> &mut [u8] {
        let Layout { value_at, bytes, .. } = self.layout;
        &mut self.chunks[at / CHUNK_ROWS][at % CHUNK_ROWS * bytes..][value_at..bytes]
    }

    #[inline]
    pub(super) fn hash(&self, at: usize) -> KeyHash {
        hash_in(self.row(at))
    }

    #[inline]
    pub(super) fn key(&self, at: usize) -> &[u8] {
        self.key_in(self.row(at), at)
    }

    #[inline]
    fn key_in<'a>(&'a self, row: &'a [u8], at: usize) -> &'a [u8] {
        match self.layout.key {
            Cell::Inline(_) => &row[HASH_BYTES..self.layout.value_at],
            Cell::Placed => {
                let end_in = |row: &[u8]| read_u32(&row[HASH_BYTES..]) as usize;
                let start = at.checked_sub(1).map_or(0, |before| end_in(self.row(before)));
                &self.keys[start..end_in(row)]
            }
        }
    }

    /// Whether this is the number of `key`.
    #[inline]
    pub(super) fn is(&self, at: usize, hash: KeyHash, key: &[u8]) -> bool {
        let row = self.row(at);
        if hash_in(row) != hash {
            return false;
        }
        let found = self.key_in(row, at);
        // Eight bytes, what most numbers take, need no call.
        match (<&[u8; 8]>::try_from(found), <&[u8; 8]>::try_from(key)) {
            (Ok(found), Ok(key)) => found == key,
            _ => found == key,
        }
    }

    #[inline]
    pub(super) fn value(&self, at: usize) -> &[u8] {
        let cell = &self.row(at)[self.layout.value_at..];
        match self.layout.value {
            Cell::Inline(_) => cell,
            Cell::Placed => &self.values[Slot::read(cell).range()],
        }
    }

    /// Appends a key without a value.
    ///
    /// # Panics
    /// When the table would outgrow 2^32 keys or 4 GiB of key bytes.
    #[inline]
    pub(super) fn push(&mut self, hash: KeyHash, key: &[u8]) {
        if !self.layout.key.takes(key.len()) {
            self.make_room_for_key(key.len());
        }
        let value_bytes = self.layout.bytes - self.layout.value_at;
        let chunk = self.begin_row(hash, key);
        chunk.resize(chunk.len() + value_bytes, 0);
    }

    /// Whether a row has room for this key and its value.
    #[inline]
    pub(super) fn takes(&self, key: &[u8], value: &[u8]) -> bool {
        self.has_values && self.layout.key.takes(key.len()) && self.layout.value == Cell::Inline(value.len())
    }

    /// Appends a key with its value, for which a row has room.
    ///
    /// # Panics
    /// As [`push`](Self::push).
    #[inline]
    pub(super) fn push_whole(&mut self, hash: KeyHash, key: &[u8], value: &[u8]) {
        debug_assert!(self.takes(key, value), "there is no room for it in a row");
        append_bytes(self.begin_row(hash, key), value);
    }

    /// Appends a row up to its value, which has to follow.
    #[inline]
    fn begin_row(&mut self, hash: KeyHash, key: &[u8]) -> &mut Vec<u8> {
        assert!(self.len < u32::MAX as usize, "a key group holds at most 2^32 keys");
        let chunk = chunk_with_room(&mut self.chunks, self.len, self.layout.bytes);
        append_bytes(chunk, &hash.to_le_bytes());
        match self.layout.key {
            Cell::Inline(_) => append_bytes(chunk, key),
            Cell::Placed => {
                extend(&mut self.keys, key);
                assert!(self.keys.len() <= u32::MAX as usize, "the keys of a key group take more than 4 GiB");
                chunk.extend_from_slice(&(self.keys.len() as u32).to_le_bytes());
            }
        }
        self.len += 1;
        chunk
    }

    /// The first key decides how wide keys are, one of another width that they are not in their rows.
    #[cold]
    fn make_room_for_key(&mut self, width: usize) {
        let cell = if self.len == 0 { Cell::for_width(width) } else { Cell::Placed };
        self.lay_out(Layout::new(cell, self.layout.value), |_| true);
    }

    /// Copies all rows to others of this layout, with the values of the keys that have one.
    fn lay_out(&mut self, layout: Layout, has_value: impl Fn(usize) -> bool) {
        let before = std::mem::take(self);
        (self.layout, self.has_values) = (layout, before.has_values);
        for at in 0..before.len {
            self.push(before.hash(at), before.key(at));
            if !has_value(at) {
                continue;
            }
            match (before.layout.value, layout.value) {
                (Cell::Inline(_), Cell::Placed) => self.append(at, before.value(at)),
                _ => {
                    let cell = &before.row(at)[before.layout.value_at..];
                    self.value_cell(at).copy_from_slice(cell);
                }
            }
        }
        if before.layout.value == Cell::Placed {
            (self.values, self.garbage) = (before.values, before.garbage);
        }
    }

    /// Overwrites a value where it is, if the new one is as long.
    #[inline]
    pub(super) fn replace(&mut self, at: usize, value: &[u8]) -> bool {
        let placed = self.layout.value == Cell::Placed;
        let mut room = self.value_cell(at);
        if placed {
            let slot = Slot::read(room).range();
            room = &mut self.values[slot];
        }
        let same = room.len() == value.len();
        if same {
            match (<&mut [u8; 8]>::try_from(&mut *room), <&[u8; 8]>::try_from(value)) {
                (Ok(room), Ok(value)) => *room = *value,
                _ => room.copy_from_slice(value),
            }
        }
        same
    }

    /// Sets the value of a key that has none; `has_value` says which others have one.
    pub(super) fn set(&mut self, at: usize, value: &[u8], has_value: impl Fn(usize) -> bool) {
        if !self.layout.value.takes(value.len()) {
            let cell = if self.has_values { Cell::Placed } else { Cell::for_width(value.len()) };
            self.lay_out(Layout::new(self.layout.key, cell), has_value);
        }
        self.has_values = true;
        match self.layout.value {
            Cell::Inline(_) => self.value_cell(at).copy_from_slice(value),
            Cell::Placed => self.append(at, value),
        }
    }

    /// Forgets the value of a key.
    pub(super) fn clear(&mut self, at: usize) {
        if self.layout.value == Cell::Placed {
            let cell = self.value_cell(at);
            let length = Slot::read(cell).length;
            Slot::default().write(cell);
            self.garbage += length as usize;
        }
    }

    /// # Panics
    /// When the values of one key group outgrow 4 GiB.
    fn append(&mut self, at: usize, value: &[u8]) {
        if self.garbage > GARBAGE_MIN && self.garbage > self.values.len() / 2 {
            self.squeeze();
        }
        let fits = self.values.len() + value.len() < u32::MAX as usize;
        assert!(fits, "the values of one key group take more than 4 GiB (256 groups share the keys)");
        let slot = Slot { offset: self.values.len() as u32, length: value.len() as u32 };
        extend(&mut self.values, value);
        slot.write(self.value_cell(at));
    }

    /// Lets go of replaced values.
    fn squeeze(&mut self) {
        let mut values = Vec::with_capacity(self.values.len() - self.garbage);
        for at in 0..self.len {
            let slot = Slot::read(self.value_cell(at));
            let offset = values.len() as u32;
            values.extend_from_slice(&self.values[slot.range()]);
            Slot { offset, ..slot }.write(self.value_cell(at));
        }
        (self.values, self.garbage) = (values, 0);
    }

    /// Whether replaced values take up a good part.
    pub(super) fn is_sparse(&self) -> bool {
        self.garbage > 4096 + self.values.len() / 2
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        let chunks = match &self.chunks[..] {
            [full @ .., last] => full.len() * CHUNK_ROWS * self.layout.bytes + last.capacity(),
            [] => 0,
        };
        chunks + self.chunks.capacity() * size_of::<Vec<u8>>() + self.keys.capacity() + self.values.capacity()
    }
}

#[inline]
fn hash_in(row: &[u8]) -> KeyHash {
    row.first_chunk().map_or(0, |bytes| KeyHash::from_le_bytes(*bytes))
}

/// The chunk that takes row `at`, the next one, with room for it.
#[inline]
fn chunk_with_room(chunks: &mut Vec<Vec<u8>>, at: usize, row_bytes: usize) -> &mut Vec<u8> {
    if at.is_multiple_of(CHUNK_ROWS) {
        chunks.push(Vec::new());
    }
    let chunk = &mut chunks[at / CHUNK_ROWS];
    if chunk.capacity() - chunk.len() < row_bytes {
        let left = CHUNK_ROWS - at % CHUNK_ROWS;
        // In a small table at most a quarter is to spare, too.
        let more = if at < DOUBLED_ROWS { at.max(4) } else { at / 4 };
        chunk.reserve_exact(more.min(left) * row_bytes);
    }
    chunk
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Widths of keys and values in the order in which they come.
    fn widths() -> impl Strategy<Value = Vec<(usize, usize)>> {
        let one =
            (0..80_usize, 0..80_usize, 1..1200_usize).prop_map(|(key, value, rows)| vec![(key, value); rows]);
        (one, prop::collection::vec((0..80_usize, 0..80_usize), 0..20))
            .prop_map(|(one, many)| [one, many].concat())
    }

    fn bytes(number: usize, width: usize) -> Vec<u8> {
        (0..width).map(|at| (number * 31 + at) as u8).collect()
    }

    proptest! {
        #![proptest_config(crate::cases::cases(64))]
        /// Whatever comes at first, and whichever keys have a value when it does not fit any more.
        #[test]
        fn rows_give_back_what_they_were_given(widths in widths(), valueless in 1..5_usize) {
            let mut rows = Rows::default();
            let has_value = |at: usize| at.is_multiple_of(valueless);
            for (at, (key, value)) in widths.iter().enumerate() {
                rows.push(at as u64 * 7, &bytes(at, *key));
                if has_value(at) {
                    rows.set(at, &bytes(at + 1, *value), |other| other < at && has_value(other));
                }
            }
            for (at, (key, value)) in widths.iter().enumerate() {
                let key = bytes(at, *key);
                prop_assert!(rows.is(at, at as u64 * 7, &key) && !rows.is(at, 1, &key) && !rows.is(at, at as u64 * 7, &[0; 99]));
                prop_assert_eq!((rows.hash(at), rows.key(at)), (at as u64 * 7, &key[..]));
                if has_value(at) {
                    prop_assert_eq!(rows.value(at), bytes(at + 1, *value));
                    prop_assert!(rows.replace(at, &bytes(at + 2, *value)));
                    prop_assert!(!rows.replace(at, &bytes(at, *value + 1)));
                    prop_assert_eq!(rows.value(at), bytes(at + 2, *value));
                }
            }
        }
    }

    #[test]
    fn a_table_takes_little_more_than_its_rows() {
        let mut rows = Rows::default();
        for key in 0..100_000_u64 {
            rows.push(key, &key.to_le_bytes());
            rows.set(key as usize, &key.to_be_bytes(), |_| key > 0);
            let (used, most) = (24 * (key as usize + 1), rows.memory_bytes());
            assert!(
                most <= 256 + (2 * used).min(used + used / 50 + 24 * CHUNK_ROWS),
                "{most} bytes for {used}"
            );
        }
    }
}
