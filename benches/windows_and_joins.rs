//! What sliding windows and a join cost per record, against hash maps by hand that keep nothing on disk.
//!
//! ```text
//! cargo bench --bench windows_and_joins -- [--keys 100000] [--batch 200000] [--batches 30] [--window 10] [--runs 3]
//! ```
//!
//! Each batch has so many numbers, which fall on so many keys. `window-sum` sums per key over the last 10 batches,
//! sliding by one, by merging them; `window-inverse` does it by adding the newest and taking the oldest away; `join`
//! joins two halves of the batch by key. `by-hand` is the first two: one map, with the newest batch added and the oldest taken
//! away, on one thread; `join-by-hand` builds a map of one half and looks up the other. Everything is read once, and
//! the sums must agree. `ns_per_record` is of wall time, `cpu_ns_per_record` of CPU time, over all batches once the window
//! is full.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "support/comparison.rs"]
mod comparison;
#[path = "support/numbers.rs"]
mod numbers;
#[path = "support/process.rs"]
mod process;

use std::collections::VecDeque;
use std::hash::RandomState;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use hashbrown::HashMap;
use millpond::DStream;
use serde_json::json;

use comparison::{Comparison, Outcome, RunOptions, measure_in_child, report};
use numbers::Driven;
use process::usage_of_this_process;

/// The interval of a driven job.
const INTERVAL: Duration = Duration::from_secs(1);

#[derive(Parser)]
struct Arguments {
    /// How many keys (default 100,000; 1,000 when it is only tried)
    #[arg(long)]
    keys: Option<u64>,
    /// Numbers per batch (default 200,000; 2,000 when it is only tried)
    #[arg(long)]
    batch: Option<u64>,
    /// How many batches are counted (default 30; 4 when it is only tried)
    #[arg(long)]
    batches: Option<u64>,
    /// The batches of a window
    #[arg(long, default_value_t = 10)]
    window: u64,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Copy)]
struct Workload {
    keys: u64,
    batch: u64,
    batches: u64,
    window: u64,
}

/// The key of a number, as good as drawn at random.
fn key_of(number: u64, keys: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % keys
}

/// One system: runs a batch and returns the sum over what it puts out, which the others must agree with.
type Batch<'a> = dyn FnMut() -> Outcome<u64> + 'a;

fn measure(work: Workload, run_batch: &mut Batch<'_>) -> Outcome<()> {
    for _ in 0..work.window {
        run_batch()?;
    }
    let before = usage_of_this_process()?;
    let start = Instant::now();
    let mut sum = 0_u64;
    for _ in 0..work.batches {
        sum = sum.wrapping_add(run_batch()?);
    }
    let took = start.elapsed();
    let cpu_seconds = usage_of_this_process()?.cpu_seconds - before.cpu_seconds;
    let records = (work.batch * work.batches) as f64;
    let figures = json!({
        "ns_per_record": took.as_nanos() as f64 / records,
        "cpu_ns_per_record": cpu_seconds * 1e9 / records,
        "sum": sum.to_string(),
    });
    report(figures, &before)
}

fn millpond(system: &str, store: &Path, work: Workload) -> Outcome<()> {
    let (builder, driven) = Driven::builder(store, 0, 0);
    let context = builder.build()?;
    let numbers = context.replayable_stream("numbers", driven.numbers(4));
    let pairs = numbers.map(move |number| (key_of(number, work.keys), number));
    let length = INTERVAL * u32::try_from(work.window)?;
    let sum = Arc::new(AtomicU64::new(0));
    let put_out = |results: DStream<(u64, u64)>| {
        let sum = sum.clone();
        results.for_each_rdd(move |results, _| {
            sum.store(results.map(|(_, value)| value).fold(0, u64::wrapping_add)?, Ordering::SeqCst);
            Ok(())
        });
    };
    match system {
        "window-sum" => {
            put_out(pairs.reduce_by_key_and_window("sums", length, INTERVAL, u64::wrapping_add));
        }
        "window-inverse" => put_out(pairs.reduce_by_key_and_window_with_inverse(
            "sums",
            length,
            INTERVAL,
            u64::wrapping_add,
            u64::wrapping_sub,
        )),
        _ => {
            let (left, right) = (pairs.filter(|(_, n)| n % 2 == 0), pairs.filter(|(_, n)| n % 2 == 1));
            put_out(left.join(&right).map_values(|(a, b)| a.wrapping_mul(b)));
        }
    }
    let job = context.start()?;
    measure(work, &mut || {
        driven.batch(&job, work.batch)?;
        Ok(sum.load(Ordering::SeqCst))
    })
}

fn window_by_hand(work: Workload) -> Outcome<()> {
    let mut sums: HashMap<u64, (u64, u64), RandomState> = HashMap::default();
    let mut window = VecDeque::new();
    let mut at = 0;
    measure(work, &mut || {
        for number in at..at + work.batch {
            let (sum, count) = sums.entry(key_of(number, work.keys)).or_default();
            (*sum, *count) = (sum.wrapping_add(number), *count + 1);
        }
        window.push_back(at..at + work.batch);
        at += work.batch;
        let oldest = if window.len() as u64 > work.window { window.pop_front() } else { None };
        for number in oldest.into_iter().flatten() {
            let (sum, count) = sums.entry(key_of(number, work.keys)).or_default();
            (*sum, *count) = (sum.wrapping_sub(number), *count - 1);
        }
        sums.retain(|_, (_, count)| *count > 0);
        Ok(sums.values().fold(0, |all, (sum, _)| all.wrapping_add(*sum)))
    })
}

fn join_by_hand(work: Workload) -> Outcome<()> {
    let mut at = 0;
    measure(work, &mut || {
        let numbers = at..at + work.batch;
        let mut left: HashMap<u64, Vec<u64>, RandomState> = HashMap::default();
        for number in numbers.clone().filter(|number| number % 2 == 0) {
            left.entry(key_of(number, work.keys)).or_default().push(number);
        }
        at += work.batch;
        let right = numbers.filter(|number| number % 2 == 1);
        let joined = right.flat_map(|number| {
            let found = left.get(&key_of(number, work.keys)).into_iter().flatten();
            found.map(move |other| other.wrapping_mul(number))
        });
        Ok(joined.fold(0, u64::wrapping_add))
    })
}

fn main() -> Outcome<()> {
    let Arguments { keys, batch, batches, window, run } = Arguments::parse();
    let work = Workload {
        keys: run.size(keys, 100_000, 1_000),
        batch: run.size(batch, 200_000, 2_000),
        batches: run.size(batches, 30, 4),
        window,
    };
    if let Some((system, dir)) = run.child() {
        return match system {
            "by-hand" => window_by_hand(work),
            "join-by-hand" => join_by_hand(work),
            _ => millpond(system, dir, work),
        };
    }
    for systems in [&["by-hand", "window-inverse", "window-sum"][..], &["join-by-hand", "join"]] {
        let comparison = Comparison {
            bench: "windows_and_joins",
            systems,
            columns: &["ns_per_record", "cpu_ns_per_record", "cpu_seconds", "peak_rss_mb", "written_mb"],
        };
        let mut expected = None;
        comparison.run(&run, |system, dir| {
            let figures = measure_in_child(system, dir)?;
            let sum = figures["sum"].clone();
            if *expected.get_or_insert(sum.clone()) != sum {
                return Err(format!("{system} gives {sum}, not {expected:?}").into());
            }
            Ok(figures)
        })?;
    }
    Ok(())
}
