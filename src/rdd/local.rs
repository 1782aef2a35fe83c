use std::sync::Arc;

use crate::error::Result;
use crate::exec::Executor;
use crate::rdd::{Rdd, Record};

/// Makes RDDs without a job, to test code that works on them.
///
/// ```
/// # fn main() -> millpond::Result<()> {
/// let rdds = millpond::testkit::LocalRdds::new(2)?;
/// let numbers = rdds.rdd(vec![vec![3, 1], vec![], vec![2]]);
/// assert_eq!(numbers.partitions(), 3);
/// assert_eq!(numbers.sort_by(|n| *n).collect()?, [1, 2, 3]);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct LocalRdds {
    executor: Arc<Executor>,
}

impl LocalRdds {
    /// RDDs that are computed on so many threads. A task that fails is not tried again.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn new(threads: usize) -> Result<Self> {
        Ok(LocalRdds { executor: Arc::new(Executor::new(threads, 1)?) })
    }

    /// An RDD with exactly these partitions.
    pub fn rdd<T: Record>(&self, partitions: Vec<Vec<T>>) -> Rdd<T> {
        Rdd::of_collection(&self.executor, partitions.into_iter().map(Arc::new).collect())
    }
}
