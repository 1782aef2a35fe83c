use std::sync::Arc;

use crate::error::Result;
use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::{Grouped, KeyedNode};
use crate::rdd::{NodeInfo, Rdd, WideDependency};
use crate::record::{Data, Key};

/// The values of each key of another keyed node as one value.
struct GroupedValues<V> {
    parent: Arc<dyn KeyedNode<V>>,
}

impl<V: Data> KeyedNode<Vec<V>> for GroupedValues<V> {
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        self.parent.dependencies()
    }

    fn grouped(&self, group: usize) -> Result<Grouped<Vec<V>>> {
        let grouped = self.parent.grouped(group)?;
        Ok(grouped.fold_values(|first, others| std::iter::once(first).chain(others).collect()))
    }
}

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
        let info = NodeInfo::new(&self.executor, "group_by_key", partitions);
        let keyed = GroupedValues { parent: self.keyed("group_by_key") };
        Rdd::new(&self.executor, GroupsNode::of_pairs(info, Arc::new(keyed)))
    }
}
