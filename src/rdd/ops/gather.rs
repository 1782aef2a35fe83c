use std::sync::Arc;

use crate::error::Result;
use crate::exec::{Executor, TaskContext};
use crate::rdd::{Chunks, Emitter, Lineage, NodeInfo, Parent, Rdd, RddNode, Record};

type Gather<T> = dyn Fn(&TaskContext, usize, &mut Chunks<'_, T>) -> Result<()> + Send + Sync;

/// A node whose partitions are each gathered from any partitions of its parents.
struct GatherNode<T> {
    info: NodeInfo,
    parents: Vec<Parent>,
    gather: Box<Gather<T>>,
}

impl<T: Record> Lineage for GatherNode<T> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        self.parents.clone()
    }
}

impl<T: Record> RddNode<T> for GatherNode<T> {
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        (self.gather)(task, partition, out)
    }
}

impl<T: Record> Rdd<T> {
    pub(super) fn gathered(
        executor: &Arc<Executor>,
        operation: &'static str,
        partitions: usize,
        parents: Vec<Parent>,
        gather: impl Fn(&TaskContext, usize, &mut Chunks<'_, T>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        let info = NodeInfo::new(executor, operation, partitions);
        Rdd::new(executor, GatherNode { info, parents, gather: Box::new(gather) })
    }

    pub(super) fn as_narrow_parent(&self) -> Parent {
        Parent::Narrow(self.node.clone())
    }
}

/// Hands single records on in chunks.
pub(super) fn emit_into<T>(
    out: &mut Chunks<'_, T>,
    with: impl FnOnce(&mut Emitter<'_, T>) -> Result<()>,
) -> Result<()> {
    let mut forward = |chunk: &mut Vec<T>| out(chunk);
    let mut emitter = Emitter::new(&mut forward);
    with(&mut emitter)?;
    emitter.finish()
}

/// All records of one partition.
pub(super) fn records_of<T: Record>(
    node: &dyn RddNode<T>,
    task: &TaskContext,
    partition: usize,
) -> Result<Vec<T>> {
    let mut records = Vec::new();
    node.compute(task, partition, &mut |chunk| {
        records.append(chunk);
        Ok(())
    })?;
    Ok(records)
}
