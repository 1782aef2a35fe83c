use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Each record turned into another. Lazy, narrow; a replay calls `each` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "bcd"], |lines| {
    /// assert_eq!(lines.map(|line| line.len()).collect()?, [1, 3]);
    /// # Ok(()) });
    /// ```
    #[allow(clippy::redundant_closure, reason = "a reference to the closure is called, a closure inlined")]
    pub fn map<U: Record>(&self, each: impl Fn(T) -> U + Send + Sync + 'static) -> Rdd<U> {
        self.one_to_one("map", move |records, made| made.extend(records.map(|record| each(record))))
    }
}
