//! The queries 0 to 8 of Nexmark: jobs with checkpoints against plain loops that keep nothing, on the same events.
//!
//! ```text
//! cargo bench --bench nexmark -- [--query q3] [--events 1000000] [--per-second 10000] [--batch 50000] [--every 10] [--threads N] [--runs 3]
//! ```
//!
//! Events of the public generator (10,000 in a second of their time, each 100 of them out of order) are made beforehand; both
//! sides take a copy of each. The jobs are in `queries.rs`; their source is replayed after a crash, as a log of events
//! would be, and every 10 batches there is a checkpoint. The loops, in `plain.rs`, go through the same batches on one
//! thread. Each side hands every row that it puts out to a checksum, in whatever order, and the runs fail unless
//! both have the same rows. The time is that of all batches and of a graceful stop.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "../support/comparison.rs"]
mod comparison;
mod events;
#[path = "../support/numbers.rs"]
mod numbers;
mod plain;
#[path = "../support/process.rs"]
mod process;
mod queries;

use std::hash::{Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use millpond::StopMode;
use serde_json::json;
use xxhash_rust::xxh3::Xxh3;

use comparison::{Child, Comparison, Outcome, RunOptions, report};
use events::{Event, generate};
use numbers::Driven;
use process::usage_of_this_process;
use queries::{QUERIES, Row};

const SYSTEMS: [&str; 2] = ["plain", "millpond"];

#[derive(Parser)]
struct Arguments {
    /// Which queries (default: all)
    #[arg(long)]
    query: Vec<String>,
    /// How many events (default 1,000,000; 20,000 when it is only tried)
    #[arg(long)]
    events: Option<usize>,
    /// Events in a second of their own time (default 10,000; 500 when it is only tried)
    #[arg(long)]
    per_second: Option<usize>,
    /// Events per batch (default 50,000; 2,000 when it is only tried)
    #[arg(long)]
    batch: Option<usize>,
    /// Batches between checkpoints
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// Compute threads of millpond (default: the cores of the machine)
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    run: RunOptions,
}

/// Rows that were put out: how many, and a sum that does not depend on their order.
#[derive(Default)]
struct Rows {
    count: AtomicU64,
    sum: AtomicU64,
}

impl Rows {
    fn add(&self, row: &Row) {
        let mut hasher = Xxh3::new();
        row.hash(&mut hasher);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(hasher.finish(), Ordering::Relaxed);
    }
}

/// Runs all batches and says what that took.
fn measure(query: &str, events: u64, rows: &Rows, run: impl FnOnce() -> Outcome<()>) -> Outcome<()> {
    let before = usage_of_this_process()?;
    let start = Instant::now();
    run()?;
    let took = start.elapsed();
    let cpu_seconds = usage_of_this_process()?.cpu_seconds - before.cpu_seconds;
    let figures = json!({
        "query": query,
        "events": events,
        "ns_per_event": took.as_nanos() as f64 / events as f64,
        "cpu_ns_per_event": cpu_seconds * 1e9 / events as f64,
        "rows": rows.count.load(Ordering::SeqCst),
        "sum": rows.sum.load(Ordering::SeqCst).to_string(),
    });
    report(figures, &before)
}

fn by_hand(query: &str, events: &[Event], batch: usize) -> Outcome<()> {
    let mut plain = plain::query(query);
    let rows = Rows::default();
    measure(query, events.len() as u64, &rows, || {
        for events in events.chunks(batch) {
            plain.batch(&mut events.iter().cloned(), &mut |row| rows.add(&row));
        }
        Ok(())
    })
}

fn millpond(
    query: &str,
    events: Vec<Event>,
    arguments: &Arguments,
    batch: usize,
    store: &Path,
) -> Outcome<()> {
    let (mut builder, driven) = Driven::builder(store, 0, 0);
    builder = builder.checkpoint_every_batches(arguments.every);
    if let Some(threads) = arguments.threads {
        builder = builder.threads(threads);
    }
    let context = builder.build()?;
    let events = Arc::new(events);
    let by_number = events.clone();
    let stream =
        context.replayable_stream("events", driven.numbers(16)).map(move |at| by_number[at as usize].clone());
    let rows = Arc::new(Rows::default());
    let counted = rows.clone();
    queries::query(query, &stream).for_each_rdd(move |put_out, _| {
        let rows = counted.clone();
        put_out.for_each(move |row| {
            rows.add(&row);
            Ok(())
        })?;
        Ok(())
    });
    let job = context.start()?;
    measure(query, events.len() as u64, &rows, || {
        for events in events.chunks(batch) {
            driven.batch(&job, events.len() as u64)?;
        }
        job.stop(StopMode::Graceful)?;
        Ok(())
    })
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let run = &arguments.run;
    let events = run.size(arguments.events, 1_000_000, 20_000);
    let batch = run.size(arguments.batch, 50_000, 2_000).max(1);
    if let Some((system, store)) = run.child() {
        let events = generate(events, run.size(arguments.per_second, 10_000, 500));
        return match system {
            "plain" => by_hand(run.told()?, &events, batch),
            _ => millpond(run.told()?, events, &arguments, batch, store),
        };
    }
    let comparison =
        Comparison { bench: "nexmark", systems: &SYSTEMS, columns: &["ns_per_event", "cpu_ns_per_event"] };
    let mut table = Vec::new();
    for query in QUERIES
        .iter()
        .filter(|query| arguments.query.is_empty() || arguments.query.iter().any(|q| q == *query))
    {
        let mut expected = None;
        let runs = comparison.measure(run, |system, dir| {
            let figures = Child::spawn(system, &dir.join("store"), query)?.figures()?;
            let found = (figures["rows"].clone(), figures["sum"].clone());
            if *expected.get_or_insert(found.clone()) != found {
                return Err(
                    format!("{query}: {system} has rows of the sum {found:?}, not {expected:?}").into()
                );
            }
            Ok(figures)
        })?;
        let medians = comparison.medians(&runs);
        let rows = expected.and_then(|(rows, _)| rows.as_u64()).unwrap_or(0);
        table.push((query, rows, medians));
    }
    println!(
        "\n{:<6} {:>10} {:>14} {:>14} {:>8} {:>14} {:>14} {:>8}",
        "query", "rows", "plain ns/ev", "millpond", "ratio", "plain CPU", "millpond CPU", "ratio"
    );
    for (query, rows, medians) in table {
        let [plain, millpond] =
            [0, 1].map(|system| [0, 1].map(|column| medians[system][column].unwrap_or(f64::NAN)));
        println!(
            "{query:<6} {rows:>10} {:>14.0} {:>14.0} {:>8.2} {:>14.0} {:>14.0} {:>8.2}",
            plain[0],
            millpond[0],
            millpond[0] / plain[0],
            plain[1],
            millpond[1],
            millpond[1] / plain[1]
        );
    }
    Ok(())
}
