//! Conformance: every operation goes through the same torture, and one that does not fails the build.
//!
//! A **row** (`rows/*.rs`) names the methods it is the test of, uses them in a job, and says by plain code what
//! every batch must then have. Rows share jobs: they stand side by side over the same input. Every job is run
//!
//! * on random inputs, with empty batches, one hot key, many distinct keys and duplicates;
//! * on 1 to 4 threads, 1 to 20 partitions, with a checkpoint after every 1 to 10 batches, and with too little memory
//!   for its state;
//! * crashed at every single step on the disk, and at random steps of several lives in a row;
//! * with tasks that fail half-way and are tried again;
//! * stopped, gracefully and at once, and started again with other threads and partitions.
//!
//! Each time every batch must be what the oracle says; whatever is emitted again must be the same again under the
//! same key; and a run on the same partitions must give the same order, record by record, disturbed or not.
//!
//! # Adding a row
//! Put a `Row` into the table of a file in `rows/` (a new file is declared in `rows/mod.rs`):
//!
//! ```ignore
//! Row {
//!     name: "distinct",
//!     covers: &["DStream::distinct", "Rdd::distinct"],
//!     describe: |job| {
//!         job.emit(&job.left.distinct(), BY_HASH);
//!         job.emit(&job.left.transform(|rdd, _| Ok(rdd.distinct())), BY_HASH);
//!     },
//!     oracle: |input, expected| {
//!         let distinct = |batch: &Vec<Pair>| batch.iter().copied().collect::<BTreeSet<_>>();
//!         expected.emit(input.left.iter().map(distinct));
//!         expected.emit(input.left.iter().map(distinct));
//!     },
//! },
//! ```
//!
//! `describe` may read `job.left`, `job.right` and `job.events` (with event times); what it emits is compared with
//! what the oracle emits, stream by stream in the same order. Say `Order::Exact` wherever the documentation promises
//! an order. A stateful operator's final state is compared too: `job.keeps::<K, S>("name")` and
//! `expected.state("name", pairs)`, or only the number of its keys where the types are the operator's own. A stream
//! that takes no part in some batches is expected with `expected.emit_some`. `job.context` makes what is no stream,
//! `job.outside` keeps something that no crash touches. `job.act` compares what an action returns, `job.collector` what an output
//! operation of its own is given, `job.emitted_outside` what one left in `job.dir`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "testkit", feature = "tool"))]

#[path = "../support/cases.rs"]
mod cases;
mod coverage;
#[path = "../event_time/model.rs"]
mod event_time_model;
#[path = "../support/lives.rs"]
mod lives;
mod rows;
#[path = "../support/source_text.rs"]
mod source_text;
mod suite;

use cases::cases;
use lives::{Life, Run};
use millpond::StopMode;
use millpond::testkit::FaultPlan;
use proptest::prelude::*;
use suite::{Input, Outcome, Pair, Row, compare_outcomes, keeps_state, run_and_check};

/// So many rows with state share a job: each adds steps on the disk, and so runs of the whole job.
const STATEFUL_ROWS_PER_JOB: usize = 4;

/// So many crashed jobs run at a time: each mostly waits for the one thread that computes it.
const CRASHING_THREADS: usize = 3;

/// Whether a row is about RDDs alone, which nothing of an earlier batch can reach.
fn stays_in_a_batch(row: &Row) -> bool {
    row.covers.iter().all(|covered| covered.starts_with("Rdd::") || covered.starts_with("FallibleRdd::"))
}

/// All rows, shared out to jobs: one for those about RDDs, one for the others without state, which add no steps.
fn jobs() -> Vec<Vec<&'static Row>> {
    let (stateful, stateless): (Vec<_>, Vec<_>) = rows::all().into_iter().partition(|row| keeps_state(row));
    let (of_rdds, others): (Vec<_>, Vec<_>) = stateless.into_iter().partition(|row| stays_in_a_batch(row));
    let stateful = stateful.chunks(STATEFUL_ROWS_PER_JOB).map(<[_]>::to_vec);
    [of_rdds, others].into_iter().chain(stateful).collect()
}

fn batch() -> impl Strategy<Value = Vec<Pair>> {
    let of_keys = |keys: std::ops::Range<u16>, size| prop::collection::vec((keys, -5i64..6), size);
    let twice = |batch: Vec<Pair>| [batch.clone(), batch].concat();
    prop_oneof![
        1 => Just(Vec::new()),
        2 => of_keys(7..8, 1..30),
        3 => of_keys(0..6, 0..30),
        2 => of_keys(0..u16::MAX, 0..60),
        1 => of_keys(0..30, 1..15).prop_map(twice),
    ]
}

