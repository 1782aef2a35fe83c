//! A word count over TCP: millpond against a durable loop written by hand, on the same input, run by run.
//!
//! ```text
//! cargo bench --bench word_count -- [--corpus FILE | --mib 64] [--runs 3] [--threads N]
//!     [--batch-ms 100] [--checkpoint-every 10] [--plot FILE]
//! ```
//!
//! The input is served from memory, once per run. Each run is a process of its own with a fresh store. The
//! time is from the connection until everything is counted and durable: the received lines, and a last state
//! or checkpoint with all counts. CPU time and peak memory are the process's own up to there. The corpus can
//! also be named by `MILLPOND_CORPUS`. Without one, a text is made up, the same every time, whose words are as
//! unevenly frequent as those of natural text.
//!
//! Prints one JSON object per run, then a table of medians.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "support/durable_loop/mod.rs"]
mod durable_loop;
#[path = "support/plot.rs"]
mod plot;
#[path = "support/process.rs"]
mod process;
#[path = "support/pseudo_text.rs"]
mod pseudo_text;

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Parser;
use millpond::{StopMode, StreamingContext, Text};
use plot::{Chart, PlotOptions};
use serde_json::{Value, json};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SYSTEMS: [&str; 2] = ["baseline", "millpond"];

#[derive(Parser)]
struct Arguments {
    /// The text to count the words of
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// How much text to make up when there is no corpus (default 64; 4 when it is only tried)
    #[arg(long)]
    mib: Option<usize>,
    /// Runs of each system
    #[arg(long)]
    runs: Option<usize>,
    /// Compute threads of both systems (default: the cores of the machine)
    #[arg(long)]
    threads: Option<usize>,
    /// The batch interval of millpond in milliseconds
    #[arg(long, default_value_t = 100)]
    batch_ms: u64,
    /// A checkpoint of millpond after this many batches
    #[arg(long, default_value_t = 10)]
    checkpoint_every: u64,
    /// A state of the baseline after this many megabytes
    #[arg(long, default_value_t = 100)]
    state_every_mb: u64,
    /// A small text and one run, to see that the benchmark works
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    plot: PlotOptions,
    /// What cargo says when it really benchmarks
    #[arg(long, hide = true)]
    bench: bool,
    /// Run one system in this process
    #[arg(long, hide = true, requires_all = ["address", "store", "lines"])]
    child: Option<String>,
    #[arg(long, hide = true)]
    address: Option<String>,
    #[arg(long, hide = true)]
    store: Option<PathBuf>,
    #[arg(long, hide = true)]
    lines: Option<u64>,
}

impl Arguments {
    fn is_tried(&self) -> bool {
        self.quick || !self.bench
    }

    fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        self.threads.unwrap_or_else(cores)
    }

    fn corpus(&self) -> Outcome<Vec<u8>> {
        let named = self.corpus.clone().or_else(|| std::env::var_os("MILLPOND_CORPUS").map(PathBuf::from));
        match named {
            Some(path) => std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()).into()),
            None => {
                let mib = self.mib.unwrap_or(if self.is_tried() { 4 } else { 64 });
                Ok(pseudo_text::generate(mib << 20))
            }
        }
    }
}

// -- one system, in a process of its own --

/// Says that everything is durable, then what it took and what was counted.
fn report(count: impl FnOnce() -> Outcome<(u64, u64)>) -> Outcome<()> {
    println!("done");
    let usage = process::usage_of_this_process()?;
    let (words, distinct) = count()?;
    let report = json!({
        "cpu_seconds": usage.cpu_seconds,
        "peak_rss_mb": usage.peak_rss_bytes as f64 / 1e6,
        "words": words,
        "distinct": distinct,
    });
    println!("{report}");
    Ok(())
}

fn run_baseline(arguments: &Arguments, address: String, store: PathBuf) -> Outcome<()> {
    let summary = durable_loop::run(&durable_loop::Options {
        address,
        store,
        threads: arguments.threads(),
        state_every: arguments.state_every_mb * 1_000_000,
    })?;
    report(|| Ok((summary.words, summary.distinct)))
}

fn run_millpond(arguments: &Arguments, address: &str, store: PathBuf, lines: u64) -> Outcome<()> {
    let context = StreamingContext::builder("word-count")
        .store(store)
        .threads(arguments.threads())
        .batch_interval(Duration::from_millis(arguments.batch_ms))
        .checkpoint_every_batches(arguments.checkpoint_every)
        .build()?;
    let _totals = context
        .socket_text_stream("lines", address)
        .flat_map(|line, out| line.words().for_each(|word| out.emit((word, 1u64))))
        .reduce_by_key(|a, b| a + b)
        .update_state_by_key("totals", |new, total: Option<u64>| {
            Some(total.unwrap_or(0) + new.iter().sum::<u64>())
        });
    let job = context.start()?;
    while job.progress().records < lines {
        if job.await_termination_or_timeout(Duration::from_millis(2))? {
            return Err("the job was stopped".into());
        }
    }
    job.stop(StopMode::Graceful)?;
    let totals = job.state::<Text, u64>("totals")?;
    report(|| {
        let mut words = 0;
        totals.for_each(|_, total| words += total)?;
        Ok((words, totals.len()))
    })
}

// -- the runs --

/// What is known of one run.
struct Run {
    seconds: f64,
    cpu_seconds: f64,
    peak_rss_mb: f64,
    counted: (u64, u64),
}

