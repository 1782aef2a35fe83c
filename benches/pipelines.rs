//! Fused `flat_map`, `filter` and `map` against the same loop in plain Rust over the same file, and what one
//! operator costs per record.
//!
//! ```text
//! cargo bench --bench pipelines -- [--mib 64] [--numbers 20000000] [--runs 3]
//! ```
//!
//! Both run on one thread and are timed from within, without planning and recording a batch. `words_*` is over
//! the words of a made-up text, which both read from a file; `maps_0` and `maps_8` are sums of numbers after no and
//! after eight operators that each mix the bits of a number, and `ns_per_operator` an eighth of the difference.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "support/comparison.rs"]
mod comparison;
#[path = "support/numbers.rs"]
mod numbers;
#[path = "support/process.rs"]
mod process;
#[path = "support/pseudo_text.rs"]
mod pseudo_text;

use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use clap::Parser;
use millpond::{FileSource, Rdd, Text};
use serde_json::{Value, json};

use comparison::{Child, Comparison, Outcome, RunOptions, report};
use numbers::Driven;
use process::usage_of_this_process;

/// Each pipeline is run so often in a row.
const PASSES: u32 = 3;

/// What each operator does with a number: nothing that a compiler could merge with what the next one does.
#[inline]
fn mix(number: u64) -> u64 {
    (number ^ (number >> 7)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What is read of the file at once, as the source of files does.
const READ_BYTES: usize = 4 << 20;

#[derive(Parser)]
struct Arguments {
    /// How much text (default 64; 2 when it is only tried)
    #[arg(long)]
    mib: Option<usize>,
    /// How many numbers (default 20,000,000; 100,000 when it is only tried)
    #[arg(long)]
    numbers: Option<u64>,
    #[command(flatten)]
    run: RunOptions,
}

/// What the last of the three operators makes of a word.
fn value_of(word: &[u8]) -> u64 {
    word.len() as u64 * 31 + u64::from(word[0])
}

// -- by hand --

fn words_by_hand(file: &Path) -> Outcome<u64> {
    let mut file = std::fs::File::open(file)?;
    let mut buffer = vec![0; READ_BYTES];
    let (mut kept, mut sum) = (0, 0_u64);
    loop {
        let read = file.read(&mut buffer[kept..])?;
        if read == 0 {
            return Ok(sum);
        }
        let filled = kept + read;
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', &buffer[..filled]) {
            let words = buffer[start..end].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            for word in words.filter(|word| word.len() > 3) {
                sum = sum.wrapping_add(value_of(word));
            }
            start = end + 1;
        }
        buffer.copy_within(start..filled, 0);
        kept = filled - start;
    }
}

fn maps_by_hand<const MAPS: u32>(numbers: u64) -> u64 {
    let one = |number: u64| (0..MAPS).fold(number, |number, _| mix(number));
    // Unseen, or the sum of all numbers would be a formula.
    (0..numbers).fold(0, |sum: u64, number| sum.wrapping_add(black_box(one(number))))
}

// -- with millpond --

fn words(lines: &Rdd<Text>) -> millpond::Result<u64> {
    lines
        .flat_map(|line, out| line.words().for_each(|word| out.emit(word)))
        .filter(|word| word.len() > 3)
        .map(|word| value_of(word.as_bytes()))
        .fold(0, u64::wrapping_add)
}

fn maps(numbers: &Rdd<u64>, maps: u32) -> millpond::Result<u64> {
    (0..maps).fold(numbers.clone(), |rdd, _| rdd.map(mix)).fold(0, u64::wrapping_add)
}

// -- both --

/// The mean time of one pass, and its result.
fn timed<E>(mut pass: impl FnMut() -> Result<u64, E>) -> Result<(Duration, u64), E> {
    let start = Instant::now();
    let mut result = 0;
    for _ in 0..PASSES {
        result = pass()?;
    }
    Ok((start.elapsed() / PASSES, result))
}

/// The times of the words and of no and eight operators, each with its result.
type Times = [(Duration, u64); 3];

fn by_hand(text: &Path, numbers: u64) -> Outcome<Times> {
    let none = timed(|| Outcome::Ok(maps_by_hand::<0>(black_box(numbers))))?;
    let eight = timed(|| Outcome::Ok(maps_by_hand::<8>(black_box(numbers))))?;
    Ok([timed(|| words_by_hand(text))?, none, eight])
}

fn by_millpond(text: &Path, store: &Path, numbers: u64) -> Outcome<Times> {
    let (builder, driven) = Driven::builder(store, 0, 0);
    let context = builder.threads(1).build()?;
    let (found, waits) = mpsc::channel();
    let of_words = found.clone();
    context
        .replayable_stream("text", FileSource::new(text))
        .for_each_rdd(move |lines, _| Ok(of_words.send(timed(|| words(&lines))?)?));
    context.replayable_stream("numbers", driven.numbers(4)).for_each_rdd(move |rdd, _| {
        found.send(timed(|| maps(&rdd, 0))?)?;
        Ok(found.send(timed(|| maps(&rdd, 8))?)?)
    });
    let job = context.start()?;
    driven.batch(&job, numbers)?;
    Ok([waits.recv()?, waits.recv()?, waits.recv()?])
}

fn figures_of(times: Times, numbers: u64) -> Value {
    let [words, none, eight] = times.map(|(took, _)| took.as_nanos() as f64);
    json!({
        "words_ms": words / 1e6,
        "maps_0_ms": none / 1e6,
        "maps_8_ms": eight / 1e6,
        "ns_per_operator": (eight - none) / 8.0 / numbers as f64,
        // Of no use as numbers: they must be the same on both sides.
        "results": format!("{:?}", times.map(|(_, result)| result)),
    })
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let run = &arguments.run;
    let numbers = run.size(arguments.numbers, 20_000_000, 100_000);
    if let Some((system, dir)) = run.child() {
        let text = dir.join("text").join("text");
        let before = usage_of_this_process()?;
        let times = match system {
            "loop" => by_hand(&text, numbers)?,
            _ => by_millpond(&text, &dir.join("store"), numbers)?,
        };
        return report(figures_of(times, numbers), &before);
    }
    let text = pseudo_text::generate(run.size(arguments.mib, 64, 2) << 20);
    let comparison = Comparison {
        bench: "pipelines",
        systems: &["loop", "millpond"],
        columns: &["words_ms", "maps_0_ms", "maps_8_ms", "ns_per_operator", "cpu_seconds", "peak_rss_mb"],
    };
    let mut expected = None;
    comparison.run(run, |system, dir| {
        std::fs::create_dir(dir.join("text"))?;
        std::fs::write(dir.join("text").join("text"), &text)?;
        let figures = Child::spawn(system, dir, "")?.figures()?;
        let results = figures["results"].clone();
        if *expected.get_or_insert(results.clone()) != results {
            return Err(format!("{system} gives {results}, not {expected:?}").into());
        }
        Ok(figures)
    })?;
    Ok(())
}
