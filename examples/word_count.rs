//! Counts words for as long as it runs, and goes on with exact totals after any crash.
//!
//! ```text
//! cargo run --release --example word_count -- [--source demo | socket:HOST:PORT | dir:PATH | file:PATH]
//!     [--store DIR] [--batch-ms MS] [--checkpoint-every N] [--threads N] [--idle-stop SECONDS]
//!     [--totals FILE] [--quiet]
//! ```
//!
//! Without arguments it counts the words of a small embedded source and shows the most frequent ones.
//! The last line on standard output is one JSON object with what this run did.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]
#![allow(clippy::disallowed_methods, reason = "it reports how long a start took in real time")]

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use clap::Parser;
use millpond::{
    BlockStore, DStream, FileSource, Receiver, ReceiverError, RunningContext, StopMode, StreamingContext,
    Text,
};

/// How many of the most frequent words are shown.
const SHOWN: usize = 8;

#[derive(Parser)]
#[command(about = "Counts words; survives kill -9 with exact totals")]
struct Arguments {
    /// demo, socket:HOST:PORT, dir:PATH or file:PATH
    #[arg(long, default_value = "demo")]
    source: String,
    /// The directory of the store
    #[arg(long, default_value = "millpond-demo/word-count")]
    store: PathBuf,
    /// The batch interval in milliseconds
    #[arg(long, default_value_t = 500)]
    batch_ms: u64,
    /// A checkpoint after this many batches
    #[arg(long, default_value_t = 10)]
    checkpoint_every: u64,
    /// Compute threads (default: the cores of the machine)
    #[arg(long)]
    threads: Option<usize>,
    /// Stop gracefully once everything is processed and nothing new came for this many seconds
    #[arg(long)]
    idle_stop: Option<f64>,
    /// At a graceful stop, write `word<TAB>count` lines here, sorted by the bytes of the word
    #[arg(long)]
    totals: Option<PathBuf>,
    /// Show nothing but the last line
    #[arg(long)]
    quiet: bool,
}

/// The embedded source: one verse after the other, for ever.
struct Demo;

const VERSES: [&str; 6] = [
    "row row row your boat gently down the stream",
    "merrily merrily merrily merrily life is but a dream",
    "the mill goes round and the water comes down",
    "still waters run deep and the pond keeps what it is given",
    "one drop two drops three drops and the pond is full",
    "what the stream brings the pond remembers",
];

impl Receiver for Demo {
    type Item = Text;

