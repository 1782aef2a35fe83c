//! Memory follows what is alive, however many batches a job has run: thousands of them as fast as they go.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

#[path = "support/child.rs"]
mod child;
#[path = "support/driven.rs"]
mod driven;

use std::sync::{Arc, Mutex};

use child::{child_dir, run_child_through, status_kib};
use driven::{builder, tick};
use millpond::{ManualClock, StopMode};

/// The first batches are not compared: memory grows until the allocator has what it needs.
const WARM_UP: u64 = 4_000;

/// More than the allocator's own ups and downs, of which 9 MiB were seen, and what a list with an entry of 1.5 KiB for each
/// batch of a half would take.
const GROWTH_KIB_MAX: u64 = 12 << 10;

/// So many batches; `MILLPOND_BATCHES` asks for another number.
fn batches() -> u64 {
    std::env::var("MILLPOND_BATCHES").map_or(20_000, |asked| asked.parse().unwrap())
}

/// In one arena of the allocator: with one for each of the threads that come and go, it keeps now more and now less.
#[test]
fn thousands_of_batches_take_no_more_memory_than_some() {
    let dir = tempfile::tempdir().unwrap();
    run_child_through("batches_in_one_arena", "export MALLOC_ARENA_MAX=1", dir.path());
}

#[test]
#[ignore = "run by thousands_of_batches_take_no_more_memory_than_some in a process of its own"]
fn batches_in_one_arena() {
    let Some(dir) = child_dir() else { return };
    let clock = ManualClock::at(0);
    let context = builder(&dir, &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let sums = numbers.map(|n| (n % 10, n)).update_state_by_key("sums", |new, sum: Option<u64>| {
        Some(new.iter().fold(sum.unwrap_or(0), |sum, n| sum.wrapping_add(*n)))
    });
    let last = Arc::new(Mutex::new(Vec::new()));
    let seen = last.clone();
    sums.for_each_rdd(move |rdd, _| {
        *seen.lock().unwrap() = rdd.collect()?;
        Ok(())
    });
    let job = context.start().unwrap();
    let (batches, mut least) = (batches(), [u64::MAX; 2]);
    for batch in 1..=batches {
        queue.push([batch]).unwrap();
        tick(&job, &clock);
        if batch % 100 == 0 {
            let now = status_kib("VmRSS");
            if batch % 1_000 == 0 {
                eprintln!("after {batch} batches {now} KiB");
            }
            let half = usize::from(batch > WARM_UP + (batches - WARM_UP) / 2);
            least[half] = if batch < WARM_UP { u64::MAX } else { now.min(least[half]) };
        }
    }
    job.stop(StopMode::Graceful).unwrap();
    // The least of each half: an epoch that is made ahead or closed takes some MiB for a moment, what is never let go of stays.
    let [before, after] = least;
    assert!(before < u64::MAX && after < before + GROWTH_KIB_MAX, "{before} KiB, then {after} KiB");
}
