//! A job that lives several times: started on one store again and again, each life with its own threads and
//! partitions, until a crash, a stop or the end of its input.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::testkit::FaultPlan;
use millpond::{
    BatchStarted, Clock, Emitter, Error, ErrorKind, ManualClock, Offer, Positions, RangeReader, Record,
    ReplayableSource, Result, RunningContext, SourceRange, StopMode, StreamingContext, StreamingListener,
};

/// The interval of every test job; its batch `n`, counted from 1, has the time `n` intervals.
pub const INTERVAL_MS: u64 = 1_000;

/// A replayable source that offers one chunk per batch, split into as many ranges as asked for.
pub struct Scripted<T> {
    pub chunks: Arc<Vec<Vec<T>>>,
    pub ranges: usize,
    /// The first time that a range is read, it gives too much and fails.
    pub flaky: bool,
}

/// Where the part `part` of `ranges` begins in a chunk of `records`.
pub fn range_start(records: usize, part: usize, ranges: usize) -> usize {
    records * part / ranges.max(1)
}

impl<T: Record> ReplayableSource for Scripted<T> {
    type Item = T;

    fn poll(&mut self, positions: &Positions, _limit: u64, _now_ms: u64) -> Result<Offer> {
        let at = positions.get("script")?.map_or(0, |position| position.offset >> 32);
        let Some(chunk) = self.chunks.get(at as usize) else {
            return Ok(Offer::default());
        };
        // An offset is the chunk in the upper half and the record in the lower one.
        let ranges = self.ranges.max(1);
        let bound = |part: usize| (at << 32) + range_start(chunk.len(), part, ranges) as u64;
        let range = |part: usize| SourceRange {
            partition: "script".into(),
            start: bound(part),
            end: if part + 1 == ranges { (at + 1) << 32 } else { bound(part + 1) },
            size: 0,
            stamp: 0,
        };
        Ok(Offer { ranges: (0..ranges).map(range).collect(), ..Offer::default() })
    }

    fn reader(&self) -> Arc<dyn RangeReader<T>> {
        let (chunks, flaky) = (self.chunks.clone(), self.flaky);
        Arc::new(ScriptReader { chunks, flaky, read: Mutex::default() })
    }
}

struct ScriptReader<T> {
    chunks: Arc<Vec<Vec<T>>>,
    flaky: bool,
    /// The starts of the ranges that were read before.
    read: Mutex<HashSet<u64>>,
}

impl<T: Record> RangeReader<T> for ScriptReader<T> {
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, T>) -> Result<u64> {
        let chunk = &self.chunks[(range.start >> 32) as usize];
        let whole = range.end >> 32 > range.start >> 32;
        let end = if whole { chunk.len() } else { range.end as u32 as usize };
        let records = &chunk[range.start as u32 as usize..end];
        if self.flaky && self.read.lock().unwrap().insert(range.start) {
            // More than a chunk, so that some of it has gone on when the failure comes.
            records.iter().cycle().take(600).for_each(|record| out.emit(record.clone()));
            return Err(Error::new(ErrorKind::Source, "the first read of a range fails"));
        }
        records.iter().for_each(|record| out.emit(record.clone()));
        Ok(records.len() as u64)
    }
}

/// How a job runs.
#[derive(Clone, Debug)]
pub struct Run {
    pub threads: usize,
    pub partitions: usize,
    pub ranges: usize,
    pub checkpoint_every: u64,
    /// Whether the first read of each range gives too much and fails, so that its task is tried again.
    pub flaky: bool,
    /// The limit of the state's memory.
    pub state_memory: Option<u64>,
    /// Batches up to this one are due when the one before begins: the job is behind.
    pub behind_until: u64,
}

impl Default for Run {
    fn default() -> Self {
        Run {
            threads: 2,
            partitions: 3,
            ranges: 2,
            checkpoint_every: 3,
            flaky: false,
            state_memory: None,
            behind_until: 0,
        }
    }
}

/// Moves the clock on to the next batch when one begins.
struct Hurry {
    clock: Arc<ManualClock>,
    until: u64,
}