    async fn receive(&mut self, blocks: BlockStore<Text>) -> Result<(), ReceiverError> {
        for turn in 0.. {
            let verses = (0..40).map(|line| VERSES[(turn + line * line) % VERSES.len()]);
            blocks.store(verses.map(Text::from).collect()).await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let process_start = Instant::now();
    let arguments = Arguments::parse();
    if !arguments.quiet {
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    }
    let mut builder = StreamingContext::builder("word-count")
        .store(&arguments.store)
        .batch_interval(Duration::from_millis(arguments.batch_ms))
        .checkpoint_every_batches(arguments.checkpoint_every);
    if let Some(threads) = arguments.threads {
        builder = builder.threads(threads);
    }
    let context = builder.build()?;
    let totals = lines(&context, &arguments.source)?
        .flat_map(|line, out| line.words().for_each(|word| out.emit((word, 1u64))))
        .reduce_by_key(|a, b| a + b)
        .update_state_by_key("totals", |new, total: Option<u64>| {
            Some(total.unwrap_or(0) + new.iter().sum::<u64>())
        });
    if !arguments.quiet {
        show_top_words(&totals);
    }
    let job = context.start()?;
    let recovery = if job.recovery().fresh { Duration::ZERO } else { process_start.elapsed() };
    if !arguments.quiet {
        introduce(&job, &arguments);
    }
    wait(&job, arguments.idle_stop)?;
    finish(&job, arguments.totals.as_deref(), recovery)
}

fn lines(context: &StreamingContext, source: &str) -> Result<DStream<Text>, Box<dyn Error>> {
    match source.split_once(':') {
        None if source == "demo" => Ok(context.receiver_stream("lines", Demo)),
        Some(("socket", address)) => Ok(context.socket_text_stream("lines", address)),
        Some(("dir", path)) => Ok(context.text_file_stream("lines", path)),
        Some(("file", path)) => Ok(context.replayable_stream("lines", FileSource::new(path))),
        _ => Err(format!("--source {source}: expected demo, socket:HOST:PORT, dir:PATH or file:PATH").into()),
    }
}

/// Prints the words with the highest totals of each batch that has any. Totals only rise, so that the top is
/// always among the last top and what was just touched.
fn show_top_words(totals: &DStream<(Text, u64)>) {
    let top = Mutex::new(BTreeMap::new());
    totals.for_each_rdd(move |rdd, info| {
        let touched = rdd.map_partitions(|mut rows: Vec<(Text, u64)>| {
            rows.sort_by_key(|(word, total)| (std::cmp::Reverse(*total), word.clone()));
            rows.truncate(SHOWN);
            rows
        });
        let touched = touched.collect()?;
        let mut top = top.lock().map_err(|_| "an earlier batch failed")?;
        top.extend(touched.iter().map(|(word, total)| (word.detach(), *total)));
        let mut order: Vec<(Text, u64)> = top.iter().map(|(word, total)| (word.clone(), *total)).collect();
        order.sort_by_key(|(word, total)| (std::cmp::Reverse(*total), word.clone()));
        order.truncate(SHOWN);
        if !touched.is_empty() {
            let shown: Vec<String> = order.iter().map(|(word, total)| format!("{word} {total}")).collect();
            writeln!(std::io::stdout(), "{}  {}", info.batch, shown.join("  "))?;
        }
        *top = order.into_iter().collect();
        Ok(())
    });
}

fn introduce(job: &RunningContext, arguments: &Arguments) {
    let recovery = job.recovery();
    if let Some((checkpoint, batch)) = recovery.checkpoint {
        println!("going on from {checkpoint} ({batch}); {} batches replayed", recovery.replayed.len());
    }
    println!(
        "counting into {}; try `kill -9 {}` and start me again: the totals go on exactly (Ctrl-C stops me)",
        arguments.store.display(),
        std::process::id()
    );
}

/// Waits until the job ends, or has been idle for long enough and is stopped.
fn wait(job: &RunningContext, idle_stop: Option<f64>) -> millpond::Result<()> {
    let Some(idle_stop) = idle_stop else {
        return job.await_termination();
    };
    while !job.await_termination_or_timeout(Duration::from_millis(20))? {
        if job.progress().idle.as_secs_f64() >= idle_stop {
            return job.stop(StopMode::Graceful);
        }
    }
    Ok(())
}

fn finish(job: &RunningContext, totals: Option<&Path>, recovery: Duration) -> Result<(), Box<dyn Error>> {
    let state = job.state::<Text, u64>("totals")?;
    let mut words = 0;
    let mut rows = Vec::new();
    state.for_each(|word, total| {
        words += total;
        if totals.is_some() {
            rows.push((word, total));
        }
    })?;
    if let Some(path) = totals {
        rows.sort_unstable();
        let mut file = BufWriter::new(File::create(path)?);
        for (word, total) in &rows {
            file.write_all(word.as_bytes())?;
            writeln!(file, "\t{total}")?;
        }
        file.flush()?;
    }
    let progress = job.progress();
    println!(
        "{{\"words\":{words},\"distinct\":{},\"records\":{},\"bytes\":{},\"batches\":{},\"replayed_batches\":{},\
         \"checkpoints\":{},\"seconds\":{:.6},\"recovery_seconds\":{:.6}}}",
        state.len(),
        progress.records,
        progress.bytes,
        progress.batches,
        progress.replayed_batches,
        progress.checkpoints,
        progress.active.as_secs_f64(),
        recovery.as_secs_f64(),
    );
    Ok(())
}
