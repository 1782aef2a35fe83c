use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Result;
use crate::exec::TaskContext;
use crate::rdd::ops::collection::emit_slice;
use crate::rdd::{Chunks, Lineage, NodeInfo, Parent, Rdd, RddNode, Record};

struct CacheNode<T> {
    info: NodeInfo,
    parent: Arc<dyn RddNode<T>>,
    partitions: Vec<Mutex<Option<Arc<Cached<T>>>>>,
}

struct Cached<T> {
    /// What was read for it: who reads from the cache names the same.
    origin: String,
    records: Vec<T>,
}

impl<T: Record> Lineage for CacheNode<T> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        vec![Parent::Narrow(self.parent.clone())]
    }
}

impl<T: Record> RddNode<T> for CacheNode<T> {
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        let slot = &self.partitions[partition];
        let cached = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let cached = match cached {
            Some(cached) => cached,
            None => {
                let mut records = Vec::new();
                self.parent.compute(task, partition, &mut |chunk| {
                    records.append(chunk);
                    Ok(())
                })?;
                let cached = Arc::new(Cached { origin: task.origin(), records });
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(cached.clone());
                cached
            }
        };
        task.set_origin(cached.origin.clone());
        emit_slice(&cached.records, out)
    }

    fn uncache(&self, partition: usize) {
        if let Some(slot) = self.partitions.get(partition) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
    }
}

impl<T: Record> Rdd<T> {
    /// The same records, each partition kept in memory once it was computed, for as long as a handle to
    /// the cached RDD lives. Worth it where more than one action or output reads them.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a b"], |lines| {
    /// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit(word))).cache();
    /// assert_eq!(words.count()?, 2);
    /// assert_eq!(words.take(1)?, ["a"]); // not split into words again
    /// # Ok(()) });
    /// ```
    pub fn cache(&self) -> Rdd<T> {
        let info = NodeInfo::new(&self.executor, "cache", self.partitions());
        let partitions = (0..self.partitions()).map(|_| Mutex::default()).collect();
        Rdd::new(&self.executor, CacheNode { info, parent: self.node.clone(), partitions })
    }

    /// Drops the cached records of one partition; they are computed again from the lineage when they are
    /// next asked for. On an RDD that is not the result of [`cache`](Rdd::cache) it does nothing.
    pub fn uncache(&self, partition: usize) {
        self.node.uncache(partition);
    }
}
