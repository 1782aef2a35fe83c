//! One block: what it says about itself, and its first records.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::format::block::{BLOCK_HEADER_BYTES, BlockEncoding, BlockHeader, for_each_record};
use crate::format::frame::HEADER_BYTES;
use crate::format::records::BlockRef;
use crate::format::shown::schema::Type;
use crate::format::shown::value::archive_json;
use crate::inspect::blocks::{BlockReport, Naming};
use crate::inspect::open::{ReadStore, open, relative};
use crate::inspect::report::{Finding, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::view::{View, hex, no_such};
use crate::record::schema_hash;
use crate::store::extents::read_block;
use crate::store::log_scan::scan_log;

/// So many records are shown.
const SHOWN_MAX: usize = 10;

/// So many bytes of each are shown.
const SHOWN_BYTES_MAX: usize = 4096;

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockDetail {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The block as `blocks` lists it, but with its lines counted.
    pub block: BlockReport,
    /// Of its frame: 8 hexadecimal digits.
    pub crc: String,
    /// The type of its records, `null` when the last run has no input of its stream.
    pub record_type: Option<String>,
    /// The first records, at most 10.
    pub first: Vec<RecordReport>,
    /// Always true: a block that is damaged is an error.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// One record of a block. At most its first 4,096 bytes are shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RecordReport {
    /// All its bytes.
    pub bytes: u64,
    /// A line, `null` for archives. What is no UTF-8 is replaced by U+FFFD.
    pub text: Option<String>,
    /// An archive in hexadecimal digits, `null` for lines.
    pub hex: Option<String>,
    /// What the archive is, `null` when its type cannot be known without the job, and for lines.
    pub value: Option<Value>,
}

/// Shows block `id` of the store in `dir`.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect); [`ErrorKind::Corrupt`] when the block is
/// damaged, [`ErrorKind::InvalidConfig`] when it is not in the log.
pub fn block(dir: &Path, id: u64) -> Result<BlockDetail> {
    let store = open(dir)?;
    settled(&store.paths, || detail(&store, dir, id), |report| &report.findings)
}

/// The bytes of block `id` of the store in `dir` as they were received: lines, or records each with its length
/// as a little-endian `u32` before it.
///
/// # Errors
/// As [`block`].
pub fn block_bytes(dir: &Path, id: u64) -> Result<Vec<u8>> {
    let store = open(dir)?;
    let read = || {
        let view = View::read(&store)?;
        Ok((read_found(&store, &view, &find(&store, &view, id)?)?, Vec::new()))
    };
    let (mut frame, _): (_, Vec<Finding>) = settled(&store.paths, read, |(_, findings)| findings)?;
    frame.drain(..frame.len().min(HEADER_BYTES + BLOCK_HEADER_BYTES));
    Ok(frame)
}

fn detail(store: &ReadStore, dir: &Path, id: u64) -> Result<BlockDetail> {
    let view = View::read(store)?;
    let place = find(store, &view, id)?;
    let frame = read_found(store, &view, &place)?;
    let (header, bytes) = BlockHeader::parse(&frame[HEADER_BYTES..])?;
    let mut block = Naming::of(&view).describe(&place, &header);
    let nodes = view.catalog.history.job.iter().flat_map(|job| &job.lineage);
    let mut inputs = nodes.filter(|node| node.parents.is_empty() && Some(&node.name) == block.name.as_ref());
    let record_type = inputs.next().map(|node| node.record_type.clone());
    let record_schema = record_schema(&view, &header);
    let (records, first) = match header.encoding {
        BlockEncoding::Lines => lines(bytes),
        BlockEncoding::Records => archives(bytes, record_schema.as_ref())?,
    };
    block.records = Some(records);
    // What is wrong elsewhere does not matter here.
    let mut findings = Vec::new();
    Ok(BlockDetail {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        block,
        crc: format!("{:08x}", place.crc),
        record_type,
        first,
        sound: judge(&mut findings),
        findings,
    })
}

/// Where a block is: its plan says it, and otherwise the log.
fn find(store: &ReadStore, view: &View<'_>, id: u64) -> Result<BlockRef> {
    let plans = view.catalog.history.plans.values();
    let mut planned = plans.flat_map(|plan| &plan.inputs).flat_map(|input| &input.blocks);
    if let Some(found) = planned.find(|block| block.block == id) {
        return Ok(*found);
    }
    let log = scan_log(&store.paths, store.identity.store, id)?;
    if let Some(found) = log.blocks.iter().find(|found| found.block.block == id) {
        return Ok(found.block);
    }
    match log.damage.first() {
        Some(damage) => {
            let damage = relative(&store.paths, damage);
            Err(Error::corrupt(format!("block {id} is not among the readable ones: {damage}")))
        }
        None => Err(no_such(format!("there is no block {id} in the log: it was trimmed, or never received"))),
    }
}

pub(super) fn read_found(store: &ReadStore, view: &View<'_>, place: &BlockRef) -> Result<Vec<u8>> {
    let is_there = store.paths.log().join(format!("{}.extent", place.extent)).exists();
    if !is_there && place.block < view.catalog.oldest_needed_block() {
        return Err(no_such(format!("block {} was trimmed: no checkpoint needs it", place.block)));
    }
    read_block(&store.paths, place).map_err(|error| match error.kind() {
        ErrorKind::Corrupt => Error::corrupt(relative(&store.paths, &error.chain())),
        _ => error,
    })
}

fn lines(bytes: &[u8]) -> (u64, Vec<RecordReport>) {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    if bytes.is_empty() {
        return (0, Vec::new());
    }
    let mut all = text.split(|byte| *byte == b'\n');
    let first: Vec<RecordReport> = all.by_ref().take(SHOWN_MAX).map(line_report).collect();
    (first.len() as u64 + all.count() as u64, first)
}

fn archives(bytes: &[u8], record_schema: Option<&Type>) -> Result<(u64, Vec<RecordReport>)> {
    let mut first = Vec::new();
    let mut count = 0;
    for_each_record(bytes, |record| {
        count += 1;
        if first.len() < SHOWN_MAX {
            first.push(archive_report(record, record_schema));
        }
        Ok(())
    })?;
    Ok((count, first))
}

pub(super) fn line_report(line: &[u8]) -> RecordReport {
    RecordReport {
        bytes: line.len() as u64,
        text: Some(String::from_utf8_lossy(&line[..line.len().min(SHOWN_BYTES_MAX)]).into_owned()),
        hex: None,
        value: None,
    }
}

/// The schema of a block's records, where the store still says it.
pub(super) fn record_schema(view: &View<'_>, header: &BlockHeader) -> Option<Type> {
    let mut streams = view.catalog.history.job.iter().flat_map(|job| &job.streams);
    let stream = streams.find(|stream| schema_hash(&stream.schema) == header.schema)?;
    Type::parse(&stream.schema)
}

pub(super) fn archive_report(record: &[u8], record_schema: Option<&Type>) -> RecordReport {
    RecordReport {
        bytes: record.len() as u64,
        text: None,
        hex: Some(hex(&record[..record.len().min(SHOWN_BYTES_MAX)])),
        value: record_schema.and_then(|root| archive_json(root, record)),
    }
}
