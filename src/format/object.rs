//! Object files: the records of one partition, for other programs of the same types. Not part of a store;
//! `object-file-format.md` is the description.
//!
//! ```text
//!  0        4         6      8           12           16        20
//!  | magic  | version | kind | frame u32 | length u32 | crc u32 | payload ...
//! ```
//!
//! Little-endian. The CRC32 (IEEE) covers bytes 0..16 and the payload. A file is one `Header`, any number of
//! `Records`, one `End`; `frame` counts them from 0.

use crate::error::{Error, ErrorKind, Result};

const MAGIC: [u8; 4] = *b"MLPO";

/// The version this build writes and reads.
const OBJECT_FILE_VERSION: u16 = 1;

/// The length of a frame's header.
pub(crate) const OBJECT_HEADER_BYTES: usize = 20;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum ObjectKind {
    Header = 1,
    /// Each record as a u32 length and its archive.
    Records = 2,
    End = 3,
}

/// The first 16 bytes of a frame, and its CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectFrame {
    pub(crate) kind: ObjectKind,
    pub(crate) frame: u32,
    pub(crate) length: u32,
    crc: u32,
}

impl ObjectFrame {
    fn prefix(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&OBJECT_FILE_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&(self.kind as u16).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.frame.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.length.to_le_bytes());
        bytes
    }

    fn checksum(&self, payload: &[u8]) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.prefix());
        crc.update(payload);
        crc.finalize()
    }

    /// Reads a header; the version before anything that another one may have changed.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] for another version, [`ErrorKind::Corrupt`] for anything else.
    pub(crate) fn parse(bytes: &[u8; OBJECT_HEADER_BYTES]) -> Result<Self> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        if bytes[0..4] != MAGIC {
            return Err(Error::corrupt("no frame of an object file starts here (wrong magic bytes)"));
        }
        if half(4) != OBJECT_FILE_VERSION {
            let message = format!(
                "unsupported version {} of object files (this build reads {OBJECT_FILE_VERSION})",
                half(4)
            );
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
        let kind = match half(6) {
            1 => ObjectKind::Header,
            2 => ObjectKind::Records,
            3 => ObjectKind::End,
            other => return Err(Error::corrupt(format!("unknown kind {other} of frame"))),
        };
        Ok(ObjectFrame { kind, frame: word(8), length: word(12), crc: word(16) })
    }

    /// Checks the payload that was read for this header.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when the CRC does not agree.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<()> {
        let found = self.checksum(payload);
        if found != self.crc || payload.len() != self.length as usize {
            let message = format!("CRC mismatch (stored {:08x}, computed {found:08x})", self.crc);
            return Err(Error::corrupt(message));
        }
        Ok(())
    }
}

/// The 20 bytes in front of `payload`.
///
/// # Errors
/// [`ErrorKind::UserCode`] when the payload, or the file in frames, is too long.
pub(crate) fn object_frame(
    kind: ObjectKind,
    frame: u64,
    payload: &[u8],
) -> Result<[u8; OBJECT_HEADER_BYTES]> {
    let too_long = |_| {
        let message = format!(
            "frame {frame} of {} bytes: an object file has up to 2^32 frames of up to 4 GiB",
            payload.len()
        );
        Error::new(ErrorKind::UserCode, message)
    };
    let (frame_u32, length) =
        (u32::try_from(frame).map_err(too_long)?, u32::try_from(payload.len()).map_err(too_long)?);
    let header = ObjectFrame { kind, frame: frame_u32, length, crc: 0 };
    let mut bytes = [0; OBJECT_HEADER_BYTES];
    bytes[..16].copy_from_slice(&header.prefix());
    bytes[16..].copy_from_slice(&header.checksum(payload).to_le_bytes());
    Ok(bytes)
}

/// What a file says about itself: the payload of its first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ObjectHeader {
    pub(crate) partition: u32,
    /// Of the whole RDD: so many files belong together.
    pub(crate) partitions: u32,
    /// The width of a record's archived root.
    pub(crate) width: u32,
    /// The record's type without the paths of its modules, which two programs need not share.
    pub(crate) record_type: String,
}

impl ObjectHeader {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let words = [self.partition, self.partitions, self.width].map(u32::to_le_bytes).concat();
        [&words, self.record_type.as_bytes()].concat()
    }

    pub(crate) fn parse(payload: &[u8]) -> Result<Self> {
        let split = payload.split_first_chunk::<12>();
        let parsed = split.and_then(|(words, name)| {
            let word =
                |at: usize| u32::from_le_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
            Some(ObjectHeader {
                partition: word(0),
                partitions: word(4),
                width: word(8),
                record_type: String::from_utf8(name.to_vec()).ok()?,
            })
        });
        parsed.ok_or_else(|| Error::corrupt("no valid header of an object file"))
    }
}

/// A type's name without the paths in it: `Vec<Order>` for `alloc::vec::Vec<shop::Order>`.
pub(crate) fn name_without_paths(name: &str) -> String {
    let mut short = String::new();
    let mut rest = name;
    while let Some(next) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("::") {
            let word = short.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len();
            short.truncate(word);
            rest = after;
        } else {
            short.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_name_loses_its_paths_only() {
        let name = name_without_paths("(alloc::vec::Vec<shop::orders::Order>, core::option::Option<&str>)");
        assert_eq!(name, "(Vec<Order>, Option<&str>)");
    }

    proptest! {
        #[test]
        fn every_flipped_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>()) {
            let mut bytes = object_frame(ObjectKind::Records, 7, &payload).unwrap().to_vec();
            bytes.extend_from_slice(&payload);
            let read = |bytes: &[u8]| {
                let (header, payload) = bytes.split_first_chunk().unwrap();
                ObjectFrame::parse(header)?.check(payload)
            };
            prop_assert!(read(&bytes).is_ok());
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(read(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(header in any::<[u8; OBJECT_HEADER_BYTES]>(), bytes in any::<Vec<u8>>()) {
            drop(ObjectFrame::parse(&header));
            drop(ObjectHeader::parse(&bytes));
        }
    }
}
