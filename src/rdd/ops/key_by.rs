use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Each record paired with the key that `key_of` makes of it. Lazy, narrow; a replay calls `key_of` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "bc"], |lines| {
    /// assert_eq!(lines.key_by(|line| line.len()).collect()?, [(1, "a".into()), (2, "bc".into())]);
    /// # Ok(()) });
    /// ```
    pub fn key_by<K: Record>(&self, key_of: impl Fn(&T) -> K + Send + Sync + 'static) -> Rdd<(K, T)> {
        self.one_to_one("key_by", move |records, made| {
            made.extend(records.map(|record| (key_of(&record), record)));
        })
    }
}
