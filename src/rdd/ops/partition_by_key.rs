use crate::config::KEY_GROUPS;
use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::{NodeInfo, Rdd};
use crate::record::{Data, Key};

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// The same pairs in `partitions` partitions (brought into 1 to 256), all pairs of a key together in the
    /// order of their records. Worth it where several keyed operations follow: none of them shuffles again.
    ///
    /// Lazy, wide: one shuffle, none where the pairs are partitioned by key already.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b", "a"], |lines| {
    /// let pairs = lines.map(|line| (line, 1u64)).partition_by_key(4);
    /// assert_eq!(pairs.partitions(), 4);
    /// assert_eq!(pairs.reduce_by_key(|a, b| a + b).lookup(&"a".into())?, [2]);
    /// # Ok(()) });
    /// ```
    pub fn partition_by_key(&self, partitions: usize) -> Rdd<(K, V)> {
        let partitions = partitions.clamp(1, KEY_GROUPS);
        let info = NodeInfo::new(&self.executor, "partition_by_key", partitions);
        Rdd::new(&self.executor, GroupsNode::of_pairs(info, self.keyed("partition_by_key")))
    }
}
