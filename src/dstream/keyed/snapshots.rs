//! All of an operator's state as a stream.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::Batch;
use crate::dstream::keyed::row::RowParts;
use crate::error::Result;
use crate::exec::TaskContext;
use crate::rdd::shuffle::{decode_key, groups_of_partition};
use crate::rdd::{CHUNK_RECORDS, Chunks, Lineage, NodeInfo, Parent, Rdd, RddNode};
use crate::record::{Data, DataBuffer, Key};
use crate::state::OperatorState;

/// Every key and its state, as of each batch.
pub(crate) struct Snapshots<K, S> {
    state: Arc<OperatorState>,
    partitions: usize,
    /// That of the batch in progress.
    current: Mutex<Arc<Snapshot<K, S>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Key, S: Data> Snapshots<K, S> {
    pub(crate) fn new(state: Arc<OperatorState>, partitions: usize) -> Self {
        let current = Mutex::new(Arc::new(Snapshot::of(&state, partitions)));
        Snapshots { state, partitions, current }
    }

    /// A batch has changed the state.
    pub(crate) fn renew(&self) {
        *lock(&self.current) = Arc::new(Snapshot::of(&self.state, self.partitions));
    }

    /// Somebody who kept an RDD of this batch gets a copy before the state moves on.
    pub(crate) fn finish_batch(&self) -> Result<()> {
        let current = lock(&self.current);
        if Arc::strong_count(&current) > 1 { current.detach() } else { Ok(()) }
    }

    pub(crate) fn rdd(&self, batch: &Batch) -> Rdd<(K, S)> {
        let mut info = NodeInfo::new(&batch.executor, "state_snapshots", self.partitions);
        info.detail = format!(" `{}` after {}", self.state.name(), batch.id);
        let snapshot = lock(&self.current).clone();
        Rdd::new(&batch.executor, SnapshotNode { info, snapshot })
    }
}

/// The state as of one batch: read in place while that lasts.
struct Snapshot<K, S> {
    state: Arc<OperatorState>,
    partitions: usize,
    copy: Mutex<Option<Vec<Arc<Vec<(K, S)>>>>>,
    types: PhantomData<fn() -> (K, S)>,
}

impl<K: Key, S: Data> Snapshot<K, S> {
    fn of(state: &Arc<OperatorState>, partitions: usize) -> Self {
        Snapshot { state: state.clone(), partitions, copy: Mutex::new(None), types: PhantomData }
    }

    fn partition(&self, partition: usize) -> Result<Arc<Vec<(K, S)>>> {
        match &*lock(&self.copy) {
            Some(copy) => Ok(copy[partition].clone()),
            None => self.read(partition).map(Arc::new),
        }
    }

    fn read(&self, partition: usize) -> Result<Vec<(K, S)>> {
        let mut rows = Vec::new();
        let mut buffer = DataBuffer::default();
        for group in groups_of_partition(partition, self.partitions) {
            let mut group = self.state.group(group);
            group.load()?;
            let table = group.table();
            for at in table.live() {
                let Some(row) = table.value(at as usize) else { continue };
                if let Some(state) = RowParts::of(row)?.state(&mut buffer)? {
                    rows.push((decode_key(table.key(at as usize))?, state));
                }
            }
        }
        Ok(rows)
    }

    fn detach(&self) -> Result<()> {
        let mut copy = lock(&self.copy);
        if copy.is_none() {
            *copy = Some((0..self.partitions).map(|at| self.read(at).map(Arc::new)).collect::<Result<_>>()?);
        }
        Ok(())
    }
}

struct SnapshotNode<K, S> {
    info: NodeInfo,
    snapshot: Arc<Snapshot<K, S>>,
}

impl<K: Key, S: Data> Lineage for SnapshotNode<K, S> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        Vec::new()
    }
}

impl<K: Key, S: Data> RddNode<(K, S)> for SnapshotNode<K, S> {
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, (K, S)>) -> Result<()> {
        task.set_origin(self.info.origin(partition));
        let rows = self.snapshot.partition(partition)?;
        let mut chunk = Vec::new();
        for part in rows.chunks(CHUNK_RECORDS) {
            chunk.extend_from_slice(part);
            out(&mut chunk)?;
            chunk.clear();
        }
        Ok(())
    }
}
