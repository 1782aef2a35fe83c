//! What the recovery tests share: a source from memory, a sink that outlives crashes, and a job that is run
//! through any number of them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::testkit::FaultPlan;
use millpond::{
    DStream, Emitter, ManualClock, Offer, Positions, RangeReader, ReplayableSource, Result, RunningContext,
    SourceRange, StateSpec, StopMode, StreamingContext, Visit,
};

/// The interval of every test job.
pub const INTERVAL_MS: u64 = 1_000;

/// The records of one batch.
pub type Chunk = Vec<(u16, i64)>;

/// A replayable source that offers one chunk per batch, split into as many ranges as asked for.
pub struct ScriptedSource {
    pub chunks: Arc<Vec<Chunk>>,
    pub ranges: usize,
}

impl ReplayableSource for ScriptedSource {
    type Item = (u16, i64);

    fn poll(&mut self, positions: &Positions, _limit: u64, _now_ms: u64) -> Result<Offer> {
        let at = positions.get("script")?.map_or(0, |position| position.offset >> 32);
        let Some(chunk) = self.chunks.get(at as usize) else {
            return Ok(Offer::default());
        };
        // An offset is the chunk in the upper half and the record in the lower one.
        let ranges = self.ranges.max(1);
        let bound = |part: usize| (at << 32) + (chunk.len() * part / ranges) as u64;
        let range = |part: usize| SourceRange {
            partition: "script".into(),
            start: bound(part),
            end: if part + 1 == ranges { (at + 1) << 32 } else { bound(part + 1) },
            size: 0,
            stamp: 0,
        };
        Ok(Offer { ranges: (0..ranges).map(range).collect(), ..Offer::default() })
    }

    fn reader(&self) -> Arc<dyn RangeReader<(u16, i64)>> {
        Arc::new(ScriptReader { chunks: self.chunks.clone() })
    }
}

struct ScriptReader {
    chunks: Arc<Vec<Chunk>>,
}

impl RangeReader<(u16, i64)> for ScriptReader {
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, (u16, i64)>) -> Result<u64> {
        let chunk = &self.chunks[(range.start >> 32) as usize];
        let whole = range.end >> 32 > range.start >> 32;
        let end = if whole { chunk.len() } else { range.end as u32 as usize };
        let records = &chunk[range.start as u32 as usize..end];
        records.iter().for_each(|record| out.emit(*record));
        Ok(records.len() as u64)
    }
}

/// What left the job, by idempotency key. A key that comes again must come with the same rows.
pub type Emitted = BTreeMap<String, String>;

#[derive(Clone, Default)]
pub struct Sink(Arc<Mutex<Emitted>>);

impl Sink {
    pub fn emit(&self, key: String, rows: String) {
        let mut emitted = self.0.lock().unwrap();
        let before = emitted.insert(key.clone(), rows.clone());
        assert!(before.is_none_or(|before| before == rows), "{key} was emitted again with other rows");
    }

    pub fn rows(&self) -> Emitted {
        self.0.lock().unwrap().clone()
    }
}

/// How a job runs.
#[derive(Clone, Debug)]
pub struct Run {
    pub threads: usize,
    pub partitions: usize,
    pub ranges: usize,
    pub checkpoint_every: u64,
}

impl Default for Run {
    fn default() -> Self {
        Run { threads: 2, partitions: 3, ranges: 2, checkpoint_every: 3 }
    }
}

/// Sums per key that are removed at zero; counts of batches per key, for every key there is; and the largest
/// sum ever per key, from the first operator's output.
pub fn describe(context: &StreamingContext, chunks: &Arc<Vec<Chunk>>, run: &Run, sink: &Sink) {
    let source = ScriptedSource { chunks: chunks.clone(), ranges: run.ranges };
    let pairs = context.replayable_stream("script", source);
    let sums =
        pairs.reduce_by_key(|a, b| a.wrapping_add(b)).update_state_by_key("sums", |new, sum: Option<i64>| {
            let sum = new.iter().fold(sum.unwrap_or(0), |a, b| a.wrapping_add(*b));
            (sum != 0).then_some(sum)
        });
    let ages = pairs.update_state_by_key(
        StateSpec::named("ages").visit(Visit::All),
        |new: &[i64], age: Option<(u32, Vec<i64>)>| {
            let (age, mut last) = age.unwrap_or_default();
            last.extend_from_slice(new);
            let kept = last.len().saturating_sub(3);
            (age < 4 || !new.is_empty())
                .then(|| (if new.is_empty() { age + 1 } else { 0 }, last.split_off(kept)))
        },
    );
    let peaks =
        sums.update_state_by_key("peaks", |new, peak: Option<i64>| new.iter().copied().chain(peak).max());
    emit(&sums, sink);
    emit(&ages, sink);
    emit(&peaks.join(&pairs), sink);
    emit(&pairs.count(), sink);
}

