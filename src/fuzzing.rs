//! Where the fuzz targets enter: what reads stored bytes, given any bytes. Compiled by cargo-fuzz only.
//!
//! None of these may panic, hang, or take memory by a length that the bytes claim.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::checkpoint::recovery;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::format::block::{BlockEncoding, BlockHeader, for_each_record};
use crate::format::filter::Filter;
use crate::format::frame::{self, FrameHeader, HEADER_BYTES, encode_frame};
use crate::format::object::{OBJECT_HEADER_BYTES, ObjectFrame, ObjectHeader, ObjectKind, object_frame};
use crate::format::records::{
    CatalogRecord, CheckpointRecord, Directory, DoneRecord, EpochRecord, ExtentHeader, JobRecord, PlanRecord,
    Record, RunRecord, SegmentHeader, TalliesRecord,
};
use crate::format::segment::{self, entries, entry_bytes};
use crate::record::{Data, DataBuffer};
use crate::state::{OperatorState, StateType};
use crate::store::extents::read_block;
use crate::store::{Identity, StorePaths};

/// Bytes as a frame, and as the archive of every record in a frame whose checksum is right.
pub fn decode_frame(bytes: &[u8]) {
    if let Ok((header, payload)) = frame::decode_frame(bytes) {
        let again = encode_frame(header.kind, header.id, payload).unwrap_or_default();
        assert_eq!(again, bytes, "a sound frame is written as it was read");
    }
    drop(CatalogRecord::from_frame(bytes));
    decode_as::<EpochRecord>(bytes);
    decode_as::<RunRecord>(bytes);
    decode_as::<JobRecord>(bytes);
    decode_as::<PlanRecord>(bytes);
    decode_as::<DoneRecord>(bytes);
    decode_as::<CheckpointRecord>(bytes);
    decode_as::<TalliesRecord>(bytes);
    decode_as::<ExtentHeader>(bytes);
    decode_as::<SegmentHeader>(bytes);
    decode_as::<Directory>(bytes);
    let mut buffer = DataBuffer::default();
    drop(<Vec<(String, Option<u64>)> as Data>::decode(bytes, &mut buffer));
    drop(<crate::Text as Data>::decode(bytes, &mut buffer));
}

fn decode_as<R: Record + PartialEq>(payload: &[u8]) {
    let Ok(frame) = encode_frame(R::KIND, 7, payload) else { return };
    if let Ok((id, record)) = R::from_frame(&frame) {
        let again = record.to_frame(id).and_then(|frame| R::from_frame(&frame));
        assert!(again.is_ok_and(|again| again == (7, record)), "a record survives the round trip");
    }
}

/// Bytes as the payload of a page, of a trailer and of a block.
pub fn segment_page(bytes: &[u8]) {
    let mut walked = 0;
    for entry in entries(bytes) {
        let Ok(entry) = entry else { break };
        walked += entry_bytes(entry.key, entry.value);
    }
    assert!(walked <= bytes.len(), "the entries lie within their page");
    drop(segment::parse_trailer(bytes));
    let filter = Filter::parse(bytes);
    assert_eq!(
        filter.is_ok(),
        !bytes.is_empty() && bytes.len().is_multiple_of(32),
        "a filter has whole blocks"
    );
    drop(filter.map(|filter| filter.may_hold(walked as u64)));
    let mut records = 0;
    let whole = for_each_record(bytes, |record| {
        records += 4 + record.len();
        Ok(())
    });
    assert!(whole.is_err() || records == bytes.len(), "the records fill their block");
    if let Ok((header, rest)) = BlockHeader::parse(bytes) {
        assert_eq!([&header.to_bytes()[..], rest].concat(), bytes, "a block header survives the round trip");
    }
}

