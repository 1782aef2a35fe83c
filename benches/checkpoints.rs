//! What checkpoints cost while 1 % of the keys change from one to the next, or ten times as many, and the memory that state takes.
//!
//! ```text
//! cargo bench --bench checkpoints -- [--keys 1000000 --keys 10000000] [--one-of 1000 --one-of 100] [--batches 60] [--every 10]
//!     [--filling 10] [--runs 3]
//! ```
//!
//! Keys and counts have 8 bytes each. After the state is filled, each batch counts on one of 1,000 keys, and in another run
//! on one of 100, others each time until all had their turn. `without` is millpond without a checkpoint, the baseline; `with` takes one every 10
//! batches; `map` is a hash map that writes what has changed to a file, and syncs it, in the same rhythm and on the
//! same thread.
//!
//! `batch_ms` is the median and `slowest_ms` the worst batch; `keys_per_s` is over all batches together.
//! `bytes_per_change` is what checkpoints write per entry that has changed since the one before, where key and count
//! are 16 bytes; `cpu_seconds` and `written_mb` go from the first of these batches to the end of their last checkpoint; `state_bytes_per_key` is the resident memory that filling the state takes, per key.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "support/comparison.rs"]
mod comparison;
#[path = "support/numbers.rs"]
mod numbers;
#[path = "support/process.rs"]
mod process;

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use hashbrown::HashMap;
use millpond::{CheckpointWritten, StopMode};
use serde_json::json;

use comparison::{Child, Comparison, Outcome, RunOptions, quantile, report_until};
use numbers::Driven;
use process::{Usage, usage_of_this_process};

#[derive(Parser)]
struct Arguments {
    /// How many keys (default 1,000,000 and 10,000,000; 20,000 when it is only tried)
    #[arg(long)]
    keys: Vec<u64>,
    /// A batch changes one of so many keys (default 1,000 and 100; 100 when it is only tried)
    #[arg(long)]
    one_of: Vec<u64>,
    /// How many batches (default 60; 20 when it is only tried)
    #[arg(long)]
    batches: Option<u64>,
    /// Batches between checkpoints
    #[arg(long, default_value_t = 10)]
    every: u64,
    /// The batches that fill the state: what they leave in the allocator counts as memory of the state too
    #[arg(long, default_value_t = 10)]
    filling: u64,
    /// Compute threads of millpond (default: the cores of the machine)
    #[arg(long)]
    threads: Option<usize>,
    #[command(flatten)]
    run: RunOptions,
}

const COMPARISON: Comparison<'_> = Comparison {
    bench: "checkpoints",
    systems: &["without", "with", "map"],
    columns: &[
        "batch_ms",
        "slowest_ms",
        "slowest_of_median",
        "keys_per_s",
        "bytes_per_change",
        "state_bytes_per_key",
        "cpu_seconds",
        "peak_rss_mb",
        "written_mb",
    ],
};

#[derive(Clone, Copy)]
struct Workload {
    keys: u64,
    one_of: u64,
    batches: u64,
    every: u64,
    filling: u64,
    threads: Option<usize>,
}

impl Workload {
    fn changed(self) -> u64 {
        (self.keys / self.one_of).max(1)
    }
}

