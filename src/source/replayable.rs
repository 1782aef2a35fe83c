//! The contract of sources that can be read again.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::rdd::{Emitter, Record};
use crate::state::OperatorState;

/// A range of one partition of a source, as a plan records it: `start` inclusive, `end` exclusive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRange {
    /// The partition: a file's name, a topic's partition.
    pub partition: String,
    /// Where it starts, in the source's own unit (bytes, offsets).
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// The partition's size when it was first offered, 0 where it has none.
    pub size: u64,
    /// What [`RangeReader::read`] compares to notice that the partition was replaced, 0 for nothing.
    pub stamp: u64,
}

/// How far a partition is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The end of the last planned range.
    pub offset: u64,
    /// As in that range.
    pub size: u64,
    /// As in that range.
    pub stamp: u64,
}

impl Position {
    pub(crate) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[0..8].copy_from_slice(&self.offset.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.size.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.stamp.to_le_bytes());
        bytes
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let word = |at: usize| {
            let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
            word.map(u64::from_le_bytes)
        };
        match (bytes.len(), word(0), word(8), word(16)) {
            (24, Some(offset), Some(size), Some(stamp)) => Ok(Position { offset, size, stamp }),
            _ => Err(Error::corrupt(format!("{} bytes are no position of a source", bytes.len()))),
        }
    }
}

/// How far each partition of a source is planned: a map that is checkpointed with the state.
#[derive(Clone, Debug)]
pub struct Positions {
    state: Arc<OperatorState>,
}

impl Positions {
    pub(crate) fn new(state: Arc<OperatorState>) -> Self {
        Positions { state }
    }

    pub(crate) fn state(&self) -> &Arc<OperatorState> {
        &self.state
    }

    /// How far `partition` is planned, `None` when nothing of it is.
    ///
    /// # Errors
    /// When the stored position cannot be read.
    pub fn get(&self, partition: &str) -> Result<Option<Position>> {
        self.state.get(partition.as_bytes())?.map(|bytes| Position::from_bytes(&bytes)).transpose()
    }

    /// How many partitions have a position.
    pub fn len(&self) -> u64 {
        self.state.live_keys()
    }

    /// Whether no partition has a position.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The partitions that have a position.
    ///
    /// # Errors
    /// When stored positions cannot be read.
    pub fn partitions(&self) -> Result<Vec<String>> {
        let mut partitions = Vec::new();
        self.state.for_each(|partition, _| {
            partitions.push(String::from_utf8_lossy(partition).into_owned());
            Ok(())
        })?;
        Ok(partitions)
    }

    pub(crate) fn advance(&self, range: &SourceRange) -> Result<()> {
        let position = Position { offset: range.end, size: range.size, stamp: range.stamp };
        self.state.put(range.partition.as_bytes(), Some(&position.to_bytes()))
    }

    pub(crate) fn forget(&self, partition: &str) -> Result<()> {
        self.state.put(partition.as_bytes(), None)
    }
}

/// What a source has for the next batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// What the batch shall read, in this order. Each range is read by one task.
    pub ranges: Vec<SourceRange>,
    /// Partitions that are gone for good: their positions are forgotten, so that they take no space and
    /// one of the same name counts as new.
    pub retired: Vec<String>,
    /// Whether there is something that cannot be offered yet (a file that is still being written).
    pub waiting: bool,
}

/// Reads ranges, also again after a restart, and from several threads.
pub trait RangeReader<T>: Send + Sync + 'static {
    /// Emits the records of one range and returns how many there were. The same range gives the same records
    /// in the same order, however often it is read.
    ///
    /// # Errors
    /// [`ErrorKind::Source`](crate::ErrorKind::Source) when the range is gone or was changed: the batch
    /// fails and nothing is skipped.
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, T>) -> Result<u64>;
}

/// A source that can be read again: files, and message logs such as Kafka.
///
/// # Contract
/// The engine calls [`poll`](ReplayableSource::poll) once per batch, on one thread. The ranges offered become
/// part of the batch's plan, which is durable before anything is read; from then on they count as taken,
/// and positions move to their ends. `poll` must not remember what it offered: after a crash it may not
/// have been planned, and positions tell. A batch that is replayed reads the planned ranges again through
/// the [`RangeReader`] and never calls `poll`.
pub trait ReplayableSource: Send + 'static {
    /// The records.
    type Item: Record;

    /// Offers what follows `positions`, at most about `limit` in the source's unit. `now_ms` is the time
    /// by the job's clock.
    ///
    /// It is not to wait for more: nothing goes on meanwhile, and in a job that is behind the completion of the batch before is
    /// recorded together with what this offers, so that a crash meanwhile emits that batch again.
    ///
    /// # Errors
    /// An error stops the job. Trouble that may pass (a directory that is not there) is to be logged and
    /// waited out.
    fn poll(&mut self, positions: &Positions, limit: u64, now_ms: u64) -> Result<Offer>;

    /// What reads the ranges.
    fn reader(&self) -> Arc<dyn RangeReader<Self::Item>>;
}
