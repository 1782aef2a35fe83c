use crate::error::Result;
use crate::rdd::Rdd;
use crate::record::Key;

impl<T: Key> Rdd<T> {
    /// The distinct records with how often each one comes, ordered by their [`Key`] bytes. One shuffle of
    /// the distinct records of each partition; the result is held in memory.
    ///
    /// ```
    /// # millpond::doc::run_batch(["b", "a", "b"], |lines| {
    /// assert_eq!(lines.count_by_value()?, [("a".into(), 1), ("b".into(), 2)]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn count_by_value(&self) -> Result<Vec<(T, u64)>> {
        let mut counts = self.counted_by_value(Rdd::<(T, u64)>::partitions_default()).collect()?;
        counts.sort_by_cached_key(|(value, _)| {
            let mut bytes = Vec::new();
            value.encode_key(&mut bytes);
            bytes
        });
        Ok(counts)
    }

    /// The same as an RDD that is partitioned by value.
    pub(crate) fn counted_by_value(&self, partitions: usize) -> Rdd<(T, u64)> {
        let ones = self.map(|value| (value, 1u64));
        ones.reduce_by_key_into(partitions, std::sync::Arc::new(|a, b| a + b))
    }
}
