//! An embedded source that always says the same: each record follows from its number.

use std::sync::Arc;

use millpond::{Emitter, Offer, Positions, RangeReader, Record, ReplayableSource, SourceRange};

/// So many records, some for each batch. It can be read again: the plan of a batch records which numbers are
/// in it.
pub struct Numbered<T> {
    count: u64,
    per_batch: u64,
    record: fn(u64) -> T,
}

impl<T> Numbered<T> {
    /// The records that `record` makes of the numbers below `count`.
    pub fn new(count: u64, per_batch: u64, record: fn(u64) -> T) -> Self {
        Numbered { count, per_batch, record }
    }
}

impl<T: Record> ReplayableSource for Numbered<T> {
    type Item = T;

    fn poll(&mut self, positions: &Positions, _: u64, _: u64) -> millpond::Result<Offer> {
        let start = positions.get("numbers")?.map_or(0, |position| position.offset);
        let end = self.count.min(start + self.per_batch);
        let mut offer = Offer { waiting: end < self.count, ..Offer::default() };
        if start < end {
            offer.ranges.push(SourceRange { partition: "numbers".into(), start, end, size: 0, stamp: 0 });
        }
        Ok(offer)
    }

    fn reader(&self) -> Arc<dyn RangeReader<T>> {
        Arc::new(Numbered::new(self.count, self.per_batch, self.record))
    }
}

impl<T: Record> RangeReader<T> for Numbered<T> {
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, T>) -> millpond::Result<u64> {
        (range.start..range.end).for_each(|number| out.emit((self.record)(number)));
        Ok(range.end - range.start)
    }
}
