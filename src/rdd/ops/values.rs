use crate::rdd::{Rdd, Record};

impl<K: Record, V: Record> Rdd<(K, V)> {
    /// The value of each pair. Lazy, narrow.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// assert_eq!(lines.map(|line| (line, 1u64)).values().collect()?, [1, 1]);
    /// # Ok(()) });
    /// ```
    pub fn values(&self) -> Rdd<V> {
        self.one_to_one("values", |pairs, made| made.extend(pairs.map(|(_, value)| value)))
    }
}
