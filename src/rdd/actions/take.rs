use crate::error::{Error, ErrorKind, Result};
use crate::rdd::lineage::prepare;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// The first `n` records in partition order. Computes one partition after the other, each no further
    /// than the chunk of records in which it has them (512 at most). Shuffles run as a whole.
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn take(&self, n: usize) -> Result<Vec<T>> {
        self.take_for("take", n)
    }

    /// The first record in partition order, `None` when there are none; see [`take`](Rdd::take).
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// assert_eq!(lines.first()?, Some("a".into()));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn first(&self) -> Result<Option<T>> {
        Ok(self.take_for("first", 1)?.pop())
    }

    /// Whether there are no records; computes no further than [`first`](Rdd::first).
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// assert!(!lines.is_empty()?);
    /// assert!(lines.filter(|line| *line == "c").is_empty()?);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.take_for("is_empty", 1)?.is_empty())
    }

    fn take_for(&self, action: &str, n: usize) -> Result<Vec<T>> {
        let mut taken = Vec::new();
        if n == 0 {
            return Ok(taken);
        }
        prepare(&self.executor, &*self.node)?;
        let stage = self.stage(action);
        for partition in 0..self.partitions() {
            let wanted = n - taken.len();
            let part = self.executor.run_one(&stage, partition, |context| {
                let mut records = Vec::new();
                let outcome = self.node.compute(context, partition, &mut |chunk| {
                    records.extend(chunk.drain(..).take(wanted - records.len()));
                    match records.len() < wanted {
                        true => Ok(()),
                        // Ends the computation; never leaves this task.
                        false => Err(Error::new(ErrorKind::Stopped, "an action has the records it wants")),
                    }
                });
                if records.len() == wanted { Ok(records) } else { outcome.map(|()| records) }
            })?;
            taken.extend(part);
            if taken.len() == n {
                break;
            }
        }
        Ok(taken)
    }
}
