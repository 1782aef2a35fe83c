use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Each partition as one record, a vector of its records; an empty partition gives an empty vector.
    /// Lazy, narrow; a partition is held in memory.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// assert_eq!(lines.glom().collect()?, [vec!["a", "b"]]);
    /// # Ok(()) });
    /// ```
    pub fn glom(&self) -> Rdd<Vec<T>> {
        self.narrow("glom", |task, partition, parent, out| {
            out.emit(super::gather::records_of(parent, task, partition)?);
            Ok(())
        })
    }
}
