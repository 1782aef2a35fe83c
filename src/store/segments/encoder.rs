//! Lays the entries of a key group out as pages.

use crate::error::Result;
use crate::format::filter::filter_of;
use crate::format::frame::{FrameKind, HEADER_BYTES, append_frame};
use crate::format::records::{GroupDirectory, PageRef};
use crate::format::segment::{Entry, PAGE_BYTES, append_entry};

use super::{EncodedGroup, LiveSize};

/// A part of fewer pages has no filter: to read that would cost as much as to read the pages.
const FILTERED_PAGES_MIN: usize = 2;

/// No more is reserved ahead than this: what a group is said to hold may not be what comes.
const RESERVED_BYTES_MAX: usize = 16 << 20;

/// Lays a key group out entry by entry.
pub(crate) struct GroupEncoder {
    directory: GroupDirectory,
    bytes: Vec<u8>,
    page: Vec<u8>,
    first_hash: u64,
    /// Of its entries.
    hashes: Vec<u64>,
}

impl GroupEncoder {
    pub(crate) fn new(group: usize, base: bool, live: LiveSize) -> Self {
        let directory = GroupDirectory {
            group: group as u16,
            base,
            filter_bytes: 0,
            filter_offset: 0,
            entries: 0,
            bytes: 0,
            live_keys: live.keys,
            live_bytes: live.bytes,
            pages: Vec::new(),
        };
        GroupEncoder { directory, bytes: Vec::new(), page: Vec::new(), first_hash: 0, hashes: Vec::new() }
    }

    /// Makes room for `more` entries as large as those that the group holds.
    pub(crate) fn reserve(&mut self, more: usize) {
        let GroupDirectory { live_keys, live_bytes, .. } = self.directory;
        let each = live_bytes.checked_div(live_keys).map_or(0, |bytes| (bytes as usize).saturating_add(1));
        self.hashes.reserve(more);
        self.bytes.reserve(more.saturating_mul(each).min(RESERVED_BYTES_MAX));
    }

    /// Adds the next entry in the order of (hash, key).
    pub(crate) fn push(&mut self, entry: Entry<'_>) -> Result<()> {
        if self.page.is_empty() {
            self.first_hash = entry.hash;
        }
        append_entry(&mut self.page, entry)?;
        self.directory.entries += 1;
        self.hashes.push(entry.hash);
        if self.page.len() >= PAGE_BYTES { self.close_page() } else { Ok(()) }
    }

    fn close_page(&mut self) -> Result<()> {
        close_page(&mut self.directory, &mut self.bytes, &mut self.page, self.first_hash)
    }

    pub(crate) fn finish(mut self) -> Result<EncodedGroup> {
        if !self.page.is_empty() {
            self.close_page()?;
        }
        let GroupEncoder { mut directory, bytes, hashes, .. } = self;
        directory.bytes = bytes.len() as u64;
        let mut filter = Vec::new();
        if directory.pages.len() >= FILTERED_PAGES_MIN {
            let blocks = filter_of(&hashes);
            if let Ok(bytes) = u32::try_from(HEADER_BYTES + blocks.len()) {
                append_frame(&mut filter, FrameKind::Filter, u64::from(directory.group), &blocks)?;
                directory.filter_bytes = bytes;
            }
        }
        Ok(EncodedGroup { directory, bytes, filter })
    }
}

fn close_page(
    directory: &mut GroupDirectory,
    bytes: &mut Vec<u8>,
    page: &mut Vec<u8>,
    first_hash: u64,
) -> Result<()> {
    directory.pages.push(PageRef { offset: bytes.len() as u64, first_hash });
    append_frame(bytes, FrameKind::Page, u64::from(directory.group), page)?;
    page.clear();
    Ok(())
}
