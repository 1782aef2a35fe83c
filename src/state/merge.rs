//! A key group read in order from what is in memory and the parts of segments below it, page by page.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::error::Result;
use crate::format::segment::{Entry, entries, entry_bytes};
use crate::store::segments::GroupSource;

/// Calls `each` with every entry that has a value, ordered by (hash, key). What is in memory is ordered too and newer
/// than the parts, and these are newest first.
pub(super) fn for_each_merged(
    in_memory: Vec<Entry<'_>>,
    parts: &[GroupSource],
    mut each: impl FnMut(Entry<'_>) -> Result<()>,
) -> Result<()> {
    if parts.is_empty() {
        return in_memory.into_iter().filter(|entry| entry.value.is_some()).try_for_each(each);
    }
    let mut runs = vec![Run::Memory { entries: in_memory, at: 0 }];
    for part in parts {
        runs.push(Run::part(part)?);
    }
    let mut heap = BinaryHeap::new();
    for (rank, run) in runs.iter().enumerate() {
        heap.extend(run.front()?.map(|entry| Reverse((entry.hash, rank))));
    }
    let mut same_hash: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    while let Some(Reverse((hash, rank))) = heap.pop() {
        let is_alone = heap.peek().is_none_or(|Reverse((next, _))| *next != hash);
        if !is_alone || !same_hash.is_empty() {
            runs[rank].take_hash(hash, &mut same_hash)?;
        } else {
            if let Some(entry) = runs[rank].front()?.filter(|entry| entry.value.is_some()) {
                each(entry)?;
            }
            runs[rank].advance()?;
        }
        heap.extend(runs[rank].front()?.map(|entry| Reverse((entry.hash, rank))));
        if is_alone {
            for (key, value) in std::mem::take(&mut same_hash) {
                if value.is_some() {
                    each(Entry { hash, key: &key, value: value.as_deref() })?;
                }
            }
        }
    }
    Ok(())
}

/// Entries ordered by (hash, key), of which the front one can be looked at.
enum Run<'a> {
    Memory { entries: Vec<Entry<'a>>, at: usize },
    Part { part: &'a GroupSource, next_page: usize, page: Vec<u8>, at: usize },
}

impl<'a> Run<'a> {
    fn part(part: &'a GroupSource) -> Result<Self> {
        let mut run = Run::Part { part, next_page: 0, page: Vec::new(), at: 0 };
        run.turn_pages()?;
        Ok(run)
    }

    fn front(&self) -> Result<Option<Entry<'_>>> {
        match self {
            Run::Memory { entries, at } => Ok(entries.get(*at).copied()),
            Run::Part { page, at, .. } => entries(&page[*at..]).next().transpose(),
        }
    }

    fn advance(&mut self) -> Result<()> {
        let length = self.front()?.map_or(0, |entry| entry_bytes(entry.key, entry.value));
        match self {
            Run::Memory { at, .. } => *at += 1,
            Run::Part { at, .. } => *at += length,
        }
        self.turn_pages()
    }

    /// Goes on with the next page that has entries once one is over.
    fn turn_pages(&mut self) -> Result<()> {
        if let Run::Part { part, next_page, page, at } = self {
            while *at >= page.len() {
                *at = 0;
                if !part.nth_page(*next_page, page)? {
                    page.clear();
                    return Ok(());
                }
                *next_page += 1;
            }
        }
        Ok(())
    }

    /// Moves all entries of a hash to those of newer runs.
    fn take_hash(&mut self, hash: u64, newer: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>) -> Result<()> {
        while let Some(entry) = self.front()?.filter(|entry| entry.hash == hash) {
            if !newer.contains_key(entry.key) {
                newer.insert(entry.key.to_vec(), entry.value.map(<[u8]>::to_vec));
            }
            self.advance()?;
        }
        Ok(())
    }
}
