use crate::rdd::{Emitter, Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Each record turned into any number of others, which `each` hands to the [`Emitter`]: no collection
    /// is made per record. Lazy, narrow; a replay calls `each` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a b", "c"], |lines| {
    /// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit(word)));
    /// assert_eq!(words.count()?, 3);
    /// # Ok(()) });
    /// ```
    pub fn flat_map<U: Record>(
        &self,
        each: impl Fn(T, &mut Emitter<'_, U>) + Send + Sync + 'static,
    ) -> Rdd<U> {
        self.by_chunk("flat_map", move |chunk, out| {
            for record in chunk.drain(..) {
                each(record, out);
            }
        })
    }
}
