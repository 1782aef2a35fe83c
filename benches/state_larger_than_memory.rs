//! What a job costs whose state is ten times the memory that it may take.
//!
//! ```text
//! cargo bench --bench state_larger_than_memory -- [--keys 5000000] [--share 10] [--batches 60] [--runs 3]
//! ```
//!
//! Keys and counts have 8 bytes each. After the state is filled in 100 batches, each batch counts on 1 % of the keys:
//! `unlimited` and `limited` on keys drawn from all, `unlimited-hot` and `limited-hot` nine times out of ten on one of a
//! hundredth of the keys. The limit is a `share`-th of 40 bytes for each key. There is a checkpoint after every 10
//! batches. At the end all counts are added up, which must give what was counted.
//!
//! `keys_per_s` and the CPU seconds are over the batches after the filling; `read_mb` is what was read from files
//! meanwhile, be it from the system's cache; `tables_mb` is what the tables take at the end, and `evictions` how often a
//! key group was let go of.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "support/comparison.rs"]
mod comparison;
#[path = "support/numbers.rs"]
mod numbers;
#[path = "support/process.rs"]
mod process;

use std::path::Path;
use std::time::Instant;

use clap::Parser;
use millpond::StopMode;
use serde_json::json;

use comparison::{Comparison, Outcome, RunOptions, measure_in_child, report};
use numbers::Driven;
use process::usage_of_this_process;

/// The batches that fill the state.
const FILLING: u64 = 100;

/// What a key and its count take in a table, about.
const TABLE_BYTES: u64 = 40;

#[derive(Parser)]
struct Arguments {
    /// How many keys (default 5,000,000; 50,000 when cargo only tests the benchmark)
    #[arg(long)]
    keys: Option<u64>,
    /// How many times the limit the state is
    #[arg(long, default_value_t = 10)]
    share: u64,
    /// How many batches are counted (default 60; 10 when cargo only tests the benchmark)
    #[arg(long)]
    batches: Option<u64>,
    #[command(flatten)]
    run: RunOptions,
}

/// A number from another one, as good as drawn at random.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The key that a number counts on: each once in the beginning, then any, or mostly a hot one.
fn key_of(number: u64, keys: u64, hot: bool) -> u64 {
    let drawn = mixed(number);
    match number {
        number if number < keys => number,
        _ if hot && !drawn.is_multiple_of(10) => drawn / 10 % (keys / 100).max(1),
        _ => drawn / 10 % keys,
    }
}

fn job(system: &str, store: &Path, arguments: &Arguments, keys: u64, batches: u64) -> Outcome<()> {
    let hot = system.ends_with("-hot");
    let (mut builder, driven) = Driven::builder(store, 0, 0);
    if system.starts_with("limited") {
        builder = builder.state_memory_bytes_max(TABLE_BYTES * keys / arguments.share);
    }
    let context = builder.checkpoint_every_batches(10).build()?;
    let _counts = context
        .replayable_stream("numbers", driven.numbers(4))
        .map(move |number| (key_of(number, keys, hot), 1_u64))
        .update_state_by_key("counts", |new, count: Option<u64>| {
            Some(count.unwrap_or(0) + new.iter().sum::<u64>())
        });
    let job = context.start()?;
    let filled = |batch: u64| keys * batch / FILLING;
    (0..FILLING).try_for_each(|batch| driven.batch(&job, filled(batch + 1) - filled(batch)).map(drop))?;
    let before = usage_of_this_process()?;
    let (start, changed) = (Instant::now(), (keys / 100).max(1));
    (0..batches).try_for_each(|_| driven.batch(&job, changed).map(drop))?;
    let seconds = start.elapsed().as_secs_f64();
    let used = usage_of_this_process()?;
    let mut counted = 0;
    job.state::<u64, u64>("counts")?.for_each(|_, count| counted += count)?;
    if counted != keys + batches * changed {
        return Err(format!("{counted} were counted").into());
    }
    job.stop(StopMode::Graceful)?;
    let progress = job.progress();
    let figures = json!({
        "keys": keys,
        "keys_per_s": (batches * changed) as f64 / seconds,
        "batches_cpu_s": used.cpu_seconds - before.cpu_seconds,
        "read_mb": (used.read_bytes - before.read_bytes) as f64 / 1e6,
        "tables_mb": progress.state_memory_bytes as f64 / 1e6,
        "evictions": progress.state_evictions,
        "checkpoints": progress.checkpoints,
    });
    report(figures, &before)
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let run = &arguments.run;
    let keys = run.size(arguments.keys, 5_000_000, 50_000);
    let batches = run.size(arguments.batches, 60, 10);
    if let Some((system, store)) = run.child() {
        return job(system, store, &arguments, keys, batches);
    }
    for systems in [["unlimited", "limited"], ["unlimited-hot", "limited-hot"]] {
        let comparison = Comparison {
            bench: "state_larger_than_memory",
            systems: &systems,
            columns: &[
                "keys_per_s",
                "batches_cpu_s",
                "read_mb",
                "tables_mb",
                "evictions",
                "checkpoints",
                "peak_rss_mb",
                "written_mb",
            ],
        };
        comparison.run(run, measure_in_child)?;
    }
    Ok(())
}
