use crate::rdd::{Rdd, Record};

impl<K: Record, V: Record> Rdd<(K, V)> {
    /// The key of each pair; duplicates stay. Lazy, narrow.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "a"], |lines| {
    /// assert_eq!(lines.map(|line| (line, 1u64)).keys().collect()?, ["a", "a"]);
    /// # Ok(()) });
    /// ```
    pub fn keys(&self) -> Rdd<K> {
        self.one_to_one("keys", |pairs, made| made.extend(pairs.map(|(key, _)| key)))
    }
}
