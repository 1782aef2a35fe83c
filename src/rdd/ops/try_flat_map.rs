use std::fmt::Display;

use crate::rdd::{Attempt, Emitter, FallibleRdd, Rdd, Record};

impl<T: Record, U: Record> Attempt<T, U> {
    pub(crate) fn flat_map<E: Display>(
        each: impl Fn(T, &mut Emitter<'_, U>) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        Attempt::new("try_flat_map", each)
    }
}

impl<T: Record> Rdd<T> {
    /// Each record turned into any number of others by a closure that may fail: it returns an error or panics.
    /// What a failing record had emitted is dropped. What becomes of the record is said on the
    /// [`FallibleRdd`]. Lazy; a replay calls `each` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["1 2", "3 x"], |lines| {
    /// let numbers = lines.try_flat_map(|line, out| {
    ///     for word in line.words() {
    ///         out.emit(word.to_string().parse::<u64>()?);
    ///     }
    ///     Ok::<(), std::num::ParseIntError>(())
    /// });
    /// assert_eq!(numbers.or_skip().0.collect()?, [1, 2]); // all of a record or nothing
    /// # Ok(()) });
    /// ```
    pub fn try_flat_map<U: Record, E: Display>(
        &self,
        each: impl Fn(T, &mut Emitter<'_, U>) -> Result<(), E> + Send + Sync + 'static,
    ) -> FallibleRdd<T, U> {
        self.attempt(Attempt::flat_map(each))
    }
}