/// The keys are numbered; the n-th number is that of a key anywhere in the map.
fn key_of(number: u64, keys: u64) -> u64 {
    (number % keys).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What was used up to when the state was filled, and to when the batches that count began.
struct Used {
    filled: Usage,
    before_batches: Usage,
}

/// What the batches took, once the state is filled.
struct Course {
    used: Used,
    batches: Vec<Duration>,
    all: Duration,
    /// When the last checkpoint of these batches was written.
    after: Usage,
    checkpoint_bytes: u64,
    checkpoints: u64,
    /// The batches whose changes they hold.
    in_checkpoints: u64,
}

impl Course {
    fn report(&self, work: Workload, before: &Usage) -> Outcome<()> {
        let mut ms: Vec<f64> = self.batches.iter().map(|took| took.as_secs_f64() * 1e3).collect();
        let changes = self.in_checkpoints * work.changed();
        let per_change = (changes > 0).then(|| self.checkpoint_bytes as f64 / changes as f64);
        let grown = self.used.filled.rss_bytes.saturating_sub(before.rss_bytes);
        let figures = json!({
            "keys": work.keys,
            "one_of": work.one_of,
            "batch_ms": quantile(&mut ms, 0.5),
            "slowest_ms": quantile(&mut ms, 1.0),
            "slowest_of_median": quantile(&mut ms, 1.0).zip(quantile(&mut ms, 0.5)).map(|(worst, usual)| worst / usual),
            "keys_per_s": (work.changed() * work.batches) as f64 / self.all.as_secs_f64(),
            "checkpoints": self.checkpoints,
            "bytes_per_change": per_change,
            "state_bytes_per_key": grown as f64 / work.keys as f64,
        });
        report_until(figures, &self.used.before_batches, &self.after)
    }
}

fn millpond(store: &Path, work: Workload, with_checkpoints: bool) -> Outcome<()> {
    let before = usage_of_this_process()?;
    let every = if with_checkpoints { work.every } else { 1_000_000 };
    let (mut builder, driven) = Driven::builder(store, 0, 0);
    builder = builder.checkpoint_every_batches(every);
    if let Some(threads) = work.threads {
        builder = builder.threads(threads);
    }
    let context = builder.build()?;
    let _counts = context
        .replayable_stream("numbers", driven.numbers(4))
        .map(move |number| (key_of(number, work.keys), 1_u64))
        .update_state_by_key("counts", |new, count: Option<u64>| {
            Some(count.unwrap_or(0) + new.iter().sum::<u64>())
        });
    let job = context.start()?;
    for batch in 0..work.filling {
        driven.batch(&job, work.keys * (batch + 1) / work.filling - work.keys * batch / work.filling)?;
    }
    let filled = usage_of_this_process()?;
    // The checkpoint of the whole state is not counted.
    if with_checkpoints {
        driven
            .checkpoints
            .iter()
            .find(|written| written.batch.0 >= work.filling)
            .ok_or("the job has stopped")?;
    }
    (0..work.every).try_for_each(|_| driven.batch(&job, work.changed()).map(drop))?;
    let before_batches = usage_of_this_process()?;
    let start = Instant::now();
    let mut batches = Vec::new();
    for _ in 0..work.batches {
        // With what the batch has to wait for before it begins.
        let start = Instant::now();
        driven.batch(&job, work.changed())?;
        batches.push(start.elapsed());
    }
    let all = start.elapsed();
    let used = Used { filled, before_batches };
    let after = usage_of_this_process()?;
    // A graceful stop takes a last checkpoint of what is in none yet: one that is due while a large one is on its way
    // begins later. Without checkpoints that would be the whole state.
    job.stop(if with_checkpoints { StopMode::Graceful } else { StopMode::Now })?;
    let after = if with_checkpoints { usage_of_this_process()? } else { after };
    let counted = |written: &CheckpointWritten| written.batch.0 > work.filling + work.every;
    let written: Vec<_> = driven.checkpoints.try_iter().filter(counted).collect();
    let checkpoint_bytes = written.iter().map(|checkpoint| checkpoint.bytes).sum();
    let (checkpoints, in_checkpoints) =
        (written.len() as u64, if with_checkpoints { work.batches } else { 0 });
    Course { used, batches, all, after, checkpoint_bytes, checkpoints, in_checkpoints }.report(work, &before)
}

/// An entry of the map by hand.
#[derive(Default)]
struct Entry {
    count: u64,
    changed: bool,
}

fn map(store: &Path, work: Workload) -> Outcome<()> {
    let before = usage_of_this_process()?;
    std::fs::create_dir_all(store)?;
    let mut file = std::fs::File::create(store.join("changes"))?;
    let mut counts: HashMap<u64, Entry, std::hash::RandomState> = HashMap::default();
    (0..work.keys).for_each(|number| counts.entry(key_of(number, work.keys)).or_default().count = 1);
    let used = Used { filled: usage_of_this_process()?, before_batches: usage_of_this_process()? };
    let (mut batches, mut changed, mut checkpoint_bytes) = (Vec::new(), Vec::new(), 0);
    let start = Instant::now();
    for batch in 1..=work.batches {
        let start = Instant::now();
        for number in (batch - 1) * work.changed()..batch * work.changed() {
            let key = key_of(number, work.keys);
            let entry = counts.entry(key).or_default();
            entry.count += 1;
            if !std::mem::replace(&mut entry.changed, true) {
                changed.push(key);
            }
        }
        if batch % work.every == 0 {
            let mut bytes = Vec::with_capacity(16 * changed.len());
            for key in changed.drain(..) {
                let entry = counts.entry(key).or_default();
                entry.changed = false;
                bytes.extend([key, entry.count].map(u64::to_le_bytes).as_flattened());
            }
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
            file.write_all(&bytes)?;
            file.sync_data()?;
            checkpoint_bytes += bytes.len() as u64;
        }
        batches.push(start.elapsed());
    }
    let checkpoints = work.batches / work.every;
    let (all, after) = (start.elapsed(), usage_of_this_process()?);
    let in_checkpoints = checkpoints * work.every;
    Course { used, batches, all, after, checkpoint_bytes, checkpoints, in_checkpoints }.report(work, &before)
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let run = &arguments.run;
    let work = |keys, one_of| Workload {
        keys,
        one_of,
        batches: run.size(arguments.batches, 60, 20),
        every: arguments.every,
        filling: arguments.filling,
        threads: arguments.threads,
    };
    if let Some((system, store)) = run.child() {
        let (keys, one_of) =
            run.told()?.split_once(' ').ok_or("how many keys, and of how many one changes")?;
        let work = work(keys.parse()?, one_of.parse()?);
        return match system {
            "map" => map(store, work),
            _ => millpond(store, work, system == "with"),
        };
    }
    let asked = |numbers: &Vec<u64>| (!numbers.is_empty()).then_some(numbers.clone());
    for keys in run.size(asked(&arguments.keys), vec![1_000_000, 10_000_000], vec![20_000]) {
        for one_of in run.size(asked(&arguments.one_of), vec![1_000, 100], vec![100]) {
            println!("\n{keys} keys, of which a batch changes one of {one_of}");
            let told = format!("{keys} {one_of}");
            let spawn = |system: &str, dir: &Path| Child::spawn(system, &dir.join("store"), &told)?.figures();
            COMPARISON.run(run, spawn)?;
        }
    }
    Ok(())
}
