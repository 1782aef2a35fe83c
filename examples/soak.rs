//! A soak: runs for as long as you say in real time, with keys that all die, and prints every second what it takes of
//! the machine. It starts anew now and then, on the same store. At its end it checks that every record was counted once
//! and that nothing has grown with age.
//!
//! ```text
//! cargo run --release --example soak -- --seconds 28800 --per-batch 5000 --restart-every 600
//! ```
//!
//! Without arguments it takes some 25 seconds. Remove `millpond-demo/soak` to start over.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "support/churn.rs"]
mod churn;
#[path = "support/footprint.rs"]
mod footprint;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use churn::Visitors;
use clap::Parser;
use footprint::{Footprint, bytes_read};
use millpond::{StopMode, StreamingContext};

#[derive(Clone, Parser)]
struct Options {
    /// The directory that the job recovers from.
    #[arg(long, default_value = "millpond-demo/soak/store")]
    store: PathBuf,
    /// For how long to run, but for restarts.
    #[arg(long, default_value_t = 24)]
    seconds: u64,
    /// New visitors in each batch; each makes four records in two batches.
    #[arg(long, default_value_t = 250)]
    per_batch: u64,
    /// The time between batches.
    #[arg(long, default_value_t = 50)]
    batch_ms: u64,
    /// Stops and starts again after so many seconds.
    #[arg(long, default_value_t = 3)]
    restart_every: u64,
}

/// What was seen: the most of the first half and of the second, and whether somebody stopped it.
struct Seen {
    most: [Footprint; 2],
    seconds: u64,
    is_stopped: bool,
}

/// One life of the job.
fn live(options: &Options, seen: &mut Seen) -> Result<(), Box<dyn Error>> {
    let read_before = bytes_read()?;
    let context = StreamingContext::builder("soak")
        .store(&options.store)
        .batch_interval(Duration::from_millis(options.batch_ms))
        .checkpoint_every_batches(5)
        .build()?;
    let stop = Arc::new(AtomicU64::new(u64::MAX));
    let visitors = Visitors {
        per_batch: options.per_batch.max(1),
        interval_ms: options.batch_ms.max(1),
        stop: stop.clone(),
    };
    let counted = churn::describe(&context, visitors);
    let job = context.start()?;
    println!("{} batches computed again", job.recovery().replayed.len());
    let restart_bytes = bytes_read()? - read_before;
    for _ in 0..options.restart_every.max(1) {
        if seen.seconds == options.seconds {
            break;
        }
        if job.await_termination_or_timeout(Duration::from_secs(1))? {
            println!("stopped; start me again to go on");
            seen.is_stopped = true;
            return Ok(());
        }
        let footprint = Footprint::now(&options.store, restart_bytes)?;
        println!("{:>6} s, {} hits: {footprint}", seen.seconds, counted.hits.value());
        // The first quarter warms up.
        if seen.seconds >= options.seconds / 4 {
            let half = usize::from(seen.seconds >= options.seconds * 5 / 8);
            seen.most[half] = seen.most[half].most(&footprint);
        }
        seen.seconds += 1;
    }
    // No new visitors: what was planned is finished, and what is kept agrees.
    stop.store(0, Ordering::SeqCst);
    job.stop(StopMode::Graceful)?;
    Ok(counted.check(&job, options.per_batch.max(1))?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let mut seen = Seen { most: [Footprint::default(); 2], seconds: 0, is_stopped: false };
    while seen.seconds < options.seconds && !seen.is_stopped {
        live(&options, &mut seen)?;
    }
    if seen.is_stopped {
        return Ok(());
    }
    let [before, after] = seen.most;
    println!("most in the first half: {before}\nmost in the second:     {after}");
    let grown = after.growth_since(&before);
    if !grown.is_empty() {
        return Err(format!("it grows with its age: {grown:?}").into());
    }
    println!("checked: every hit counted once, and what the job takes does not grow with its age");
    Ok(())
}
