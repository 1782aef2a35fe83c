//! Reads the file of a database by the appendix of the document.

use std::collections::BTreeMap;

use super::decoder::crc32_by_the_book;

struct Log<'a>(&'a [u8]);

impl<'a> Log<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let first = u64::from(self.take(1)?[0]);
        Some(match first {
            0..=240 => first,
            241..=248 => 240 + 256 * (first - 241) + u64::from(self.take(1)?[0]),
            249 => {
                let low = self.take(2)?;
                2_288 + 256 * u64::from(low[0]) + u64::from(low[1])
            }
            _ => self.take(first as usize - 247)?.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)),
        })
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        self.take(length)
    }

    /// Kind, page and body of the next message; `None` where the log ends.
    fn message(&mut self) -> Option<(u8, u64, &'a [u8])> {
        let all = self.0;
        let crc = self.take(4)?;
        let kind = self.take(1)?[0];
        let (length, _segment, page) = (self.number()?, self.number()?, self.number()?);
        let head = all.len() - self.0.len();
        let body = self.take(length as usize)?;
        let covered = [body, &all[4..head]].concat();
        let sound = u32::from_le_bytes(crc.try_into().ok()?) == !crc32_by_the_book(&covered);
        (sound && kind != 0).then_some((kind, page, body))
    }
}

pub(super) type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// The key and value that a change to a page sets, if it does.
fn read_change(body: &[u8], prefix: &[u8], pairs: &mut Pairs) -> Option<()> {
    let mut change = Log(body);
    if change.take(1)?[0] == 0 {
        let key = [prefix, change.string()?].concat();
        pairs.insert(key, change.string()?.to_vec());
    }
    Some(())
}

/// The keys and values of a page's replacement; remembers the prefix of its keys.
fn read_node(body: &[u8], prefix: &mut Vec<u8>, pairs: &mut Pairs) -> Option<()> {
    let mut node = Log(body);
    let (_next, _merging_child) = (node.number()?, node.number()?);
    let flags = node.take(2)?;
    let low = node.string()?;
    let _high = node.string()?;
    *prefix = low[..usize::from(flags[1])].to_vec();
    let is_index = node.take(1)?[0] == 1;
    let count = node.number()?;
    let keys: Vec<_> = (0..count).map_while(|_| node.string()).collect();
    for key in keys.into_iter().take_while(|_| !is_index) {
        pairs.insert([&prefix[..], key].concat(), node.string()?.to_vec());
    }
    Some(())
}

pub(super) fn read_database(db: &[u8]) -> Pairs {
    let mut log = Log(&db[20..]);
    let mut prefixes: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut pairs = Pairs::new();
    while let Some((kind, page, body)) = log.message() {
        let prefix = prefixes.entry(page).or_default();
        let read = match kind {
            8 => read_node(body, prefix, &mut pairs),
            10 => read_change(body, prefix, &mut pairs),
            _ => Some(()),
        };
        assert!(read.is_some(), "a message of page {page} is not as the document says");
    }
    pairs.retain(|key, _| key.len() == 10);
    pairs
}
