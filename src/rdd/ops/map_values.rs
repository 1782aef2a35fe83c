use std::sync::Arc;

use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::MappedValues;
use crate::rdd::{NodeInfo, Rdd};
use crate::record::{Data, Key};

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// Each value turned into another, the key kept. Lazy, narrow; pairs that are partitioned by key stay
    /// so, and a following keyed operation needs no shuffle.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a"], |lines| {
    /// let pairs = lines.map(|line| (line, 20u64)).map_values(|value| value + 1);
    /// assert_eq!(pairs.collect()?, [("a".into(), 21)]);
    /// # Ok(()) });
    /// ```
    pub fn map_values<W: Data>(&self, each: impl Fn(V) -> W + Send + Sync + 'static) -> Rdd<(K, W)> {
        self.map_values_of("map_values", each)
    }

    pub(crate) fn map_values_of<W: Data>(
        &self,
        operation: &'static str,
        each: impl Fn(V) -> W + Send + Sync + 'static,
    ) -> Rdd<(K, W)> {
        let Some(parent) = self.partitioned() else {
            return self.one_to_one(operation, move |pairs, made| {
                made.extend(pairs.map(|(key, value)| (key, each(value))));
            });
        };
        let info = NodeInfo::new(&self.executor, operation, self.partitions());
        let keyed = MappedValues::new(parent, each);
        Rdd::new(&self.executor, GroupsNode::of_pairs(info, Arc::new(keyed)))
    }
}
