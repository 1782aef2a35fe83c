mod archive;
mod checkpoint;
mod spill;

use std::sync::{Arc, Mutex, PoisonError};

use self::archive::Codec;
use self::spill::Spill;
use crate::error::Result;
use crate::exec::TaskContext;
use crate::rdd::ops::collection::emit_slice;
use crate::rdd::ops::gather::records_of;
use crate::rdd::{Chunks, Lineage, NodeInfo, Parent, Rdd, RddNode, Record};
use crate::record::Data;

/// Where [`Rdd::persist`] keeps the partitions that were computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StorageLevel {
    /// In memory as they are: fastest to read, largest.
    Memory,
    /// In memory as archives, which every reader decodes: for many small records that own allocations.
    MemorySerialized,
    /// As archives in unnamed temporary files (in the directory that `TMPDIR` names), which are gone with
    /// the process. One partition at a time passes through memory. Bytes read are checked by CRC32.
    Disk,
}

/// How the partitions of a node are kept.
enum Keep<T> {
    Records,
    Archives(Codec<T>),
    Files(Codec<T>),
}

/// A partition that is kept.
enum Kept<T> {
    Records(Arc<Vec<T>>),
    Archive(Arc<Vec<u8>>),
    File(Arc<Spill>),
}

impl<T> Clone for Kept<T> {
    fn clone(&self) -> Self {
        match self {
            Kept::Records(records) => Kept::Records(records.clone()),
            Kept::Archive(bytes) => Kept::Archive(bytes.clone()),
            Kept::File(file) => Kept::File(file.clone()),
        }
    }
}

/// A partition that is kept, and what was read for it: who reads the copy names the same.
struct Slot<T> {
    origin: String,
    kept: Kept<T>,
}

/// What is read from a kept partition: sound, and ready to be handed on.
enum Loaded<T> {
    Records(Arc<Vec<T>>),
    Archive(Arc<Vec<u8>>, Codec<T>),
}

struct PersistNode<T> {
    info: NodeInfo,
    parent: Arc<dyn RddNode<T>>,
    keep: Keep<T>,
    partitions: Vec<Mutex<Option<Slot<T>>>>,
}

impl<T: Record> Lineage for PersistNode<T> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        vec![Parent::Narrow(self.parent.clone())]
    }
}

impl<T: Record> RddNode<T> for PersistNode<T> {
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        let loaded = match self.load(task, partition) {
            Some(loaded) => loaded,
            // Two tasks that meet here both compute the partition: neither waits, both get the same.
            None => self.fill(task, partition)?,
        };
        match loaded {
            Loaded::Records(records) => emit_slice(&records, out),
            Loaded::Archive(bytes, codec) => codec.emit(&bytes, out),
        }
    }

    fn uncache(&self, partition: usize) {
        self.set(partition, None);
    }
}

impl<T: Record> PersistNode<T> {
    fn set(&self, partition: usize, kept: Option<Slot<T>>) {
        if let Some(slot) = self.partitions.get(partition) {
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        }
    }

    /// What is kept of a partition, if it is there and sound.
    fn load(&self, task: &TaskContext, partition: usize) -> Option<Loaded<T>> {
        let kept = {
            let slot = self.partitions[partition].lock().unwrap_or_else(PoisonError::into_inner);
            let Slot { origin, kept } = slot.as_ref()?;
            task.set_origin(origin.clone());
            kept.clone()
        };
        match (kept, &self.keep) {
            (Kept::Records(records), _) => Some(Loaded::Records(records)),
            (Kept::Archive(bytes), Keep::Archives(codec) | Keep::Files(codec)) => {
                Some(Loaded::Archive(bytes, *codec))
            }
            (Kept::File(file), Keep::Archives(codec) | Keep::Files(codec)) => match file.read() {
                Ok(bytes) => Some(Loaded::Archive(Arc::new(bytes), *codec)),
                Err(error) => {
                    let rdd = self.info.id;
                    tracing::warn!(rdd, partition, error = %error.chain(), "a persisted partition is lost and computed again");
                    None
                }
            },
            (Kept::Archive(_) | Kept::File(_), Keep::Records) => None,
        }
    }

