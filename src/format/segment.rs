//! The payload of a segment's page: entries of one key group, ordered by (hash, key).
//!
//! ```text
//!  | hash u64 | key length u32 | value length u32 | key | value |  next entry ...
//! ```
//!
//! The top bit of the key length marks a tombstone: the key is gone, and there is no value.

use crate::error::{Error, ErrorKind, Result};
use crate::record::growth::append_bytes;

/// A page is closed once its payload holds this much. A key that is looked up costs a page in each part that is
/// searched: small pages make that cheap, and the directory has 16 bytes for each.
pub(crate) const PAGE_BYTES: usize = 4 << 10;

/// The trailer frame's payload: the offset and the frame length of the directory, two u64.
pub(crate) const TRAILER_PAYLOAD_BYTES: usize = 16;

const TOMBSTONE: u32 = 1 << 31;
const ENTRY_HEADER_BYTES: usize = 16;

/// One entry of a page; a `None` value is a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) hash: u64,
    pub(crate) key: &'a [u8],
    pub(crate) value: Option<&'a [u8]>,
}

/// The stored size of an entry.
pub(crate) fn entry_bytes(key: &[u8], value: Option<&[u8]>) -> usize {
    ENTRY_HEADER_BYTES + key.len() + value.map_or(0, <[u8]>::len)
}

/// Appends an entry to a page's payload.
///
/// # Errors
/// [`ErrorKind::UserCode`] when the key is over 2 GiB or the value over 4 GiB.
pub(crate) fn append_entry(page: &mut Vec<u8>, entry: Entry<'_>) -> Result<()> {
    let value = entry.value.unwrap_or_default();
    let lengths = u32::try_from(entry.key.len()).ok().filter(|&length| length < TOMBSTONE);
    let (Some(key_length), Ok(value_length)) = (lengths, u32::try_from(value.len())) else {
        let message = format!("a key of {} bytes with {} bytes of state", entry.key.len(), value.len());
        return Err(Error::new(ErrorKind::UserCode, message + " is over the limit of 2 and 4 GiB"));
    };
    let tombstone = if entry.value.is_none() { TOMBSTONE } else { 0 };
    let mut header = [0; ENTRY_HEADER_BYTES];
    header[0..8].copy_from_slice(&entry.hash.to_le_bytes());
    header[8..12].copy_from_slice(&(key_length | tombstone).to_le_bytes());
    header[12..16].copy_from_slice(&value_length.to_le_bytes());
    page.reserve(header.len() + entry.key.len() + value.len());
    page.extend_from_slice(&header);
    append_bytes(page, entry.key);
    append_bytes(page, value);
    Ok(())
}

/// Walks the entries of a page's payload.
pub(crate) fn entries(page: &[u8]) -> Entries<'_> {
    Entries { rest: page }
}

/// The entries of a page, each checked against the page's bounds.
pub(crate) struct Entries<'a> {
    rest: &'a [u8],
}

impl<'a> Entries<'a> {
    /// The next one; `None` also where the rest is none, which [`finish`](Self::finish) tells. This takes half the time
    /// of a step of the iterator, whose results go through memory.
    #[inline(always)]
    pub(crate) fn take_next(&mut self) -> Option<Entry<'a>> {
        let (header, tail) = self.rest.split_first_chunk::<ENTRY_HEADER_BYTES>()?;
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let (key_length, value_length) = (word(8), word(12));
        let (key, tail) = tail.split_at_checked((key_length & !TOMBSTONE) as usize)?;
        let (value, tail) = tail.split_at_checked(value_length as usize)?;
        let value = (key_length & TOMBSTONE == 0).then_some(value);
        self.rest = tail;
        Some(Entry { hash: u64::from(word(0)) | u64::from(word(4)) << 32, key, value })
    }

    /// Whether all of the page was entries.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when something is left that is none.
    pub(crate) fn finish(&mut self) -> Result<()> {
        match std::mem::take(&mut self.rest).len() {
            0 => Ok(()),
            left => Err(Error::corrupt(format!("an entry runs over its page ({left} bytes before the end)"))),
        }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        match self.take_next() {
            Some(entry) => Some(Ok(entry)),
            None => self.finish().err().map(Err),
        }
    }
}

/// The trailer's payload.
pub(crate) fn trailer(directory_offset: u64, directory_length: u64) -> [u8; TRAILER_PAYLOAD_BYTES] {
    let mut bytes = [0; TRAILER_PAYLOAD_BYTES];
    bytes[0..8].copy_from_slice(&directory_offset.to_le_bytes());
    bytes[8..16].copy_from_slice(&directory_length.to_le_bytes());
    bytes
}

/// The directory's offset and frame length, from a trailer's payload.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when it has another length.
pub(crate) fn parse_trailer(payload: &[u8]) -> Result<(u64, u64)> {
    let Ok(payload) = <[u8; TRAILER_PAYLOAD_BYTES]>::try_from(payload) else {
        return Err(Error::corrupt(format!(
            "a trailer has {TRAILER_PAYLOAD_BYTES} bytes, not {}",
            payload.len()
        )));
    };
    let (offset, length) = (u128::from_le_bytes(payload) as u64, (u128::from_le_bytes(payload) >> 64) as u64);
    Ok((offset, length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_survive_the_round_trip(
            written in prop::collection::vec((any::<u64>(), any::<Vec<u8>>(), any::<Option<Vec<u8>>>()), 0..20),
        ) {
            let mut page = Vec::new();
            let mut bytes = 0;
            for (hash, key, value) in &written {
                append_entry(&mut page, Entry { hash: *hash, key, value: value.as_deref() }).unwrap();
                bytes += entry_bytes(key, value.as_deref());
            }
            prop_assert_eq!(bytes, page.len());
            let read: Result<Vec<_>> = entries(&page).collect();
            let read: Vec<_> = read.unwrap().iter().map(|e| (e.hash, e.key.to_vec(), e.value.map(<[u8]>::to_vec))).collect();
            prop_assert_eq!(read, written);
        }

        #[test]
        fn arbitrary_bytes_end_without_a_panic(bytes in any::<Vec<u8>>()) {
            prop_assert!(entries(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn a_trailer_survives_the_round_trip() {
        assert_eq!(parse_trailer(&trailer(7, 1 << 40)).unwrap(), (7, 1 << 40));
        assert!(parse_trailer(b"short").is_err());
    }
}
