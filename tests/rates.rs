//! How fast input comes in: limits, backpressure, and sources that share a plan. None of it changes what a planned
//! batch computes.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;

use std::io::Write;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driven::{INTERVAL_MS, builder, tick};
use millpond::{
    Backpressure, BatchCompleted, Clock, DStream, Emitter, FileSource, ManualClock, Offer, Positions,
    RangeReader, ReplayableSource, Result, RunningContext, SourceRange, StopMode, StreamingListener,
};

/// Reads every record of every batch.
fn read_all<T: millpond::Record>(stream: &DStream<T>) {
    stream.for_each_rdd(|rdd, _| {
        rdd.count()?;
        Ok(())
    });
}

/// What each batch had of each stream: records and bytes.
#[derive(Default)]
struct Sizes(Mutex<Vec<Vec<(String, u64, u64)>>>);

impl Sizes {
    /// Records of each batch.
    fn records(&self) -> Vec<u64> {
        let batches = self.0.lock().unwrap();
        batches.iter().map(|streams| streams.iter().map(|(_, records, _)| records).sum()).collect()
    }
}

impl StreamingListener for Sizes {
    fn batch_completed(&self, event: &BatchCompleted) {
        if event.error.is_some() {
            return;
        }
        let streams = event.streams.iter().map(|input| (input.stream.clone(), input.records, input.bytes));
        self.0.lock().unwrap().push(streams.collect());
    }
}

fn wait_for_batches(job: &RunningContext, batches: u64) {
    while job.progress().batches < batches {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
    }
}

/// RateLimitedOutputStreamSuite by idea: who pushes more than the rate waits, and all of it arrives in order.
#[test]
fn a_received_stream_keeps_its_rate_and_drops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let sizes = Arc::new(Sizes::default());
    let context = builder(dir.path(), &clock)
        .receiver_records_per_second_max(10)
        .listener(sizes.clone())
        .build()
        .unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    numbers.for_each_rdd(move |rdd, _| {
        sink.lock().unwrap().extend(rdd.collect()?);
        Ok(())
    });
    let job = context.start().unwrap();
    let sender = std::thread::spawn(move || queue.push(0..40));
    while seen.lock().unwrap().len() < 25 {
        tick(&job, &clock);
        // The rate, and what silence is worth: a tenth of a second, one record, and one that is lent.
        let batches = sizes.records().len() as u64;
        assert!(seen.lock().unwrap().len() as u64 <= batches * 10 + 2);
    }
    assert!(!sender.is_finished());
    while !sender.is_finished() {
        tick(&job, &clock);
    }
    sender.join().unwrap().unwrap();
    job.stop(StopMode::Graceful).unwrap();
    assert_eq!(*seen.lock().unwrap(), (0..40).collect::<Vec<_>>());
}

/// What a socket has sent is let in line by line; what was read when the job stops is taken as it is.
#[test]
fn a_socket_keeps_its_rate_and_a_stop_takes_what_was_read() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sizes = Arc::new(Sizes::default());
    let context = builder(dir.path(), &clock)
        .receiver_records_per_second_max(100)
        .block_interval(Duration::from_millis(1))
        .listener(sizes.clone())
        .build()
        .unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    context.socket_text_stream("lines", &address).for_each_rdd(move |rdd, _| {
        sink.lock().unwrap().extend(rdd.collect()?.iter().map(|line| line.to_string()));
        Ok(())
    });
    let job = context.start().unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    let lines: Vec<String> = (0..1_000).map(|line| format!("line {line}")).collect();
    socket.write_all((lines.join("\n") + "\n").as_bytes()).unwrap();
    while seen.lock().unwrap().len() < 150 {
        tick(&job, &clock);
        let batches = sizes.records().len() as u64;
        assert!(seen.lock().unwrap().len() as u64 <= batches * 100 + 20);
    }
    job.stop(StopMode::Graceful).unwrap();
    let seen = seen.lock().unwrap();
    assert!(seen.len() >= 150);
    assert_eq!(*seen, lines[..seen.len()]);
}

/// Numbers from 0 on, ten units each, in ranges of at most a thousand.
struct Numbers {
    end: u64,
}

impl ReplayableSource for Numbers {
    type Item = u64;

    fn poll(&mut self, positions: &Positions, limit: u64, _now_ms: u64) -> Result<Offer> {
        let start = positions.get("all")?.map_or(0, |position| position.offset);
        let end = self.end.min(start + limit.div_ceil(10) * 10);
        let range = SourceRange { partition: "all".into(), start, end, size: 0, stamp: 0 };
        Ok(Offer { ranges: (start < end).then_some(range).into_iter().collect(), ..Offer::default() })
    }

    fn reader(&self) -> Arc<dyn RangeReader<u64>> {
        Arc::new(Numbers { end: self.end })
    }
}

impl RangeReader<u64> for Numbers {
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, u64>) -> Result<u64> {
        (range.start / 10..range.end / 10).for_each(|number| out.emit(number));
        Ok((range.end - range.start) / 10)
    }
}

/// Moves the clock on to the next batch when one is done, up to a number of batches.
struct Mover {
    clock: Arc<ManualClock>,
    sizes: Sizes,
    batches: usize,
}

impl StreamingListener for Mover {
    fn batch_completed(&self, event: &BatchCompleted) {
        self.sizes.batch_completed(event);
        let next_ms = event.time.0 + INTERVAL_MS;
        if self.sizes.records().len() < self.batches {
            self.clock.advance(next_ms.saturating_sub(self.clock.now_ms()));
        }
    }
}

