//! What the recovery tests share: a sink that outlives crashes, and a job that is run through any number of them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

pub mod lives;
pub mod through;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use millpond::testkit::FaultPlan;
use millpond::{DStream, ManualClock, Result, RunningContext, StateSpec, StreamingContext, Visit};

pub use lives::{INTERVAL_MS, Run, wait_for_batch};
use lives::{Life, live_through, start_life};

/// The input of these tests.
pub type ScriptedSource = lives::Scripted<(u16, i64)>;

/// The records of one batch.
pub type Chunk = Vec<(u16, i64)>;

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

/// Sums per key that are removed at zero; counts of batches per key, for every key there is; and the largest
/// sum ever per key, from the first operator's output.
pub fn describe(context: &StreamingContext, chunks: &Arc<Vec<Chunk>>, run: &Run, sink: &Sink) {
    let source = ScriptedSource { chunks: chunks.clone(), ranges: run.ranges, flaky: run.flaky };
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

pub fn emit<T: millpond::Record + std::fmt::Debug>(stream: &DStream<T>, sink: &Sink) {
    let sink = sink.clone();
    stream.for_each_rdd(move |rdd, info| {
        let rows = format!("{} {:?}", info.time, rdd.collect()?);
        sink.emit(info.idempotency_key(), rows);
        Ok(())
    });
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

/// Starts the job on `store`.
pub fn start(
    store: &Path,
    clock: &Arc<ManualClock>,
    chunks: &Arc<Vec<Chunk>>,
    run: &Run,
    sink: &Sink,
) -> Result<RunningContext> {
    let life = Life::with_faults(run, &FaultPlan::never());
    start_life(store, clock, &life, &|context, run| describe(context, chunks, run, sink))
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
    let lives: Vec<Life> = plans.iter().map(|plan| Life::with_faults(run, plan)).collect();
    let store = dir.path().join("store");
    let job = live_through(&store, batches as u64, &lives, run, &|context, _| describe(context)).unwrap();
    states(&job)
}

/// Disk steps of an uninterrupted run.
pub fn steps_of(chunks: &Arc<Vec<Chunk>>, run: &Run) -> u64 {
    let plan = FaultPlan::never();
    run_through(chunks, run, std::slice::from_ref(&plan));
    plan.steps()
}
