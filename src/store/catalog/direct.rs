//! Reads the file of a database without opening it, as checkpoint-format.md says in its appendix.
//!
//! Opening a database takes a copy of it, a dozen threads and several syncs, some ten milliseconds; its file is a plain log,
//! because it was only appended to within one segment. What is read here is believed only where nothing can be missing: every
//! message is sound up to the end of what was written, and there is nothing but zeros behind. Everything else, and
//! whatever is not expected, is left to sled.

use std::collections::BTreeMap;

use super::contents::Parts;

/// sled's header of a segment.
const SEGMENT_HEADER_BYTES: usize = 20;

const KIND_ZERO: u8 = 0;
const KIND_NODE: u8 = 8;
const KIND_LINK: u8 = 10;
/// These refer to files beside the database.
const KINDS_BESIDE: [u8; 3] = [7, 9, 11];

struct Log<'a>(&'a [u8]);

struct Message<'a> {
    kind: u8,
    page: u64,
    body: &'a [u8],
}

impl<'a> Log<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn number(&mut self) -> Option<u64> {
        let first = self.byte()?;
        Some(match first {
            0..=240 => u64::from(first),
            241..=248 => 240 + 256 * (u64::from(first) - 241) + u64::from(self.byte()?),
            249 => 2_288 + 256 * u64::from(self.byte()?) + u64::from(self.byte()?),
            _ => self.take(usize::from(first) - 247)?.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)),
        })
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    /// The next message; `None`, and nothing is taken, where no sound one follows.
    fn message(&mut self) -> Option<Message<'a>> {
        let mut ahead = Log(self.0);
        let crc = u32::from_le_bytes(*ahead.take(4)?.first_chunk()?);
        let kind = ahead.byte()?;
        let (length, _segment, page) = (ahead.number()?, ahead.number()?, ahead.number()?);
        let head = self.0.len() - ahead.0.len();
        let body = ahead.take(usize::try_from(length).ok()?)?;
        let mut found = crc32fast::Hasher::new();
        found.update(body);
        found.update(&self.0[4..head]);
        if crc != !found.finalize() || kind == KIND_ZERO {
            return None;
        }
        self.0 = ahead.0;
        Some(Message { kind, page, body })
    }
}

/// A value is the same whenever its page is written again: nothing is ever changed.
type Pairs = BTreeMap<[u8; 10], Vec<u8>>;

fn add(pairs: &mut Pairs, prefix: &[u8], key: &[u8], value: &[u8]) {
    if let Ok(key) = <[u8; 10]>::try_from(&*[prefix, key].concat()) {
        pairs.insert(key, value.to_vec());
    }
}

/// A key and value that are added to a page.
fn read_link(body: &[u8], prefix: &[u8], pairs: &mut Pairs) -> Option<()> {
    let mut link = Log(body);
    if link.byte()? != 0 {
        return None;
    }
    let (key, value) = (link.text()?, link.text()?);
    add(pairs, prefix, key, value);
    Some(())
}

/// The keys and values of a page that replaces another; remembers the prefix of its keys.
fn read_node(body: &[u8], prefix: &mut Vec<u8>, pairs: &mut Pairs) -> Option<()> {
    let mut node = Log(body);
    let (_next, _merging_child, _merging) = (node.number()?, node.number()?, node.byte()?);
    let prefix_length = usize::from(node.byte()?);
    let (low, _high) = (node.text()?, node.text()?);
    *prefix = low.get(..prefix_length)?.to_vec();
    let is_index = node.byte()? == 1;
    let count = node.number()?;
    if is_index {
        return Some(());
    }
    let mut keys = Vec::new();
    for _ in 0..count {
        keys.push(node.text()?);
    }
    for key in keys {
        add(pairs, prefix, key, node.text()?);
    }
    Some(())
}

/// The parts of the records in a database, by their keys; `None` where that is left to sled.
pub(super) fn read(db: &[u8]) -> Option<Parts> {
    let mut log = Log(db.get(SEGMENT_HEADER_BYTES..)?);
    let mut prefixes: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut pairs = Pairs::new();
    while let Some(Message { kind, page, body }) = log.message() {
        let prefix = prefixes.entry(page).or_default();
        match kind {
            KIND_NODE => read_node(body, prefix, &mut pairs)?,
            KIND_LINK => read_link(body, prefix, &mut pairs)?,
            kind if KINDS_BESIDE.contains(&kind) => return None,
            _ => {}
        }
    }
    let is_whole = log.0.iter().all(|byte| *byte == 0);
    is_whole.then(|| pairs.into_iter().collect())
}