/// A job that gets through 500 records a second: nothing but the job moves the clock.
fn slow_job(end: u64, backpressure: Option<Backpressure>, batches: usize) -> Vec<u64> {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let mover = Arc::new(Mover { clock: clock.clone(), sizes: Sizes::default(), batches });
    let mut builder = builder(dir.path(), &clock).listener(mover.clone());
    if let Some(backpressure) = backpressure {
        builder = builder.backpressure(backpressure);
    }
    let context = builder.build().unwrap();
    let working = clock.clone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    context.replayable_stream("numbers", Numbers { end: end * 10 }).for_each_rdd(move |rdd, _| {
        let numbers = rdd.collect()?;
        working.advance(numbers.len() as u64 * 2);
        sink.lock().unwrap().extend(numbers);
        Ok(())
    });
    let job = context.start().unwrap();
    clock.advance(INTERVAL_MS);
    wait_for_batches(&job, batches as u64);
    drop(job);
    let seen = seen.lock().unwrap();
    assert_eq!(*seen, (0..seen.len() as u64).collect::<Vec<_>>());
    mover.sizes.records()
}

/// With backpressure batches come to what fits into an interval; without it, all that there is comes at once.
#[test]
fn backpressure_brings_a_replayable_source_to_the_rate_that_is_processed() {
    assert_eq!(slow_job(100_000, None, 1)[0], 100_000);
    let initial_rate = Some(2_000);
    let records = slow_job(100_000, Some(Backpressure { initial_rate, ..Backpressure::default() }), 30);
    // A hundred units are taken for a record until it is known that there are ten.
    assert_eq!(records[0], 20_000);
    assert!(records[1] <= 2_000, "{records:?}");
    assert!(records[20..].iter().all(|records| (400..=500).contains(records)), "{records:?}");
}

/// The rate does not survive a start: it begins from the initial one again, and planned batches are as planned.
#[test]
fn a_start_begins_with_the_initial_rate_and_replays_what_was_planned() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let sizes = Arc::new(Sizes::default());
    let start = |initial_rate: u64| {
        let backpressure = Backpressure { initial_rate: Some(initial_rate), ..Backpressure::default() };
        let builder = builder(dir.path(), &clock).backpressure(backpressure).listener(sizes.clone());
        let context = builder.build().unwrap();
        let numbers = context.replayable_stream("numbers", Numbers { end: 1_000_000 });
        read_all(&numbers);
        let _sum = numbers.map(|n| ((), n)).update_state_by_key("sum", |new, sum: Option<u64>| {
            Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
        });
        context.start().unwrap()
    };
    let job = start(30);
    tick(&job, &clock);
    drop(job);
    let job = start(7);
    assert_eq!(job.recovery().replayed.len(), 1);
    tick(&job, &clock);
    drop(job);
    assert_eq!(sizes.records(), [300, 300, 70]);
}

/// A limit in bytes is kept to the line, also far below the size of a range.
#[test]
fn a_file_is_planned_to_the_line_within_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let long = "x".repeat(500);
    let text: String =
        (0..100).map(|line| format!("{line:09}\n")).chain([format!("{long}\nlast\n")]).collect();
    std::fs::write(&path, text).unwrap();
    let clock = ManualClock::at(0);
    let sizes = Arc::new(Sizes::default());
    let context =
        builder(dir.path(), &clock).source_bytes_per_batch_max(405).listener(sizes.clone()).build().unwrap();
    read_all(&context.replayable_stream("log", FileSource::new(&path).settle(Duration::ZERO)));
    let job = context.start().unwrap();
    for _ in 0..5 {
        tick(&job, &clock);
    }
    // A line that is longer than the limit comes whole.
    assert_eq!(sizes.records(), [40, 40, 20, 1, 1]);
}

/// Offers as much as a plan can hold, again and again.
struct Greedy(&'static str);

impl ReplayableSource for Greedy {
    type Item = u64;

    fn poll(&mut self, _: &Positions, _: u64, now_ms: u64) -> Result<Offer> {
        let range = |at: u64| SourceRange {
            partition: format!("{}-{now_ms}-{at}-{}", self.0, "x".repeat(1_000)),
            start: 0,
            end: 1,
            size: 0,
            stamp: 0,
        };
        Ok(Offer { ranges: (0..200).map(range).collect(), ..Offer::default() })
    }

    fn reader(&self) -> Arc<dyn RangeReader<u64>> {
        Arc::new(Greedy(self.0))
    }
}

impl RangeReader<u64> for Greedy {
    fn read(&self, _: &SourceRange, out: &mut Emitter<'_, u64>) -> Result<u64> {
        out.emit(1);
        Ok(1)
    }
}

#[test]
fn a_source_that_fills_the_plan_does_not_starve_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let sizes = Arc::new(Sizes::default());
    let context = builder(dir.path(), &clock).listener(sizes.clone()).build().unwrap();
    let streams = ["a", "b", "c"].map(|name| context.replayable_stream(name, Greedy(name)));
    let all = streams[0].union(&streams[1]).union(&streams[2]);
    read_all(&all);
    let job = context.start().unwrap();
    for _ in 0..3 {
        tick(&job, &clock);
    }
    for batch in &*sizes.0.lock().unwrap() {
        let records: Vec<u64> = batch.iter().map(|(_, records, _)| *records).collect();
        assert_eq!(records.len(), 3, "{batch:?}");
        assert!(records.iter().max().unwrap() - records.iter().min().unwrap() <= 1, "{records:?}");
    }
}
