//! Reading one key group out of a segment. Each page is checked when it is read, and nothing of it is used before.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Segment, StoredGroup};
use crate::error::{Error, ErrorKind, Result};
use crate::format::filter::Filter;
use crate::format::frame::{FrameHeader, FrameKind, HEADER_BYTES, decode_frame};
use crate::format::records::GroupDirectory;
#[cfg(feature = "tool")]
use crate::format::records::{PageRef, Record, SegmentHeader};
use crate::format::segment::{Entry, PAGE_BYTES, entries, entry_bytes};
use crate::id::SegmentId;
use crate::store::disk::read_into;

/// A walk over all pages reads about this much at once: what the innermost caches keep until it was looked at, and an
/// allocator hands out again without asking the system.
const CHUNK_BYTES: u64 = 64 << 10;

/// For each key that is looked up so much of a filter is read: half of what it may spare, which is a page.
pub(super) const FILTER_BYTES_PER_KEY: u64 = PAGE_BYTES as u64 / 2;

/// One key group of one operator in one segment.
#[derive(Clone, Debug)]
pub(crate) struct GroupSource {
    pub(super) segment: Arc<Segment>,
    pub(crate) group: Arc<StoredGroup>,
}

/// Bytes of a segment that were read at once.
pub(super) struct Chunk<'b> {
    begin: u64,
    /// So many of the bytes were read; those behind them are of no meaning.
    length: usize,
    bytes: &'b mut Vec<u8>,
}

impl<'b> Chunk<'b> {
    pub(super) fn new(bytes: &'b mut Vec<u8>) -> Self {
        Chunk { begin: 0, length: 0, bytes }
    }

    fn holds(&self, begin: u64, end: u64) -> bool {
        let end = end.max(begin.saturating_add(HEADER_BYTES as u64));
        begin >= self.begin && end <= self.begin.saturating_add(self.length as u64)
    }
}

impl GroupSource {
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(crate) fn segment_id(&self) -> SegmentId {
        self.segment.id
    }

    /// No more entries than this are there, whatever the directory says.
    pub(crate) fn entries_max(&self) -> u64 {
        self.group.entries.min(self.segment.length / entry_bytes(&[], None) as u64)
    }

    /// The checkpoint that wrote the segment.
    #[cfg(feature = "tool")]
    pub(crate) fn written_by(&self) -> Result<u64> {
        let header = self.segment.read_frame(0).and_then(|frame| SegmentHeader::from_frame(&frame));
        header.map(|(_, header)| header.checkpoint).map_err(|error| error.within(self.segment.path.display()))
    }

    /// Names the place of what is wrong, and tells of damage.
    fn wrong(&self, at: usize, error: Error) -> Error {
        let (path, offset) = (self.segment.path.display(), self.group.pages[at].offset);
        let error = error.within(format!("{path}, page at byte {offset} (key group {})", self.group.group));
        self.segment.tell(error)
    }

    /// Where a page's frame ends by the directory; its own header decides.
    fn end_of(&self, at: usize) -> u64 {
        let pages = &self.group.pages;
        let last = || pages[0].offset.saturating_add(self.group.bytes);
        pages.get(at + 1).map_or_else(last, |next| next.offset)
    }

    /// The payload of a page, checked. What is not in the chunk is read, with the pages after it up to `most` bytes.
    pub(super) fn page<'c>(&self, at: usize, most: u64, chunk: &'c mut Chunk<'_>) -> Result<&'c [u8]> {
        let payload = self.page_range(at, most, chunk)?;
        Ok(&chunk.bytes[payload])
    }

    /// The same, by its place in the chunk.
    pub(super) fn page_range(&self, at: usize, most: u64, chunk: &mut Chunk<'_>) -> Result<Range<usize>> {
        self.read_page(at, most, chunk).map_err(|error| self.wrong(at, error))
    }

    fn read_page(&self, at: usize, most: u64, chunk: &mut Chunk<'_>) -> Result<Range<usize>> {
        let cut = || Error::corrupt("it runs over the end of the file");
        let begin = self.group.pages[at].offset;
        let left = self.segment.length.checked_sub(begin).filter(|left| *left >= HEADER_BYTES as u64);
        let left = left.ok_or_else(cut)?;
        if !chunk.holds(begin, self.end_of(at)) {
            let fits = |at: &usize| self.end_of(*at).saturating_sub(begin) <= most;
            let last = (at + 1..self.group.pages.len()).take_while(fits).last().unwrap_or(at);
            let length = self.end_of(last).saturating_sub(begin).max(HEADER_BYTES as u64).min(left);
            (chunk.begin, chunk.length) = (begin, 0);
            self.read_to(chunk, length as usize)?;
        }
        let start = (begin - chunk.begin) as usize;
        let header = FrameHeader::parse(&chunk.bytes[start..chunk.length])?;
        if header.frame_bytes() > left {
            return Err(cut());
        }
        let end = start + header.frame_bytes() as usize;
        if end > chunk.length {
            self.read_to(chunk, end)?;
        }
        let payload = start + HEADER_BYTES..end;
        header.expect(FrameKind::Page).and_then(|()| header.check(&chunk.bytes[payload.clone()]))?;
        if header.id != u64::from(self.group.group) {
            return Err(Error::corrupt(format!("it is of key group {}", header.id)));
        }
        Ok(payload)
    }