/// Corrects the checksums of the frames that follow each other from the start, so that what was changed in
/// them is reached behind the checksum.
pub fn reseal(bytes: &mut [u8]) {
    let mut rest = bytes;
    while let Ok(header) = FrameHeader::parse(rest) {
        let length = header.frame_bytes() as usize;
        if length > rest.len() {
            return;
        }
        let (frame, tail) = rest.split_at_mut(length);
        let (head, payload) = frame.split_at_mut(HEADER_BYTES);
        let Ok(sealed) = FrameHeader::for_payload(header.kind, header.id, &[payload]) else { return };
        head.copy_from_slice(&sealed.to_bytes());
        rest = tail;
    }
}

/// A frame of an object file with a right checksum, whatever its kind.
pub fn object_frame_of(kind: u16, number: u32, payload: &[u8]) -> Vec<u8> {
    let Ok(header) = object_frame(ObjectKind::Records, number.into(), payload) else { return Vec::new() };
    let mut bytes = header.to_vec();
    bytes[6..8].copy_from_slice(&kind.to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&bytes[..OBJECT_HEADER_BYTES - 4]);
    crc.update(payload);
    bytes[OBJECT_HEADER_BYTES - 4..].copy_from_slice(&crc.finalize().to_le_bytes());
    if let Some((header, _)) = bytes.split_first_chunk::<OBJECT_HEADER_BYTES>()
        && let Ok(frame) = ObjectFrame::parse(header)
    {
        assert!(frame.check(payload).is_ok(), "the checksum is right");
    }
    bytes.extend_from_slice(payload);
    bytes
}

/// The first frame of an object file of one partition.
pub fn object_header<T: Data>() -> Vec<u8> {
    let header = ObjectHeader {
        partition: 0,
        partitions: 1,
        width: T::archived_width() as u32,
        record_type: crate::format::object::name_without_paths(std::any::type_name::<T>()),
    };
    object_frame_of(1, 0, &header.to_bytes())
}

/// Two more frames: records, and the end after them.
pub fn object_records<T: Data>(records: &[T], next: &mut u64) -> Vec<u8> {
    let (mut payload, mut buffer) = (Vec::new(), DataBuffer::default());
    for record in records {
        if record.encode(&mut buffer).is_ok() {
            payload.extend((buffer.as_bytes().len() as u32).to_le_bytes());
            payload.extend_from_slice(buffer.as_bytes());
        }
    }
    let mut bytes = object_frame_of(2, *next as u32, &payload);
    bytes.extend(object_frame_of(3, *next as u32 + 1, &(records.len() as u64).to_le_bytes()));
    *next += 2;
    bytes
}

/// Bytes as a key and as a value of types by their names, as the tool shows them.
#[cfg(feature = "tool")]
pub fn show(key_type: &str, value_type: &str, schema: &str, bytes: &[u8]) {
    crate::inspect::show(key_type, value_type, schema, bytes);
}

/// Reads a store as a start does, and then the state of `totals` and every block that waits.
///
/// # Errors
/// What is wrong with the store.
pub fn read_store(root: &Path) -> Result<()> {
    let paths = StorePaths::new(root);
    let identity =
        Identity::read(&paths)?.ok_or_else(|| Error::new(ErrorKind::Incompatible, "no identity"))?;
    let found = recovery::read_store(&paths, identity.store, executor()?, u64::MAX)?;
    let state = OperatorState::new("totals", StateType::of::<String, u64>());
    state.restore(&found.segments)?;
    state.get(b"key 3")?;
    state.for_each(|_, _| Ok(()))?;
    for logged in &found.log.blocks {
        let frame = read_block(&paths, &logged.block)?;
        let (header, records) = BlockHeader::parse(frame.get(HEADER_BYTES..).unwrap_or_default())?;
        if header.encoding == BlockEncoding::Records {
            for_each_record(records, |_| Ok(()))?;
        }
    }
    Ok(())
}

fn executor() -> Result<&'static Executor> {
    static EXECUTOR: OnceLock<Arc<Executor>> = OnceLock::new();
    if EXECUTOR.get().is_none() {
        // Losing a race against another thread costs an executor that is dropped.
        let _ = EXECUTOR.set(Arc::new(Executor::new(1, 1)?));
    }
    EXECUTOR.get().map(|executor| &**executor).ok_or_else(|| Error::new(ErrorKind::Stopped, "no executor"))
}
