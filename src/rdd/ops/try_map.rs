use std::fmt::Display;

use crate::rdd::{Attempt, FallibleRdd, Rdd, Record};

impl<T: Record, U: Record> Attempt<T, U> {
    pub(crate) fn map<E: Display>(each: impl Fn(T) -> Result<U, E> + Send + Sync + 'static) -> Self {
        Attempt::new("try_map", move |record, out| {
            out.emit(each(record)?);
            Ok::<(), E>(())
        })
    }
}

impl<T: Record> Rdd<T> {
    /// Each record turned into another by a closure that may fail: it returns an error or panics. What becomes
    /// of such records is said on the [`FallibleRdd`]. Lazy; a replay calls `each` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["1", "x"], |lines| {
    /// let numbers = lines.try_map(|line| line.to_string().parse::<u64>());
    /// assert_eq!(numbers.or_skip().0.collect()?, [1]);
    /// # Ok(()) });
    /// ```
    pub fn try_map<U: Record, E: Display>(
        &self,
        each: impl Fn(T) -> Result<U, E> + Send + Sync + 'static,
    ) -> FallibleRdd<T, U> {
        self.attempt(Attempt::map(each))
    }
}
