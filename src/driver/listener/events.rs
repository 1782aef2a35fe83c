//! What a listener is told.

use std::fmt;
use std::time::Duration;

use crate::driver::RecoveryReport;
use crate::error::{Error, ErrorKind};
use crate::id::{BatchId, BatchTime, CheckpointId};

/// An error as a listener sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Failure {
    /// What the caller can do about it.
    pub kind: ErrorKind,
    /// The error and its causes, on one line.
    pub message: String,
}

impl Failure {
    pub(crate) fn of(error: &Error) -> Self {
        Failure { kind: error.kind(), message: error.chain() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The job is ready: recovered, replayed, receiving.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamingStarted {
    /// What the start found in the store and did.
    pub recovery: RecoveryReport,
}

/// What a batch has of one input stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInput {
    /// The stream's name.
    pub stream: String,
    /// Bytes of its blocks, or the length of its ranges in the source's own unit.
    pub bytes: u64,
    /// Records read of it; 0 before the batch has run.
    pub records: u64,
}

/// A batch is planned: its inputs are fixed and durable.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchSubmitted {
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
    /// Bytes of all inputs.
    pub bytes: u64,
    /// The streams it has input of, in the order of their names.
    pub streams: Vec<StreamInput>,
    /// Whether it was planned by an earlier run and is computed again.
    pub replayed: bool,
}

/// A batch begins to be computed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStarted {
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
    /// How long after it was due it began, by the job's clock: a job that keeps up has almost none. Intervals
    /// that were missed, and are in this batch, count. Zero for a replayed batch.
    pub scheduling_delay: Duration,
    /// Whether it is computed again.
    pub replayed: bool,
}

/// A batch is done, or has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchCompleted {
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
    /// Bytes of all inputs.
    pub bytes: u64,
    /// Records read of all inputs.
    pub records: u64,
    /// The streams it has input of, in the order of their names.
    pub streams: Vec<StreamInput>,
    /// As in [`BatchStarted`].
    pub scheduling_delay: Duration,
    /// From its start until state was changed, outputs were emitted and that was recorded, in real time.
    pub processing_time: Duration,
    /// Both together.
    pub total_delay: Duration,
    /// Whether it was computed again.
    pub replayed: bool,
    /// What it failed with; the job then stops, and the next start computes it again.
    pub error: Option<Failure>,
}

/// An output of a batch begins. One that was emitted before its batch was replayed is not emitted again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputOperationStarted {
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
    /// The output's name, as in [`BatchInfo`](crate::BatchInfo).
    pub output: String,
}

/// An output of a batch has been emitted, or has failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutputOperationCompleted {
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
    /// The output's name, as in [`BatchInfo`](crate::BatchInfo).
    pub output: String,
    /// How long it took, all attempts together, in real time.
    pub duration: Duration,
    /// How often it was tried, 1 for at once.
    pub attempts: u32,
    /// What the last attempt failed with.
    pub error: Option<Failure>,
}

/// A receiver was started, for the first time or again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiverStarted {
    /// The stream's name.
    pub stream: String,
}

/// A receiver has failed and will be started again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiverFailed {
    /// The stream's name.
    pub stream: String,
    /// What it failed with.
    pub error: String,
    /// After which wait it is started again.
    pub restart_after: Duration,
}

/// A receiver has ended, or the job has: it is not started again in this run.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiverStopped {
    /// The stream's name.
    pub stream: String,
    /// What it failed with, when it failed while the job stopped.
    pub error: Option<String>,
}

/// A checkpoint is durable: a start no longer needs what came before it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointWritten {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The last batch in it.
    pub batch: BatchId,
    /// How long it took to write, while batches went on, in real time.
    pub duration: Duration,
    /// What it wrote of state: what has changed since the one before.
    pub bytes: u64,
}

/// A checkpoint could not be written, or what it made superfluous could not be removed. The job stops; the next
/// start takes the newest checkpoint that is whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckpointFailed {
    /// The checkpoint.
    pub checkpoint: CheckpointId,
    /// The last batch that was to be in it.
    pub batch: BatchId,
    /// How long it took to fail, in real time.
    pub duration: Duration,
    /// What it failed with.
    pub error: Failure,
}

/// The job has stopped and has let go of its store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamingStopped {
    /// What stopped it, `None` when it was asked to.
    pub error: Option<Failure>,
}
