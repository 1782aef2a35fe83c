//! Records that a stateful operator hands on in a batch, read from its state while the batch lasts.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use crate::batch::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::TaskContext;
use crate::rdd::shuffle::decode_key;
use crate::rdd::{CHUNK_RECORDS, Chunks, Lineage, NodeInfo, Parent, Rdd, RddNode, Record};
use crate::record::{DataBuffer, Key};
use crate::state::OperatorState;

/// Reads one partition from the state, which still is as the batch left it.
type Read<T> = dyn Fn(usize) -> Result<Vec<T>> + Send + Sync;

enum Source<T> {
    InState(Box<Read<T>>),
    Detached(Vec<Arc<Vec<T>>>),
}

/// The records of one batch. They end the lineage, as a checkpointed RDD does in Spark: the state before
/// the batch is gone.
pub(crate) struct BatchRows<T> {
    partitions: usize,
    /// Locked for reading while a task reads the state, so that tasks do not wait for each other.
    source: RwLock<Source<T>>,
}

impl<T: Record> BatchRows<T> {
    pub(crate) fn new(
        partitions: usize,
        read: impl Fn(usize) -> Result<Vec<T>> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(BatchRows { partitions, source: RwLock::new(Source::InState(Box::new(read))) })
    }

    fn partition(&self, partition: usize) -> Result<Arc<Vec<T>>> {
        match &*self.source.read().unwrap_or_else(PoisonError::into_inner) {
            Source::Detached(partitions) => Ok(partitions[partition].clone()),
            Source::InState(read) => read(partition).map(Arc::new),
        }
    }

    fn detach(&self) -> Result<()> {
        let mut source = self.source.write().unwrap_or_else(PoisonError::into_inner);
        if let Source::InState(read) = &*source {
            let partitions: Result<Vec<_>> =
                (0..self.partitions).map(|partition| read(partition).map(Arc::new)).collect();
            *source = Source::Detached(partitions?);
        }
        Ok(())
    }

    /// An RDD of these records, called `operation` of the operator `name`.
    pub(crate) fn rdd(self: &Arc<Self>, batch: &Batch, operation: &'static str, name: &str) -> Rdd<T> {
        let mut info = NodeInfo::new(&batch.executor, operation, self.partitions);
        info.detail = format!(" `{name}` after {}", batch.id);
        Rdd::new(&batch.executor, RowsNode { info, rows: self.clone() })
    }
}

/// What `decode` makes of every live value of some key groups, with its key.
pub(crate) fn live_rows<K: Key, V>(
    state: &OperatorState,
    groups: Range<usize>,
    decode: impl Fn(&[u8], &mut DataBuffer) -> Result<Option<V>>,
) -> Result<Vec<(K, V)>> {
    let mut rows = Vec::new();
    let mut buffer = DataBuffer::default();
    for group in groups {
        state.group(group).for_each(|entry| {
            if let Some(value) = entry.value.map(|value| decode(value, &mut buffer)).transpose()?.flatten() {
                rows.push((decode_key(entry.key)?, value));
            }
            Ok(())
        })?;
    }
    Ok(rows)
}

/// Where an operator keeps the rows of the batch in progress.
pub(crate) struct RowsSlot<T>(Mutex<Option<Arc<BatchRows<T>>>>);

impl<T> Default for RowsSlot<T> {
    fn default() -> Self {
        RowsSlot(Mutex::default())
    }
}

impl<T: Record> RowsSlot<T> {
    pub(crate) fn begin(&self, rows: Arc<BatchRows<T>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(rows);
    }

    pub(crate) fn rdd(&self, batch: &Batch, operation: &'static str, name: &str) -> Result<Rdd<T>> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let early = || Error::new(ErrorKind::InvalidGraph, format!("`{name}` was read before its batch ran"));
        Ok(rows.ok_or_else(early)?.rdd(batch, operation, name))
    }

    /// The batch is over.
    pub(crate) fn finish(&self) -> Result<()> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        match rows {
            // Somebody kept an RDD of this batch: it gets a copy of its own before the state moves on.
            Some(rows) if Arc::strong_count(&rows) > 1 => rows.detach(),
            _ => Ok(()),
        }
    }
}

struct RowsNode<T> {
    info: NodeInfo,
    rows: Arc<BatchRows<T>>,
}

impl<T: Record> Lineage for RowsNode<T> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        Vec::new()
    }
}

impl<T: Record> RddNode<T> for RowsNode<T> {
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        task.set_origin(self.info.origin(partition));
        let rows = self.rows.partition(partition)?;
        let mut chunk = Vec::new();
        for part in rows.chunks(CHUNK_RECORDS) {
            chunk.extend_from_slice(part);
            out(&mut chunk)?;
            chunk.clear();
        }
        Ok(())
    }
}
