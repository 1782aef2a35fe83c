//! The workloads of the curves.

use std::hash::RandomState;
use std::path::Path;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use millpond::{ContextBuilder, DStream, RunningContext, StopMode, StreamingContext, Text};
use serde_json::{Value, json};

use crate::comparison::{Outcome, report};
use crate::numbers::Driven;
use crate::process::{Usage, usage_of_this_process};
use crate::pseudo_text;

/// One direction in which work grows.
pub struct Curve {
    pub name: &'static str,
    /// What the points count.
    pub what: &'static str,
    pub points: &'static [u64],
    /// The points when the benchmark is only tried.
    pub quick: &'static [u64],
    pub systems: &'static [&'static str],
    /// The first one should stay the same.
    pub columns: &'static [&'static str],
}

const COLUMNS: &[&str] = &["cpu_ns_per_record", "ns_per_record", "us_per_batch", "peak_rss_mb", "written_mb"];

/// The job that counts words instead of numbers.
const WORDS: &str = "millpond words";
const MILLPOND: &[&str] = &["millpond"];

pub const CURVES: [Curve; 8] = [
    Curve {
        name: "threads",
        what: "compute threads",
        points: &[1, 2],
        quick: &[1, 2],
        systems: &["millpond", WORDS],
        columns: &[
            "cpu_ns_per_record",
            "ns_per_record",
            "processing_ns_per_record",
            "us_per_batch",
            "peak_rss_mb",
            "written_mb",
        ],
    },
    Curve {
        name: "keys",
        what: "keys in state",
        points: &[100_000, 1_000_000, 10_000_000, 30_000_000],
        quick: &[1_000, 10_000],
        systems: &["by-hand", "millpond"],
        columns: &[
            "cpu_ns_per_record",
            "ns_per_record",
            "us_per_batch",
            "fill_cpu_ns_per_key",
            "state_bytes_per_key",
            "written_mb",
        ],
    },
    Curve {
        name: "interval",
        what: "milliseconds between batches",
        points: &[1, 10, 100, 1_000, 10_000],
        quick: &[1, 10],
        systems: MILLPOND,
        columns: &["cpu_ns_per_record", "ns_per_record", "us_per_batch", "cpu_us_per_batch", "busy_share"],
    },
    Curve {
        name: "window",
        what: "batches in a window",
        points: &[10, 30, 100, 300, 1_000],
        quick: &[2, 10],
        systems: MILLPOND,
        columns: COLUMNS,
    },
    Curve {
        name: "window-merged",
        what: "batches in a window",
        points: &[10, 30, 100, 300, 1_000],
        quick: &[2, 10],
        systems: MILLPOND,
        columns: COLUMNS,
    },
    Curve {
        name: "operators",
        what: "operators without state in a chain",
        points: &[1, 10, 50, 100, 200],
        quick: &[1, 10],
        systems: MILLPOND,
        columns: COLUMNS,
    },
    Curve {
        name: "states",
        what: "operators with state",
        points: &[1, 10, 50, 100, 200],
        quick: &[1, 10],
        systems: MILLPOND,
        columns: COLUMNS,
    },
    Curve {
        name: "retained",
        what: "checkpoints that are kept",
        points: &[2, 10, 30, 100],
        quick: &[2, 4],
        systems: MILLPOND,
        columns: &[
            "cpu_ns_per_record",
            "ns_per_record",
            "us_per_batch",
            "restart_ms",
            "restart_cpu_ms",
            "store_mb",
        ],
    },
];

/// How a workload is driven.
#[derive(Clone, Copy)]
struct Course {
    records: u64,
    /// Batches before those that count.
    warm_up: u64,
    batches: u64,
    /// By how many the cost of a record is divided.
    operators: u64,
}

/// A small number of records for a try.
fn sized(is_quick: bool, usual: u64, quick: u64) -> u64 {
    if is_quick { quick } else { usual }
}

/// Numbers scattered over a range, each time anew.
fn scatter(number: u64, range: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) % range
}

fn counted(new: &[u64], count: Option<u64>) -> Option<u64> {
    Some(count.unwrap_or(0) + new.iter().sum::<u64>())
}

