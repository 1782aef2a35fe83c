use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::decode_key;
use crate::rdd::{NodeInfo, Rdd};
use crate::record::{Data, Key};

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// One pair per key with all its values, in the order of their records. A key's values must fit in
    /// memory; where they are only merged, [`reduce_by_key`](Rdd::reduce_by_key) moves less.
    ///
    /// Lazy, wide: one shuffle, none where the pairs are partitioned by key already.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a 1", "a 2"], |lines| {
    /// let pairs = lines.map(|line| (line.slice(0, 1), line.slice(2, 3)));
    /// assert_eq!(pairs.group_by_key().collect()?, [("a".into(), vec!["1".into(), "2".into()])]);
    /// # Ok(()) });
    /// ```
    pub fn group_by_key(&self) -> Rdd<(K, Vec<V>)> {
        self.group_by_key_into(Self::partitions_default())
    }

    pub(crate) fn group_by_key_into(&self, partitions: usize) -> Rdd<(K, Vec<V>)> {
        let keyed = self.keyed("group_by_key");
        let info = NodeInfo::new(&self.executor, "group_by_key", partitions);
        let node = GroupsNode::new(info, keyed.dependencies(), move |group, out| {
            let grouped = keyed.grouped(group)?;
            for at in 0..grouped.keys.len() {
                out.emit((decode_key(grouped.keys.key(at))?, grouped.values(at).to_vec()));
            }
            out.check()
        });
        Rdd::new(&self.executor, node)
    }
}
