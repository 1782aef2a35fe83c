//! What tests of code that computes beside a store share.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millpond::{Clock, ContextBuilder, ManualClock, RunningContext, StreamingContext};

/// The interval of every test job.
pub const INTERVAL_MS: u64 = 1_000;

/// A job on a manual clock that keeps its checkpoints.
pub fn builder(store: &Path, clock: &Arc<ManualClock>) -> ContextBuilder {
    StreamingContext::builder("beside")
        .store(store)
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(INTERVAL_MS))
        .checkpoint_every_batches(2)
        .checkpoints_retained(100)
        .threads(2)
        .partitions(3)
        .stop_on_signals(false)
}

/// Moves the clock by so many intervals and waits for the batch of the new time.
pub fn advance(job: &RunningContext, clock: &ManualClock, intervals: u64) {
    clock.advance(intervals * INTERVAL_MS);
    while job.progress().last_batch.is_none_or(|(_, time)| time.0 < clock.now_ms()) {
        let running = !job.await_termination_or_timeout(Duration::from_millis(1)).expect("the job runs");
        assert!(running, "the job has stopped");
    }
}

/// Every file below a directory, with its bytes.
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            let bytes = std::fs::read(&path).expect("a file");
            all.insert(path, bytes);
        }
    }
    all
}
