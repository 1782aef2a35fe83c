use crate::error::Result;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Calls `each` with every record on the job's threads: in order within a partition, partitions side by
    /// side. A task that fails is tried again from the first record of its partition.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// let bytes = AtomicUsize::new(0);
    /// lines.for_each(|line| {
    ///     bytes.fetch_add(line.len(), Ordering::Relaxed);
    ///     Ok(())
    /// })?;
    /// assert_eq!(bytes.into_inner(), 2);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt, or what `each` returned.
    pub fn for_each(&self, each: impl Fn(T) -> Result<()> + Send + Sync) -> Result<()> {
        self.run("for_each", |_, compute| compute(&mut |chunk| chunk.drain(..).try_for_each(&each)))?;
        Ok(())
    }

    /// Calls `each` once per partition with its number and records, on the job's threads.
    ///
    /// A task that fails is tried again, so `each` may see a partition more than once.
    ///
    /// # Errors
    /// When a task failed on every attempt, or what `each` returned.
    pub fn for_each_partition(&self, each: impl Fn(usize, Vec<T>) -> Result<()> + Send + Sync) -> Result<()> {
        self.run("for_each_partition", |partition, compute| {
            let mut records = Vec::new();
            compute(&mut |chunk| {
                records.append(chunk);
                Ok(())
            })?;
            each(partition, records)
        })?;
        Ok(())
    }
}
