use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::decode_key;
use crate::rdd::{NodeInfo, Rdd};
use crate::record::{Data, Key};

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// Every value of this RDD with every value of the other that has the same key.
    ///
    /// Lazy, wide: a shuffle for each side that is not partitioned by key already.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let left = lines.map(|line| (line, 1u64));
    /// let right = lines.filter(|line| *line == "b").map(|line| (line, 2u64));
    /// assert_eq!(left.join(&right).collect()?, [("b".into(), (1, 2))]);
    /// # Ok(()) });
    /// ```
    pub fn join<W: Data>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, (V, W))> {
        self.join_into(Self::partitions_default(), other)
    }

    pub(crate) fn join_into<W: Data>(&self, partitions: usize, other: &Rdd<(K, W)>) -> Rdd<(K, (V, W))> {
        let (left, right) = (self.keyed("join"), other.keyed("join"));
        let dependencies = [left.dependencies(), right.dependencies()].concat();
        let info = NodeInfo::new(&self.executor, "join", partitions);
        let node = GroupsNode::new(info, dependencies, move |group, out| {
            let (left, right) = (left.grouped(group)?, right.grouped(group)?);
            for at in 0..left.keys.len() {
                let Some(other) = right.keys.find(left.keys.hash(at), left.keys.key(at)) else { continue };
                let key: K = decode_key(left.keys.key(at))?;
                for value in left.values(at) {
                    for with in right.values(other) {
                        out.emit((key.clone(), (value.clone(), with.clone())));
                    }
                }
            }
            out.check()
        });
        Rdd::new(&self.executor, node)
    }
}
