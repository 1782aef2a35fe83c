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

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond::{
    Emitter, Offer, Positions, RangeReader, ReplayableSource, SourceRange, StopMode, StreamingContext, Text,
};

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
fn line(number: u64) -> String {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let (client, page, size) = (scattered % 250, scattered % 40, scattered % 9_000);
    let status = [200, 200, 200, 200, 304, 404, 500][(scattered % 7) as usize];
    match number {
        CUT_LINE => format!("10.0.0.{client} GET /page/{page}"),
        _ if number % 97 == 5 => format!("10.0.0.{client} GET /page/{page} {status} {size}k"),
        _ if number % 211 == 7 => format!("10.0.0.{client} GET /page/{page} - {size}"),
        _ => format!("10.0.0.{client} GET /page/{page} {status} {size}"),
    }
}

/// An embedded source that can be read again: the plan of a batch records which lines are in it.
struct AccessLog;

impl ReplayableSource for AccessLog {
    type Item = Text;

    fn poll(&mut self, positions: &Positions, _: u64, _: u64) -> millpond::Result<Offer> {
        let start = positions.get("lines")?.map_or(0, |position| position.offset);
        let end = LINES.min(start + LINES_PER_BATCH);
        let mut offer = Offer { waiting: end < LINES, ..Offer::default() };
        if start < end {
            offer.ranges.push(SourceRange { partition: "lines".into(), start, end, size: 0, stamp: 0 });
        }
        Ok(offer)
    }

    fn reader(&self) -> Arc<dyn RangeReader<Text>> {
        Arc::new(AccessLog)
    }
}

impl RangeReader<Text> for AccessLog {
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, Text>) -> millpond::Result<u64> {
        (range.start..range.end).for_each(|number| out.emit(Text::from(line(number).as_str())));
        Ok(range.end - range.start)
    }
}

/// Every dead letter in the files of all batches, one per line.
fn read_dead_letters(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut letters = Vec::new();
    for batch in fs::read_dir(dir)? {
        for part in fs::read_dir(batch?.path())? {
            letters.extend(fs::read_to_string(part?.path())?.lines().map(str::to_owned));
        }
    }
    letters.sort();
    Ok(letters)
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Path::new("millpond-demo/dead-letters");
    let letters = dir.join("letters");
    let context = StreamingContext::builder("dead-letters")
        .store(dir.join("store"))
        .batch_interval(Duration::from_millis(100))
        .build()?;
    let lines = context.replayable_stream("access-log", AccessLog);
    let (requests, dead) = lines.try_map(|line| parse(&line.to_string())).or_dead_letters();
    let _counts = requests
        .map(|(status, _)| (status, 1u64))
        .reduce_by_key(|a, b| a + b)
        .update_state_by_key("requests", |new, count: Option<u64>| {
            Some(count.unwrap_or(0) + new.iter().sum::<u64>())
        });
    // A directory per batch, whole or not there. One that is written again after a crash is the same.
    dead.save_as_text_files(letters.join("batch"), "txt");
    let job = context.start()?;
    let requests = job.state::<u16, u64>("requests")?;
    while job.progress().idle < Duration::from_millis(300) {
        println!("{} requests went through", requests_of(&requests)?.values().sum::<u64>());
        if job.await_termination_or_timeout(Duration::from_millis(500))? {
            println!("stopped; start me again to go on");
            return Ok(());
        }
    }
    job.stop(StopMode::Graceful)?;

    let counts = requests_of(&requests)?;
    let dead = read_dead_letters(&letters)?;
    println!("requests by status: {counts:?}; {} dead letters, among them", dead.len());
    dead.iter().take(3).for_each(|letter| println!("    {letter}"));
    dead.iter().filter(|letter| letter.contains("panicked")).for_each(|letter| println!("    {letter}"));

    let mut expected = BTreeMap::new();
    let good = (0..LINES).filter(|number| *number != CUT_LINE).filter_map(|number| parse(&line(number)).ok());
    good.for_each(|(status, _)| *expected.entry(status).or_default() += 1);
    let failed = LINES - expected.values().sum::<u64>();
    if counts == expected && dead.len() as u64 == failed {
        Ok(())
    } else {
        Err(format!("these lines have {expected:?} requests and {failed} damaged ones").into())
    }
}

fn requests_of(state: &millpond::StateView<u16, u64>) -> millpond::Result<BTreeMap<u16, u64>> {
    let mut counts = BTreeMap::new();
    state.for_each(|status, count| counts.extend([(status, count)]))?;
    Ok(counts)
}
