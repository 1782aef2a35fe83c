use crate::error::Result;
use crate::rdd::draws::Draws;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Exactly `n` records chosen at random without replacement, or all when there are not more, in random
    /// order. Which ones follows from the seed and each record's partition and position in it: the same
    /// each time, on any number of threads. One pass; each task holds about `2 n` records.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b", "c"], |lines| {
    /// assert_eq!(lines.take_sample(2, 7)?.len(), 2);
    /// assert_eq!(lines.take_sample(2, 7)?, lines.take_sample(2, 7)?);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn take_sample(&self, n: usize, seed: u64) -> Result<Vec<T>> {
        // The records with the n smallest of independent draws are a uniform sample.
        let drawn = |partition, position, record| (Draws::new(seed, partition).bits(position, 0), record);
        let least = self.least("take_sample", n, drawn, |a: &(u64, T), b| a.0.cmp(&b.0))?;
        Ok(least.into_iter().map(|(_, record)| record).collect())
    }
}