fn input(batches: std::ops::Range<usize>) -> impl Strategy<Value = Input> {
    let batch = (batch(), batch(), prop::collection::vec(0u64..5_000, 60));
    (prop::collection::vec(batch, batches), 1usize..4).prop_map(|(batches, ranges)| {
        let mut input = Input { left: Vec::new(), right: Vec::new(), times: Vec::new(), ranges };
        for (index, (left, right, offsets)) in batches.into_iter().enumerate() {
            let time = |offset: &u64| (Input::batch_time(index) + offset).saturating_sub(4_000);
            input.times.push(offsets[..left.len()].iter().map(time).collect());
            input.left.push(left);
            input.right.push(right);
        }
        input
    })
}

fn run() -> impl Strategy<Value = Run> {
    // Without a limit, with one that nothing fits, and with some that are passed now and then.
    let state_memory = prop_oneof![Just(None), Just(Some(1 << 10)), (1u64 << 10..128 << 10).prop_map(Some)];
    (1usize..5, 1usize..21, 1u64..11, any::<bool>(), state_memory).prop_map(
        |(threads, partitions, checkpoint_every, flaky, state_memory)| Run {
            threads,
            partitions,
            checkpoint_every,
            flaky,
            state_memory,
            ..Run::default()
        },
    )
}

/// A life before it is lived.
#[derive(Clone, Debug)]
struct Fate {
    run: Run,
    crash_at: Option<u64>,
    stop: Option<(u64, StopMode)>,
}

impl Fate {
    fn life(&self) -> Life {
        let faults = self.crash_at.map_or_else(FaultPlan::never, FaultPlan::crash_at);
        Life { run: self.run.clone(), faults, stop: self.stop }
    }
}

fn fate() -> impl Strategy<Value = Fate> {
    let stop = (1u64..12, prop_oneof![Just(StopMode::Graceful), Just(StopMode::Now)]);
    let crash =
        prop_oneof![1 => Just(None), 3 => (1u64..80).prop_map(Some), 2 => (80u64..300).prop_map(Some)];
    let fate = |(run, crash_at, stop)| Fate { run, crash_at, stop };
    (run(), crash, prop::option::of(stop)).prop_map(fate)
}

/// A small input with every kind of batch.
fn fixed_input(batches: u16) -> Input {
    let pair = |batch: u16, n: u16| match batch % 4 {
        3 => (batch * 100 + n, i64::from(n)),
        _ => ((n * 7 + batch * 3) % 10, i64::from(n % 5) - 2),
    };
    let records =
        |batch: u16, size: u16| (0..if batch % 5 == 2 { 0 } else { size }).map(move |n| pair(batch, n));
    let left: Vec<Vec<Pair>> = (0..batches).map(|batch| records(batch, 12).collect()).collect();
    let time = |index: usize, n: usize| (Input::batch_time(index) + n as u64 * 700).saturating_sub(3_000);
    let times =
        left.iter().enumerate().map(|(index, batch)| (0..batch.len()).map(|n| time(index, n)).collect());
    let right = (0..batches).map(|batch| records(batch + 1, 8).collect()).collect();
    Input { times: times.collect(), left, right, ranges: 2 }
}

/// Fails with what `tortured` found, and what was done.
fn hold<T>(tortured: Result<T, String>, done: &str) -> T {
    tortured.unwrap_or_else(|found| panic!("{found}\n  in: {done}"))
}

#[test]
fn threads_change_nothing() {
    for job in jobs() {
        let input = fixed_input(6);
        let one = Run { threads: 1, ..Run::default() };
        let expected = hold(run_and_check(&job, &input, &[], &one), &format!("{one:?}"));
        for threads in 2..=4 {
            let run = Run { threads, ..Run::default() };
            let found = run_and_check(&job, &input, &[], &run);
            hold(found.and_then(|found| compare_outcomes(&expected, &found)), &format!("{run:?}"));
        }
    }
}

