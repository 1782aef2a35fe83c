//! Reads a part of a segment for many keys at once, and page by page.

use crate::error::Result;
use crate::format::segment::entries;

use super::GroupSource;
use super::source::{Chunk, FILTER_BYTES_PER_KEY};

impl GroupSource {
    /// Looks up keys that are ordered by hash, each page read at most once. `found` is told the place of each key that
    /// this segment says something about, with its value, `None` when it was removed.
    pub(crate) fn find_sorted(
        &self,
        keys: &[(u64, &[u8])],
        page: &mut Vec<u8>,
        mut found: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        let Some(filter) = self.filter(FILTER_BYTES_PER_KEY * keys.len() as u64, page)? else {
            return self.search(keys, page, found);
        };
        let possible = keys.iter().enumerate().filter(|(_, (hash, _))| filter.may_hold(*hash));
        let (places, possible): (Vec<usize>, Vec<(u64, &[u8])>) = possible.unzip();
        self.search(&possible, page, |at, value| found(places[at], value))
    }

    fn search(
        &self,
        keys: &[(u64, &[u8])],
        page: &mut Vec<u8>,
        mut found: impl FnMut(usize, Option<&[u8]>),
    ) -> Result<()> {
        let pages = &self.group.pages;
        let (mut from, mut at) = (0, 0);
        while let Some((hash, _)) = keys.get(from) {
            // Entries of one hash may begin at the end of the page before the first that starts with it.
            at = at.max(pages.partition_point(|place| place.first_hash < *hash).saturating_sub(1));
            let Some(mut before) = pages.get(at).map(|place| place.first_hash) else { return Ok(()) };
            let last_hash = pages.get(at + 1).map_or(u64::MAX, |next| next.first_hash);
            let until = from + keys[from..].partition_point(|(hash, _)| *hash <= last_hash);
            let mut next = from;
            for (number, entry) in entries(self.page(at, 0, &mut Chunk::new(page))?).enumerate() {
                let entry = self.in_order(at, number, before, entry)?;
                before = entry.hash;
                next += keys[next..until].iter().take_while(|(hash, _)| *hash < entry.hash).count();
                if next == until {
                    break;
                }
                let same_hash = (next..until).take_while(|&at| keys[at].0 == entry.hash);
                if let Some(at) = same_hash.into_iter().find(|&at| keys[at].1 == entry.key) {
                    found(at, entry.value);
                }
            }
            at += 1;
            // What has the hash with which the next page begins may be there too.
            let is_over = |(hash, _): &(u64, &[u8])| at >= pages.len() || *hash < last_hash;
            from += keys[from..until].partition_point(is_over);
        }
        Ok(())
    }

    /// Reads the payload of a page by its number, `false` when there are no more.
    pub(crate) fn nth_page(&self, number: usize, page: &mut Vec<u8>) -> Result<bool> {
        if number >= self.group.pages.len() {
            return Ok(false);
        }
        let payload = self.page_range(number, 0, &mut Chunk::new(page))?;
        page.truncate(payload.end);
        page.drain(..payload.start);
        Ok(true)
    }
}
