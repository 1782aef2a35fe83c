//! From the arrival of a line to the end of its batch's output, at fixed rates, with every record durable.
//!
//! ```text
//! cargo bench --bench latency -- [--mb-per-s 5 --mb-per-s 20] [--seconds 20] [--batch-ms 5] [--runs 3] [--plot FILE]
//! ```
//!
//! Lines of 100 bytes are sent over TCP, some each millisecond, each with the time when it was sent and a key. Both
//! sides count per key, over all lines so far, and put out each batch's lines: of each, the time since it was sent is
//! taken when the output is done with all of them. millpond logs lines before they count, records the plan
//! and the end of each batch, and takes a checkpoint every 200 batches. The baseline appends what came in 5 ms to
//! a file, syncs it, and counts. A first second is not counted. `behind_ms` is how much later than planned the sender was
//! at worst: it waits when nobody reads.

#![allow(clippy::print_stdout, reason = "a benchmark prints its results")]
#![allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "support/comparison.rs"]
mod comparison;
#[path = "support/plot.rs"]
mod plot;
#[path = "support/process.rs"]
mod process;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use hashbrown::HashMap;
use millpond::{StopMode, StreamingContext};
use serde_json::{Value, json};

use comparison::{Child, Comparison, Figures, Outcome, RunOptions, median, quantile, report};
use plot::{Chart, Line, PlotOptions};
use process::usage_of_this_process;

const LINE_BYTES: usize = 100;

/// Digits of the time at the begin of a line, and of the key that follows.
const TIME_DIGITS: usize = 20;
const KEY_DIGITS: usize = 6;

/// So many different keys.
const KEYS: u64 = 10_000;

/// One line in so many takes longer than the delay that is told for it.
const ONE_IN: [f64; 12] = [1.1, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0, 100.0, 300.0, 1_000.0, 10_000.0];

/// What is sent at the begin is not counted.
const WARM_UP_US: u64 = 1_000_000;

#[derive(Parser)]
struct Arguments {
    /// Megabytes per second (default 5 and 20)
    #[arg(long)]
    mb_per_s: Vec<u64>,
    /// How long to send (default 20; 2 when it is only tried)
    #[arg(long)]
    seconds: Option<u64>,
    /// The batch interval
    #[arg(long, default_value_t = 5)]
    batch_ms: u64,
    #[command(flatten)]
    plot: PlotOptions,
    #[command(flatten)]
    run: RunOptions,
}

/// The time that both processes share.
fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_micros() as u64
}

// -- the sender --

/// Sends lines at a rate and returns how late it was at worst.
fn send(mut socket: TcpStream, mb_per_s: u64, seconds: u64) -> std::io::Result<Duration> {
    let per_ms = mb_per_s * 1_000 / LINE_BYTES as u64;
    // Otherwise lines wait here, for the receiver's acknowledgement of those before, instead of arriving.
    socket.set_nodelay(true)?;
    let begin = Instant::now();
    let mut behind = Duration::ZERO;
    let mut lines = Vec::new();
    let mut number = 0_u64;
    for ms in 0..seconds * 1_000 {
        let due = Duration::from_millis(ms);
        match due.checked_sub(begin.elapsed()) {
            Some(wait) => std::thread::sleep(wait),
            None => behind = behind.max(begin.elapsed() - due),
        }
        let now = now_us();
        lines.clear();
        for _ in 0..per_ms {
            number += 1;
            let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS;
            let filled = LINE_BYTES - 2 - TIME_DIGITS - KEY_DIGITS;
            writeln!(lines, "{now:0>TIME_DIGITS$}{key:0>KEY_DIGITS$} {:x<filled$}", "")?;
        }
        socket.write_all(&lines)?;
    }
    Ok(behind)
}

fn number(line: &[u8], from: usize, digits: usize) -> u64 {
    line[from..from + digits].iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}

fn sent_at(line: &[u8]) -> u64 {
    number(line, 0, TIME_DIGITS)
}

fn key_of(line: &[u8]) -> u64 {
    number(line, TIME_DIGITS, KEY_DIGITS)
}

// -- the two sides --

/// The delays of lines, by when these were sent.
#[derive(Default)]
struct Delays {
    first_us: Option<u64>,
    us: Vec<u32>,
    lines: u64,
}

impl Delays {
    fn add(&mut self, sent: impl Iterator<Item = u64>) {
        let now = now_us();
        for sent in sent {
            self.lines += 1;
            let first = *self.first_us.get_or_insert(sent);
            if sent >= first + WARM_UP_US {
                self.us.push(now.saturating_sub(sent) as u32);
            }
        }
    }

    fn figures(&self) -> Value {
        let mut ms: Vec<f64> = self.us.iter().map(|us| f64::from(*us) / 1e3).collect();
        let mut at = |share| quantile(&mut ms, share);
        json!({
            "p50_ms": at(0.5),
            "p99_ms": at(0.99),
            "max_ms": at(1.0),
            "one_in_ms": ONE_IN.map(|one_in| at(1.0 - 1.0 / one_in)),
            "lines": self.lines,
        })
    }
}

