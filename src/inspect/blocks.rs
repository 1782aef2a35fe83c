//! The blocks that are in the receive log.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::format::block::{BLOCK_HEADER_BYTES, BlockEncoding, BlockHeader};
use crate::format::frame::HEADER_BYTES;
use crate::format::records::BlockRef;
use crate::id::StreamId;
use crate::inspect::log::read_whole_log;
use crate::inspect::open::{ReadStore, open};
use crate::inspect::report::{Finding, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::view::{View, no_such, stream_id, stream_names};
use crate::store::disk::read_at;

/// The blocks of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlocksReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The newest sound record of the catalog: the report shows the store as of its commit.
    pub last_durable_record: u64,
    /// The sound blocks that are still in the log, oldest first.
    pub blocks: Vec<BlockReport>,
    /// Whether the log, the catalog and the checkpoints that were read are sound.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockReport {
    /// Its number.
    pub block: u64,
    /// The id of its stream: 16 hexadecimal digits.
    pub stream: String,
    /// The stream's name; `null` when the last run has no input of this id.
    pub name: Option<String>,
    /// The extent of the log that it is in.
    pub extent: u64,
    /// Where its frame begins there.
    pub offset: u64,
    /// The bytes of its payload, its header of 16 bytes included.
    pub bytes: u64,
    /// `"lines"`, or `"records"` for archives with their lengths.
    pub encoding: &'static str,
    /// How many records it has; `null` for lines, which have to be counted.
    pub records: Option<u64>,
    /// The batch that it is planned in, `null` when that plan was pruned or is not made yet.
    pub batch: Option<u64>,
    /// Whether it waits for a batch.
    pub pending: bool,
}

/// Lists the blocks in the receive log of the store in `dir`, only those of the stream called `stream` if that
/// is given. All of the log is read.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect), and [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when the last run has no input
/// called `stream`. Once the record of that run was pruned, any name will do.
pub fn blocks(dir: &Path, stream: Option<&str>) -> Result<BlocksReport> {
    let store = open(dir)?;
    settled(&store.paths, || list(&store, dir, stream), |report| &report.findings)
}

fn list(store: &ReadStore, dir: &Path, stream: Option<&str>) -> Result<BlocksReport> {
    let view = View::read(store)?;
    let naming = Naming::of(&view);
    let wanted = stream.map(|name| naming.stream_called(name)).transpose()?;
    let next_block = view.next_block();
    let log = read_whole_log(store, view.catalog.oldest_needed_block(), next_block)?;
    let (_, mut findings) = view.judged();
    findings.extend(log.findings.iter().cloned());
    let mut headers = Headers { store, open: None };
    let mut blocks = Vec::new();
    let of_stream =
        log.contents.blocks.iter().filter(|found| wanted.is_none_or(|wanted| found.stream.0 == wanted));
    for found in of_stream {
        // A running job may have trimmed the file since.
        if let Some(header) = headers.read(&found.block)? {
            blocks.push(naming.describe(&found.block, &header));
        }
    }
    Ok(BlocksReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        last_durable_record: view.catalog.history.last_seq,
        blocks,
        sound: judge(&mut findings),
        findings,
    })
}

/// What the catalog says about blocks.
pub(super) struct Naming {
    names: BTreeMap<u64, String>,
    planned: BTreeMap<u64, u64>,
    next_block: u64,
}

impl Naming {
    pub(super) fn of(view: &View<'_>) -> Self {
        let plans = view.catalog.history.plans.values();
        let planned = plans.flat_map(|plan| {
            let blocks = plan.inputs.iter().flat_map(|input| &input.blocks);
            blocks.map(|block| (block.block, plan.batch))
        });
        let planned = planned.collect();
        Naming { names: stream_names(&view.catalog), planned, next_block: view.next_block() }
    }

    fn stream_called(&self, name: &str) -> Result<u64> {
        let stream = StreamId::of(name).0;
        if self.names.is_empty() || self.names.contains_key(&stream) {
            return Ok(stream);
        }
        let known: Vec<&str> = self.names.values().map(String::as_str).collect();
        Err(no_such(format!("the last run has no input stream `{name}`: it has {}", known.join(", "))))
    }

    pub(super) fn describe(&self, block: &BlockRef, header: &BlockHeader) -> BlockReport {
        BlockReport {
            block: block.block,
            stream: stream_id(header.stream.0),
            name: self.names.get(&header.stream.0).cloned(),
            extent: block.extent,
            offset: block.offset,
            bytes: block.length.into(),
            encoding: match header.encoding {
                BlockEncoding::Lines => "lines",
                BlockEncoding::Records => "records",
            },
            records: (header.encoding == BlockEncoding::Records).then_some(header.records.into()),
            batch: self.planned.get(&block.block).copied(),
            pending: block.block >= self.next_block,
        }
    }
}

/// Reads the headers of blocks whose bytes were checked before.
struct Headers<'s> {
    store: &'s ReadStore,
    open: Option<(u64, File)>,
}

impl Headers<'_> {
    fn read(&mut self, block: &BlockRef) -> Result<Option<BlockHeader>> {
        let path = self.store.paths.log().join(format!("{}.extent", block.extent));
        if self.open.as_ref().is_none_or(|(extent, _)| *extent != block.extent) {
            match File::open(&path) {
                Ok(file) => self.open = Some((block.extent, file)),
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(cause) => return Err(Error::io(format!("open {}", path.display()), cause)),
            }
        }
        let Some((_, file)) = &self.open else { return Ok(None) };
        let bytes = read_at(file, block.offset + HEADER_BYTES as u64, BLOCK_HEADER_BYTES, &path)?;
        let parsed = BlockHeader::parse(&bytes).map_err(|error| error.within(path.display()));
        parsed.map(|(header, _)| Some(header))
    }
}
