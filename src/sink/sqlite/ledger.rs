//! What the ledger row of an output decides, apart from the database that holds it.

use crate::error::{Error, ErrorKind, Result};
use crate::sink::{BatchInfo, Begin, SinkStart};

/// The row of one output of one job: the last batch that was committed with rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LedgerRow {
    pub(super) store: String,
    /// 0 for none.
    pub(super) batch: u64,
    pub(super) time_ms: u64,
    /// Grows with each start; only who took the row last may commit.
    pub(super) fence: i64,
}

impl LedgerRow {
    /// Whether a start may go on from this row.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] when what comes again could not be told from what is new.
    pub(super) fn check_start(&self, start: &SinkStart) -> Result<()> {
        let committed = self.batch;
        let problem = if committed == 0 {
            return Ok(());
        } else if self.store != start.store {
            format!(
                "it was written to from another store (up to batch {committed}), such as one that was deleted since"
            )
        } else if committed > start.last_batch.0 {
            format!(
                "it is ahead of the store: batch {committed} was committed, but the store has come to {} only, as \
                 a copy from earlier would have",
                start.last_batch
            )
        } else if start.lost.contains(&committed) {
            format!(
                "batch {committed} was committed, but damage to the store lost its plan (batches {} to {}): what it \
                 read would be written once more under another number",
                start.lost.start,
                start.lost.end - 1
            )
        } else {
            return Ok(());
        };
        let message = format!(
            "the ledger of output `{}` of job `{}`: {problem}. Use the store and the database that belong together; \
             or take the rows that would come twice out of the database, and set or delete the row in millpond_ledger",
            start.output, start.job
        );
        Err(Error::new(ErrorKind::Incompatible, message))
    }

    /// What to do with a batch that begins, or is about to be committed, under `fence`.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] when a later start has taken the ledger over.
    pub(super) fn admit(&self, fence: i64, batch: &BatchInfo) -> Result<Begin> {
        if self.fence != fence {
            let message = format!(
                "a later start of job `{}` has taken over output `{}`, from this store or a copy of it: this \
                 process may write no more",
                batch.job, batch.output
            );
            return Err(Error::new(ErrorKind::Locked, message));
        }
        if batch.batch.0 == self.batch && batch.time.0 != self.time_ms {
            let message = format!(
                "{} of {} ms was committed to output `{}`, and comes again with {}: it is another batch",
                batch.batch, self.time_ms, batch.output, batch.time
            );
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
        // Numbers are never given twice, so a lower one was committed too, in its turn.
        Ok(if batch.batch.0 <= self.batch { Begin::Skip } else { Begin::Write })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BatchId, BatchTime};

    fn row(batch: u64) -> LedgerRow {
        LedgerRow { store: "aa".into(), batch, time_ms: batch * 1_000, fence: 3 }
    }

    fn start(store: &str, last_batch: u64, lost: std::ops::Range<u64>) -> SinkStart {
        let (job, output) = ("job".into(), "rows".into());
        SinkStart { job, output, store: store.into(), last_batch: BatchId(last_batch), lost }
    }

    fn batch(batch: u64, time_ms: u64) -> BatchInfo {
        let (job, output) = ("job".into(), "rows".into());
        BatchInfo { job, output, batch: BatchId(batch), time: BatchTime(time_ms) }
    }

    #[test]
    fn a_start_needs_a_ledger_that_its_store_explains() {
        let refused = |batch, start: SinkStart| {
            let error = row(batch).check_start(&start).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible);
            error.to_string()
        };
        // Nothing was committed; the store is where the ledger is; or ahead of it.
        row(0).check_start(&start("bb", 0, 1..1)).unwrap();
        row(7).check_start(&start("aa", 7, 8..8)).unwrap();
        row(7).check_start(&start("aa", 9, 10..10)).unwrap();
        // Batches were lost, but none that was committed here.
        row(7).check_start(&start("aa", 12, 8..13)).unwrap();
        assert!(refused(7, start("bb", 7, 8..8)).contains("another store"));
        assert!(refused(7, start("aa", 6, 7..7)).contains("ahead of the store"));
        assert!(refused(8, start("aa", 12, 8..13)).contains("lost its plan (batches 8 to 12)"));
        assert!(refused(12, start("aa", 12, 8..13)).contains("lost its plan"));
    }

    #[test]
    fn a_batch_is_written_once_and_by_the_last_start_only() {
        assert_eq!(row(7).admit(3, &batch(8, 8_000)).unwrap(), Begin::Write);
        assert_eq!(row(7).admit(3, &batch(7, 7_000)).unwrap(), Begin::Skip);
        assert_eq!(row(7).admit(3, &batch(6, 6_000)).unwrap(), Begin::Skip);
        assert_eq!(row(7).admit(3, &batch(7, 7_001)).unwrap_err().kind(), ErrorKind::Incompatible);
        assert_eq!(row(7).admit(2, &batch(8, 8_000)).unwrap_err().kind(), ErrorKind::Locked);
    }
}
