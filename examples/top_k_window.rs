//! The most frequent words of the last two seconds, twice a second, by a window that is kept up with an inverse.
//!
//! ```text
//! cargo run --release --example top_k_window
//! ```
//!
//! What enters the window is added to the counts and what leaves is taken out of them, so that a window costs
//! what changes and not what it holds. It takes 6 000 sentences in about five seconds, counts every window that
//! it has shown once more by plain code, and ends. Kill it at any moment (`kill -9`) and start it again: it goes
//! on where it was, and the windows after that still hold what came before it. Options: `--store DIR`, `--output DIR`,
//! `--batches N`. Remove `millpond-demo/top-k-window` to start over.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "support/batch_files.rs"]
mod batch_files;
#[path = "support/numbered.rs"]
mod numbered;
#[path = "support/run.rs"]
mod run;

use std::cmp::Reverse;
use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use batch_files::read_batches;
use clap::Parser;
use millpond::{BatchInfo, OutputError, Rdd, StreamingContext, Text};
use numbered::Numbered;

const SENTENCES_PER_BATCH: u64 = 120;
const BATCH: Duration = Duration::from_millis(100);
const WINDOW: Duration = Duration::from_secs(2);
const SLIDE: Duration = Duration::from_millis(500);

/// How many words are shown.
const K: usize = 5;

const WORDS: [&str; 20] = [
    "pond", "mill", "water", "wheel", "stream", "stone", "flour", "sluice", "heron", "reed", "frog", "bank",
    "bridge", "boat", "grain", "sack", "miller", "ripple", "moss", "duck",
];

#[derive(Parser)]
struct Options {
    /// The directory that the job recovers from.
    #[arg(long, default_value = "millpond-demo/top-k-window/store")]
    store: PathBuf,
    /// The directory that gets the sentences of each batch and the top of each window.
    #[arg(long, default_value = "millpond-demo/top-k-window/output")]
    output: PathBuf,
    /// How many batches of sentences there are. The same in every run.
    #[arg(long, default_value_t = 50)]
    batches: u64,
}

/// Sentence number `number`: the number, then words. A few come often; which ones changes as time goes on.
fn sentence(number: u64) -> Text {
    let word = |place: u64| {
        let drawn = (number * 8 + place).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let rank = (drawn % 8) * (drawn / 8 % 8);
        WORDS[((rank + number / 1_500) % WORDS.len() as u64) as usize]
    };
    Text::from(format!("{number} {} {} {} {}", word(0), word(1), word(2), word(3)).as_str())
}

/// Shows the top of a window, and keeps it in a file that is the same when the window is emitted again.
fn report(counts: Rdd<(Text, u64)>, info: &BatchInfo, output: &Path) -> Result<(), OutputError> {
    let top = counts.take_ordered_by(K, |(word, count)| (Reverse(*count), word.clone()))?;
    let lines: Vec<String> = top.iter().map(|(word, count)| format!("{word} {count}")).collect();
    if !lines.is_empty() {
        println!("until {}: {}", info.time, lines.join(", "));
    }
    let unfinished = output.join("unfinished");
    fs::write(&unfinished, lines.join("\n"))?;
    Ok(fs::rename(unfinished, output.join(format!("top-{}", info.time.0)))?)
}

/// Counts each window again from the sentences of its batches. Returns how many windows there were.
fn check(output: &Path, count: u64) -> Result<usize, Box<dyn Error>> {
    let batches = read_batches(&output.join("sentences"))?;
    let mut all: Vec<&String> = batches.values().flatten().collect();
    all.sort_by_key(|line| line.split(' ').next().and_then(|number| number.parse::<u64>().ok()));
    if !all.iter().map(|line| line.as_str()).eq((0..count).map(|number| sentence(number).to_string())) {
        return Err("not every sentence was in exactly one batch".into());
    }
    let mut windows = 0;
    for entry in fs::read_dir(output)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some(end) = name.strip_prefix("top-") else { continue };
        let end: u64 = end.parse()?;
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for line in batches.range(end - WINDOW.as_millis() as u64 + 1..=end).flat_map(|(_, lines)| lines) {
            line.split(' ').skip(1).for_each(|word| *counts.entry(word).or_default() += 1);
        }
        let mut top: Vec<_> = counts.into_iter().collect();
        top.sort_by_key(|(word, count)| (Reverse(*count), *word));
        let expected: Vec<String> =
            top.iter().take(K).map(|(word, count)| format!("{word} {count}")).collect();
        if fs::read_to_string(&path)? != expected.join("\n") {
            return Err(format!("the window until {end} has {expected:?}").into());
        }
        windows += 1;
    }
    Ok(windows)
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    fs::create_dir_all(&options.output)?;
    let count = options.batches * SENTENCES_PER_BATCH;
    let context = StreamingContext::builder("top-k-window")
        .store(&options.store)
        .batch_interval(BATCH)
        .checkpoint_every_batches(4)
        .build()?;
    let sentences =
        context.replayable_stream("sentences", Numbered::new(count, SENTENCES_PER_BATCH, sentence));
    sentences.save_as_text_files(options.output.join("sentences"), "txt");
    let output = options.output.clone();
    sentences
        .flat_map(|line, out| line.words().skip(1).for_each(|word| out.emit((word, 1u64))))
        .reduce_by_key_and_window_with_inverse("words", WINDOW, SLIDE, |a, b| a + b, |all, gone| all - gone)
        .for_each_rdd(move |counts, info| report(counts, info, &output));
    let job = context.start()?;
    run::tell(job.recovery());
    if !run::run_to_end(&job, || Ok(()))? {
        return Ok(());
    }
    match check(&options.output, count)? {
        0 => Err("there was no window: give it more batches".into()),
        windows => {
            println!(
                "checked: {count} sentences each counted once, {windows} windows as plain code counts them"
            );
            Ok(())
        }
    }
}
