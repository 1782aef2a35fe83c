//! The planned input of one stream, and the RDD that reads it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::exec::TaskContext;
use crate::exec::tally::{self, Scope};
use crate::format::block::{BlockEncoding, BlockHeader, for_each_record};
use crate::format::frame::HEADER_BYTES;
use crate::rdd::{Chunks, Emitter, Lineage, NodeInfo, Parent, Rdd, RddNode, Record};
use crate::receive_log::ReceivedBlock;
use crate::record::{Data, DataBuffer, Schema, Text};
use crate::source::{RangeReader, SourceRange, emit_lines};
use crate::store::StorePaths;
use crate::store::extents::{BLOCK_DATA_AT, read_block};

use super::Batch;

/// What a plan fixes of one stream.
#[derive(Debug, Default)]
pub(crate) struct BatchInput {
    pub(crate) blocks: Vec<ReceivedBlock>,
    pub(crate) ranges: Vec<SourceRange>,
    /// Records by partition, known once it was read. A partition that is read again counts once.
    records: Vec<AtomicU64>,
}

impl BatchInput {
    pub(crate) fn new(blocks: Vec<ReceivedBlock>, ranges: Vec<SourceRange>) -> Self {
        let records = (0..blocks.len() + ranges.len()).map(|_| AtomicU64::new(0)).collect();
        BatchInput { blocks, ranges, records }
    }

    /// Bytes of the blocks, and the length of the ranges in the source's own unit.
    pub(crate) fn bytes(&self) -> u64 {
        let blocks = self.blocks.iter().map(|block| u64::from(block.place.length));
        blocks.chain(self.ranges.iter().map(|range| range.end - range.start)).sum()
    }

    pub(crate) fn records_read(&self) -> u64 {
        self.records.iter().map(|records| records.load(Ordering::Relaxed)).sum()
    }
}

/// How the records of a stream are read.
pub(crate) enum InputReader<T> {
    /// From blocks of the log.
    Blocks(Arc<dyn BlockReader<T>>),
    /// From where the source has them.
    Ranges(Arc<dyn RangeReader<T>>),
}

impl<T> Clone for InputReader<T> {
    fn clone(&self) -> Self {
        match self {
            InputReader::Blocks(blocks) => InputReader::Blocks(blocks.clone()),
            InputReader::Ranges(ranges) => InputReader::Ranges(ranges.clone()),
        }
    }
}

impl<T> InputReader<T> {
    /// Of the records in the stream's blocks; empty for lines and where there are no blocks.
    pub(crate) fn schema(&self) -> &str {
        match self {
            InputReader::Blocks(blocks) => blocks.schema(),
            InputReader::Ranges(_) => "",
        }
    }
}

/// How the records of a stream are read from a block.
pub(crate) trait BlockReader<T>: Send + Sync {
    /// Of the records; empty for lines.
    fn schema(&self) -> &str;

    /// Emits the records of a block frame, and returns how many there were.
    fn read(&self, frame: &Arc<Vec<u8>>, header: &BlockHeader, out: &mut Emitter<'_, T>) -> Result<u64>;
}

/// Reads lines.
pub(crate) struct LineBlocks;

impl BlockReader<Text> for LineBlocks {
    fn schema(&self) -> &str {
        ""
    }

    fn read(&self, frame: &Arc<Vec<u8>>, header: &BlockHeader, out: &mut Emitter<'_, Text>) -> Result<u64> {
        expect(header.encoding, BlockEncoding::Lines)?;
        emit_lines(frame, BLOCK_DATA_AT, out)
    }
}

/// Reads archived records.
pub(crate) struct RecordBlocks {
    schema: Schema,
    hash: u64,
}

impl RecordBlocks {
    pub(crate) fn of<T: Data>() -> Arc<Self> {
        let schema = Schema::of::<T>();
        Arc::new(RecordBlocks { hash: schema.hash(), schema })
    }
}

impl<T: Data> BlockReader<T> for RecordBlocks {
    fn schema(&self) -> &str {
        self.schema.text()
    }