/// Runs a point of a curve in this process.
pub fn run(curve: &str, at: u64, system: &str, store: &Path, is_quick: bool) -> Outcome<()> {
    let size = |usual, quick| sized(is_quick, usual, quick);
    let course = |records, warm_up, batches, operators| Course { records, warm_up, batches, operators };
    match curve {
        "threads" if system == WORDS => {
            let builder = |builder: ContextBuilder| builder.threads(at as usize);
            drive(store, builder, count_words, course(size(50_000, 500), 5, size(20, 4), 1))
        }
        "threads" => {
            let describe = |numbers: &DStream<u64>| count(numbers, "counts", 100_000);
            let builder = |builder: ContextBuilder| builder.threads(at as usize);
            drive(store, builder, describe, course(size(500_000, 5_000), 5, size(20, 4), 1))
        }
        "interval" => interval(at, store, is_quick),
        "keys" if system == "by-hand" => keys_by_hand(at, is_quick),
        "keys" => keys(at, store, is_quick),
        "window" | "window-merged" => {
            let interval = Duration::from_secs(1);
            let describe = |numbers: &DStream<u64>| {
                let pairs = numbers.map(|number| (scatter(number, 1_000), number));
                let length = interval * at as u32;
                let (add, take) = (u64::wrapping_add, u64::wrapping_sub);
                let sums = if curve == "window" {
                    pairs.reduce_by_key_and_window_with_inverse("sums", length, interval, add, take)
                } else {
                    pairs.reduce_by_key_and_window("sums", length, interval, add)
                };
                sums.for_each_rdd(|sums, _| Ok(sums.count().map(drop)?));
            };
            drive(store, |builder| builder, describe, course(size(20_000, 200), at, size(100, 5), 1))
        }
        "operators" => {
            let describe = |numbers: &DStream<u64>| {
                let chain = |stream: DStream<u64>, _| stream.map(|number| std::hint::black_box(number ^ 1));
                let end = (0..at).fold(numbers.clone(), chain);
                end.for_each_rdd(|numbers, _| Ok(numbers.fold(0, u64::wrapping_add).map(drop)?));
            };
            drive(store, |builder| builder, describe, course(size(500_000, 1_000), 2, size(20, 2), at))
        }
        "states" => {
            let describe = |numbers: &DStream<u64>| {
                (0..at).for_each(|operator| count(numbers, &format!("counts-{operator}"), 10_000));
            };
            drive(store, |builder| builder, describe, course(size(20_000, 200), 5, size(20, 4), at))
        }
        "retained" => retained(at, store, is_quick),
        _ => Err(format!("there is no curve {curve}").into()),
    }
}

/// Counts numbers by key.
fn count(numbers: &DStream<u64>, name: &str, keys: u64) {
    let _counts =
        numbers.map(move |number| (scatter(number, keys), 1_u64)).update_state_by_key(name, counted);
}

/// Counts the words of lines that are made up, a line for each number.
fn count_words(numbers: &DStream<u64>) {
    let text = String::from_utf8(pseudo_text::generate(16 << 20)).unwrap_or_default();
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let _totals = numbers
        .map(move |number| Text::from(lines[number as usize % lines.len()].as_str()))
        .flat_map(|line, out| line.words().for_each(|word| out.emit((word, 1_u64))))
        .reduce_by_key(|a, b| a + b)
        .update_state_by_key("totals", counted);
}

fn start(
    store: &Path,
    build: impl FnOnce(ContextBuilder) -> ContextBuilder,
    describe: impl FnOnce(&DStream<u64>),
    (now_ms, released): (u64, u64),
) -> Outcome<(RunningContext, Driven)> {
    let (builder, driven) = Driven::builder(store, now_ms, released);
    let context: StreamingContext = build(builder).build()?;
    describe(&context.replayable_stream("numbers", driven.numbers(4)));
    Ok((context.start()?, driven))
}

/// Runs the batches of a job.
fn drive(
    store: &Path,
    build: impl FnOnce(ContextBuilder) -> ContextBuilder,
    describe: impl FnOnce(&DStream<u64>),
    course: Course,
) -> Outcome<()> {
    let (job, driven) = start(store, build, describe, (0, 0))?;
    measure(course, json!({}), || driven.processed(&job, course.records))
}

/// Runs batches and says what a record costs.
fn measure(course: Course, more: Value, mut batch: impl FnMut() -> Outcome<Duration>) -> Outcome<()> {
    let (figures, before) = measured(course, &mut batch)?;
    let (Value::Object(mut figures), Value::Object(more)) = (figures, more) else { return Ok(()) };
    figures.extend(more);
    report(Value::Object(figures), &before)
}

fn measured(course: Course, batch: &mut dyn FnMut() -> Outcome<Duration>) -> Outcome<(Value, Usage)> {
    (0..course.warm_up).try_for_each(|_| batch().map(drop))?;
    let before = usage_of_this_process()?;
    let start = Instant::now();
    let mut processing = Duration::ZERO;
    for _ in 0..course.batches {
        processing += batch()?;
    }
    let ns = start.elapsed().as_nanos() as f64;
    let cpu_ns = (usage_of_this_process()?.cpu_seconds - before.cpu_seconds) * 1e9;
    let records = (course.records * course.batches * course.operators) as f64;
    let batches = course.batches as f64;
    let figures = json!({
        "ns_per_record": ns / records,
        "processing_ns_per_record": processing.as_nanos() as f64 / records,
        "cpu_ns_per_record": cpu_ns / records,
        "us_per_batch": ns / 1e3 / batches,
        "cpu_us_per_batch": cpu_ns / 1e3 / batches,
    });
    Ok((figures, before))
}