fn by_hand(address: &str, store: &Path, interval: Duration) -> Outcome<Value> {
    std::fs::create_dir_all(store)?;
    let mut log = std::fs::File::create(store.join("log"))?;
    let mut socket = TcpStream::connect(address)?;
    let mut counts: HashMap<u64, u64, std::hash::RandomState> = HashMap::default();
    let mut delays = Delays::default();
    let (mut buffer, mut kept, mut open) = (vec![0; 4 << 20], 0, true);
    while open {
        let due = Instant::now() + interval;
        let before = kept;
        while kept < buffer.len()
            && let Some(left) = due.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
        {
            socket.set_read_timeout(Some(left))?;
            match socket.read(&mut buffer[kept..]) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(read) => kept += read,
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if kept == before {
            continue;
        }
        log.write_all(&buffer[before..kept])?;
        log.sync_data()?;
        let lines = buffer[..kept].chunks_exact(LINE_BYTES);
        lines.clone().for_each(|line| *counts.entry(key_of(line)).or_default() += 1);
        delays.add(lines.clone().map(sent_at));
        let rest = kept - lines.remainder().len();
        buffer.copy_within(rest..kept, 0);
        kept -= rest;
    }
    Ok(delays.figures())
}

fn millpond(address: &str, store: &Path, interval: Duration, lines: u64) -> Outcome<Value> {
    let context = StreamingContext::builder("latency")
        .store(store)
        .batch_interval(interval)
        .checkpoint_every_batches(200)
        .build()?;
    let delays = Arc::new(Mutex::new(Delays::default()));
    let noted = delays.clone();
    let input = context.socket_text_stream("lines", address);
    let _counts = input
        .map(|line| (key_of(line.as_bytes()), 1_u64))
        .reduce_by_key(|a, b| a + b)
        .update_state_by_key("counts", |new, count: Option<u64>| {
            Some(count.unwrap_or(0) + new.iter().sum::<u64>())
        });
    input.for_each_rdd(move |lines, _| {
        let sent = lines.map(|line| sent_at(line.as_bytes())).collect()?;
        noted.lock().unwrap_or_else(PoisonError::into_inner).add(sent.into_iter());
        Ok(())
    });
    let job = context.start()?;
    while job.progress().records < lines {
        if job.await_termination_or_timeout(Duration::from_millis(20))? {
            return Err("the job has stopped".into());
        }
    }
    job.stop(StopMode::Now)?;
    let figures = delays.lock().unwrap_or_else(PoisonError::into_inner).figures();
    Ok(figures)
}

fn run_child(system: &str, store: &Path, told: &str, interval: Duration) -> Outcome<()> {
    let before = usage_of_this_process()?;
    let (address, lines) = told.split_once(' ').ok_or("an address and a number of lines")?;
    let expected: u64 = lines.parse()?;
    let figures = match system {
        "loop" => by_hand(address, store, interval)?,
        _ => millpond(address, store, interval, expected)?,
    };
    if figures["lines"] != expected {
        return Err(format!("{} of {lines} lines came out", figures["lines"]).into());
    }
    report(figures, &before)
}

fn measure(system: &str, dir: &Path, mb_per_s: u64, seconds: u64) -> Outcome<Figures> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let lines = seconds * 1_000 * (mb_per_s * 1_000 / LINE_BYTES as u64);
    let child = Child::spawn(system, &dir.join("store"), &format!("{} {lines}", listener.local_addr()?))?;
    let behind = send(listener.accept()?.0, mb_per_s, seconds)?;
    let mut figures = child.figures()?;
    figures.insert("mb_per_s".into(), mb_per_s.into());
    figures.insert("behind_ms".into(), (behind.as_secs_f64() * 1e3).into());
    Ok(figures)
}

/// The delays of the runs of each system, from the fastest lines to the slowest.
fn chart(systems: &[&str], mb_per_s: u64, runs: &[Vec<Figures>]) -> Chart {
    let mut chart = Chart::new(
        &format!("From arrival to output, {mb_per_s} MB/s"),
        "one line in so many takes longer",
        "milliseconds",
    );
    for (system, runs) in systems.iter().zip(runs) {
        let points = ONE_IN.iter().enumerate().filter_map(|(index, one_in)| {
            let of_runs = runs.iter().filter_map(|figures| figures["one_in_ms"][index].as_f64());
            Some((*one_in, median(of_runs.collect())?))
        });
        chart.lines.push(Line { name: (*system).to_owned(), points: points.collect() });
    }
    chart.with_log_x()
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let run = &arguments.run;
    if let Some((system, store)) = run.child() {
        return run_child(system, store, run.told()?, Duration::from_millis(arguments.batch_ms));
    }
    let seconds = run.size(arguments.seconds, 20, 2);
    let asked = (!arguments.mb_per_s.is_empty()).then_some(arguments.mb_per_s.clone());
    let mut charts = Vec::new();
    for mb_per_s in run.size(asked, vec![5, 20], vec![5]) {
        println!("\n{mb_per_s} MB/s");
        let comparison = Comparison {
            bench: "latency",
            systems: &["loop", "millpond"],
            columns: &["p50_ms", "p99_ms", "max_ms", "behind_ms", "cpu_seconds", "peak_rss_mb", "written_mb"],
        };
        let runs = comparison.run(run, |system, dir| measure(system, dir, mb_per_s, seconds))?;
        charts.push(chart(comparison.systems, mb_per_s, &runs));
    }
    arguments.plot.draw(&charts)
}
