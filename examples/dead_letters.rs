//! Lines of a web server's log, some of them damaged: good ones are counted by status, the others become dead
//! letters with the reason and their origin. One makes the parser panic; that is a reason like any other.
//!
//! ```text
//! cargo run --release --example dead_letters
//! ```
//!
//! It takes 6 000 lines in about six seconds, then ends. Kill it and start it again: it goes on where it was, to
//! the same counts and the same dead letters. Remove `millpond-demo/dead-letters` to start over.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "support/batch_files.rs"]
mod batch_files;
#[path = "support/numbered.rs"]
mod numbered;
#[path = "support/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Duration;

use batch_files::read_batches;
use millpond::{StreamingContext, Text};
use numbered::Numbered;

const LINES: u64 = 6_000;
const LINES_PER_BATCH: u64 = 120;

/// The line that the parser is not prepared for.
const CUT_LINE: u64 = 2_500;

/// Status and size of one request. Written in a hurry: it panics when a line is cut short.
fn parse(line: &str) -> Result<(u16, u64), String> {
    let fields: Vec<&str> = line.split(' ').collect();
    let status = fields[3].parse().map_err(|error| format!("the status is `{}`: {error}", fields[3]))?;
    let size = fields[4].parse().map_err(|error| format!("the size is `{}`: {error}", fields[4]))?;
    Ok((status, size))
}

/// Line number `number` of a log that always says the same.
fn line(number: u64) -> Text {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let (client, page, size) = (scattered % 250, scattered % 40, scattered % 9_000);
    let status = [200, 200, 200, 200, 304, 404, 500][(scattered % 7) as usize];
    let line = match number {
        CUT_LINE => format!("10.0.0.{client} GET /page/{page}"),
        _ if number % 97 == 5 => format!("10.0.0.{client} GET /page/{page} {status} {size}k"),
        _ if number % 211 == 7 => format!("10.0.0.{client} GET /page/{page} - {size}"),
        _ => format!("10.0.0.{client} GET /page/{page} {status} {size}"),
    };
    Text::from(line.as_str())
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Path::new("millpond-demo/dead-letters");
    let letters = dir.join("letters/batch");
    let context = StreamingContext::builder("dead-letters")
        .store(dir.join("store"))
        .batch_interval(Duration::from_millis(100))
        .build()?;
    let lines = context.replayable_stream("access-log", Numbered::new(LINES, LINES_PER_BATCH, line));
    let (requests, dead) = lines.try_map(|line| parse(&line.to_string())).or_dead_letters();
    let _counts = requests
        .map(|(status, _)| (status, 1u64))
        .reduce_by_key(|a, b| a + b)
        .update_state_by_key("requests", |new, count: Option<u64>| {
            Some(count.unwrap_or(0) + new.iter().sum::<u64>())
        });
    // A directory per batch, whole or not there. One that is written again after a crash is the same.
    dead.save_as_text_files(&letters, "txt");
    let job = context.start()?;
    run::tell(job.recovery());
    let requests = job.state::<u16, u64>("requests")?;
    let ended = run::run_to_end(&job, || {
        println!("{} requests went through", requests_of(&requests)?.values().sum::<u64>());
        Ok(())
    })?;
    if !ended {
        return Ok(());
    }

    let counts = requests_of(&requests)?;
    let dead: Vec<String> = read_batches(&letters)?.into_values().flatten().collect();
    println!("requests by status: {counts:?}; {} dead letters, among them", dead.len());
    dead.iter().take(3).for_each(|letter| println!("    {letter}"));
    dead.iter().filter(|letter| letter.contains("panicked")).for_each(|letter| println!("    {letter}"));

    let mut expected = BTreeMap::new();
    let good = (0..LINES)
        .filter(|number| *number != CUT_LINE)
        .filter_map(|number| parse(&line(number).to_string()).ok());
    good.for_each(|(status, _)| *expected.entry(status).or_default() += 1);
    let failed = LINES - expected.values().sum::<u64>();
    if counts != expected || dead.len() as u64 != failed {
        return Err(format!("these lines have {expected:?} requests and {failed} damaged ones").into());
    }
    println!("checked: {LINES} lines, each counted once or a dead letter");
    Ok(())
}

fn requests_of(state: &millpond::StateView<u16, u64>) -> millpond::Result<BTreeMap<u16, u64>> {
    let mut counts = BTreeMap::new();
    state.for_each(|status, count| counts.extend([(status, count)]))?;
    Ok(counts)
}
