//! Recovery: a job is crashed at every step that touches the disk, during recovery too, and twice in a row; what
//! it emits and what it keeps must be what an uninterrupted run and a plain model say, byte for byte.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use cases::cases;
use millpond::testkit::FaultPlan;
use millpond::{
    Clock as _, ErrorKind, Offer, Positions, RangeReader, ReplayableSource, StopMode, StreamingContext,
};
use proptest::prelude::*;
use support::lives::{Life, start_life};
use support::{Chunk, INTERVAL_MS, Run, run_through, steps_of, wait_for_batch};

fn chunk() -> impl Strategy<Value = Chunk> {
    let key = prop_oneof![3 => 0u16..6, 1 => 0u16..2_000];
    prop::collection::vec((key, -5i64..6), 0..40)
}

fn chunks(batches: std::ops::Range<usize>) -> impl Strategy<Value = Arc<Vec<Chunk>>> {
    prop::collection::vec(chunk(), batches).prop_map(Arc::new)
}

fn run() -> impl Strategy<Value = Run> {
    let behind_until = prop_oneof![Just(0), 0u64..20];
    (1usize..4, 1usize..20, 1usize..4, 1u64..7, behind_until).prop_map(
        |(threads, partitions, ranges, checkpoint_every, behind_until)| Run {
            threads,
            partitions,
            ranges,
            checkpoint_every,
            behind_until,
            ..Run::default()
        },
    )
}

/// What the job's operators do, written once more without any of its machinery.
fn model(chunks: &[Chunk]) -> String {
    let mut sums = BTreeMap::<u16, i64>::new();
    let mut peaks = BTreeMap::<u16, i64>::new();
    let mut ages = BTreeMap::<u16, (u32, Vec<i64>)>::new();
    for chunk in chunks {
        let mut touched = BTreeMap::<u16, Vec<i64>>::new();
        for (key, value) in chunk {
            touched.entry(*key).or_default().push(*value);
        }
        for (key, values) in &touched {
            let sum = sums.get(key).copied().unwrap_or(0) + values.iter().sum::<i64>();
            sums.insert(*key, sum);
            if sum == 0 {
                sums.remove(key);
            } else {
                let peak = peaks.entry(*key).or_insert(sum);
                *peak = sum.max(*peak);
            }
        }
        for key in touched.keys() {
            ages.entry(*key).or_default();
        }
        ages.retain(|key, (age, last)| match touched.get(key) {
            Some(values) => {
                *age = 0;
                last.extend(values);
                last.drain(..last.len().saturating_sub(3));
                true
            }
            None => {
                *age += 1;
                *age <= 4
            }
        });
    }
    let mut rows: Vec<String> = Vec::new();
    rows.extend(sums.iter().map(|(key, sum)| format!("sums {key} {sum}")));
    rows.extend(peaks.iter().map(|(key, peak)| format!("peaks {key} {peak}")));
    rows.extend(ages.iter().map(|(key, age)| format!("ages {key} {age:?}")));
    rows.sort();
    rows.join("\n")
}

fn sorted(state: &str) -> String {
    let mut rows: Vec<&str> = state.lines().collect();
    rows.sort_unstable();
    rows.join("\n")
}

proptest! {
    #![proptest_config(cases(24))]

    /// Random jobs and inputs, crashed up to three times at random steps: the first start at one, the start
    /// after it (which recovers) at another, and so on.
    #[test]
    fn crashes_change_nothing(
        chunks in chunks(1..14),
        run in run(),
        crashes in prop::collection::vec(1u64..150, 0..4),
    ) {
        let (emitted, state) = run_through(&chunks, &run, &[]);
        prop_assert_eq!(sorted(&state), model(&chunks));
        prop_assert_eq!(emitted.len(), chunks.len() * 4);
        let plans: Vec<_> = crashes.iter().map(|step| FaultPlan::crash_at(*step)).collect();
        let (emitted_again, state_again) = run_through(&chunks, &run, &plans);
        prop_assert_eq!(emitted_again, emitted);
        prop_assert_eq!(state_again, state);
    }

    /// Neither outputs nor state depend on threads; state does not depend on partitions or ranges either.
    #[test]
    fn threads_and_partitions_change_nothing(chunks in chunks(1..8), one in run(), other in run()) {
        let (emitted, state) = run_through(&chunks, &one, &[]);
        let threads = Run { threads: other.threads, checkpoint_every: other.checkpoint_every, ..one.clone() };
        prop_assert_eq!(run_through(&chunks, &threads, &[]), (emitted, state.clone()));
        prop_assert_eq!(run_through(&chunks, &other, &[]).1, state);
    }
}

