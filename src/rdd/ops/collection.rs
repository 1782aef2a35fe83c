use std::sync::Arc;

use crate::error::Result;
use crate::exec::{Executor, TaskContext};
use crate::rdd::{CHUNK_RECORDS, Chunks, Lineage, NodeInfo, Parent, Rdd, RddNode, Record};

struct CollectionNode<T> {
    info: NodeInfo,
    partitions: Vec<Arc<Vec<T>>>,
}

impl<T: Record> Lineage for CollectionNode<T> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        Vec::new()
    }
}

impl<T: Record> RddNode<T> for CollectionNode<T> {
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        task.set_origin(self.info.origin(partition));
        emit_slice(&self.partitions[partition], out)
    }
}

/// Pushes clones of records that stay where they are.
pub(in crate::rdd) fn emit_slice<T: Record>(records: &[T], out: &mut Chunks<'_, T>) -> Result<()> {
    let mut chunk = Vec::with_capacity(CHUNK_RECORDS.min(records.len()));
    for part in records.chunks(CHUNK_RECORDS) {
        chunk.extend_from_slice(part);
        out(&mut chunk)?;
        chunk.clear();
    }
    Ok(())
}

impl<T: Record> Rdd<T> {
    /// An RDD of records that are in memory.
    pub(crate) fn of_collection(executor: &Arc<Executor>, partitions: Vec<Arc<Vec<T>>>) -> Self {
        let info = NodeInfo::new(executor, "collection", partitions.len());
        Rdd::new(executor, CollectionNode { info, partitions })
    }
}
