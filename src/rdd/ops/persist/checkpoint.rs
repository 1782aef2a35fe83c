use std::sync::{Arc, Mutex, PoisonError};

use super::archive::Codec;
use crate::error::{Error, Result};
use crate::exec::{Executor, TaskContext};
use crate::rdd::{Chunks, Lineage, NodeInfo, Parent, Rdd, RddNode, Record, WideDependency};
use crate::record::Data;

/// What a checkpointed RDD is made from: its parents at first, then its own archived partitions.
enum Origin<T> {
    Lineage(Arc<dyn RddNode<T>>),
    Archives(Arc<Vec<Vec<u8>>>),
}

struct Checkpoint<T> {
    info: NodeInfo,
    codec: Codec<T>,
    origin: Mutex<Origin<T>>,
}

impl<T> Checkpoint<T> {
    fn origin(&self) -> Origin<T> {
        match &*self.origin.lock().unwrap_or_else(PoisonError::into_inner) {
            Origin::Lineage(parent) => Origin::Lineage(parent.clone()),
            Origin::Archives(archives) => Origin::Archives(archives.clone()),
        }
    }
}

impl<T: Record> WideDependency for Checkpoint<T> {
    fn prepare(&self, executor: &Executor) -> Result<()> {
        let Origin::Lineage(parent) = self.origin() else { return Ok(()) };
        let archives = executor.run_stage("checkpoint", self.info.partitions, |task, partition| {
            self.codec.archive(&*parent, task, partition)
        })?;
        // Dropping the parent drops what only it refers to; outside of the lock, for that may be much.
        let origin = Origin::Archives(Arc::new(archives));
        let before =
            std::mem::replace(&mut *self.origin.lock().unwrap_or_else(PoisonError::into_inner), origin);
        drop(before);
        Ok(())
    }

    fn parent(&self) -> Arc<dyn Lineage> {
        match self.origin() {
            Origin::Lineage(parent) => parent,
            // Who walks the lineage while another thread cuts it finds an end.
            Origin::Archives(_) => Arc::new(End { info: self.info.clone() }),
        }
    }

    fn describe(&self) -> String {
        "the checkpoint of".to_owned()
    }
}

/// Where a lineage was cut.
struct End {
    info: NodeInfo,
}

impl Lineage for End {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        Vec::new()
    }
}

struct CheckpointNode<T> {
    checkpoint: Arc<Checkpoint<T>>,
}

impl<T: Record> Lineage for CheckpointNode<T> {
    fn info(&self) -> &NodeInfo {
        &self.checkpoint.info
    }

    fn parents(&self) -> Vec<Parent> {
        match self.checkpoint.origin() {
            Origin::Lineage(_) => vec![Parent::Wide(self.checkpoint.clone())],
            Origin::Archives(_) => Vec::new(),
        }
    }
}

impl<T: Record> RddNode<T> for CheckpointNode<T> {
    fn compute(&self, _: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        match self.checkpoint.origin() {
            Origin::Archives(archives) => self.checkpoint.codec.emit(&archives[partition], out),
            Origin::Lineage(_) => Err(Error::corrupt("a checkpointed RDD was read before its stage ran")),
        }
    }
}

impl<T: Data> Rdd<T> {
    /// The same records, cut off from where they came from: the first action that needs any of them
    /// computes all partitions and keeps them archived in memory, and from then on the new RDD refers to no
    /// parent. For RDDs that code of yours carries from batch to batch, each made from the one before: their
    /// lineage would grow without end. A task that fails keeps nothing.
    ///
    /// Lazy; a stage of its own, in which no record is moved. The copy is the only one from then on: it is
    /// not durable and lasts as long as a handle to the RDD does. The job's own state
    /// ([`update_state_by_key`](crate::DStream::update_state_by_key)) needs no such thing: it has no lineage
    /// that grows, and the job's checkpoints make it durable.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let cut = lines.map(|line| line.len()).map(|n| n + 1).checkpoint();
    /// assert!(cut.to_debug_string().contains("map"));
    /// assert_eq!(cut.sum()?, 4);
    /// assert!(!cut.to_debug_string().contains("map"));
    /// # Ok(()) });
    /// ```
    pub fn checkpoint(&self) -> Rdd<T> {
        let info = NodeInfo::new(&self.executor, "checkpoint", self.partitions());
        let origin = Mutex::new(Origin::Lineage(self.node.clone()));
        let checkpoint = Arc::new(Checkpoint { info, codec: Codec::new(), origin });
        Rdd::new(&self.executor, CheckpointNode { checkpoint })
    }
}
