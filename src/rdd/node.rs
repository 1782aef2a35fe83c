//! What an RDD is underneath: its description, its dependencies, and how one partition is computed.

use std::any::Any;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::exec::tally::{self, Caller, Scope};
use crate::exec::{Executor, TaskContext};
use crate::rdd::{Rdd, Record};

/// Records move in chunks of this many, so that a virtual call is paid once per chunk and a chunk stays in
/// the first-level cache.
pub(crate) const CHUNK_RECORDS: usize = 512;

/// Takes chunks of records; what it leaves in a chunk is dropped.
pub(crate) type Chunks<'a, T> = dyn FnMut(&mut Vec<T>) -> Result<()> + 'a;

/// Whether to keep a record.
pub(crate) type Predicate<T> = dyn Fn(&T) -> bool + Send + Sync;

/// The description of a node.
#[derive(Clone, Debug)]
pub(crate) struct NodeInfo {
    pub(crate) id: u64,
    pub(crate) operation: &'static str,
    /// What else there is to say, empty for nothing.
    pub(crate) detail: String,
    pub(crate) partitions: usize,
}

impl NodeInfo {
    pub(crate) fn new(executor: &Executor, operation: &'static str, partitions: usize) -> Self {
        NodeInfo { id: executor.next_rdd_id(), operation, detail: String::new(), partitions }
    }

    /// What a task reads that begins at this node, where no block or range says it better.
    pub(crate) fn origin(&self, partition: usize) -> String {
        format!("partition {partition} of {}{}", self.operation, self.detail)
    }
}

/// The part of a node that does not depend on its record type.
pub(crate) trait Lineage: Send + Sync {
    fn info(&self) -> &NodeInfo;

    fn parents(&self) -> Vec<Parent>;
}

/// An edge of a lineage.
#[derive(Clone)]
pub(crate) enum Parent {
    Narrow(Arc<dyn Lineage>),
    Wide(Arc<dyn WideDependency>),
}

/// What ends a stage, seen from the stage that reads it: a shuffle, or the outcome of a fallible operation.
pub(crate) trait WideDependency: Send + Sync {
    /// Runs the stage that ends here (of a shuffle, the map side) unless its output is there.
    fn prepare(&self, executor: &Executor) -> Result<()>;

    /// What that stage reads.
    fn parent(&self) -> Arc<dyn Lineage>;

    fn describe(&self) -> String;
}

/// A node of a lineage with records of type `T`.
pub(crate) trait RddNode<T>: Lineage {
    /// Pushes the records of one partition, always the same in the same order.
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()>;

    /// For pairs that are partitioned by key already: an `Arc<dyn KeyedNode<V>>`, so that what follows needs
    /// no shuffle of its own.
    fn keyed(&self) -> Option<Box<dyn Any>> {
        None
    }

    /// For pairs that are partitioned by key already: those that `keep` holds for, which stay so.
    fn filtered(&self, _executor: &Executor, _keep: &Arc<Predicate<T>>) -> Option<Arc<dyn RddNode<T>>> {
        None
    }

    /// Drops what is cached of a partition.
    fn uncache(&self, _partition: usize) {}
}

/// Takes the records that a closure makes out of one, without an allocation for each.
///
/// ```
/// # millpond::doc::run_batch(["to be or not to be"], |lines| {
/// let words = lines.flat_map(|line, out| {
///     for word in line.words() {
///         out.emit(word);
///     }
/// });
/// assert_eq!(words.count()?, 6);
/// # Ok(()) });
/// ```
pub struct Emitter<'a, T> {
    chunk: Vec<T>,
    out: &'a mut Chunks<'a, T>,
    failed: Option<Error>,
    /// Whose closures what is handed on reaches.
    caller: Caller,
}

impl<T> std::fmt::Debug for Emitter<'_, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Emitter({} waiting)", self.chunk.len())
    }
}

impl<'a, T> Emitter<'a, T> {
    pub(crate) fn new(out: &'a mut Chunks<'a, T>) -> Self {
        Emitter::with_buffer(Vec::with_capacity(CHUNK_RECORDS), out)
    }

    /// One that collects in an empty buffer that was used before.
    pub(crate) fn with_buffer(chunk: Vec<T>, out: &'a mut Chunks<'a, T>) -> Self {
        Emitter { chunk, out, failed: None, caller: tally::caller() }
    }

    /// Hands a record on.
    #[inline]
    pub fn emit(&mut self, record: T) {
        // With room for it, nothing is called between making a record and writing it to its place.
        if self.chunk.len() < self.chunk.capacity() {
            self.chunk.push(record);
        } else {
            self.grow(record);
        }
        if self.chunk.len() == CHUNK_RECORDS {
            self.flush();
        }
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, record: T) {
        self.chunk.push(record);
    }

    /// Hands on what an iterator gives, in order: where it knows how many that are (a range, a vector, a slice and
    /// maps of these) faster than one by one.
    ///
    /// ```
    /// # millpond::doc::run_batch(["3", "2"], |lines| {
    /// let below = lines.flat_map(|line, out| out.emit_all(0..line.to_string().parse().unwrap_or(0u64)));
    /// assert_eq!(below.collect()?, [0, 1, 2, 0, 1]);
    /// # Ok(()) });
    /// ```
    #[inline]
    pub fn emit_all(&mut self, records: impl IntoIterator<Item = T>) {
        let mut records = records.into_iter();
        let (least, most) = records.size_hint();
        if most != Some(least) {
            return records.for_each(|record| self.emit(record));
        }
        loop {
            self.chunk.extend(records.by_ref().take(CHUNK_RECORDS - self.chunk.len()));
            if self.chunk.len() < CHUNK_RECORDS {
                return;
            }
            self.flush();
        }
    }

