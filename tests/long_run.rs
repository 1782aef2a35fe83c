//! A long run: hours of simulated time in which every key dies. What the job takes of its machine must follow what is
//! alive.
//!
//! `MILLPOND_LONG_RUN` is how many visitors there are, such as 5000000; a few minutes for each million.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]
#![cfg(target_os = "linux")]

#[path = "../examples/support/churn.rs"]
mod churn;
#[path = "../examples/support/footprint.rs"]
mod footprint;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use churn::{Counted, Visitors};
use footprint::{Footprint, bytes_read};
use millpond::{ManualClock, RunningContext, StopMode, StreamingContext};

/// A batch a minute: 300 are five hours.
const INTERVAL_MS: u64 = 60_000;

/// Batches of one life of the job.
const LIFE: u64 = 23;

/// Lives whose figures are not compared: memory grows until the allocator has what it needs.
const WARM_UP: u64 = 3;

fn start(store: &Path, clock: &Arc<ManualClock>, per_batch: u64) -> (RunningContext, Counted, u64) {
    let before = bytes_read().unwrap();
    let context = StreamingContext::builder("long-run")
        .store(store)
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(INTERVAL_MS))
        .checkpoint_every_batches(5)
        .threads(2)
        .partitions(4)
        .stop_on_signals(false)
        .build()
        .unwrap();
    let stop = Arc::new(AtomicU64::new(u64::MAX));
    let counted = churn::describe(&context, Visitors { per_batch, interval_ms: INTERVAL_MS, stop });
    let job = context.start().unwrap();
    (job, counted, bytes_read().unwrap() - before)
}

/// Moves the clock to the next batch and waits until it is done.
fn tick(job: &RunningContext, clock: &ManualClock) {
    let before = job.progress().last_batch.map_or(0, |(batch, _)| batch.0);
    clock.advance(INTERVAL_MS);
    while job.progress().last_batch.is_none_or(|(batch, _)| batch.0 <= before) {
        let running = !job.await_termination_or_timeout(Duration::from_millis(1)).expect("the job runs");
        assert!(running, "the job has stopped");
    }
}

#[test]
fn disk_memory_and_restart_follow_live_data() {
    let visitors: u64 = std::env::var("MILLPOND_LONG_RUN").map_or(100_000, |asked| asked.parse().unwrap());
    let per_batch = if visitors > 500_000 { 2_000 } else { 350 };
    let lives = (visitors / per_batch).div_ceil(LIFE).max(4 * WARM_UP);
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let clock = ManualClock::at(0);
    // The first half after the warm-up, and the second.
    let mut most = [Footprint::default(); 2];
    for life in 0..lives {
        let (job, counted, restart_bytes) = start(&store, &clock, per_batch);
        assert!(job.recovery().replayed.len() as u64 <= 10, "{:?}", job.recovery().replayed);
        for batch in 0..LIFE {
            tick(&job, &clock);
            if life >= WARM_UP && batch % 4 == 0 {
                let half = usize::from(life >= WARM_UP + (lives - WARM_UP) / 2);
                most[half] = most[half].most(&Footprint::now(&store, restart_bytes).unwrap());
            }
        }
        counted.check(&job, per_batch).unwrap();
        for name in ["here", "recent", "in window", "sessions"] {
            let keys = job.keys_in_state(name).unwrap();
            assert!(keys <= 8 * per_batch, "`{name}` has {keys} keys; {per_batch} come in each batch");
        }
        if life % (lives / 8) == 0 {
            let footprint = Footprint::now(&store, restart_bytes).unwrap();
            eprintln!("after {} visitors: {footprint}", (life + 1) * LIFE * per_batch);
        }
        // The first start after one of these replays nothing, after the other what no checkpoint has.
        job.stop(if life % 2 == 0 { StopMode::Now } else { StopMode::Graceful }).unwrap();
    }
    let [before, after] = most;
    eprintln!("{} batches, a minute each: {} visitors", lives * LIFE, lives * LIFE * per_batch);
    eprintln!("most in the first half: {before}\nmost in the second: {after}");
    let grown = after.growth_since(&before);
    assert!(grown.is_empty(), "it grows with its age: {grown:#?}");
}