fn fixed_chunks() -> Arc<Vec<Chunk>> {
    let chunk = |batch: u16| (0..12u16).map(|n| ((n * 7 + batch * 3) % 10, i64::from(n % 5) - 2)).collect();
    Arc::new((0..6).map(chunk).collect())
}

/// Not a sample: a crash at each disk step of a run with several checkpoints.
#[test]
fn a_crash_at_every_single_step_changes_nothing() {
    let (chunks, run) = (fixed_chunks(), Run { threads: 1, checkpoint_every: 2, ..Run::default() });
    crash_at_every_step(&chunks, &run);
}

/// Where plans are committed with the completion of the batch before.
#[test]
fn a_crash_at_every_single_step_of_a_job_that_is_behind_changes_nothing() {
    let chunks = fixed_chunks();
    let run = Run { threads: 1, checkpoint_every: 4, ..Run::default() };
    let behind = Run { behind_until: chunks.len() as u64, ..run.clone() };
    assert!(steps_of(&chunks, &behind) < steps_of(&chunks, &run), "no plan was committed with a completion");
    assert_eq!(run_through(&chunks, &behind, &[]), run_through(&chunks, &run, &[]));
    crash_at_every_step(&chunks, &behind);
}

/// Where state takes more than its memory, checkpoints are taken early: none may come between a plan and its batch.
#[test]
fn a_crash_at_every_single_step_of_a_job_that_is_behind_and_short_of_memory_changes_nothing() {
    let chunks = fixed_chunks();
    let behind_until = chunks.len() as u64;
    let run = Run { threads: 1, checkpoint_every: 100, behind_until, ..Run::default() };
    crash_at_every_step(&chunks, &Run { state_memory: Some(1 << 10), ..run });
}

fn crash_at_every_step(chunks: &Arc<Vec<Chunk>>, run: &Run) {
    let expected = run_through(chunks, run, &[]);
    let steps = steps_of(chunks, run);
    assert!(steps > 60, "only {steps} steps: the run does not do what it should");
    for step in 1..=steps {
        let crashed = run_through(chunks, run, &[FaultPlan::crash_at(step)]);
        assert_eq!(crashed, expected, "after a crash at step {step} of {steps}");
    }
}

/// A source that panics when it is asked for more than so many chunks.
struct Fragile(support::ScriptedSource, u64);

impl ReplayableSource for Fragile {
    type Item = (u16, i64);

    fn poll(&mut self, positions: &Positions, limit: u64, now_ms: u64) -> millpond::Result<Offer> {
        let at = positions.get("script")?.map_or(0, |position| position.offset >> 32);
        assert!(at < self.1, "no more than {} chunks", self.1);
        self.0.poll(positions, limit, now_ms)
    }

    fn reader(&self) -> Arc<dyn RangeReader<(u16, i64)>> {
        self.0.reader()
    }
}

/// A batch is recorded as done although planning the next one, with which it is committed, fails.
#[test]
fn a_source_that_panics_takes_nothing_from_the_batch_before() {
    let dir = tempfile::tempdir().unwrap();
    let clock = millpond::ManualClock::at(0);
    let sink = support::Sink::default();
    let run = Run { checkpoint_every: 100, behind_until: 6, ..Run::default() };
    let life = Life::with_faults(&run, &FaultPlan::never());
    let start = |most: u64| {
        let describe = |context: &StreamingContext, run: &Run| {
            let source = support::ScriptedSource { chunks: fixed_chunks(), ranges: run.ranges, flaky: false };
            support::emit(&context.replayable_stream("script", Fragile(source, most)), &sink);
        };
        start_life(&dir.path().join("store"), &clock, &life, &describe).unwrap()
    };
    let job = start(3);
    clock.advance(INTERVAL_MS);
    let error = job.await_termination().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UserCode, "{error:?}");
    assert!(error.chain().contains("no more than 3 chunks"), "{error:?}");
    assert_eq!(job.progress().last_batch.map(|(batch, _)| batch.0), Some(3));
    drop(job);
    let job = start(6);
    assert_eq!((job.recovery().replayed.len(), job.recovery().emitted.len()), (3, 0));
}

