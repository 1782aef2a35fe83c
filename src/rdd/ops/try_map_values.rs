use std::fmt::Display;

use crate::rdd::{Attempt, FallibleRdd, Rdd};
use crate::record::{Data, Key};

impl<K: Key, V: Data, W: Data> Attempt<(K, V), (K, W)> {
    pub(crate) fn map_values<E: Display>(each: impl Fn(V) -> Result<W, E> + Send + Sync + 'static) -> Self {
        Attempt::new("try_map_values", move |(key, value), out| {
            out.emit((key, each(value)?));
            Ok::<(), E>(())
        })
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// Each value turned into another by a closure that may fail: it returns an error or panics; the key is
    /// kept. What becomes of such pairs is said on the [`FallibleRdd`]. Lazy; a replay calls `each` again.
    ///
    /// Unlike after [`map_values`](Rdd::map_values), the pairs do not count as partitioned by key any more: a
    /// keyed operation that follows shuffles them.
    ///
    /// ```
    /// # millpond::doc::run_batch(["1", "x"], |lines| {
    /// let pairs = lines.map(|line| (7u64, line.to_string()));
    /// let numbers = pairs.try_map_values(|text| text.parse::<u64>());
    /// assert_eq!(numbers.or_skip().0.collect()?, [(7, 1)]);
    /// # Ok(()) });
    /// ```
    pub fn try_map_values<W: Data, E: Display>(
        &self,
        each: impl Fn(V) -> Result<W, E> + Send + Sync + 'static,
    ) -> FallibleRdd<(K, V), (K, W)> {
        self.attempt(Attempt::map_values(each))
    }
}
