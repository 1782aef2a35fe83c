//! RDDs: the records of one batch in partitions, described by how they are made.
//!
//! An RDD is its lineage: a node with partitions, dependencies and a way to compute one partition from its
//! parents (after Zaharia et al., "Resilient Distributed Datasets", NSDI 2012). Nothing is computed until
//! an action asks, and whatever is lost is computed again. A **narrow** dependency feeds a partition from
//! partitions of its parent in the same task; a **wide** one goes through a [`shuffle`].

mod actions;
mod draws;
mod fallible;
mod lineage;
#[cfg(feature = "testkit")]
mod local;
mod node;
mod ops;
mod save;
pub(crate) mod shuffle;

use std::sync::Arc;

pub use fallible::FallibleRdd;
pub(crate) use fallible::{Attempt, OnFailure, Outcome};
pub(crate) use lineage::prepare_all;
#[cfg(feature = "testkit")]
pub use local::LocalRdds;
pub use node::Emitter;
pub(crate) use node::{CHUNK_RECORDS, Chunks, Lineage, NodeInfo, Parent, Predicate, RddNode, WideDependency};
pub use ops::StorageLevel;
pub use save::{ObjectFile, read_object_file};

use crate::exec::Executor;

/// What a record must be to flow through a job: sent between threads and cloned where it is cached.
pub trait Record: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> Record for T {}

/// The records of one batch of a [`DStream`](crate::DStream), or what is derived from them.
///
/// A cheap handle on a lineage. Transformations are lazy and return another RDD; actions ([`collect`],
/// [`take`], [`count`], [`reduce`], [`for_each_partition`]) compute it on the job's threads. The same RDD
/// computed again gives the same records in the same order, whatever the number of threads.
///
/// ```
/// # millpond::doc::run_batch(["a b", "c"], |lines| {
/// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit(word)));
/// assert_eq!(words.count()?, 3);
/// assert_eq!(words.map(|word| word.len()).reduce(|a, b| a + b)?, Some(3));
/// # Ok(()) });
/// ```
///
/// [`collect`]: Rdd::collect
/// [`take`]: Rdd::take
/// [`count`]: Rdd::count
/// [`reduce`]: Rdd::reduce
/// [`for_each_partition`]: Rdd::for_each_partition
#[must_use = "an RDD is computed only when an action asks for it"]
pub struct Rdd<T> {
    pub(crate) node: Arc<dyn RddNode<T>>,
    pub(crate) executor: Arc<Executor>,
}

impl<T> Clone for Rdd<T> {
    fn clone(&self) -> Self {
        Rdd { node: self.node.clone(), executor: self.executor.clone() }
    }
}

impl<T> std::fmt::Debug for Rdd<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Rdd({} {})", self.node.info().operation, self.node.info().id)
    }
}

impl<T: Record> Rdd<T> {
    pub(crate) fn new(executor: &Arc<Executor>, node: impl RddNode<T> + 'static) -> Self {
        Rdd { node: Arc::new(node), executor: executor.clone() }
    }

    /// How many partitions it has.
    pub fn partitions(&self) -> usize {
        self.node.info().partitions
    }
}