/// Hands every batch of the stream to the sink.
pub fn emit<T: millpond::Record + std::fmt::Debug>(stream: &DStream<T>, sink: &Sink) {
    let sink = sink.clone();
    stream.for_each_rdd(move |rdd, info| {
        let rows = format!("{} {:?}", info.time, rdd.collect()?);
        sink.emit(info.idempotency_key(), rows);
        Ok(())
    });
}

/// Builds and starts the job on `store`.
pub fn start(
    store: &Path,
    clock: &Arc<ManualClock>,
    chunks: &Arc<Vec<Chunk>>,
    run: &Run,
    sink: &Sink,
    faults: &Arc<FaultPlan>,
) -> Result<RunningContext> {
    start_with(store, clock, run, faults, &|context| describe(context, chunks, run, sink))
}

/// The same for a job of another description.
pub fn start_with(
    store: &Path,
    clock: &Arc<ManualClock>,
    run: &Run,
    faults: &Arc<FaultPlan>,
    describe: &dyn Fn(&StreamingContext),
) -> Result<RunningContext> {
    let context = StreamingContext::builder("recovery-test")
        .store(store)
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(INTERVAL_MS))
        .checkpoint_every_batches(run.checkpoint_every)
        .threads(run.threads)
        .partitions(run.partitions)
        .stop_on_signals(false)
        .faults(faults.clone())
        .build()?;
    describe(&context);
    context.start()
}

/// Waits until batch `batch` is done; `false` when the job ended before.
pub fn wait_for_batch(job: &RunningContext, batch: u64) -> bool {
    loop {
        if job.progress().last_batch.is_some_and(|(last, _)| last.0 >= batch) {
            return true;
        }
        if !matches!(job.await_termination_or_timeout(Duration::from_millis(1)), Ok(false)) {
            return false;
        }
    }
}

/// Everything in state, in its order.
pub fn states(job: &RunningContext) -> String {
    let mut all = String::new();
    let mut add = |row: String| all.push_str(&row);
    for name in ["sums", "peaks"] {
        job.state::<u16, i64>(name)
            .unwrap()
            .for_each(|key, value| add(format!("{name} {key} {value}\n")))
            .unwrap();
    }
    let ages = job.state::<u16, (u32, Vec<i64>)>("ages").unwrap();
    ages.for_each(|key, value| add(format!("ages {key} {value:?}\n"))).unwrap();
    all
}

/// Runs the job over all chunks, starting it anew after every crash; the n-th start gets the n-th plan, those
/// after that none. Returns what it emitted and its state.
pub fn run_through(chunks: &Arc<Vec<Chunk>>, run: &Run, plans: &[Arc<FaultPlan>]) -> (Emitted, String) {
    let sink = Sink::default();
    let describe = |context: &StreamingContext| describe(context, chunks, run, &sink);
    let state = run_through_with(chunks.len(), run, plans, &describe, &states);
    (sink.rows(), state)
}

/// The same for a job of another description, over so many batches. Returns its state as `states` shows it.
pub fn run_through_with(
    batches: usize,
    run: &Run,
    plans: &[Arc<FaultPlan>],
    describe: &dyn Fn(&StreamingContext),
    states: &dyn Fn(&RunningContext) -> String,
) -> String {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let clock = ManualClock::at(0);
    let mut plans = plans.iter().cloned();
    let mut starts = 0;
    loop {
        starts += 1;
        assert!(starts < 50, "the job does not get through");
        let faults = plans.next().unwrap_or_else(FaultPlan::never);
        let Ok(job) = start_with(&store, &clock, run, &faults, describe) else {
            assert!(faults.has_crashed(), "a start failed without a crash");
            continue;
        };
        let mut alive = true;
        while alive && job.progress().last_batch.is_none_or(|(last, _)| last.0 < batches as u64) {
            let batch = job.progress().last_batch.map_or(0, |(last, _)| last.0) + 1;
            let due = batch * INTERVAL_MS;
            clock.advance(due.saturating_sub(millpond::Clock::now_ms(&*clock)));
            alive = wait_for_batch(&job, batch);
        }
        if alive && job.stop(StopMode::Graceful).is_ok() {
            return states(&job);
        }
        // A job that is told to stop does not wait for space any more.
        let outcome = job.await_termination();
        let full = matches!(&outcome, Err(error) if error.kind() == millpond::ErrorKind::DiskFull);
        assert!(full || faults.has_crashed(), "the job ended without a crash: {outcome:?}");
    }
}

/// Disk steps of an uninterrupted run.
pub fn steps_of(chunks: &Arc<Vec<Chunk>>, run: &Run) -> u64 {
    let plan = FaultPlan::never();
    run_through(chunks, run, std::slice::from_ref(&plan));
    plan.steps()
}
