//! Sinks: systems outside of the job that batches are written to.
//!
//! The contract is in [`Sink`]; three classes of sinks keep it in different ways.

mod each;
#[cfg(feature = "sqlite")]
mod sqlite;

use std::ops::Range;

pub use each::FnSink;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteSink;

use crate::error::{Error, ErrorKind};
use crate::id::{BatchId, BatchTime};

/// What user code in an output operation may fail with.
pub type OutputError = Box<dyn std::error::Error + Send + Sync>;

/// Errors of the crate that came through user code stay what they are.
pub(crate) fn from_user_code(cause: OutputError) -> Error {
    match cause.downcast::<Error>() {
        Ok(ours) => *ours,
        Err(cause) => Error::new(ErrorKind::UserCode, "the output operation failed").caused_by(cause),
    }
}

/// Which batch an output operation is given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchInfo {
    /// The job's name.
    pub job: String,
    /// The output's name: what [`write_to`](crate::DStream::write_to) was given; of other outputs their number
    /// and operation, the same in every run of the same job.
    pub output: String,
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
}

impl BatchInfo {
    /// A key that is the same whenever this output of this batch is emitted, and that no other has: what a
    /// sink outside needs to take a repeated batch only once.
    ///
    /// It is `job/output/batch`, with `/` and `%` in names as `%2F` and `%25`. For a partition of the RDD, add its
    /// number.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}/{}", part_of_key(&self.job), part_of_key(&self.output), self.batch.0)
    }
}

/// A name with what sets the parts of a key apart written otherwise: two names never make one key.
fn part_of_key(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}

/// Which partition of which batch a [`Sink`] is given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkId {
    /// The batch.
    pub batch: BatchInfo,
    /// The partition, from 0.
    pub partition: usize,
}

impl SinkId {
    /// A key that is the same whenever this partition is written, and that no other has.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}", self.batch.idempotency_key(), self.partition)
    }
}

/// What a [`Sink`] is told when its job starts.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SinkStart {
    /// The job's name.
    pub job: String,
    /// The output's name.
    pub output: String,
    /// Tells the store from every other one: 32 hexadecimal digits, drawn when the store was made.
    pub store: String,
    /// No batch after this one can have been emitted from the store; 0 when it is new.
    pub last_batch: BatchId,
    /// Batches that may have been emitted and whose plans are lost to damage: what they read is planned anew
    /// under higher numbers. Empty but for damaged stores.
    pub lost: Range<u64>,
}

/// What a [`Sink`] does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Its partitions are written, then it is committed.
    Write,
    /// Nothing: it was committed before.
    Skip,
}

/// A system outside of the job that takes records, attached with [`DStream::write_to`](crate::DStream::write_to).
///
/// # What the engine guarantees
/// * [`open`](Sink::open) is called once per start, before any batch is computed, and a start that it
///   refuses changes nothing in the store.
/// * Batches come one at a time, in the order of their numbers. No number is ever given to another batch of the
///   same store, not even after damage.
/// * For each batch: [`begin`](Sink::begin), then [`write`](Sink::write) once per partition on the job's
///   threads, then [`commit`](Sink::commit) with what `write` returned, in the order of the partitions.
/// * A batch whose completion was not recorded comes again, after a crash or a failure: under the same
///   [`BatchInfo`] with the same partitions and records in the same order, as long as the job's functions are pure
///   and it was not started with another number of partitions in between.
///   A crash may fall between a sink's commit and that record, so a batch that was committed may come again.
/// * A `write` that fails or panics is tried again, and only what its good attempt returned reaches `commit`.
///   When attempts are used up the batch fails, and the job stops. No batch is skipped.
/// * The name in `BatchInfo::output` is yours and stays right when the job's code changes.
///
/// # What the sink must guarantee
/// When `commit` returns, the batch is durable outside. Beyond that there are three classes:
///
/// * **At-least-once**: nothing more. A batch that comes again is there twice. [`FnSink`] is one unless its closure
///   is idempotent.
/// * **Idempotent**: writing a partition again changes nothing, because it is stored under
///   [`SinkId::idempotency_key`] or another name that is the same each time. Exactly-once as seen from outside, but
///   between the first time and the next a batch may be there in parts. The file outputs such as
///   [`save_as_text_files`](crate::DStream::save_as_text_files) work like this, with whole directories.
/// * **Transactional**: `write` only prepares; `commit` stores all rows of the batch and its number in a **ledger**,
///   atomically. `begin` finds a batch in the ledger that comes again, and skips it. `SqliteSink` (feature `sqlite`)
///   is one. Such a sink must also
///   - refuse in `open` a ledger that is of another [`store`](SinkStart::store), ahead of
///     [`last_batch`](SinkStart::last_batch), or within [`lost`](SinkStart::lost): it could no longer tell what
///     comes again from what is new;
///   - **fence**: a store belongs to one process, and its lock is let go only when that process has ended or the job in
///     it writes no more. But a copy of a store has a lock of its own, and a network file system may lose one. So `open`
///     takes the ledger over, by a number that grows with each start, and `commit` fails in the same transaction once
///     a later start has taken it.
///
/// ```
/// use std::sync::Mutex;
/// use millpond::{BatchInfo, OutputError, Sink, SinkId};
///
/// /// Idempotent: a partition that comes again replaces itself.
/// #[derive(Default)]
/// struct InMemory(Mutex<std::collections::BTreeMap<String, Vec<u64>>>);
///
/// impl Sink<u64> for InMemory {
///     type Staged = (String, Vec<u64>);
///
///     fn write(&self, id: &SinkId, records: Vec<u64>) -> Result<Self::Staged, OutputError> {
///         Ok((id.idempotency_key(), records))
///     }
///
///     fn commit(&self, _: &BatchInfo, staged: Vec<Self::Staged>) -> Result<(), OutputError> {
///         self.0.lock().map_err(|_| "a commit panicked")?.extend(staged);
///         Ok(())
///     }
/// }
/// ```
pub trait Sink<T>: Send + Sync + 'static {
    /// What becomes of a partition until the commit.
    type Staged: Send;

    /// The job starts.
    ///
    /// # Errors
    /// When the sink cannot keep its promise; the start fails.
    fn open(&self, _start: &SinkStart) -> Result<(), OutputError> {
        Ok(())
    }

    /// A batch begins, perhaps not for the first time.
    ///
    /// # Errors
    /// As `write`.
    fn begin(&self, _batch: &BatchInfo) -> Result<Begin, OutputError> {
        Ok(Begin::Write)
    }

    /// Takes the records of one partition. Called from several threads at once, and again for an attempt that
    /// failed.
    ///
    /// # Errors
    /// What goes wrong: it is tried again, then the job stops.
    fn write(&self, id: &SinkId, records: Vec<T>) -> Result<Self::Staged, OutputError>;

    /// Makes the batch durable; `staged` is in the order of the partitions.
    ///
    /// # Errors
    /// As `write`; the whole batch is then begun again.
    fn commit(&self, batch: &BatchInfo, staged: Vec<Self::Staged>) -> Result<(), OutputError>;
}
