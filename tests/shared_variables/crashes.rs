//! A job with every kind of shared variable, crashed at every step that touches the disk.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond::testkit::FaultPlan;
use millpond::{
    Accumulator, Broadcast, Clock, ManualClock, Reload, Result, RunningContext, StopMode, StreamingContext,
};

use crate::support::{Chunk, Emitted, INTERVAL_MS, ScriptedSource, Sink, wait_for_batch};
use crate::{Flaky, sum};

/// The job of the crash tests: it adds wherever one can add, reads the broadcast wherever one can read it, and
/// joins rows that change with every second batch.
struct Shared {
    rule: Broadcast<i64>,
    count: Accumulator<u64>,
}

fn describe(
    context: &StreamingContext,
    chunks: &Arc<Vec<Chunk>>,
    clock: &Arc<ManualClock>,
    sink: &Sink,
    flaky: &Flaky,
) -> Shared {
    let pairs = context
        .replayable_stream("script", ScriptedSource { chunks: chunks.clone(), ranges: 2, flaky: false });
    let odd = Reload::when(|time| time.0 / INTERVAL_MS % 2 == 1);
    let now = clock.clone();
    let prices = context.dataset("prices", odd, move || {
        let version = now.now_ms() / INTERVAL_MS;
        let rows = (0..9u16).filter(|key| u64::from(*key) != version % 9);
        Ok(rows.map(|key| (key, u64::from(key) * 100 + if key % 3 == 0 { version } else { 0 })).collect())
    });
    let count = context.accumulator("count", 0u64, sum);
    let rule = context.broadcast("rule", -1i64);
    let (scale, mapped, updated) = (rule.clone(), count.clone(), count.clone());
    let scaled = pairs.map(move |(key, value)| {
        mapped.add(1);
        (key, value * *scale.value())
    });
    let (late, fails) = (rule.clone(), flaky.clone());
    let totals =
        scaled.left_join_dataset(&prices).update_state_by_key("totals", move |new, total: Option<i64>| {
            updated.add(1_000);
            let price = |row: &(i64, Option<u64>)| row.0 + row.1.map_or(7, |price| price as i64);
            fails.call("update", *late.value() as u64, 1);
            Some(total.unwrap_or(0) + new.iter().map(price).sum::<i64>())
        });
    let (rows, value, added, fails) = (sink.clone(), rule.clone(), count.clone(), flaky.clone());
    totals.for_each_rdd(move |rdd, info| {
        added.add(1_000_000);
        let (lazily, value) = (added.clone(), value.clone());
        let lazy = rdd.map(move |row| {
            lazily.add(1_000_000_000);
            (row, *value.value())
        });
        lazy.take(1)?;
        let seen = format!("{:?} before {}", lazy.collect()?, added.value());
        fails.call("output", info.batch.0, 1);
        rows.emit(info.idempotency_key(), seen);
        Ok(())
    });
    let rows = sink.clone();
    scaled.join_dataset(&prices).for_each_rdd(move |rdd, info| {
        rows.emit(info.idempotency_key(), format!("{:?}", rdd.collect()?));
        Ok(())
    });
    Shared { rule, count }
}

fn state_of(job: &RunningContext, shared: &Shared) -> String {
    let mut all = format!("count {} rule {}\n", shared.count.value(), shared.rule.value());
    let mut add = |row: String| all.push_str(&row);
    let totals = job.state::<u16, i64>("totals").unwrap();
    totals.for_each(|key, total| add(format!("total {key} {total}\n"))).unwrap();
    let prices = job.state::<u16, u64>("dataset prices").unwrap();
    prices.for_each(|key, price| add(format!("price {key} {price}\n"))).unwrap();
    let count = job.state::<(), u64>("accumulator count").unwrap();
    assert_eq!(count.get(&()).unwrap().unwrap_or(0), shared.count.value());
    all
}

fn start(
    store: &Path,
    clock: &Arc<ManualClock>,
    chunks: &Arc<Vec<Chunk>>,
    sink: &Sink,
    flaky: &Flaky,
    faults: &Arc<FaultPlan>,
) -> Result<(RunningContext, Shared)> {
    let context = StreamingContext::builder("shared")
        .store(store)
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(INTERVAL_MS))
        .checkpoint_every_batches(2)
        .threads(1)
        .partitions(3)
        .stop_on_signals(false)
        .faults(faults.clone())
        .build()?;
    let shared = describe(&context, chunks, clock, sink, flaky);
    Ok((context.start()?, shared))
}

