//! Memory follows what is alive, however many batches a job has run: thousands of them as fast as they go.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(target_os = "linux")]

#[path = "support/child.rs"]
mod child;
#[path = "support/driven.rs"]
mod driven;

use std::sync::{Arc, Mutex};

use child::status_kib;
use driven::{builder, tick};
use millpond::{ManualClock, StopMode};

/// The first batches are not compared: memory grows until the allocator has what it needs.
const WARM_UP: u64 = 2_000;

/// More than the allocator's own ups and downs: 11 MiB were seen over 20,000 batches, with an arena for each of many
/// threads that come and go. Ask for more batches to find what takes less than some KiB for each.
const GROWTH_KIB_MAX: u64 = 16 << 10;

/// So many batches; `MILLPOND_BATCHES` asks for another number.
fn batches() -> u64 {
    std::env::var("MILLPOND_BATCHES").map_or(6_000, |asked| asked.parse().unwrap())
}

#[test]
fn thousands_of_batches_take_no_more_memory_than_some() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
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
    let (batches, mut most) = (batches(), [0; 2]);
    for batch in 1..=batches {
        queue.push([batch]).unwrap();
        tick(&job, &clock);
        if batch % 100 == 0 {
            let now = status_kib("VmRSS");
            if batch % 1_000 == 0 {
                eprintln!("after {batch} batches {now} KiB");
            }
            let half = usize::from(batch > WARM_UP + (batches - WARM_UP) / 2);
            most[half] = if batch < WARM_UP { 0 } else { now.max(most[half]) };
        }
    }
    job.stop(StopMode::Graceful).unwrap();
    let [before, after] = most;
    assert!(before > 0 && after < before + GROWTH_KIB_MAX, "{before} KiB, then {after} KiB");
}
