//! A job with outputs of its own, run through any number of crashes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond::testkit::FaultPlan;
use millpond::{
    Clock, ContextBuilder, DStream, ErrorKind, ManualClock, Result, RunningContext, StopMode,
    StreamingContext,
};

use super::{Chunk, INTERVAL_MS, ScriptedSource, wait_for_batch};

/// Gives a job its outputs.
pub type Describe<'a> = dyn Fn(&DStream<(u16, i64)>) + 'a;

/// Some records for each batch; none in the third.
pub fn some_chunks(batches: u16) -> Arc<Vec<Chunk>> {
    let records = |batch: u16| if batch == 2 { 0 } else { 9u16 };
    let chunk = |batch: u16| {
        (0..records(batch)).map(|n| ((n * 7 + batch * 3) % 5, i64::from(n % 4) + i64::from(batch))).collect()
    };
    Arc::new((0..batches).map(chunk).collect())
}

/// One thread, so that a step is the same in every run.
pub fn builder(dir: &Path, clock: &Arc<ManualClock>) -> ContextBuilder {
    StreamingContext::builder("outputs-test")
        .store(dir.join("store"))
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(INTERVAL_MS))
        .checkpoint_every_batches(2)
        .threads(1)
        .partitions(2)
        .stop_on_signals(false)
}

/// Starts the job that `describe` gives outputs.
pub fn start(
    builder: ContextBuilder,
    chunks: &Arc<Vec<Chunk>>,
    describe: &Describe,
) -> Result<RunningContext> {
    let context = builder.build()?;
    let source = ScriptedSource { chunks: chunks.clone(), ranges: 2, flaky: false };
    describe(&context.replayable_stream("script", source));
    context.start()
}

/// Lets time pass until batch `last` is done; `false` when the job ended before.
pub fn run_to(job: &RunningContext, clock: &ManualClock, last: u64) -> bool {
    loop {
        let (done, time) = job.progress().last_batch.map_or((0, 0), |(batch, time)| (batch.0, time.0));
        if done >= last {
            return true;
        }
        clock.advance((time + INTERVAL_MS).saturating_sub(clock.now_ms()));
        if !wait_for_batch(job, done + 1) {
            return false;
        }
    }
}

/// Runs the job over all chunks in `dir`, starting it anew after every crash; the n-th start gets the n-th plan,
/// those after that none. Returns how many batches were emitted by a start, so at least for the second time.
pub fn through(dir: &Path, chunks: &Arc<Vec<Chunk>>, plans: &[Arc<FaultPlan>], describe: &Describe) -> usize {
    let clock = ManualClock::at(0);
    let mut plans = plans.iter().cloned();
    let mut again = 0;
    for _ in 0..50 {
        let faults = plans.next().unwrap_or_else(FaultPlan::never);
        let job = match start(builder(dir, &clock).faults(faults.clone()), chunks, describe) {
            Ok(job) => job,
            Err(error) => {
                assert!(faults.has_crashed(), "a start failed without a crash: {error:?}");
                continue;
            }
        };
        again += job.recovery().emitted.len();
        if run_to(&job, &clock, chunks.len() as u64) && job.stop(StopMode::Graceful).is_ok() {
            return again;
        }
        // A job that is told to stop does not wait for space any more.
        let outcome = job.await_termination();
        let full = matches!(&outcome, Err(error) if error.kind() == ErrorKind::DiskFull);
        assert!(full || faults.has_crashed(), "the job ended without a crash: {outcome:?}");
    }
    panic!("the job does not get through");
}

/// Every file below a directory.
pub fn tree(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().to_string_lossy().into_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
    found
}
