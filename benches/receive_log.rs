//! The receive log against a plain loop of append and `fdatasync`, at blocks of 1 MiB.
//!
//! ```text
//! cargo bench --bench receive_log -- [--mib 1024] [--runs 3]
//! ```
//!
//! Blocks are stored one after the other, each durable before the next one, and four at a time, which both
//! sides may make durable together. The receiver of the job hands over records of a block each, and makes the next ones
//! meanwhile; what the log adds to the loop is encoding them, a checksum, the hand-over between threads, and batches that
//! take the blocks up.
//! The time is that from the first block until the last one is durable.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "support/comparison.rs"]
mod comparison;
#[path = "support/process.rs"]
mod process;

use std::collections::VecDeque;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;
use millpond::{BlockStore, Receiver, ReceiverError, StopMode, StreamingContext};
use serde_json::json;

use comparison::{Comparison, Outcome, RunOptions, measure_in_child, report};
use process::usage_of_this_process;

/// A little less than a block, so that a record with what the log adds still is one.
const BLOCK_BYTES: usize = (1 << 20) - 64;

#[derive(Parser)]
struct Arguments {
    /// How much to store (default 1024; 8 when it is only tried)
    #[arg(long)]
    mib: Option<usize>,
    #[command(flatten)]
    run: RunOptions,
}

/// Bytes that no disk can compress.
fn block() -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..BLOCK_BYTES).map(|_| next()).collect()
}

/// The loop written by hand; `together` blocks per sync.
fn append(dir: &Path, blocks: usize, together: usize) -> Outcome<Duration> {
    std::fs::create_dir_all(dir)?;
    let mut file = std::fs::File::create(dir.join("log"))?;
    let block = block();
    let start = Instant::now();
    for at in 1..=blocks {
        file.write_all(&block)?;
        if at % together == 0 || at == blocks {
            file.sync_data()?;
        }
    }
    Ok(start.elapsed())
}

/// Stores blocks, `in_flight` at a time, and says how long it took.
struct Storing {
    blocks: usize,
    in_flight: usize,
    took: mpsc::Sender<Duration>,
}

impl Receiver for Storing {
    type Item = Vec<u8>;

    async fn receive(&mut self, log: BlockStore<Vec<u8>>) -> Result<(), ReceiverError> {
        let block = block();
        let start = Instant::now();
        let mut stored = VecDeque::new();
        let mut received = Some(block.clone());
        for left in (0..self.blocks).rev() {
            let (log, block_to_store) = (log.clone(), received.take().unwrap_or_default());
            stored.push_back(tokio::spawn(async move { log.store(vec![block_to_store]).await }));
            // Who reads a socket receives the next records while these are made durable.
            tokio::task::yield_now().await;
            received = (left > 0).then(|| block.clone());
            if stored.len() == self.in_flight
                && let Some(oldest) = stored.pop_front()
            {
                oldest.await??;
            }
        }
        for stored in stored {
            stored.await??;
        }
        self.took.send(start.elapsed())?;
        Ok(())
    }
}

fn millpond(dir: &Path, blocks: usize, in_flight: usize) -> Outcome<Duration> {
    let (took, waits) = mpsc::channel();
    let context = StreamingContext::builder("receive-log")
        .store(dir)
        .batch_interval(Duration::from_millis(50))
        .build()?;
    // The batches take the blocks out of memory and read nothing of them.
    context.receiver_stream("blocks", Storing { blocks, in_flight, took }).for_each_rdd(|_, _| Ok(()));
    let job = context.start()?;
    let took = waits.recv()?;
    job.stop(StopMode::Now)?;
    Ok(took)
}

fn main() -> Outcome<()> {
    let Arguments { mib, run } = Arguments::parse();
    let blocks = run.size(mib, 1024, 8);
    let Some((system, dir)) = run.child() else {
        let comparison = Comparison {
            bench: "receive_log",
            systems: &["append", "millpond", "append-4", "millpond-4"],
            columns: &["seconds", "mb_per_s", "cpu_s_per_gb", "peak_rss_mb", "written_mb"],
        };
        return comparison.run(&run, measure_in_child).map(drop);
    };
    let before = usage_of_this_process()?;
    let took = match system {
        "append" => append(dir, blocks, 1)?,
        "append-4" => append(dir, blocks, 4)?,
        "millpond" => millpond(dir, blocks, 1)?,
        _ => millpond(dir, blocks, 4)?,
    };
    let cpu_seconds = usage_of_this_process()?.cpu_seconds - before.cpu_seconds;
    let bytes = (blocks * BLOCK_BYTES) as f64;
    let figures = json!({
        "seconds": took.as_secs_f64(),
        "mb_per_s": bytes / 1e6 / took.as_secs_f64(),
        "cpu_s_per_gb": cpu_seconds / (bytes / 1e9),
    });
    report(figures, &before)
}