/// A crash, then a crash at each step of the recovery from it.
#[test]
fn a_crash_at_every_step_of_a_recovery_changes_nothing() {
    let chunks = fixed_chunks();
    for (checkpoint_every, behind_until) in [(2, 0), (4, 6)] {
        let run = Run { threads: 1, checkpoint_every, behind_until, ..Run::default() };
        crash_at_steps_of_recoveries(&chunks, &run);
    }
}

fn crash_at_steps_of_recoveries(chunks: &Arc<Vec<Chunk>>, run: &Run) {
    let expected = run_through(chunks, run, &[]);
    let steps = steps_of(chunks, run);
    for first in [steps / 3, steps / 2, steps - 2] {
        for second in 1..40 {
            let plans =
                [FaultPlan::crash_at(first), FaultPlan::crash_at(second), FaultPlan::crash_at(second + 1)];
            let crashed = run_through(chunks, run, &plans);
            assert_eq!(crashed, expected, "after crashes at steps {first}, {second} and {}", second + 1);
        }
    }
}

/// A disk that is full for a while, at steps all over the run, only makes the job wait: one life runs all batches.
#[test]
fn a_full_disk_is_waited_out() {
    let chunks = fixed_chunks();
    for (checkpoint_every, behind_until) in [(2, 0), (4, 6)] {
        let run = Run { threads: 1, checkpoint_every, behind_until, ..Run::default() };
        fill_the_disk(&chunks, &run);
    }
}

fn fill_the_disk(chunks: &Arc<Vec<Chunk>>, run: &Run) {
    let expected = run_through(chunks, run, &[]);
    let steps = steps_of(chunks, run);
    // The first steps belong to the start, which reports a full disk instead, the last to the stop, which does not
    // wait.
    for first in (40..steps - 4).step_by(7) {
        let (dir, clock, sink) =
            (tempfile::tempdir().unwrap(), millpond::ManualClock::at(0), support::Sink::default());
        let plan = FaultPlan::full_during(first..first + 3);
        let life = Life::with_faults(run, &plan);
        let describe = |context: &StreamingContext, run: &Run| support::describe(context, chunks, run, &sink);
        let job = start_life(&dir.path().join("store"), &clock, &life, &describe).unwrap();
        for batch in 1..=chunks.len() as u64 {
            clock.advance((batch * INTERVAL_MS).saturating_sub(clock.now_ms()));
            assert!(wait_for_batch(&job, batch), "batch {batch}, full from step {first} of {steps}");
        }
        assert_eq!((sink.rows(), support::states(&job)), expected, "full from step {first} of {steps}");
        let stopped = job.stop(StopMode::Graceful);
        assert!(stopped.is_ok() || stopped.is_err_and(|error| error.kind() == ErrorKind::DiskFull));
        assert!(plan.has_failed(), "the disk was never full at step {first} of {steps}");
    }
}

#[test]
fn batch_times_that_passed_while_the_job_was_down_are_not_made_up_for() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let (chunks, run, sink) = (fixed_chunks(), Run::default(), support::Sink::default());
    let clock = millpond::ManualClock::at(0);
    let job = support::start(&store, &clock, &chunks, &run, &sink).unwrap();
    for batch in 1..=2 {
        clock.advance(INTERVAL_MS);
        assert!(wait_for_batch(&job, batch));
    }
    drop(job);
    clock.advance(100 * INTERVAL_MS);
    let job = support::start(&store, &clock, &chunks, &run, &sink).unwrap();
    assert!(wait_for_batch(&job, 3));
    let (batch, time) = job.progress().last_batch.unwrap();
    assert_eq!((batch.0, time.0), (3, 102 * INTERVAL_MS));
}