    fn read(&self, frame: &Arc<Vec<u8>>, header: &BlockHeader, out: &mut Emitter<'_, T>) -> Result<u64> {
        expect(header.encoding, BlockEncoding::Records)?;
        if header.schema != self.hash {
            let message = format!(
                "the block holds records of another type than the stream of this name now has, which is {}: go back to \
                 the type that it had until they are processed",
                self.schema.text()
            );
            return Err(Error::new(crate::error::ErrorKind::Incompatible, message));
        }
        let mut buffer = DataBuffer::default();
        let mut records = 0;
        for_each_record(&frame[BLOCK_DATA_AT..], |bytes| {
            out.emit(T::decode(bytes, &mut buffer)?);
            records += 1;
            Ok(())
        })?;
        out.check()?;
        Ok(records)
    }
}

fn expect(found: BlockEncoding, expected: BlockEncoding) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    let message = format!("the block holds {found:?}, the stream of this name now reads {expected:?}");
    Err(Error::new(crate::error::ErrorKind::Incompatible, message))
}

struct InputNode<T> {
    info: NodeInfo,
    name: Arc<str>,
    input: Arc<BatchInput>,
    paths: Arc<StorePaths>,
    reader: InputReader<T>,
}

impl<T: Record> Lineage for InputNode<T> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        Vec::new()
    }
}

impl<T: Record> RddNode<T> for InputNode<T> {
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        let mut taken = 0;
        let mut forward = |chunk: &mut Vec<T>| {
            taken += chunk.len() as u64;
            out(chunk)
        };
        let mut emitter = Emitter::new(&mut forward);
        let scope = Scope::Rdd { node: self.info.id, partition };
        let read = tally::collect(scope, || match self.input.blocks.get(partition) {
            Some(block) => self.read_block(task, block, &mut emitter),
            None => self.read_range(task, partition - self.input.blocks.len(), &mut emitter),
        });
        let read = read.and_then(|records| emitter.finish().map(|()| records));
        // An action that has enough ends the reading early; another one may have read everything before.
        let records = *read.as_ref().unwrap_or(&taken);
        self.input.records[partition].fetch_max(records, Ordering::Relaxed);
        read.map(|_| ())
    }
}

impl<T: Record> InputNode<T> {
    fn read_block(&self, task: &TaskContext, block: &ReceivedBlock, out: &mut Emitter<'_, T>) -> Result<u64> {
        task.set_origin(format!("block {} of `{}`", block.place.block, self.name));
        let InputReader::Blocks(reader) = &self.reader else { return Err(self.changed_kind("blocks")) };
        let frame = match &block.frame {
            Some(frame) => frame.clone(),
            None => Arc::new(read_block(&self.paths, &block.place)?),
        };
        let (header, _) = BlockHeader::parse(&frame[HEADER_BYTES..])?;
        reader.read(&frame, &header, out)
    }

    fn read_range(&self, task: &TaskContext, at: usize, out: &mut Emitter<'_, T>) -> Result<u64> {
        let range = &self.input.ranges[at];
        task.set_origin(format!(
            "{} from {} to {} of `{}`",
            range.partition, range.start, range.end, self.name
        ));
        let InputReader::Ranges(reader) = &self.reader else { return Err(self.changed_kind("ranges")) };
        reader.read(range, out)
    }

    fn changed_kind(&self, planned: &str) -> Error {
        let message =
            format!("{planned} were planned for `{}`, which is now a source of another kind", self.name);
        Error::new(crate::error::ErrorKind::Incompatible, message)
    }
}

impl Batch {
    /// The RDD of a stream's input: one partition per block or range.
    pub(crate) fn input_rdd<T: Record>(
        &self,
        name: &Arc<str>,
        input: Arc<BatchInput>,
        reader: InputReader<T>,
    ) -> Rdd<T> {
        let partitions = input.blocks.len() + input.ranges.len();
        let mut info = NodeInfo::new(&self.executor, "input", partitions);
        info.detail = format!(" `{name}` of {}", self.id);
        let node = InputNode { info, name: name.clone(), input, paths: self.paths().clone(), reader };
        Rdd::new(&self.executor, node)
    }
}
