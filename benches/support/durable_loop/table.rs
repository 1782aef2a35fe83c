//! The table of one owner.

use std::io;
use std::sync::mpsc::SyncSender;

use super::state::{STATE_FRAME_BYTES, StateFrame, StateItem};
use super::stopped;
use super::words::{SHORT, Word, load, short_key};

/// So many words are counted at a time, after their slots and entries were read.
const GROUP_WORDS: usize = 64;

/// Set in a count when it changes, cleared when it is written to the state.
const CHANGED: u64 = 1 << 63;

/// Half a cache line. Short keys are held here: counting them touches nothing
/// else. For long ones `key` is the offset in the arena and the hash.
#[repr(align(32))]
struct Entry {
    count: u64,
    len: u32,
    key: [u8; SHORT],
}

/// Entries by number, in chunks: growing copies nothing, and so never needs
/// memory for a second copy of the largest part of the table.
pub(super) struct Entries {
    chunks: Vec<Vec<Entry>>,
    pub(super) len: usize,
}

impl Entries {
    const CHUNK: usize = 1 << 15;

    fn new() -> Self {
        Entries { chunks: Vec::new(), len: 0 }
    }

    fn push(&mut self, entry: Entry) {
        if self.len.is_multiple_of(Self::CHUNK) {
            self.chunks.push(Vec::with_capacity(Self::CHUNK));
        }
        self.chunks[self.len / Self::CHUNK].push(entry);
        self.len += 1;
    }

    fn get(&self, number: usize) -> &Entry {
        &self.chunks[number / Self::CHUNK][number % Self::CHUNK]
    }

    fn get_mut(&mut self, number: usize) -> &mut Entry {
        &mut self.chunks[number / Self::CHUNK][number % Self::CHUNK]
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.chunks.iter_mut().flatten()
    }

    /// Reads an entry, so that it is in the cache. Any number will do.
    fn touch(&self, number: usize) -> u64 {
        let chunk = self.chunks.get(number / Self::CHUNK);
        chunk.and_then(|chunk| chunk.get(number % Self::CHUNK)).map_or(0, |entry| entry.count)
    }
}

/// The counts of the keys of one owner.
///
/// `slots` is an open-addressed index into `entries`, which are in order of
/// arrival. A slot holds the upper half of the hash and the number of the entry
/// plus one; zero is an empty slot. The upper bits of the hash select the slot,
/// so growing moves slots in order and needs neither the entries nor the keys.
pub(super) struct Table {
    slots: Vec<u64>,
    /// Shifts the upper half of a hash down to a slot number.
    shift: u32,
    pub(super) entries: Entries,
    /// The bytes of long keys.
    arena: Vec<u8>,
    pub(super) words: u64,
}

impl Table {
    pub(super) fn new() -> Self {
        let bits = 16;
        Table {
            slots: vec![0; 1 << bits],
            shift: 32 - bits,
            entries: Entries::new(),
            arena: Vec::new(),
            words: 0,
        }
    }

    /// Counts words of one buffer.
    ///
    /// Most keys of a large table are in main memory. The slots and then the
    /// entries of a few words are therefore read first, for nothing but to have
    /// them in the cache: these reads do not wait for one another.
    pub(super) fn add_all(&mut self, buffer: &[u8], words: &[Word]) {
        let mut slots = [0; GROUP_WORDS];
        for group in words.chunks(GROUP_WORDS) {
            for (slot, word) in slots.iter_mut().zip(group) {
                *slot = self.slots[self.home(word.hash)];
            }
            let mut touched = 0;
            for (slot, word) in slots.iter().zip(group) {
                // Only a guess: the key may be in one of the slots that follow.
                if slot >> 32 == word.hash >> 32 {
                    touched ^= self.entries.touch((*slot as u32).wrapping_sub(1) as usize);
                }
            }
            std::hint::black_box(touched);
            for word in group {
                self.add(buffer, *word);
            }
        }
        self.words += words.len() as u64;
    }

