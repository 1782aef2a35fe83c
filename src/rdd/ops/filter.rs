use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// The records for which `keep` holds. Lazy, narrow; a replay calls `keep` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["ok", "error: x"], |lines| {
    /// assert_eq!(lines.filter(|line| line.as_bytes().starts_with(b"error")).count()?, 1);
    /// # Ok(()) });
    /// ```
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Rdd<T> {
        self.by_chunk("filter", move |chunk, out| {
            for record in chunk.drain(..) {
                if keep(&record) {
                    out.emit(record);
                }
            }
        })
    }
}
