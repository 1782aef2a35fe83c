//! A source that follows a script.

use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::rdd::{Emitter, Record};
use crate::source::{Offer, Positions, RangeReader, ReplayableSource, SourceRange};

/// The one partition of a script.
const PARTITION: &str = "script";

/// A replayable source with one list of records per batch. How far it was read is checkpointed with the job, as with
/// any [`ReplayableSource`], so that it survives crashes: every batch gets its own records, in every run.
///
/// ```
/// # fn main() -> millpond::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use millpond::testkit::{CollectSink, ManualClock, ScriptedSource};
/// use millpond::{StopMode, StreamingContext};
///
/// let clock = ManualClock::at(0);
/// let context = StreamingContext::builder("doc").store(dir.path()).clock(clock.clone()).build()?;
/// let squares = CollectSink::new();
/// let numbers = ScriptedSource::new([vec![1, 2, 3], vec![4]]);
/// context.replayable_stream("numbers", numbers).map(|n| n * n).write_to("squares", squares.clone());
/// let job = context.start()?;
/// for batch in 1..=2 {
///     clock.advance(1_000);
///     squares.wait_for_batch(batch);
/// }
/// job.stop(StopMode::Graceful)?;
/// assert_eq!(squares.batches(), [(1, vec![1, 4, 9]), (2, vec![16])]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct ScriptedSource<T> {
    batches: Arc<Vec<Vec<T>>>,
    ranges: usize,
}

impl<T: Record> ScriptedSource<T> {
    /// The first batch gets the first list, and so on; those after the last get nothing.
    pub fn new(batches: impl Into<Vec<Vec<T>>>) -> Self {
        ScriptedSource { batches: Arc::new(batches.into()), ranges: 1 }
    }

    /// Splits every batch into so many ranges, which are read as so many partitions; at least 1. Default 1.
    pub fn ranges(mut self, ranges: usize) -> Self {
        self.ranges = ranges.max(1);
        self
    }
}

/// An offset is the batch in the upper half and the record in the lower one.
fn offset(batch: u64, record: usize) -> u64 {
    (batch << 32) + record as u64
}

impl<T: Record> ReplayableSource for ScriptedSource<T> {
    type Item = T;

    fn poll(&mut self, positions: &Positions, _limit: u64, _now_ms: u64) -> Result<Offer> {
        let at = positions.get(PARTITION)?.map_or(0, |position| position.offset >> 32);
        let Some(batch) = self.batches.get(at as usize) else { return Ok(Offer::default()) };
        let start = |range: usize| batch.len() * range / self.ranges;
        let range = |range: usize| SourceRange {
            partition: PARTITION.to_owned(),
            start: offset(at, start(range)),
            end: if range + 1 == self.ranges { offset(at + 1, 0) } else { offset(at, start(range + 1)) },
            size: 0,
            stamp: 0,
        };
        Ok(Offer { ranges: (0..self.ranges).map(range).collect(), ..Offer::default() })
    }

    fn reader(&self) -> Arc<dyn RangeReader<T>> {
        Arc::new(ScriptReader(self.batches.clone()))
    }
}

struct ScriptReader<T>(Arc<Vec<Vec<T>>>);

impl<T: Record> RangeReader<T> for ScriptReader<T> {
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, T>) -> Result<u64> {
        let batch = self.0.get((range.start >> 32) as usize);
        let start = range.start as u32 as usize;
        let is_last = range.end >> 32 > range.start >> 32;
        let end = if is_last { batch.map_or(0, Vec::len) } else { range.end as u32 as usize };
        let Some(records) = batch.and_then(|batch| batch.get(start..end)) else {
            let message =
                format!("the script has no records {start} to {end} of batch {}", range.start >> 32);
            return Err(Error::new(ErrorKind::Source, message));
        };
        records.iter().for_each(|record| out.emit(record.clone()));
        Ok(records.len() as u64)
    }
}
