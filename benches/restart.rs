//! The first result after a restart: from the start of the process to the output of a batch over restored state.
//!
//! ```text
//! cargo bench --bench restart -- [--keys 1000000 --keys 10000000] [--live 100000 --dead 2000000] [--runs 3]
//!     [--plot FILE]
//! ```
//!
//! A store is prepared with so many keys (8 bytes) and counts (8 bytes), in ten batches with a checkpoint each (ten more
//! remove the dead keys). Then each run opens a copy of it in a new process and runs a batch that adds to
//! 1,000 of the keys and puts out their counts. `first_result_ms` counts from before the process is started until
//! its line with the result is read; `start_ms` is the start of the job alone. Then batches follow that add to 1 % of the keys,
//! anywhere: `full_speed_ms` is when they have come to take what they go on taking, give or take a quarter, and
//! `read_ms` what it takes to read the files of the state once. Files are in the system's cache. The
//! baseline reads a file of the same keys and counts, checks its checksum and builds a hash map.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "support/comparison.rs"]
mod comparison;
#[path = "support/numbers.rs"]
mod numbers;
#[path = "support/plot.rs"]
mod plot;
#[path = "support/process.rs"]
mod process;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use hashbrown::HashMap;
use millpond::{ContextBuilder, DStream, RunningContext, StopMode};
use serde_json::json;

use comparison::{Child, Comparison, Figures, Outcome, RunOptions, report, report_until};
use numbers::Driven;
use plot::{Chart, PlotOptions};
use process::usage_of_this_process;

/// How many keys the batch after the restart touches.
const TOUCHED: u64 = 1_000;

/// The batches that fill the store, and as many again that remove the dead keys.
const BATCHES: u64 = 10;

/// The batches after the first result.
const BATCHES_AFTER: usize = 40;

#[derive(Parser)]
struct Arguments {
    /// Stores of so many keys (default 1,000,000 and 10,000,000; 20,000 when it is only tried)
    #[arg(long)]
    keys: Vec<u64>,
    /// A store of so many keys beside removed ones
    #[arg(long)]
    live: Option<u64>,
    /// How many are removed
    #[arg(long)]
    dead: Option<u64>,
    #[command(flatten)]
    plot: PlotOptions,
    #[command(flatten)]
    run: RunOptions,
}

const SYSTEMS: [&str; 2] = ["map", "millpond"];

/// What a store holds: `live` keys, and `dead` ones that were there before.
#[derive(Clone, Copy)]
struct Content {
    live: u64,
    dead: u64,
}

impl Content {
    fn name(self) -> String {
        match self.dead {
            0 => format!("{} k keys", self.live / 1_000),
            dead => format!("{} k keys, {} k removed", self.live / 1_000, dead / 1_000),
        }
    }

    fn told(self) -> String {
        format!("{} {}", self.live, self.dead)
    }

    fn of_told(told: &str) -> Outcome<Self> {
        let (live, dead) = told.split_once(' ').ok_or("two numbers")?;
        Ok(Content { live: live.parse()?, dead: dead.parse()? })
    }

    /// Every number that fills the store.
    fn numbers(self) -> u64 {
        self.live + 2 * self.dead
    }

    /// What a number does: first all keys are counted, then the dead ones removed, then some of the living counted
    /// again.
    fn change(self, number: u64) -> (u64, i64) {
        let Content { live, dead } = self;
        match number.checked_sub(live + dead) {
            None => (number, 1),
            Some(number) if number < dead => (number, -1),
            Some(number) => (dead + (number - dead) * 9_973 % live, 1),
        }
    }
}

