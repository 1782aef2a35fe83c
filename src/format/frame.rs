//! A frame: 24 bytes of header, then the payload.
//!
//! ```text
//!  0        4         6      8           12        16          24
//!  | magic  | version | kind | length u32 | crc u32 | id u64    | payload ...
//! ```
//!
//! Little-endian. The CRC32 (IEEE) covers bytes 0..12, 16..24 and the payload.

use crate::error::{Error, ErrorKind, Result};
use crate::format::{FORMAT_VERSION, FORMAT_VERSION_OLDEST};

/// The first four bytes of every frame.
pub(crate) const MAGIC: [u8; 4] = *b"MLPD";

/// The length of a frame's header.
pub(crate) const HEADER_BYTES: usize = 24;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum FrameKind {
    Identity = 1,
    Epoch = 2,
    Run = 3,
    Plan = 4,
    Done = 5,
    Checkpoint = 6,
    Witness = 7,
    Tallies = 8,
    Job = 9,
    Rollback = 10,
    ExtentHeader = 16,
    Block = 17,
    SegmentHeader = 32,
    Page = 33,
    Directory = 34,
    Trailer = 35,
    Filter = 36,
    Pin = 48,
}

impl FrameKind {
    const ALL: [FrameKind; 18] = [
        FrameKind::Identity,
        FrameKind::Epoch,
        FrameKind::Run,
        FrameKind::Plan,
        FrameKind::Done,
        FrameKind::Checkpoint,
        FrameKind::Witness,
        FrameKind::Tallies,
        FrameKind::Job,
        FrameKind::Rollback,
        FrameKind::ExtentHeader,
        FrameKind::Block,
        FrameKind::SegmentHeader,
        FrameKind::Page,
        FrameKind::Directory,
        FrameKind::Trailer,
        FrameKind::Filter,
        FrameKind::Pin,
    ];

    fn from_u16(kind: u16) -> Option<Self> {
        FrameKind::ALL.into_iter().find(|known| *known as u16 == kind)
    }
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: FrameKind,
    /// The payload's length in bytes.
    pub(crate) length: u32,
    pub(crate) crc: u32,
    /// What it identifies depends on the kind: a sequence number, a block, an extent, a segment.
    pub(crate) id: u64,
}

impl FrameHeader {
    /// The header of a frame whose payload is the concatenation of `parts`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when the payload is longer than 4 GiB.
    pub(crate) fn for_payload(kind: FrameKind, id: u64, parts: &[&[u8]]) -> Result<Self> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).map_err(|_| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("a frame of {length} bytes is over the limit of 4 GiB"),
            )
        })?;
        let mut header = FrameHeader { kind, length, crc: 0, id };
        header.crc = header.checksum(parts);
        Ok(header)
    }

    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&(self.kind as u16).to_le_bytes());
        bytes[8..12].copy_from_slice(&self.length.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.crc.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }

    fn checksum(&self, parts: &[&[u8]]) -> u32 {
        let bytes = self.to_bytes();
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[0..12]);
        crc.update(&bytes[16..24]);
        for part in parts {
            crc.update(part);
        }
        crc.finalize()
    }

    /// Reads a header. The version is looked at before anything that another version may have changed,
    /// so that a newer store is told apart from a damaged one.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] for another version, [`ErrorKind::Corrupt`] for anything else.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(Error::corrupt(format!("{} bytes are too few for a frame header", bytes.len())));
        };
        if bytes[0..4] != MAGIC {
            return Err(Error::corrupt("no frame starts here (wrong magic bytes)"));
        }
        let version = u16::from_le_bytes([bytes[4], bytes[5]]);
        if !(FORMAT_VERSION_OLDEST..=FORMAT_VERSION).contains(&version) {
            let message = format!(
                "unsupported format version {version} (this build reads {FORMAT_VERSION_OLDEST} to {FORMAT_VERSION})"
            );
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
        let kind = u16::from_le_bytes([bytes[6], bytes[7]]);
        let kind =
            FrameKind::from_u16(kind).ok_or_else(|| Error::corrupt(format!("unknown frame kind {kind}")))?;
        Ok(FrameHeader {
            kind,
            length: u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]),
            crc: u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]),
            id: u64::from_le_bytes([
                bytes[16], bytes[17], bytes[18], bytes[19], bytes[20], bytes[21], bytes[22], bytes[23],
            ]),
        })
    }

    /// Checks the payload that was read for this header.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when length or CRC do not agree.
    pub(crate) fn check(&self, payload: &[u8]) -> Result<()> {
        if payload.len() != self.length as usize {
            let message = format!("frame of {} payload bytes has {}", self.length, payload.len());
            return Err(Error::corrupt(message));
        }
        let found = self.checksum(&[payload]);
        if found != self.crc {
            let message = format!("CRC mismatch (stored {:08x}, computed {found:08x})", self.crc);
            return Err(Error::corrupt(message));
        }
        Ok(())
    }

    /// The same, and the frame must be of this kind.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when it is not.
    pub(crate) fn expect(&self, kind: FrameKind) -> Result<()> {
        if self.kind != kind {
            return Err(Error::corrupt(format!("expected a {kind:?} frame, found {:?}", self.kind)));
        }
        Ok(())
    }

    /// Header and payload together.
    pub(crate) fn frame_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.length)
    }
}

/// Header and payload as one buffer.
///
/// # Errors
/// As [`FrameHeader::for_payload`].
pub(crate) fn encode_frame(kind: FrameKind, id: u64, payload: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    append_frame(&mut bytes, kind, id, payload)?;
    Ok(bytes)
}

/// Appends a frame to `out`.
///
/// # Errors
/// As [`FrameHeader::for_payload`].
pub(crate) fn append_frame(out: &mut Vec<u8>, kind: FrameKind, id: u64, payload: &[u8]) -> Result<()> {
    let header = FrameHeader::for_payload(kind, id, &[payload])?;
    out.extend_from_slice(&header.to_bytes());
    out.extend_from_slice(payload);
    Ok(())
}

/// Reads the frame that fills `bytes` exactly.
///
/// # Errors
/// [`ErrorKind::Incompatible`] or [`ErrorKind::Corrupt`], as [`FrameHeader::parse`] and
/// [`FrameHeader::check`] say.
pub(crate) fn decode_frame(bytes: &[u8]) -> Result<(FrameHeader, &[u8])> {
    let header = FrameHeader::parse(bytes)?;
    let payload = &bytes[HEADER_BYTES..];
    header.check(payload)?;
    Ok((header, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_frame_survives_the_round_trip(id in any::<u64>(), payload in any::<Vec<u8>>()) {
            let bytes = encode_frame(FrameKind::Plan, id, &payload).unwrap();
            let (header, read) = decode_frame(&bytes).unwrap();
            prop_assert_eq!((header.kind, header.id, read), (FrameKind::Plan, id, &payload[..]));
        }

        #[test]
        fn every_flipped_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 0..40), at in any::<prop::sample::Index>()) {
            let mut bytes = encode_frame(FrameKind::Done, 7, &payload).unwrap();
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode_frame(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_are_refused_without_a_panic(bytes in any::<Vec<u8>>()) {
            prop_assert!(decode_frame(&bytes).is_err());
        }
    }

    #[test]
    fn a_newer_version_is_unsupported_not_corrupt() {
        let mut bytes = encode_frame(FrameKind::Done, 7, b"x").unwrap();
        bytes[4..6].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
        let error = decode_frame(&bytes).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("unsupported format version"), "{error}");
    }
}
