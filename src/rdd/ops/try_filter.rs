use std::fmt::Display;

use crate::rdd::{Attempt, FallibleRdd, Rdd, Record};

impl<T: Record> Attempt<T, T> {
    pub(crate) fn filter<E: Display>(keep: impl Fn(&T) -> Result<bool, E> + Send + Sync + 'static) -> Self {
        Attempt::new("try_filter", move |record, out| {
            if keep(&record)? {
                out.emit(record);
            }
            Ok::<(), E>(())
        })
    }
}

impl<T: Record> Rdd<T> {
    /// The records for which `keep` returns true. It may fail: return an error or panic. What becomes of such
    /// records is said on the [`FallibleRdd`]; one that is only left out is no failure. Lazy; a replay calls
    /// `keep` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["1", "x", "20"], |lines| {
    /// let large = lines.try_filter(|line| line.to_string().parse::<u64>().map(|number| number > 9));
    /// let (large, failed) = large.or_skip();
    /// assert_eq!(large.collect()?, ["20"]);
    /// assert_eq!(failed.collect()?, [1]);
    /// # Ok(()) });
    /// ```
    pub fn try_filter<E: Display>(
        &self,
        keep: impl Fn(&T) -> Result<bool, E> + Send + Sync + 'static,
    ) -> FallibleRdd<T, T> {
        self.attempt(Attempt::filter(keep))
    }
}
