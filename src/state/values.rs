//! The values of numbered keys: side by side as long as all are of one small width, in slots otherwise.

use crate::record::growth::{append_bytes, extend, make_room, push};

/// Replaced values take at most this much, or as much as there are others, until the next checkpoint.
const GARBAGE_MIN: usize = 1 << 20;

/// Wider values get slots: a key without a value would take too much.
const WIDTH_MAX: usize = 64;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    offset: u32,
    length: u32,
}

/// Which keys have a value is for the caller to know: it asks for no others.
#[derive(Debug, Default)]
pub(super) struct Values {
    bytes: Vec<u8>,
    /// Of every value, as long as there are no slots; then each key takes as much.
    width: usize,
    /// Empty as long as all values are of one width.
    slots: Vec<Slot>,
    /// Bytes that no slot refers to.
    garbage: usize,
}

impl Values {
    #[inline]
    pub(super) fn get(&self, at: usize) -> &[u8] {
        if self.slots.is_empty() {
            &self.bytes[at * self.width..][..self.width]
        } else {
            let slot = self.slots[at];
            &self.bytes[slot.offset as usize..][..slot.length as usize]
        }
    }

    /// Makes room for one more key.
    #[inline]
    pub(super) fn push(&mut self) {
        if self.slots.is_empty() {
            self.expect_room(self.width);
            make_room(&mut self.bytes, self.width);
            self.bytes.resize(self.bytes.len() + self.width, 0);
        } else {
            push(&mut self.slots, Slot::default());
        }
    }

    /// Whether it is a value like the others, which lie side by side.
    #[inline]
    pub(super) fn lies_beside(&self, value: Option<&[u8]>) -> bool {
        self.slots.is_empty() && value.is_some_and(|value| value.len() == self.width)
    }

    /// Adds more keys, each with such a value.
    pub(super) fn extend<'v>(&mut self, values: impl Iterator<Item = &'v [u8]> + Clone) {
        let bytes = values.clone().count() * self.width;
        self.expect_room(bytes);
        make_room(&mut self.bytes, bytes);
        for value in values {
            append_bytes(&mut self.bytes, value);
        }
    }

    /// Makes room for `more` keys with values like those that are there.
    pub(super) fn reserve(&mut self, more: usize) {
        if self.slots.is_empty() {
            self.bytes.reserve_exact(more * self.width);
        } else {
            self.slots.reserve_exact(more);
        }
    }

    /// Overwrites a value where it is, if the new one is as long.
    #[inline]
    pub(super) fn replace(&mut self, at: usize, value: &[u8]) -> bool {
        let place = if self.slots.is_empty() {
            Slot { offset: (at * self.width) as u32, length: self.width as u32 }
        } else {
            self.slots[at]
        };
        let same = place.length as usize == value.len();
        if same {
            let room = &mut self.bytes[place.offset as usize..][..value.len()];
            // Eight bytes, what most numbers take, need no call.
            match (<&mut [u8; 8]>::try_from(&mut *room), <&[u8; 8]>::try_from(value)) {
                (Ok(room), Ok(value)) => *room = *value,
                _ => room.copy_from_slice(value),
            }
        }
        same
    }

    /// Sets the value of a key that has none; `keys` says of each key whether it has one.
    pub(super) fn set(&mut self, at: usize, value: &[u8], keys: impl Iterator<Item = bool> + Clone) {
        if self.slots.is_empty() && value.len() != self.width {
            self.change_width(value.len(), keys);
        }
        if self.slots.is_empty() {
            self.bytes[at * self.width..][..self.width].copy_from_slice(value);
        } else {
            self.slots[at] = self.append(value);
        }
    }

    /// Forgets the value of a key.
    pub(super) fn clear(&mut self, at: usize) {
        if let Some(slot) = self.slots.get_mut(at) {
            self.garbage += std::mem::take(slot).length as usize;
        }
    }

    /// To another width where there is no value yet, else to slots.
    fn change_width(&mut self, width: usize, keys: impl Iterator<Item = bool> + Clone) {
        if width <= WIDTH_MAX && !keys.clone().any(|has_value| has_value) {
            self.bytes.clear();
            self.width = width;
            self.bytes.resize(keys.count() * width, 0);
            return;
        }
        let length = self.width as u32;
        let slot = |(at, has_value)| {
            if has_value { Slot { offset: at * length, length } } else { Slot::default() }
        };
        self.slots = (0..).zip(keys).map(slot).collect();
        let used = self.slots.iter().map(|slot| slot.length as usize).sum::<usize>();
        self.garbage = self.bytes.len() - used;
    }

    fn append(&mut self, value: &[u8]) -> Slot {
        if self.garbage > GARBAGE_MIN && self.garbage > self.bytes.len() / 2 {
            self.squeeze();
        }
        self.expect_room(value.len());
        let offset = self.bytes.len() as u32;
        extend(&mut self.bytes, value);
        Slot { offset, length: value.len() as u32 }
    }

    /// # Panics
    /// When the values of one key group outgrow 4 GiB.
    #[inline]
    fn expect_room(&self, more: usize) {
        let fits = self.bytes.len() + more < u32::MAX as usize;
        assert!(fits, "the values of one key group take more than 4 GiB (256 groups share the keys)");
    }

    /// Lets go of replaced values.
    fn squeeze(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len() - self.garbage);
        for slot in &mut self.slots {
            let offset = bytes.len() as u32;
            bytes.extend_from_slice(&self.bytes[slot.offset as usize..][..slot.length as usize]);
            slot.offset = offset;
        }
        self.bytes = bytes;
        self.garbage = 0;
    }

    /// Whether replaced values take up a good part.
    pub(super) fn is_sparse(&self) -> bool {
        self.garbage > 4096 + self.bytes.len() / 2
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.slots.capacity() * size_of::<Slot>()
    }
}
