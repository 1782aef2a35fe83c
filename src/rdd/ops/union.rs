use std::sync::Arc;

use crate::error::Result;
use crate::exec::TaskContext;
use crate::rdd::{Chunks, Lineage, NodeInfo, Parent, Rdd, RddNode, Record};

struct UnionNode<T> {
    info: NodeInfo,
    parents: [Arc<dyn RddNode<T>>; 2],
}

impl<T: Record> Lineage for UnionNode<T> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        self.parents.iter().map(|parent| Parent::Narrow(parent.clone())).collect()
    }
}

impl<T: Record> RddNode<T> for UnionNode<T> {
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        let [first, second] = &self.parents;
        match partition.checked_sub(first.info().partitions) {
            None => first.compute(task, partition, out),
            Some(partition) => second.compute(task, partition, out),
        }
    }
}

impl<T: Record> Rdd<T> {
    /// The records of this RDD, then those of the other; duplicates stay. Lazy, narrow.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a"], |lines| {
    /// assert_eq!(lines.union(&lines).count()?, 2);
    /// # Ok(()) });
    /// ```
    pub fn union(&self, other: &Rdd<T>) -> Rdd<T> {
        let info = NodeInfo::new(&self.executor, "union", self.partitions() + other.partitions());
        Rdd::new(&self.executor, UnionNode { info, parents: [self.node.clone(), other.node.clone()] })
    }
}