    /// Hands on what `make` puts into an empty chunk.
    #[inline]
    pub(crate) fn emit_chunk(&mut self, make: impl FnOnce(&mut Vec<T>)) -> Result<()> {
        make(&mut self.chunk);
        self.flush();
        self.check()
    }

    /// Hands on a chunk that somebody else made, and leaves it empty.
    pub(crate) fn pass_on(&mut self, chunk: &mut Vec<T>) -> Result<()> {
        self.flush();
        self.check()?;
        if !chunk.is_empty() {
            let _inside = self.caller.enter();
            (self.out)(chunk)?;
            chunk.clear();
        }
        Ok(())
    }

    /// Adds what `each` emits to `made`, whose memory is used again.
    pub(crate) fn gather(made: &mut Vec<T>, each: impl FnOnce(&mut Emitter<'_, T>)) {
        let mut full = Vec::new();
        let mut spill = |chunk: &mut Vec<T>| {
            full.append(chunk);
            Ok(())
        };
        let mut emitter =
            Emitter { chunk: std::mem::take(made), out: &mut spill, failed: None, caller: tally::caller() };
        each(&mut emitter);
        let mut rest = std::mem::take(&mut emitter.chunk);
        if full.is_empty() {
            *made = rest;
        } else {
            full.append(&mut rest);
            *made = full;
        }
    }

    /// Hands on what waits.
    #[inline(never)]
    pub(crate) fn flush(&mut self) {
        if self.failed.is_none() && !self.chunk.is_empty() {
            let _inside = self.caller.enter();
            self.failed = (self.out)(&mut self.chunk).err();
        }
        self.chunk.clear();
    }

    /// Whether what follows failed, so that there is no use in going on.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.failed.take().map_or(Ok(()), Err)
    }

    pub(crate) fn finish(self) -> Result<()> {
        self.finish_with_buffer().map(drop)
    }

    /// Hands on what is left and gives the buffer back, empty.
    pub(crate) fn finish_with_buffer(mut self) -> Result<Vec<T>> {
        self.flush();
        self.check()?;
        Ok(self.chunk)
    }
}

/// Computes one partition from the same partition of the parent.
type Transform<P, T> =
    dyn Fn(&TaskContext, usize, &dyn RddNode<P>, &mut Emitter<'_, T>) -> Result<()> + Send + Sync;

struct NarrowNode<P, T> {
    info: NodeInfo,
    parent: Arc<dyn RddNode<P>>,
    transform: Box<Transform<P, T>>,
}

impl<P: Record, T: Record> Lineage for NarrowNode<P, T> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        vec![Parent::Narrow(self.parent.clone())]
    }
}

impl<P: Record, T: Record> RddNode<T> for NarrowNode<P, T> {
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        let mut forward = |chunk: &mut Vec<T>| out(chunk);
        let mut emitter = Emitter::new(&mut forward);
        let scope = Scope::Rdd { node: self.info.id, partition };
        tally::collect(scope, || (self.transform)(task, partition, &*self.parent, &mut emitter))?;
        emitter.finish()
    }
}

impl<P: Record> Rdd<P> {
    /// An RDD whose partitions are each made from the same partition of this one. The transform is a
    /// virtual call per partition; the loop inside it is compiled for its closure.
    pub(crate) fn narrow<T: Record>(
        &self,
        operation: &'static str,
        transform: impl Fn(&TaskContext, usize, &dyn RddNode<P>, &mut Emitter<'_, T>) -> Result<()>
        + Send
        + Sync
        + 'static,
    ) -> Rdd<T> {
        let info = NodeInfo::new(&self.executor, operation, self.partitions());
        let node = NarrowNode { info, parent: self.node.clone(), transform: Box::new(transform) };
        Rdd::new(&self.executor, node)
    }

    /// The same where each record becomes any number of others.
    pub(crate) fn by_chunk<T: Record>(
        &self,
        operation: &'static str,
        each: impl Fn(&mut Vec<P>, &mut Emitter<'_, T>) + Send + Sync + 'static,
    ) -> Rdd<T> {
        self.narrow(operation, move |task, partition, parent, out| {
            parent.compute(task, partition, &mut |chunk| {
                each(chunk, out);
                out.check()
            })
        })
    }

    /// The same where each record becomes another: `each` moves a chunk of them into an empty one. Over whole
    /// chunks the compiler makes a loop without a call or a check of the room for each record.
    pub(crate) fn one_to_one<T: Record>(
        &self,
        operation: &'static str,
        each: impl Fn(std::vec::Drain<'_, P>, &mut Vec<T>) + Send + Sync + 'static,
    ) -> Rdd<T> {
        self.narrow(operation, move |task, partition, parent, out| {
            parent.compute(task, partition, &mut |chunk| out.emit_chunk(|made| each(chunk.drain(..), made)))
        })
    }

    /// The same where records are only left out, in place.
    pub(crate) fn in_place(
        &self,
        operation: &'static str,
        each: impl Fn(&mut Vec<P>) + Send + Sync + 'static,
    ) -> Rdd<P> {
        self.narrow(operation, move |task, partition, parent, out| {
            parent.compute(task, partition, &mut |chunk| {
                each(chunk);
                out.pass_on(chunk)
            })
        })
    }
}
