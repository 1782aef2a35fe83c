use std::sync::Arc;

use crate::config::KEY_GROUPS;
use crate::rdd::Rdd;
use crate::rdd::shuffle::Aggregator;
use crate::record::{Data, Key};

/// Shuffles made inside user code have this many partitions; a job's own have what its settings say.
const PARTITIONS_DEFAULT: usize = 16;

const _: () = assert!(PARTITIONS_DEFAULT <= KEY_GROUPS);

/// One function merges values.
struct Merge<F>(Arc<F>);

impl<V: Data, F: Fn(V, V) -> V + Send + Sync + 'static> Aggregator<V> for Merge<F> {
    type Combined = V;

    #[inline]
    fn create(&self, value: V) -> V {
        value
    }

    #[inline]
    fn merge_value(&self, combined: V, value: V) -> V {
        (self.0)(combined, value)
    }

    #[inline]
    fn merge_combined(&self, lower: V, higher: V) -> V {
        (self.0)(lower, higher)
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// One pair per key, its values merged. Values are merged within each partition first, and then in the
    /// order of the partitions, so that `merge` should be associative but need not be commutative.
    ///
    /// Lazy, wide: one shuffle, none where the pairs are partitioned by key already. A replay calls `merge`
    /// again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a b a"], |lines| {
    /// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit((word, 1u64))));
    /// let mut counts = words.reduce_by_key(|a, b| a + b).collect()?;
    /// counts.sort();
    /// assert_eq!(counts, [("a".into(), 2), ("b".into(), 1)]);
    /// # Ok(()) });
    /// ```
    pub fn reduce_by_key(&self, merge: impl Fn(V, V) -> V + Send + Sync + 'static) -> Rdd<(K, V)> {
        self.reduce_by_key_into(PARTITIONS_DEFAULT, Arc::new(merge))
    }

    pub(crate) fn reduce_by_key_into<F>(&self, partitions: usize, merge: Arc<F>) -> Rdd<(K, V)>
    where
        F: Fn(V, V) -> V + Send + Sync + 'static,
    {
        self.combined_into("reduce_by_key", partitions, Merge(merge))
    }

    pub(crate) fn partitions_default() -> usize {
        PARTITIONS_DEFAULT
    }
}
