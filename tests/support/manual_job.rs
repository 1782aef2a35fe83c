//! A job on a manual clock with one queue, driven batch by batch, whose checkpoints can be waited for.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond::{DStream, Data, ManualClock, Queue, RunningContext, StreamingContext};

/// 2024-02-29 12:00:00 UTC.
pub const START_MS: u64 = 1_709_208_000_000;

const INTERVAL_MS: u64 = 1_000;

const POLL: Duration = Duration::from_millis(2);

/// What takes so many polls never comes, on however busy a machine.
const POLLS_MAX: u32 = 60_000;

pub struct ManualJob<T> {
    pub running: RunningContext,
    pub queue: Queue<T>,
    clock: Arc<ManualClock>,
}

impl<T: Data> ManualJob<T> {
    /// A checkpoint after every other batch; `describe` gets the stream of the queue, which has the name `input`.
    pub fn start(
        name: &str,
        store: &Path,
        now_ms: u64,
        input: &str,
        describe: impl FnOnce(&StreamingContext, DStream<T>),
    ) -> Self {
        let clock = ManualClock::at(now_ms);
        let context = StreamingContext::builder(name)
            .store(store)
            .clock(clock.clone())
            .batch_interval(Duration::from_millis(INTERVAL_MS))
            .checkpoint_every_batches(2)
            .threads(2)
            .stop_on_signals(false)
            .build()
            .unwrap();
        let (stream, queue) = context.queue_stream::<T>(input);
        describe(&context, stream);
        ManualJob { running: context.start().unwrap(), queue, clock }
    }

    /// A batch of these records.
    pub fn batch(&self, records: impl IntoIterator<Item = T>) {
        let before = self.running.progress().batches;
        self.queue.push(records).unwrap();
        self.clock.advance(INTERVAL_MS);
        self.wait_for("the batch", || self.running.progress().batches > before);
    }

    /// Waits until the checkpoint writer has committed so many checkpoints of this life, and pruned.
    pub fn settle(&self, checkpoints: u64) {
        self.wait_for("the checkpoint", || self.running.progress().checkpoints >= checkpoints);
    }

    fn wait_for(&self, what: &str, is_there: impl Fn() -> bool) {
        for _ in 0..POLLS_MAX {
            if is_there() {
                return;
            }
            let ended = self.running.await_termination_or_timeout(POLL).unwrap();
            assert!(!ended, "the job ended before {what} came: {:?}", self.running.progress());
        }
        panic!("{what} does not come: {:?}", self.running.progress());
    }
}
