//! How a job under test runs.

use std::time::Duration;

/// How a job under test runs. The functions of the module use the default; its methods are the same checks, and
/// return what they find instead of a panic.
///
/// ```
/// use millpond::testkit::{Setup, TestContext};
/// use millpond::DStream;
///
/// let setup = Setup { checkpoint_every_batches: 1, partitions: 7, ..Setup::default() };
/// let job = |context: &TestContext, words: DStream<String>| {
///     context.collect("counts", &words.count_by_value());
/// };
/// let coverage = setup.recovers(job, &vec![vec!["a".to_owned()]]).unwrap();
/// assert!(coverage.boundaries > 20);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Compute threads. With more than one, disk steps of an output that writes files may come in another order each
    /// time. Default 1.
    pub threads: usize,
    /// Partitions of shuffles and state. Default 3.
    pub partitions: usize,
    /// In how many partitions each batch of an input is read. Default 2.
    pub ranges: usize,
    /// A checkpoint is taken after this many batches. Default 2.
    pub checkpoint_every_batches: u64,
    /// The memory, in bytes, that state may take; what is beyond it is read from the store. Default: no limit.
    pub state_memory_bytes_max: Option<u64>,
    /// The time between batches, on a clock that needs no time. Default 1 s.
    pub batch_interval: Duration,
    /// How many batches without input follow those with input, for what a job emits later. Default 0.
    pub batches_after_input: usize,
    /// How many pairs (a crash, then one during the recovery from it; two faults) a check goes through at most.
    /// Default 100.
    pub pairs_max: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            threads: 1,
            partitions: 3,
            ranges: 2,
            checkpoint_every_batches: 2,
            state_memory_bytes_max: None,
            batch_interval: Duration::from_secs(1),
            batches_after_input: 0,
            pairs_max: 100,
        }
    }
}
