use crate::error::Result;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// All records, in partition order.
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn collect(&self) -> Result<Vec<T>> {
        Ok(self.collect_partitions()?.into_iter().flatten().collect())
    }

    /// All records by partition, empty partitions included.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let both = lines.union(&lines.filter(|line| *line == "b"));
    /// assert_eq!(both.collect_partitions()?, [vec!["a", "b"], vec!["b"]]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn collect_partitions(&self) -> Result<Vec<Vec<T>>> {
        self.run("collect", |_, compute| {
            let mut records = Vec::new();
            compute(&mut |chunk| {
                records.append(chunk);
                Ok(())
            })?;
            Ok(records)
        })
    }
}
