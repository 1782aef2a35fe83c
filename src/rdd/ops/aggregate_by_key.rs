use std::sync::Arc;

use crate::rdd::Rdd;
use crate::record::{Data, Key};

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// One pair per key: its values merged into clones of `zero` by `merge_value`, one for each partition
    /// that has the key, and those by `merge_combiners` in the order of the partitions.
    ///
    /// `zero` should be neutral and merging associative, so that it does not matter how the values of a key
    /// are spread over partitions.
    ///
    /// Lazy, wide: one shuffle, none where the pairs are partitioned by key already. A replay calls the
    /// functions again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "a"], |lines| {
    /// let sizes = lines.map(|line| (line, 5u64));
    /// let mean = sizes.aggregate_by_key(
    ///     (0u64, 0u64),
    ///     |(count, sum), size| (count + 1, sum + size),
    ///     |a, b| (a.0 + b.0, a.1 + b.1),
    /// );
    /// assert_eq!(mean.collect()?, [("a".into(), (2, 10))]);
    /// # Ok(()) });
    /// ```
    pub fn aggregate_by_key<C: Data>(
        &self,
        zero: C,
        merge_value: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge_combiners: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> Rdd<(K, C)> {
        let merge_value = Arc::new(merge_value);
        self.aggregate_of("aggregate_by_key", zero, merge_value, Arc::new(merge_combiners))
    }

    pub(super) fn aggregate_of<C: Data, G, H>(
        &self,
        operation: &'static str,
        zero: C,
        merge_value: Arc<G>,
        merge_combiners: Arc<H>,
    ) -> Rdd<(K, C)>
    where
        G: Fn(C, V) -> C + Send + Sync + 'static,
        H: Fn(C, C) -> C + Send + Sync + 'static,
    {
        let first = merge_value.clone();
        let create = Arc::new(move |value| first(zero.clone(), value));
        let partitions = Self::partitions_default();
        self.combine_by_key_into(operation, partitions, create, merge_value, merge_combiners)
    }
}