impl StreamingListener for Hurry {
    fn batch_started(&self, batch: &BatchStarted) {
        let next = batch.batch.0 + 1;
        if next <= self.until {
            self.clock.advance((next * INTERVAL_MS).saturating_sub(self.clock.now_ms()));
        }
    }
}

/// One life of a job: how it runs and what ends it before its input does.
#[derive(Clone, Debug)]
pub struct Life {
    pub run: Run,
    pub faults: Arc<FaultPlan>,
    /// Stopped like this once that many batches are done.
    pub stop: Option<(u64, StopMode)>,
}

impl Life {
    pub fn with_faults(run: &Run, faults: &Arc<FaultPlan>) -> Self {
        Life { run: run.clone(), faults: faults.clone(), stop: None }
    }
}

/// Builds the job that `describe` describes and starts it on `store`.
pub fn start_life(
    store: &Path,
    clock: &Arc<ManualClock>,
    life: &Life,
    describe: &dyn Fn(&StreamingContext, &Run),
) -> Result<RunningContext> {
    let mut builder = StreamingContext::builder("lives")
        .store(store)
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(INTERVAL_MS))
        .checkpoint_every_batches(life.run.checkpoint_every)
        .threads(life.run.threads)
        .partitions(life.run.partitions)
        .stop_on_signals(false)
        .listener(Arc::new(Hurry { clock: clock.clone(), until: life.run.behind_until }))
        .faults(life.faults.clone());
    if let Some(bytes) = life.run.state_memory {
        builder = builder.state_memory_bytes_max(bytes);
    }
    let context = builder.build()?;
    describe(&context, &life.run);
    context.start()
}

fn last_batch(job: &RunningContext) -> u64 {
    job.progress().last_batch.map_or(0, |(batch, _)| batch.0)
}

/// Waits until batch `batch` is done; `false` when the job ended before.
pub fn wait_for_batch(job: &RunningContext, batch: u64) -> bool {
    loop {
        if last_batch(job) >= batch {
            return true;
        }
        if !matches!(job.await_termination_or_timeout(Duration::from_millis(1)), Ok(false)) {
            return false;
        }
    }
}

/// Runs the job over `batches` batches, one life after the other and then a last, undisturbed one, run like
/// `last`. Returns the job that got through, or how one ended that should not have.
pub fn live_through(
    store: &Path,
    batches: u64,
    lives: &[Life],
    last: &Run,
    describe: &dyn Fn(&StreamingContext, &Run),
) -> Result<RunningContext, String> {
    let clock = ManualClock::at(0);
    let last = Life::with_faults(last, &FaultPlan::never());
    let mut lives: Vec<Life> = lives.iter().chain([&last]).cloned().collect();
    lives.iter_mut().for_each(|life| life.run.behind_until = life.run.behind_until.min(batches));
    for (number, life) in lives.iter().enumerate() {
        let job = match start_life(store, &clock, life, describe) {
            Ok(job) => job,
            Err(_) if life.faults.has_crashed() => continue,
            Err(error) => return Err(format!("start {} failed: {}", number + 1, error.chain())),
        };
        let (until, mode) = life.stop.unwrap_or((batches, StopMode::Graceful));
        // What the job logged itself for a batch that a crash kept from being planned is to be in that batch, not
        // in one that a graceful stop makes of it.
        let until = if mode == StopMode::Graceful { until.max(last_batch(&job) + 1) } else { until };
        let mut alive = true;
        while alive && last_batch(&job) < until.min(batches) {
            let batch = last_batch(&job) + 1;
            let due = batch * INTERVAL_MS;
            clock.advance(due.saturating_sub(clock.now_ms()));
            alive = wait_for_batch(&job, batch);
        }
        let stopped = alive && job.stop(mode).is_ok();
        if stopped && until >= batches && mode == StopMode::Graceful {
            return Ok(job);
        }
        // A job that is told to stop does not wait for space any more.
        let outcome = job.await_termination();
        let full = matches!(&outcome, Err(error) if error.kind() == ErrorKind::DiskFull);
        if !(stopped || full || life.faults.has_crashed()) {
            return Err(format!("life {} ended by itself: {outcome:?}", number + 1));
        }
    }
    Err("the job did not get through its last life".to_owned())
}
