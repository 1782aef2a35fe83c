//! Listeners: who wants to know what becomes of a job's batches, outputs, receivers and checkpoints.

mod events;
mod stats;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use events::{
    BatchCompleted, BatchStarted, BatchSubmitted, CheckpointFailed, CheckpointWritten, Failure,
    OutputOperationCompleted, OutputOperationStarted, ReceiverFailed, ReceiverStarted, ReceiverStopped,
    StreamInput, StreamingStarted, StreamingStopped,
};
pub use stats::StatsListener;

use crate::exec::panic_text;

/// Is told what becomes of a job; each method does nothing unless written.
///
/// # Contract
/// Methods are called one at a time and in the order of what they tell, on the job's driver thread: what they
/// take is time that the job does not have, so a slow listener hands on to a thread of its own. Batches that a
/// start replays are told before [`streaming_started`](Self::streaming_started), on the thread that starts.
/// A listener that panics is logged and called again with the next event; it never disturbs the job. It may
/// stop the job, through the [`JobHandle`](crate::JobHandle) that
/// [`StreamingContext::get_active`](crate::StreamingContext::get_active) gives, but must not wait for its end.
///
/// Events are not kept: what is told shortly before a crash is not told again.
///
/// ```
/// # fn main() -> millpond::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use std::sync::{Arc, Mutex};
/// use millpond::{BatchCompleted, ManualClock, StopMode, StreamingContext, StreamingListener};
///
/// #[derive(Default)]
/// struct Records(Mutex<Vec<u64>>);
///
/// impl StreamingListener for Records {
///     fn batch_completed(&self, event: &BatchCompleted) {
///         self.0.lock().unwrap().push(event.records);
///     }
/// }
///
/// let records = Arc::new(Records::default());
/// let context = StreamingContext::builder("doc")
///     .store(dir.path().join("store"))
///     .clock(ManualClock::at(0))
///     .listener(records.clone())
///     .build()?;
/// let (numbers, queue) = context.queue_stream::<u64>("numbers");
/// numbers.print(3);
/// let job = context.start()?;
/// queue.push([1, 2, 3])?;
/// job.stop(StopMode::Graceful)?;
/// assert_eq!(*records.0.lock().unwrap(), [3]);
/// # Ok(()) }
/// ```
#[expect(unused_variables, reason = "named for whoever implements them")]
pub trait StreamingListener: Send + Sync + 'static {
    /// The job is ready.
    fn streaming_started(&self, event: &StreamingStarted) {}

    /// A batch is planned.
    fn batch_submitted(&self, event: &BatchSubmitted) {}

    /// A batch begins.
    fn batch_started(&self, event: &BatchStarted) {}

    /// A batch is done or has failed.
    fn batch_completed(&self, event: &BatchCompleted) {}

    /// An output of a batch begins.
    fn output_operation_started(&self, event: &OutputOperationStarted) {}

    /// An output of a batch is emitted or has failed.
    fn output_operation_completed(&self, event: &OutputOperationCompleted) {}

    /// A receiver was started.
    fn receiver_started(&self, event: &ReceiverStarted) {}

    /// A receiver has failed and will be started again.
    fn receiver_error(&self, event: &ReceiverFailed) {}

    /// A receiver is not started again.
    fn receiver_stopped(&self, event: &ReceiverStopped) {}

    /// A checkpoint is durable.
    fn checkpoint_written(&self, event: &CheckpointWritten) {}

    /// A checkpoint could not be written.
    fn checkpoint_failed(&self, event: &CheckpointFailed) {}

    /// The job has stopped: the last event. A start that fails has none.
    fn streaming_stopped(&self, event: &StreamingStopped) {}
}

/// The listeners of a job, in the order in which they were added.
#[derive(Clone, Default)]
pub(crate) struct Listeners(Vec<Arc<dyn StreamingListener>>);

impl Listeners {
    pub(crate) fn add(&mut self, listener: Arc<dyn StreamingListener>) {
        self.0.push(listener);
    }

    /// Calls each.
    pub(crate) fn tell(&self, call: impl Fn(&dyn StreamingListener)) {
        for listener in &self.0 {
            // Nothing of the job is lent to a listener but the event: nothing is left half-changed.
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| call(&**listener))) {
                tracing::error!(panic = panic_text(&*payload), "a listener panicked");
            }
        }
    }
}
