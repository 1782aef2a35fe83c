use std::sync::Arc;

use crate::rdd::Rdd;
use crate::record::{Data, Key};

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// One pair per key: its values merged into clones of `zero`, one for each partition that has the key, and
    /// those merged in the order of the partitions. `zero` should be neutral and `merge` associative.
    ///
    /// Lazy, wide: one shuffle, none where the pairs are partitioned by key already. A replay calls `merge`
    /// again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "a"], |lines| {
    /// let longest = lines.map(|line| (line, 3u64)).fold_by_key(0, |a, b| a.max(b));
    /// assert_eq!(longest.collect()?, [("a".into(), 3)]);
    /// # Ok(()) });
    /// ```
    pub fn fold_by_key(&self, zero: V, merge: impl Fn(V, V) -> V + Send + Sync + 'static) -> Rdd<(K, V)> {
        let merge = Arc::new(merge);
        self.aggregate_of("fold_by_key", zero, merge.clone(), merge)
    }
}
