use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Each partition, as a whole, turned into the records of the new one: for set-up that is worth sharing
    /// between records. The partition is held in memory. Lazy, narrow; a replay calls `each` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b", "c"], |lines| {
    /// let sizes = lines.map_partitions(|lines| [lines.len()]);
    /// assert_eq!(sizes.reduce(|a, b| a + b)?, Some(3));
    /// # Ok(()) });
    /// ```
    pub fn map_partitions<U: Record, I: IntoIterator<Item = U>>(
        &self,
        each: impl Fn(Vec<T>) -> I + Send + Sync + 'static,
    ) -> Rdd<U> {
        self.narrow("map_partitions", move |task, partition, parent, out| {
            let mut records = Vec::new();
            parent.compute(task, partition, &mut |chunk| {
                records.append(chunk);
                Ok(())
            })?;
            each(records).into_iter().for_each(|record| out.emit(record));
            out.check()
        })
    }
}