/// Runs the job over all chunks, the rule set to the number of each batch, and starts it anew after crashes.
fn run_through(chunks: &Arc<Vec<Chunk>>, plans: &[Arc<FaultPlan>]) -> (Emitted, String) {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let (sink, flaky) = (Sink::default(), Flaky::default());
    let mut plans = plans.iter().cloned();
    let mut updated = 0;
    loop {
        let faults = plans.next().unwrap_or_else(FaultPlan::never);
        let started = start(&dir.path().join("store"), &clock, chunks, &sink, &flaky, &faults);
        let Ok((job, shared)) = started else {
            assert!(faults.has_crashed(), "a start failed without a crash: {:?}", started.map(|_| ()));
            continue;
        };
        let done = || job.progress().last_batch.map_or(0, |(last, _)| last.0);
        let mut alive = true;
        while alive && done() < chunks.len() as u64 {
            let batch = done() + 1;
            // The batch is due only once its update is durable, and might run at once after a crash.
            alive = updated == batch || shared.rule.update(batch as i64).is_ok();
            if alive {
                updated = batch;
                clock.advance((batch * INTERVAL_MS).saturating_sub(clock.now_ms()));
                alive = wait_for_batch(&job, batch);
            }
        }
        if alive && job.stop(StopMode::Graceful).is_ok() {
            return (sink.rows(), state_of(&job, &shared));
        }
        drop(job.stop(StopMode::Now));
        assert!(faults.has_crashed(), "the job ended without a crash: {:?}", job.await_termination());
    }
}

fn fixed_chunks() -> Arc<Vec<Chunk>> {
    let chunk = |batch: u16| (0..12u16).map(|n| ((n * 7 + batch * 3) % 10, i64::from(n % 5) - 2)).collect();
    Arc::new((0..5).map(chunk).collect())
}

/// What the variables are after an uninterrupted run, from the chunks alone.
#[test]
fn an_uninterrupted_run_counts_what_there_is() {
    let chunks = fixed_chunks();
    let (emitted, state) = run_through(&chunks, &[]);
    assert_eq!(emitted.len(), 2 * chunks.len());
    let keys: usize = chunks
        .iter()
        .map(|chunk| {
            let keys: BTreeSet<_> = chunk.iter().map(|(key, _)| key).collect();
            keys.len()
        })
        .sum();
    let records: usize = chunks.iter().map(Vec::len).sum();
    let count = records + keys * 1_000 + chunks.len() * 1_000_000 + keys * 1_000_000_000;
    assert!(state.starts_with(&format!("count {count} rule {}\n", chunks.len())), "{state}");
    assert!(!state.contains("price 5 ") && state.contains("price 3 305\n"), "{state}");
}

/// Not a sample: a crash at each disk step of a run with several checkpoints.
#[test]
fn a_crash_at_every_single_step_changes_nothing() {
    let chunks = fixed_chunks();
    let expected = run_through(&chunks, &[]);
    let plan = FaultPlan::never();
    run_through(&chunks, std::slice::from_ref(&plan));
    let steps = plan.steps();
    assert!(steps > 60, "only {steps} steps: the run does not do what it should");
    for step in 1..=steps {
        let crashed = run_through(&chunks, &[FaultPlan::crash_at(step)]);
        assert_eq!(crashed, expected, "after a crash at step {step} of {steps}");
    }
}

/// A crash, then crashes at each step of the recovery from it.
#[test]
fn a_crash_at_every_step_of_a_recovery_changes_nothing() {
    let chunks = fixed_chunks();
    let expected = run_through(&chunks, &[]);
    let plan = FaultPlan::never();
    run_through(&chunks, std::slice::from_ref(&plan));
    for first in [plan.steps() / 3, plan.steps() / 2, plan.steps() - 2] {
        for second in 1..40 {
            let crashes = [first, second, second + 1].map(FaultPlan::crash_at);
            let crashed = run_through(&chunks, &crashes);
            assert_eq!(crashed, expected, "after crashes at steps {first}, {second} and {}", second + 1);
        }
    }
}