fn describe(
    builder: ContextBuilder,
    driven: &Driven,
    content: Content,
) -> Outcome<(RunningContext, Duration)> {
    let context = builder.checkpoint_every_batches(1).build()?;
    let counts: DStream<(u64, u64)> = context
        .replayable_stream("numbers", driven.numbers(4))
        .map(move |number| content.change(number))
        .update_state_by_key("counts", |changes, count: Option<u64>| {
            let count = count.unwrap_or(0).saturating_add_signed(changes.iter().sum());
            (count > 0).then_some(count)
        });
    let told = AtomicBool::new(false);
    counts.for_each_rdd(move |counts, info| {
        if info.batch.0 > 2 * BATCHES {
            let [keys, sum] =
                counts.map(|(_, count)| [1, count]).fold([0, 0], |a, b| [a[0] + b[0], a[1] + b[1]])?;
            if keys > 0 && !told.swap(true, Ordering::Relaxed) {
                println!("{keys} {sum}");
            }
        }
        Ok(())
    });
    let start = Instant::now();
    let job = context.start()?;
    Ok((job, start.elapsed()))
}

/// Fills a store; its last checkpoint holds everything.
fn prepare(store: &Path, content: Content) -> Outcome<()> {
    let (builder, driven) = Driven::builder(store, 0, 0);
    let (job, _) = describe(builder, &driven, content)?;
    for (numbers, batches) in [(content.live + content.dead, BATCHES), (content.dead, BATCHES)] {
        for batch in 0..batches {
            driven.batch(&job, numbers * (batch + 1) / batches - numbers * batch / batches)?;
        }
    }
    job.stop(StopMode::Graceful)?;
    println!("{}", json!({}));
    Ok(())
}

fn restart(store: &Path, content: Content) -> Outcome<()> {
    let (before, start) = (usage_of_this_process()?, Instant::now());
    // The input is there already, and so late a batch is due at once.
    let (builder, driven) = Driven::builder(store, 1_000_000, content.numbers() + TOUCHED);
    let (job, started) = describe(builder, &driven, content)?;
    driven.completed(&job)?;
    let first = usage_of_this_process()?;
    let mut batches = Vec::with_capacity(BATCHES_AFTER);
    for _ in 0..BATCHES_AFTER {
        let begun = start.elapsed();
        driven.batch(&job, content.live / 100)?;
        batches.push((begun, start.elapsed() - begun));
    }
    job.stop(StopMode::Now)?;
    let figures = json!({
        "start_ms": ms(started),
        "full_speed_ms": ms(full_speed(&batches)),
        "read_ms": ms(read_all(&store.join("state"))?),
    });
    report_until(figures, &before, &first)
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// When the first batch began that took, as did the two after it in the median, no more than a quarter over what the last
/// quarter of the batches did.
fn full_speed(batches: &[(Duration, Duration)]) -> Duration {
    let median = |batches: &[(Duration, Duration)]| {
        let mut took: Vec<_> = batches.iter().map(|(_, took)| *took).collect();
        took.sort_unstable();
        took[took.len() / 2]
    };
    let steady = median(&batches[batches.len() * 3 / 4..]);
    let most = steady * 5 / 4;
    let is_full = |three: &&[(Duration, Duration)]| three[0].1 <= most && median(three) <= most;
    batches.windows(3).find(is_full).map_or(Duration::MAX, |three| three[0].0)
}

/// How long it takes to read all files of a directory.
fn read_all(dir: &Path) -> Outcome<Duration> {
    let start = Instant::now();
    for file in std::fs::read_dir(dir)? {
        std::hint::black_box(std::fs::read(file?.path())?);
    }
    Ok(start.elapsed())
}

// -- by hand --

fn prepare_by_hand(store: &Path, content: Content) -> Outcome<()> {
    std::fs::create_dir_all(store)?;
    let pairs = (content.dead..content.dead + content.live).flat_map(|key| [key, 1]);
    let mut bytes: Vec<u8> = pairs.flat_map(u64::to_le_bytes).collect();
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    std::fs::write(store.join("counts"), bytes)?;
    Ok(())
}

fn restart_by_hand(store: &Path, content: Content) -> Outcome<()> {
    let before = usage_of_this_process()?;
    let start = Instant::now();
    let bytes = std::fs::read(store.join("counts"))?;
    let (pairs, crc) = bytes.split_last_chunk::<4>().ok_or("a file with a checksum")?;
    if crc32fast::hash(pairs) != u32::from_le_bytes(*crc) {
        return Err("the file is damaged".into());
    }
    let (words, _) = pairs.as_chunks::<8>();
    let mut counts: HashMap<u64, u64, std::hash::RandomState> =
        HashMap::with_capacity_and_hasher(words.len() / 2, std::hash::RandomState::new());
    counts
        .extend(words.chunks_exact(2).map(|pair| (u64::from_le_bytes(pair[0]), u64::from_le_bytes(pair[1]))));
    let started = start.elapsed();
    let mut sum = 0;
    for number in content.numbers()..content.numbers() + TOUCHED {
        let count = counts.entry(content.change(number).0).or_default();
        *count += 1;
        sum += *count;
    }
    println!("{TOUCHED} {sum}");
    report(json!({ "start_ms": ms(started) }), &before)
}

// -- the runs --

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?
        } else {
            std::fs::copy(entry.path(), target).map(drop)?
        }
    }
    Ok(())
}