    fn add(&mut self, buffer: &[u8], word: Word) {
        let (start, len) = (word.start as usize, word.len as usize);
        if len <= SHORT {
            let key = short_key(buffer, start, len).to_le_bytes();
            let found = self.find(word.hash, |entry, _| entry.len == word.len && entry.key == key);
            self.increment(word, found, |_| key);
        } else {
            let bytes = &buffer[start..start + len];
            let found = self.find(word.hash, |entry, arena| {
                entry.len == word.len
                    && entry.key[8..] == word.hash.to_le_bytes()
                    && long_key(entry, arena) == bytes
            });
            self.increment(word, found, |arena| {
                let mut key = [0; SHORT];
                key[..8].copy_from_slice(&(arena.len() as u64).to_le_bytes());
                key[8..].copy_from_slice(&word.hash.to_le_bytes());
                arena.extend_from_slice(bytes);
                key
            });
        }
    }

    /// The slot where the search for a hash begins.
    fn home(&self, hash: u64) -> usize {
        ((hash >> 32) >> self.shift) as usize
    }

    /// The number of the entry that matches, or else the slot for a new one.
    #[inline(always)]
    fn find(&self, hash: u64, matches: impl Fn(&Entry, &[u8]) -> bool) -> Result<usize, usize> {
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return Err(at);
            }
            if slot >> 32 == hash >> 32 {
                let number = slot as u32 as usize - 1;
                if matches(self.entries.get(number), &self.arena) {
                    return Ok(number);
                }
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[inline(always)]
    fn increment(
        &mut self,
        word: Word,
        found: Result<usize, usize>,
        make_key: impl FnOnce(&mut Vec<u8>) -> [u8; SHORT],
    ) {
        match found {
            Ok(number) => {
                let entry = self.entries.get_mut(number);
                entry.count = (entry.count + 1) | CHANGED;
            }
            Err(slot) => {
                let key = make_key(&mut self.arena);
                self.insert(slot, word, key);
            }
        }
    }

    fn insert(&mut self, slot: usize, word: Word, key: [u8; SHORT]) {
        self.entries.push(Entry { count: 1 | CHANGED, len: word.len, key });
        assert!(self.entries.len <= u32::MAX as usize, "fewer than 2^32 keys per owner");
        self.slots[slot] = ((word.hash >> 32) << 32) | self.entries.len as u64;
        if self.entries.len > self.slots.len() / 4 * 3 {
            self.grow();
        }
    }

    fn grow(&mut self) {
        let len = 2 * self.slots.len();
        let old = std::mem::replace(&mut self.slots, vec![0; len]);
        self.shift -= 1;
        for slot in old.into_iter().filter(|slot| *slot != 0) {
            let mut at = self.home(slot);
            while self.slots[at] != 0 {
                at = (at + 1) & (len - 1);
            }
            self.slots[at] = slot;
        }
    }

    /// Sends the entries that changed since the previous call to the state
    /// writer, in frames.
    pub(super) fn write_changed(&mut self, position: u64, states: &SyncSender<StateItem>) -> io::Result<()> {
        let send = |item| states.send(item).map_err(|_| stopped());
        let mut frame = StateFrame::new();
        for entry in self.entries.iter_mut() {
            if entry.count & CHANGED == 0 {
                continue;
            }
            entry.count &= !CHANGED;
            frame.push(key(entry, &self.arena), entry.count);
            if frame.bytes.len() >= STATE_FRAME_BYTES {
                let full = std::mem::replace(&mut frame, StateFrame::new());
                send(StateItem::Frame(full))?;
            }
        }
        if frame.entries > 0 {
            send(StateItem::Frame(frame))?;
        }
        send(StateItem::End(position))
    }
}

fn key<'a>(entry: &'a Entry, arena: &'a [u8]) -> &'a [u8] {
    match entry.len as usize {
        len if len <= SHORT => &entry.key[..len],
        _ => long_key(entry, arena),
    }
}

fn long_key<'a>(entry: &Entry, arena: &'a [u8]) -> &'a [u8] {
    let offset = u64::from_le_bytes(load(&entry.key, 0)) as usize;
    &arena[offset..offset + entry.len as usize]
}
