//! A job that is killed with SIGKILL again and again, and ends with the totals of one that never was.
//!
//! ```text
//! cargo run --release --example crash_and_resume
//! ```
//!
//! The program starts itself as a child, twice: one child runs undisturbed; the other is killed at random
//! moments and started again on its store. It fails when their totals differ. It takes about three seconds.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]
#![allow(clippy::disallowed_methods, reason = "a process is killed in real time")]

#[path = "support/numbered.rs"]
mod numbered;

use std::error::Error;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millpond::{StopMode, StreamingContext};
use numbered::Numbered;

const NUMBERS: u64 = 200_000;
const NUMBERS_PER_BATCH: u64 = 4_000;
const KILLS: u32 = 6;

// -- the child: sums numbers by a key --

/// Runs until all numbers are summed, then writes the totals.
fn run_job(dir: &Path) -> Result<(), Box<dyn Error>> {
    let context = StreamingContext::builder("crash-and-resume")
        .store(dir.join("store"))
        .batch_interval(Duration::from_millis(50))
        .checkpoint_every_batches(4)
        .build()?;
    let _only_state = context
        .replayable_stream("numbers", Numbered::new(NUMBERS, NUMBERS_PER_BATCH, |number| number))
        .map(|number| (number * number % 1_009, number))
        .reduce_by_key(|a, b| a + b)
        .update_state_by_key("totals", |new, total: Option<u64>| {
            Some(total.unwrap_or(0) + new.iter().sum::<u64>())
        });
    let job = context.start()?;
    let (recovery, totals) = (job.recovery(), job.state::<u64, u64>("totals")?);
    let mut sum = 0;
    totals.for_each(|_, total| sum += total)?;
    match recovery.checkpoint {
        Some((checkpoint, batch)) => println!(
            "    has {checkpoint} ({batch}), replayed {} batches; the numbers up to here add up to {sum}",
            recovery.replayed.len()
        ),
        None => println!("    has no checkpoint, replayed {} batches", recovery.replayed.len()),
    }
    while job.progress().idle < Duration::from_millis(200) {
        job.await_termination_or_timeout(Duration::from_millis(20))?;
    }
    job.stop(StopMode::Graceful)?;
    let mut rows = Vec::new();
    totals.for_each(|key, total| rows.push((key, total)))?;
    rows.sort_unstable();
    let text: String = rows.iter().map(|(key, total)| format!("{key}\t{total}\n")).collect();
    Ok(fs::write(dir.join("totals"), text)?)
}

// -- the parent: kills it --

fn start_child(dir: &Path, output: Stdio) -> Result<Child, Box<dyn Error>> {
    Ok(Command::new(std::env::current_exe()?).arg(dir).stdout(output).spawn()?)
}

/// Starts the job and kills it, `KILLS` times; then lets it come to its end.
fn run_with_crashes(dir: &Path) -> Result<(), Box<dyn Error>> {
    for kill in 1..=KILLS {
        let mut child = start_child(dir, Stdio::inherit())?;
        let after = Duration::from_millis(30 + RandomState::new().hash_one(kill) % 600);
        std::thread::sleep(after);
        if let Some(status) = child.try_wait()? {
            println!("start {kill}: it came to its end before it was killed: {status}");
            return if status.success() { Ok(()) } else { Err("the job failed".into()) };
        }
        child.kill()?;
        child.wait()?;
        println!("start {kill}: killed after {} ms", after.as_millis());
    }
    println!("start {}: not killed", KILLS + 1);
    if start_child(dir, Stdio::inherit())?.wait()?.success() { Ok(()) } else { Err("the job failed".into()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    if let Some(dir) = std::env::args_os().nth(1) {
        return run_job(Path::new(&dir));
    }
    let dir = tempfile::tempdir()?;
    let (undisturbed, crashed) = (dir.path().join("undisturbed"), dir.path().join("crashed"));
    fs::create_dir(&undisturbed)?;
    fs::create_dir(&crashed)?;
    let mut child = start_child(&undisturbed, Stdio::null())?;
    let outcome = run_with_crashes(&crashed);
    if !child.wait()?.success() {
        return Err("the undisturbed job failed".into());
    }
    outcome?;
    let totals = fs::read_to_string(crashed.join("totals"))?;
    if totals != fs::read_to_string(undisturbed.join("totals"))? {
        return Err("the totals of the crashed job differ from those of the undisturbed one".into());
    }
    println!("{} totals, the same as of the job that was never killed", totals.lines().count());
    Ok(())
}