    /// Computes a partition and keeps it. An attempt that fails on the way keeps nothing.
    fn fill(&self, task: &TaskContext, partition: usize) -> Result<Loaded<T>> {
        let (kept, loaded) = match &self.keep {
            Keep::Records => {
                let records = Arc::new(records_of(&*self.parent, task, partition)?);
                (Some(Kept::Records(records.clone())), Loaded::Records(records))
            }
            Keep::Archives(codec) => {
                let bytes = Arc::new(codec.archive(&*self.parent, task, partition)?);
                (Some(Kept::Archive(bytes.clone())), Loaded::Archive(bytes, *codec))
            }
            Keep::Files(codec) => {
                let bytes = Arc::new(codec.archive(&*self.parent, task, partition)?);
                (self.spill(partition, &bytes), Loaded::Archive(bytes, *codec))
            }
        };
        self.set(partition, kept.map(|kept| Slot { origin: task.origin(), kept }));
        Ok(loaded)
    }

    /// A partition that cannot be written is no reason to stop a job that can compute it again.
    fn spill(&self, partition: usize, bytes: &[u8]) -> Option<Kept<T>> {
        match Spill::write(bytes) {
            Ok(file) => Some(Kept::File(Arc::new(file))),
            Err(error) => {
                let rdd = self.info.id;
                tracing::warn!(rdd, partition, error = %error.chain(), "a partition cannot be persisted");
                None
            }
        }
    }
}

impl<T: Record> Rdd<T> {
    /// The same records, each partition kept in memory once it was computed, for as long as a handle to
    /// the cached RDD lives. Worth it where more than one action or output reads them. Lazy, narrow. It is
    /// [`persist`](Rdd::persist) with [`StorageLevel::Memory`] for records of any type.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a b"], |lines| {
    /// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit(word))).cache();
    /// assert_eq!(words.count()?, 2);
    /// assert_eq!(words.take(1)?, ["a"]); // not split into words again
    /// # Ok(()) });
    /// ```
    pub fn cache(&self) -> Rdd<T> {
        self.kept("cache", Keep::Records)
    }

    /// Drops the kept records of one partition; they are computed again from the lineage when they are
    /// next asked for. On an RDD that is not the result of [`cache`](Rdd::cache) or
    /// [`persist`](Rdd::persist) it does nothing.
    pub fn uncache(&self, partition: usize) {
        self.node.uncache(partition);
    }

    /// Drops the kept records of all partitions; see [`uncache`](Rdd::uncache).
    ///
    /// ```
    /// # millpond::doc::run_batch(["a"], |lines| {
    /// let cached = lines.cache();
    /// assert_eq!(cached.count()?, 1);
    /// cached.unpersist();
    /// assert_eq!(cached.count()?, 1); // computed again
    /// # Ok(()) });
    /// ```
    pub fn unpersist(&self) {
        (0..self.partitions()).for_each(|partition| self.uncache(partition));
    }

    fn kept(&self, operation: &'static str, keep: Keep<T>) -> Rdd<T> {
        let info = NodeInfo::new(&self.executor, operation, self.partitions());
        let partitions = (0..self.partitions()).map(|_| Mutex::default()).collect();
        Rdd::new(&self.executor, PersistNode { info, parent: self.node.clone(), keep, partitions })
    }
}

