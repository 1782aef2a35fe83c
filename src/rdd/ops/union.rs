use std::sync::Arc;

use crate::exec::Executor;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// The records of this RDD, then those of the other; duplicates stay. Lazy, narrow.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a"], |lines| {
    /// assert_eq!(lines.union(&lines).count()?, 2);
    /// # Ok(()) });
    /// ```
    pub fn union(&self, other: &Rdd<T>) -> Rdd<T> {
        Rdd::union_of(&self.executor, &[self.clone(), other.clone()])
    }

    /// The records of this RDD, then those of all others in their order; duplicates stay. Lazy, narrow: one
    /// step of the lineage, however many there are.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a"], |lines| {
    /// assert_eq!(lines.union_all(&[lines.clone(), lines.clone()]).count()?, 3);
    /// # Ok(()) });
    /// ```
    pub fn union_all(&self, others: &[Rdd<T>]) -> Rdd<T> {
        Rdd::union_of(&self.executor, &[std::slice::from_ref(self), others].concat())
    }

    /// The union of any number of RDDs, without a partition for none.
    pub(crate) fn union_of(executor: &Arc<Executor>, rdds: &[Rdd<T>]) -> Rdd<T> {
        let nodes: Vec<_> = rdds.iter().map(|rdd| rdd.node.clone()).collect();
        // The number of the first partition of each.
        let mut starts = Vec::with_capacity(rdds.len());
        let mut partitions = 0;
        for rdd in rdds {
            starts.push(partitions);
            partitions += rdd.partitions();
        }
        let parents = rdds.iter().map(Rdd::as_narrow_parent).collect();
        Rdd::gathered(executor, "union", partitions, parents, move |task, partition, out| {
            // The last that begins at or before it: those before that and at the same start are empty.
            let at = starts.partition_point(|start| *start <= partition) - 1;
            nodes[at].compute(task, partition - starts[at], out)
        })
    }
}
