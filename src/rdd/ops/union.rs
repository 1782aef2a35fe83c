use std::sync::Arc;

use crate::error::{Error, Result};
use crate::exec::{Executor, TaskContext};
use crate::rdd::{Chunks, Lineage, NodeInfo, Parent, Rdd, RddNode, Record};

struct UnionNode<T> {
    info: NodeInfo,
    parents: Vec<Arc<dyn RddNode<T>>>,
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
        let mut rest = partition;
        for parent in &self.parents {
            match rest.checked_sub(parent.info().partitions) {
                None => return parent.compute(task, rest, out),
                Some(beyond) => rest = beyond,
            }
        }
        Err(Error::corrupt(format!("a union of {} partitions has no {partition}", self.info.partitions)))
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
        Rdd::union_all(&self.executor, &[self.clone(), other.clone()])
    }

    /// The records of each RDD in turn; none of no RDD. One node, however many there are.
    pub(crate) fn union_all(executor: &Arc<Executor>, rdds: &[Rdd<T>]) -> Rdd<T> {
        let info = NodeInfo::new(executor, "union", rdds.iter().map(Rdd::partitions).sum());
        Rdd::new(executor, UnionNode { info, parents: rdds.iter().map(|rdd| rdd.node.clone()).collect() })
    }
}