fn measure(system: &str, prepared: &Path, dir: &Path, content: Content) -> Outcome<Figures> {
    let store = dir.join("store");
    copy(&prepared.join(system), &store)?;
    let mut child = Child::spawn(system, &store, &content.told())?;
    let (result, took) = child.line()?;
    if result != format!("{TOUCHED} {}", 2 * TOUCHED) {
        return Err(format!("{system} gives {result}").into());
    }
    let mut figures = child.figures()?;
    figures.insert("first_result_ms".into(), (took.as_secs_f64() * 1e3).into());
    figures.insert("content".into(), content.told().into());
    Ok(figures)
}

/// The medians of the columns, for each system.
fn compare(content: Content, run: &RunOptions) -> Outcome<Vec<Vec<Option<f64>>>> {
    let prepared = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    prepare_by_hand(&prepared.path().join("map"), content)?;
    Child::spawn("prepare", &prepared.path().join("millpond"), &content.told())?.figures()?;
    println!("\n{} keys, {} removed", content.live, content.dead);
    let comparison = Comparison {
        bench: "restart",
        systems: &SYSTEMS,
        columns: &[
            "first_result_ms",
            "start_ms",
            "cpu_seconds",
            "peak_rss_mb",
            "written_mb",
            "full_speed_ms",
            "read_ms",
        ],
    };
    let runs = comparison.run(run, |system, dir| measure(system, prepared.path(), dir, content))?;
    Ok(comparison.medians(&runs))
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let run = &arguments.run;
    if let Some((system, store)) = run.child() {
        let content = Content::of_told(run.told()?)?;
        return match system {
            "prepare" => prepare(store, content),
            "map" => restart_by_hand(store, content),
            _ => restart(store, content),
        };
    }
    let asked = (!arguments.keys.is_empty()).then_some(arguments.keys.clone());
    let live = run.size(asked, vec![1_000_000, 10_000_000], vec![20_000]);
    let mut contents: Vec<_> = live.into_iter().map(|live| Content { live, dead: 0 }).collect();
    let live = run.size(arguments.live, 100_000, 5_000);
    let dead = run.size(arguments.dead, 2_000_000, 20_000);
    if dead > 0 {
        contents.push(Content { live, dead });
    }
    let (mut first_results, mut memory) = (Vec::new(), Vec::new());
    for content in contents {
        let medians = compare(content, run)?;
        let column = |column: usize| -> Vec<f64> {
            medians.iter().map(|medians| medians[column].unwrap_or(f64::NAN)).collect()
        };
        first_results.push((content.name(), column(0)));
        memory.push((content.name(), column(3)));
    }
    arguments.plot.draw(&[
        Chart::of_bars(
            "From the start of the process to the first result",
            "milliseconds",
            &SYSTEMS,
            first_results,
        ),
        Chart::of_bars("Peak memory of that", "megabytes", &SYSTEMS, memory),
    ])
}