fn interval(interval_ms: u64, store: &Path, is_quick: bool) -> Outcome<()> {
    let records = sized(is_quick, 200, 20) * interval_ms;
    // About as much time for each point, and at least four batches.
    let batches = (sized(is_quick, 10_000_000, 1_000) / records).clamp(4, 3_000);
    let course = Course { records, warm_up: 2, batches, operators: 1 };
    let describe = |numbers: &DStream<u64>| count(numbers, "counts", 10_000);
    let (job, driven) = start(store, |builder| builder, describe, (0, 0))?;
    let (mut figures, before) = measured(course, &mut || driven.processed(&job, records))?;
    let us = figures["us_per_batch"].as_f64().unwrap_or(f64::NAN);
    figures["busy_share"] = (us / 1e3 / interval_ms as f64).into();
    report(figures, &before)
}

const CHANGES: u64 = 10_000;

/// The key of a number: all keys one after the other first, then any.
fn key_of(number: u64, keys: u64) -> u64 {
    let index = if number < keys { number } else { scatter(number, keys) };
    index.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// The figures of filling a state, to be shown with those of changing it.
fn filled(keys: u64, before: &Usage) -> Outcome<Value> {
    let now = usage_of_this_process()?;
    Ok(json!({
        "fill_cpu_ns_per_key": (now.cpu_seconds - before.cpu_seconds) * 1e9 / keys as f64,
        "state_bytes_per_key": now.rss_bytes.saturating_sub(before.rss_bytes) as f64 / keys as f64,
    }))
}

fn keys_course(is_quick: bool) -> Course {
    let batches = sized(is_quick, 100, 5);
    Course { records: CHANGES, warm_up: sized(is_quick, 20, 2), batches, operators: 1 }
}

fn keys(keys: u64, store: &Path, is_quick: bool) -> Outcome<()> {
    let describe = |numbers: &DStream<u64>| {
        let pairs = numbers.map(move |number| (key_of(number, keys), 1_u64));
        let _counts = pairs.update_state_by_key("counts", counted);
    };
    let (job, driven) = start(store, |builder| builder, describe, (0, 0))?;
    let before = usage_of_this_process()?;
    let fill = (keys / 10).min(1_000_000);
    for batch in 0..keys.div_ceil(fill) {
        driven.batch(&job, fill.min(keys - batch * fill))?;
    }
    let filled = filled(keys, &before)?;
    measure(keys_course(is_quick), filled, || driven.processed(&job, CHANGES))
}

fn keys_by_hand(keys: u64, is_quick: bool) -> Outcome<()> {
    let before = usage_of_this_process()?;
    let mut counts: HashMap<u64, u64, RandomState> = HashMap::default();
    (0..keys).for_each(|number| *counts.entry(key_of(number, keys)).or_default() += 1);
    let filled = filled(keys, &before)?;
    let mut next = keys;
    measure(keys_course(is_quick), filled, || {
        let begun = Instant::now();
        (next..next + CHANGES).for_each(|number| *counts.entry(key_of(number, keys)).or_default() += 1);
        next += CHANGES;
        Ok(begun.elapsed())
    })
}

fn retained(retained: u64, store: &Path, is_quick: bool) -> Outcome<()> {
    let keys = sized(is_quick, 100_000, 1_000);
    let changes = keys / 100;
    let describe = |numbers: &DStream<u64>| {
        let pairs = numbers.map(move |number| (key_of(number, keys), 1_u64));
        let _counts = pairs.update_state_by_key("counts", counted);
    };
    let build =
        |builder: ContextBuilder| builder.checkpoint_every_batches(1).checkpoints_retained(retained as usize);
    let (job, driven) = start(store, build, describe, (0, 0))?;
    driven.batch(&job, keys)?;
    // As many as are kept, and some more, so that one goes for each that comes.
    let warm_up = retained + 5;
    let batches = sized(is_quick, 100, 5);
    let course = Course { records: changes, warm_up, batches, operators: 1 };
    let (mut figures, before) = measured(course, &mut || driven.processed(&job, changes))?;
    job.stop(StopMode::Graceful)?;
    figures["store_mb"] = (bytes_below(store)? as f64 / 1e6).into();
    let released = driven.released.load(std::sync::atomic::Ordering::SeqCst);
    drop((job, driven));
    let before_start = usage_of_this_process()?;
    let begun = Instant::now();
    let (job, _driven) = start(store, build, describe, (10_000_000, released))?;
    figures["restart_ms"] = (begun.elapsed().as_secs_f64() * 1e3).into();
    figures["restart_cpu_ms"] =
        ((usage_of_this_process()?.cpu_seconds - before_start.cpu_seconds) * 1e3).into();
    job.stop(StopMode::Now)?;
    report(figures, &before)
}

fn bytes_below(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        bytes += if kind.is_dir() { bytes_below(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}