impl<T: Data> Rdd<T> {
    /// The same records, each partition kept at this level once it was computed, for as long as a handle
    /// to the persisted RDD lives, or until [`unpersist`](Rdd::unpersist). Lazy, narrow.
    ///
    /// What is kept is never more than a copy: a file that is lost or damaged is reported as a warning and
    /// its partition computed again from the lineage; one that cannot be written is reported and not kept.
    /// A task that fails keeps nothing.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a b"], |lines| {
    /// use millpond::StorageLevel;
    /// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit(word)));
    /// let words = words.persist(StorageLevel::Disk);
    /// assert_eq!(words.count()?, 2);
    /// assert_eq!(words.collect()?, ["a", "b"]); // read back from the file
    /// # Ok(()) });
    /// ```
    pub fn persist(&self, level: StorageLevel) -> Rdd<T> {
        let keep = match level {
            StorageLevel::Memory => Keep::Records,
            StorageLevel::MemorySerialized => Keep::Archives(Codec::new()),
            StorageLevel::Disk => Keep::Files(Codec::new()),
        };
        self.kept("persist", keep)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::exec::Executor;

    /// Numbers in two partitions, and how many were computed.
    fn numbers(executor: &Arc<Executor>) -> (Rdd<u64>, Arc<AtomicU64>) {
        let computed = Arc::new(AtomicU64::new(0));
        let counter = computed.clone();
        let numbers = Rdd::of_collection(executor, vec![Arc::new((0..1000).collect()), Arc::new(vec![7])]);
        let counted = numbers.map(move |n| {
            counter.fetch_add(1, Ordering::SeqCst);
            n
        });
        (counted, computed)
    }

    fn files_of(rdd: &Rdd<u64>) -> (Rdd<u64>, Arc<PersistNode<u64>>) {
        let info = NodeInfo::new(&rdd.executor, "persist", rdd.partitions());
        let partitions = (0..rdd.partitions()).map(|_| Mutex::default()).collect();
        let keep = Keep::Files(Codec::new());
        let node = Arc::new(PersistNode { info, parent: rdd.node.clone(), keep, partitions });
        (Rdd { node: node.clone(), executor: rdd.executor.clone() }, node)
    }

    #[test]
    fn a_damaged_or_shortened_file_is_computed_again() {
        let executor = Arc::new(Executor::new(2, 1).unwrap());
        let (numbers, computed) = numbers(&executor);
        let expected = numbers.collect().unwrap();
        let (persisted, node) = files_of(&numbers);
        assert_eq!(persisted.collect().unwrap(), expected);
        assert_eq!(persisted.collect().unwrap(), expected);
        assert_eq!(computed.load(Ordering::SeqCst), 2 * 1001, "the second time from the files");
        for damage in [Spill::flip_a_bit, Spill::shorten] {
            let kept = node.partitions[0].lock().unwrap().as_ref().map(|slot| slot.kept.clone());
            let Some(Kept::File(file)) = kept else { panic!("partition 0 is in a file") };
            damage(&file);
            let before = computed.load(Ordering::SeqCst);
            assert_eq!(persisted.collect().unwrap(), expected);
            assert_eq!(computed.load(Ordering::SeqCst) - before, 1000, "only the damaged partition");
            assert_eq!(persisted.collect().unwrap(), expected);
            assert_eq!(computed.load(Ordering::SeqCst) - before, 1000, "it was written again");
        }
    }

    #[test]
    fn a_failed_attempt_keeps_nothing() {
        let executor = Arc::new(Executor::new(1, 2).unwrap());
        for level in [StorageLevel::Memory, StorageLevel::MemorySerialized, StorageLevel::Disk] {
            let (numbers, computed) = numbers(&executor);
            let fails_once = numbers.map({
                let computed = computed.clone();
                move |n| if computed.load(Ordering::SeqCst) == 700 { panic!("once") } else { n }
            });
            // Records are counted in chunks of 512 before they reach the panic.
            computed.store(188, Ordering::SeqCst);
            let persisted = fails_once.persist(level);
            assert_eq!(persisted.count().unwrap(), 1001, "{level:?}");
            assert_eq!(computed.load(Ordering::SeqCst), 188 + 512 + 1001, "{level:?}: all of it again");
            assert_eq!(persisted.count().unwrap(), 1001, "{level:?}");
            assert_eq!(computed.load(Ordering::SeqCst), 188 + 512 + 1001, "{level:?}: kept");
        }
    }
}
