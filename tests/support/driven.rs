//! Jobs that a test drives batch by batch.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond::{ContextBuilder, ManualClock, RunningContext, StreamingContext};

/// The interval of every test job.
pub const INTERVAL_MS: u64 = 1_000;

/// A job on a manual clock.
pub fn builder(dir: &Path, clock: &Arc<ManualClock>) -> ContextBuilder {
    StreamingContext::builder("jobs")
        .store(dir.join("store"))
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(INTERVAL_MS))
        .checkpoint_every_batches(3)
        .threads(2)
        .stop_on_signals(false)
}

/// Moves the clock to the next batch and waits until it is done.
pub fn tick(job: &RunningContext, clock: &ManualClock) {
    let before = job.progress().last_batch.map_or(0, |(batch, _)| batch.0);
    clock.advance(INTERVAL_MS);
    while job.progress().last_batch.is_none_or(|(batch, _)| batch.0 <= before) {
        let running = !job.await_termination_or_timeout(Duration::from_millis(1)).expect("the job runs");
        assert!(running, "the job has stopped");
    }
}

/// Moves the clock on until another batch is done or the job has ended, which it may.
pub fn tick_or_end(job: &RunningContext, clock: &ManualClock) -> bool {
    let before = job.progress().last_batch.map_or(0, |(batch, _)| batch.0);
    clock.advance(INTERVAL_MS);
    loop {
        if job.progress().last_batch.is_some_and(|(batch, _)| batch.0 > before) {
            return true;
        }
        if !matches!(job.await_termination_or_timeout(Duration::from_millis(1)), Ok(false)) {
            return false;
        }
    }
}
