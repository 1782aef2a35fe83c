//! The payload of a block frame: 24 bytes that say whose it is, then the records.
//!
//! ```text
//!  0           8              12             16           24
//!  | stream u64 | encoding u32 | records u32 | schema u64 | bytes ...
//! ```

use crate::error::{Error, Result};
use crate::id::StreamId;

/// The length of a block's own header.
pub(crate) const BLOCK_HEADER_BYTES: usize = 24;

/// How the records of a block are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum BlockEncoding {
    /// Lines as they were received, each ended by `\n`, the last one perhaps not.
    Lines = 1,
    /// Each record as a little-endian u32 length and its archive.
    Records = 2,
}

/// What a block says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) stream: StreamId,
    pub(crate) encoding: BlockEncoding,
    /// The number of records, 0 where only reading tells (lines).
    pub(crate) records: u32,
    /// The hash of the schema of the records, 0 for lines.
    pub(crate) schema: u64,
}

impl BlockHeader {
    pub(crate) fn to_bytes(self) -> [u8; BLOCK_HEADER_BYTES] {
        let mut bytes = [0; BLOCK_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&self.stream.0.to_le_bytes());
        bytes[8..12].copy_from_slice(&(self.encoding as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&self.records.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.schema.to_le_bytes());
        bytes
    }

    /// Splits a block's payload into its header and its bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is too short or the encoding unknown.
    pub(crate) fn parse(payload: &[u8]) -> Result<(Self, &[u8])> {
        let Some((header, bytes)) = payload.split_first_chunk::<BLOCK_HEADER_BYTES>() else {
            return Err(Error::corrupt(format!("a block of {} bytes has no header", payload.len())));
        };
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let encoding = match word(8) {
            1 => BlockEncoding::Lines,
            2 => BlockEncoding::Records,
            other => return Err(Error::corrupt(format!("unknown block encoding {other}"))),
        };
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Ok((BlockHeader { stream: StreamId(long(0)), encoding, records: word(12), schema: long(16) }, bytes))
    }
}

/// Walks the records of a block with [`BlockEncoding::Records`].
///
/// # Errors
/// What `each` returns, or [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when a length runs over.
pub(crate) fn for_each_record(bytes: &[u8], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let split = rest.split_first_chunk::<4>();
        let record =
            split.and_then(|(length, tail)| tail.split_at_checked(u32::from_le_bytes(*length) as usize));
        let Some((record, tail)) = record else {
            let at = bytes.len() - rest.len();
            return Err(Error::corrupt(format!("the record at byte {at} of the block runs over its end")));
        };
        each(record)?;
        rest = tail;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_survives_the_round_trip() {
        let header = BlockHeader {
            stream: StreamId(0x0123_4567_89ab_cdef),
            encoding: BlockEncoding::Records,
            records: 9,
            schema: 0xfedc_ba98_7654_3210,
        };
        let mut payload = header.to_bytes().to_vec();
        payload.extend_from_slice(b"rest");
        assert_eq!(BlockHeader::parse(&payload).unwrap(), (header, &b"rest"[..]));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            drop(BlockHeader::parse(&bytes));
            drop(for_each_record(&bytes, |_| Ok(())));
        }
    }
}