    /// Reads on until the chunk has `length` bytes, which are known to be in the file.
    fn read_to(&self, chunk: &mut Chunk<'_>, length: usize) -> Result<()> {
        let have = chunk.length;
        if length > chunk.bytes.len() {
            chunk.bytes.resize(length, 0);
        }
        let (segment, at) = (&self.segment, chunk.begin + have as u64);
        let read = read_into(&segment.file, at, &mut chunk.bytes[have..length], &segment.path);
        read.map_err(|cause| Error::io("read", cause))?;
        chunk.length = length;
        Ok(())
    }

    /// The filter, checked, if there is one that takes at most so many bytes.
    pub(super) fn filter<'b>(&self, most: u64, bytes: &'b mut Vec<u8>) -> Result<Option<Filter<'b>>> {
        let filter_bytes = self.group.filter_bytes;
        if filter_bytes == 0 || u64::from(filter_bytes) > most {
            return Ok(None);
        }
        self.read_filter(bytes).map(Some).map_err(|error| self.wrong_filter(error))
    }

    fn read_filter<'b>(&self, bytes: &'b mut Vec<u8>) -> Result<Filter<'b>> {
        let GroupDirectory { group, filter_bytes, filter_offset: at, .. } = self.group.directory;
        let left = self.segment.length.checked_sub(at).filter(|left| *left >= u64::from(filter_bytes));
        let left = left.ok_or_else(|| Error::corrupt("it runs over the end of the file"))?;
        bytes.clear();
        bytes.resize(filter_bytes as usize, 0);
        let read = self.segment.filters.read(group, &self.segment.file, (at, left), bytes);
        read.map_err(|cause| Error::io("read", cause))?;
        let (header, payload) = decode_frame(bytes)?;
        header.expect(FrameKind::Filter)?;
        if header.id != u64::from(group) {
            return Err(Error::corrupt(format!("it is of key group {}", header.id)));
        }
        Filter::parse(payload)
    }

    fn wrong_filter(&self, error: Error) -> Error {
        let (path, offset) = (self.segment.path.display(), self.group.filter_offset);
        let error = error.within(format!("{path}, filter at byte {offset} (key group {})", self.group.group));
        self.segment.tell(error)
    }

    /// Calls `each` with every page's place and payload.
    #[cfg(feature = "tool")]
    pub(crate) fn for_each_page(&self, mut each: impl FnMut(&PageRef, &[u8]) -> Result<()>) -> Result<()> {
        let mut bytes = Vec::new();
        let mut chunk = Chunk::new(&mut bytes);
        self.group.pages.iter().enumerate().try_for_each(|(at, place)| {
            let page = self.page(at, CHUNK_BYTES, &mut chunk)?;
            each(place, page)
        })
    }

    /// Calls `each` with every entry, ordered by (hash, key). That they are as many as they should be is checked at the end.
    #[cfg(feature = "tool")]
    pub(crate) fn for_each(&self, mut each: impl FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        self.walk(&mut Vec::new(), |page| page.iter().try_for_each(|entry| each(*entry)))
    }

    /// Calls `each` with the entries of each page.
    fn walk(&self, bytes: &mut Vec<u8>, mut each: impl FnMut(&[Entry<'_>]) -> Result<()>) -> Result<()> {
        let mut chunk = Chunk::new(bytes);
        let (mut found, mut most) = (0, 0);
        for at in 0..self.group.pages.len() {
            let mut rest = entries(self.page(at, CHUNK_BYTES, &mut chunk)?);
            let mut page = Vec::with_capacity(most);
            while let Some(entry) = rest.take_next() {
                page.push(entry);
            }
            rest.finish().map_err(|error| self.wrong(at, error))?;
            each(&page)?;
            found += page.len() as u64;
            most = most.max(page.len());
        }
        if found != self.group.entries {
            let (path, group) = (self.segment.path.display(), &self.group);
            let message =
                format!("{path}: key group {} has {found} entries, not {}", group.group, group.entries);
            return Err(self.segment.tell(Error::corrupt(message)));
        }
        Ok(())
    }

    /// The job goes on from it, and all of it is to be checked, by whoever reads all of it first.
    pub(crate) fn await_check(&self) {
        self.group.awaits_check.store(true, Ordering::SeqCst);
    }

    /// Whether that is still to be done.
    pub(crate) fn awaits_check(&self) -> bool {
        self.group.awaits_check.load(Ordering::SeqCst)
    }

    /// Calls `each` with the entries of each page, ordered by (hash, key), read into a buffer that may be used again. A part
    /// that awaits its check is checked by this, its filter too, which only lookups need.
    pub(crate) fn load(
        &self,
        bytes: &mut Vec<u8>,
        each: impl FnMut(&[Entry<'_>]) -> Result<()>,
    ) -> Result<()> {
        if self.awaits_check() { self.check(bytes, each) } else { self.walk(bytes, each) }
    }

    /// Calls `each` with the entries of each page, and checks that the filter has them.
    fn check(&self, bytes: &mut Vec<u8>, mut each: impl FnMut(&[Entry<'_>]) -> Result<()>) -> Result<()> {
        let mut filter = Vec::new();
        let filter = self.filter(u64::MAX, &mut filter)?;
        self.walk(bytes, |page| {
            if let Some(filter) = filter
                && !page.iter().all(|entry| filter.may_hold(entry.hash))
            {
                return Err(self.wrong_filter(Error::corrupt("it leaves out a key that is there")));
            }
            each(page)
        })?;
        if self.group.awaits_check.swap(false, Ordering::SeqCst) {
            self.segment.checked.fetch_add(1, Ordering::SeqCst);
        }
        Ok(())
    }

    /// Checks every page and the filter, and gives up when `is_told_to_stop`.
    ///
    /// # Errors
    /// The first damage, as [`ErrorKind::Corrupt`], and [`ErrorKind::Stopped`].
    pub(crate) fn verify(&self, operator: &str, is_told_to_stop: impl Fn() -> bool) -> Result<()> {
        let checked = self.check(&mut Vec::new(), |_| match is_told_to_stop() {
            true => Err(Error::new(ErrorKind::Stopped, "the check of the state was given up")),
            false => Ok(()),
        });
        checked.map_err(|error| error.within(format!("state of `{operator}`")))
    }

    /// Calls `each` with every entry that can be read, in the same order. Returns how many pages cannot.
    ///
    /// # Errors
    /// What is no damage, and those of `each`.
    #[cfg(feature = "tool")]
    pub(crate) fn for_each_sound(&self, mut each: impl FnMut(Entry<'_>)) -> Result<u64> {
        let (mut bytes, mut damaged) = (Vec::new(), 0);
        for at in 0..self.group.pages.len() {
            let mut chunk = Chunk::new(&mut bytes);
            let page = match self.page(at, 0, &mut chunk) {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    damaged += 1;
                    continue;
                }
                read => read?,
            };
            let read: Result<Vec<Entry<'_>>> = entries(page).collect();
            match read {
                Ok(entries) => entries.into_iter().for_each(&mut each),
                Err(_) => damaged += 1,
            }
        }
        Ok(damaged)
    }

    /// An entry of a page by its number there, which comes after one of the hash `before`; the first has the hash that the
    /// directory says.
    #[inline]
    pub(super) fn in_order<'e>(
        &self,
        at: usize,
        number: usize,
        before: u64,
        entry: Result<Entry<'e>>,
    ) -> Result<Entry<'e>> {
        let entry = entry.map_err(|error| self.wrong(at, error))?;
        if entry.hash < before || (number == 0 && entry.hash != before) {
            return Err(self.wrong(at, Error::corrupt("its entries are out of order")));
        }
        Ok(entry)
    }

    /// Looks a key up: `None` when this segment says nothing about it, `Some(None)` when it was removed.
    pub(crate) fn find(&self, hash: u64, key: &[u8], page: &mut Vec<u8>) -> Result<Option<Option<Vec<u8>>>> {
        if self.filter(FILTER_BYTES_PER_KEY, page)?.is_some_and(|filter| !filter.may_hold(hash)) {
            return Ok(None);
        }
        let mut chunk = Chunk::new(page);
        // Entries of one hash may begin at the end of the page before the first that starts with it.
        let after = self.group.pages.partition_point(|place| place.first_hash < hash);
        for at in after.saturating_sub(1)..self.group.pages.len() {
            let mut before = self.group.pages[at].first_hash;
            if before > hash {
                break;
            }
            let page = self.page(at, 0, &mut chunk)?;
            for (number, entry) in entries(page).enumerate() {
                let entry = self.in_order(at, number, before, entry)?;
                if entry.hash == hash && entry.key == key {
                    return Ok(Some(entry.value.map(<[u8]>::to_vec)));
                }
                if entry.hash > hash {
                    return Ok(None);
                }
                before = entry.hash;
            }
        }
        Ok(None)
    }
}