/// Serves `corpus` to one system and measures it.
fn measure(system: &str, corpus: &Arc<Vec<u8>>, lines: u64, arguments: &Arguments) -> Outcome<Run> {
    let store = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--child", system, "--address", &listener.local_addr()?.to_string()])
        .args(["--lines", &lines.to_string(), "--threads", &arguments.threads().to_string()])
        .args(["--batch-ms", &arguments.batch_ms.to_string()])
        .args(["--checkpoint-every", &arguments.checkpoint_every.to_string()])
        .args(["--state-every-mb", &arguments.state_every_mb.to_string()])
        .arg("--store")
        .arg(store.path().join("store"))
        .stdout(Stdio::piped())
        .spawn()?;
    let text = corpus.clone();
    // Closes the port after one connection: who connects again is refused.
    let server = std::thread::spawn(move || {
        let mut socket = listener.accept()?.0;
        let start = Instant::now();
        socket.write_all(&text)?;
        std::io::Result::Ok(start)
    });
    let mut output = BufReader::new(child.stdout.take().ok_or("the child has no output")?).lines();
    let done = output.next().transpose()?;
    let end = Instant::now();
    let counts = output.next().transpose()?;
    let status = child.wait()?;
    let (Some("done"), Some(counts), true) = (done.as_deref(), counts, status.success()) else {
        return Err(format!("the run of {system} failed: {status}").into());
    };
    let start = server.join().map_err(|_| "the server panicked")??;
    let counts: Value = serde_json::from_str(&counts)?;
    let number = |name: &str| counts[name].as_f64().ok_or_else(|| format!("no `{name}` in the report"));
    Ok(Run {
        seconds: (end - start).as_secs_f64(),
        cpu_seconds: number("cpu_seconds")?,
        peak_rss_mb: number("peak_rss_mb")?,
        counted: (number("words")? as u64, number("distinct")? as u64),
    })
}

fn json_line(system: &str, turn: usize, megabytes: f64, run: &Run) -> String {
    let Run { seconds, cpu_seconds, peak_rss_mb, counted: (words, distinct) } = run;
    let rate = megabytes / seconds;
    format!(
        "{{\"system\":\"{system}\",\"run\":{turn},\"seconds\":{seconds:.3},\"mb_per_s\":{rate:.1},\
         \"cpu_seconds\":{cpu_seconds:.2},\"peak_rss_mb\":{peak_rss_mb:.1},\"words\":{words},\"distinct\":{distinct}}}"
    )
}

fn median(runs: &[Run], of: impl Fn(&Run) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 }
}

fn print_table(runs: &[Vec<Run>], megabytes: f64) {
    println!("\n{:<18} {:>10} {:>10} {:>10} {:>12}", "median of", "seconds", "MB/s", "CPU s", "peak RSS MB");
    let medians: Vec<[f64; 4]> = runs
        .iter()
        .map(|runs| {
            let seconds = median(runs, |run| run.seconds);
            [
                seconds,
                megabytes / seconds,
                median(runs, |run| run.cpu_seconds),
                median(runs, |run| run.peak_rss_mb),
            ]
        })
        .collect();
    let row = |name: &str, values: [f64; 4]| {
        let [seconds, rate, cpu, rss] = values;
        println!("{name:<18} {seconds:>10.2} {rate:>10.2} {cpu:>10.2} {rss:>12.2}");
    };
    for (system, values) in SYSTEMS.iter().zip(&medians) {
        row(system, *values);
    }
    let [baseline, millpond] = [medians[0], medians[1]];
    row("millpond/baseline", std::array::from_fn(|column| millpond[column] / baseline[column]));
}

fn charts(runs: &[Vec<Run>], megabytes: f64) -> [Chart; 3] {
    let chart = |title: &str, unit: &str, of: &dyn Fn(&Run) -> f64| {
        let values = runs.iter().map(|runs| median(runs, of)).collect();
        Chart::of_bars(title, unit, &SYSTEMS, vec![(format!("{megabytes:.0} MB of text over TCP"), values)])
    };
    [
        chart("Words counted, everything durable", "MB/s", &|run| megabytes / run.seconds),
        chart("CPU time", "seconds", &|run| run.cpu_seconds),
        chart("Peak memory", "megabytes", &|run| run.peak_rss_mb),
    ]
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    if let (Some(system), Some(address), Some(store), Some(lines)) =
        (&arguments.child, arguments.address.clone(), arguments.store.clone(), arguments.lines)
    {
        return match system.as_str() {
            "baseline" => run_baseline(&arguments, address, store),
            _ => run_millpond(&arguments, &address, store, lines),
        };
    }
    let corpus = Arc::new(arguments.corpus()?);
    let newlines = memchr::memchr_iter(b'\n', &corpus).count();
    let lines = newlines + usize::from(corpus.last().is_some_and(|byte| *byte != b'\n'));
    let megabytes = corpus.len() as f64 / 1e6;
    let count = arguments.runs.unwrap_or(if arguments.is_tried() { 1 } else { 3 }).max(1);
    let mut runs: Vec<Vec<Run>> = SYSTEMS.iter().map(|_| Vec::new()).collect();
    let mut counted = None;
    for turn in 1..=count {
        for (system, runs) in SYSTEMS.iter().zip(&mut runs) {
            let run = measure(system, &corpus, lines as u64, &arguments)?;
            if *counted.get_or_insert(run.counted) != run.counted {
                return Err(format!("{system} counted {:?}, not {counted:?}", run.counted).into());
            }
            println!("{}", json_line(system, turn, megabytes, &run));
            runs.push(run);
        }
    }
    print_table(&runs, megabytes);
    arguments.plot.draw(&charts(&runs, megabytes))
}
