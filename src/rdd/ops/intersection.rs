use crate::rdd::Rdd;
use crate::record::Key;

impl<T: Key> Rdd<T> {
    /// The records that are in both RDDs, each once; records are the same when their [`Key`] bytes are.
    ///
    /// Lazy, wide: a shuffle of each side's distinct records by partition.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b", "b"], |lines| {
    /// let both = lines.intersection(&lines.filter(|line| *line == "b"));
    /// assert_eq!(both.collect()?, ["b"]);
    /// # Ok(()) });
    /// ```
    pub fn intersection(&self, other: &Rdd<T>) -> Rdd<T> {
        self.by_presence("intersection", other, |_, in_other| u64::from(in_other))
    }
}