/// What does not fit into memory is read from the store, whatever threads do meanwhile.
#[test]
fn too_little_memory_changes_nothing() {
    for job in jobs() {
        let input = fixed_input(9);
        let expected = hold(run_and_check(&job, &input, &[], &Run::default()), "no limit");
        for (threads, bytes) in [(1, 1 << 10), (2, 1 << 10), (3, 48 << 10)] {
            let run = Run { threads, state_memory: Some(bytes), ..Run::default() };
            let found = run_and_check(&job, &input, &[], &run);
            hold(found.and_then(|found| compare_outcomes(&expected, &found)), &format!("{run:?}"));
        }
    }
}

/// A task that fails is tried again: nothing of its first attempt may be left anywhere.
#[test]
fn failing_tasks_change_nothing() {
    for job in jobs() {
        let input = fixed_input(6);
        let expected = hold(run_and_check(&job, &input, &[], &Run::default()), "no failures");
        let run = Run { flaky: true, ..Run::default() };
        let found = run_and_check(&job, &input, &[], &run);
        hold(found.and_then(|found| compare_outcomes(&expected, &found)), &format!("{run:?}"));
    }
}

#[test]
fn partitions_and_checkpoints_change_nothing() {
    for job in jobs() {
        for partitions in 1..=20 {
            let run = Run { partitions, checkpoint_every: 1 + partitions as u64 % 10, ..Run::default() };
            hold(run_and_check(&job, &fixed_input(11), &[], &run), &format!("{run:?}"));
        }
    }
}

/// Runs the job crashed at each of these steps of its first life.
fn crash_at_each(
    steps: impl Iterator<Item = u64>,
    job: &[&Row],
    input: &Input,
    run: &Run,
    expected: &Outcome,
) -> Result<(), String> {
    for step in steps {
        let crashed = Life::with_faults(run, &FaultPlan::crash_at(step));
        let found = run_and_check(job, input, &[crashed], run);
        found
            .and_then(|found| compare_outcomes(expected, &found))
            .map_err(|found| format!("{found}\n  in: {run:?}, a crash at disk step {step}"))?;
    }
    Ok(())
}

#[test]
fn a_crash_at_every_single_step_changes_nothing() {
    let run = Run { threads: 1, checkpoint_every: 2, ..Run::default() };
    for job in jobs() {
        let input = fixed_input(if job.iter().all(|row| stays_in_a_batch(row)) { 3 } else { 4 });
        let counting = FaultPlan::never();
        let whole = run_and_check(&job, &input, &[Life::with_faults(&run, &counting)], &run);
        let expected = hold(whole, "no crash");
        let steps = counting.steps();
        assert!(steps > 40, "only {steps} steps: the run does not do what it should");
        std::thread::scope(|scope| {
            let share = |first: u64| {
                let (job, input, run, expected) = (&job, &input, &run, &expected);
                let steps = (first..=steps).step_by(CRASHING_THREADS);
                scope.spawn(move || crash_at_each(steps, job, input, run, expected))
            };
            let shares: Vec<_> = (1..=CRASHING_THREADS as u64).map(share).collect();
            let names: Vec<_> = job.iter().map(|row| row.name).collect();
            shares.into_iter().for_each(|share| hold(share.join().unwrap(), &format!("a job of {names:?}")));
        });
    }
}

#[test]
fn other_threads_and_partitions_after_a_restart_change_nothing() {
    for job in jobs() {
        for stop in [StopMode::Graceful, StopMode::Now] {
            for (after, partitions, then) in [(2, 3, 20), (3, 16, 1), (4, 1, 7), (5, 7, 8)] {
                let run = Run { partitions, ..Run::default() };
                let life = Life { run, faults: FaultPlan::never(), stop: Some((after, stop)) };
                let last = Run { partitions: then, threads: 3, ..Run::default() };
                let done = format!("{life:?}, then {last:?}");
                hold(run_and_check(&job, &fixed_input(8), &[life], &last), &done);
            }
        }
    }
}

proptest! {
    #![proptest_config(cases(10))]

    /// Random inputs and lives: crashed, stopped, and started again with other threads and partitions.
    #[test]
    fn random_inputs_and_lives_end_as_the_oracles_say(
        input in input(1..12),
        fates in prop::collection::vec(fate(), 0..4),
        last in run(),
    ) {
        for job in jobs() {
            let lives: Vec<Life> = fates.iter().map(Fate::life).collect();
            let found = run_and_check(&job, &input, &lives, &last);
            prop_assert!(found.is_ok(), "{}\n  in: {fates:?}, then {last:?}", found.unwrap_err());
        }
    }
}
