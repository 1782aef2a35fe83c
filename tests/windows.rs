//! Windows over batches against a plain model: any lengths, slides and pauses, through restarts, crashes at every
//! step that touches the disk, and changes of everything that may change between runs.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "support/cases.rs"]
mod cases;
mod support;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cases::cases;
use millpond::testkit::FaultPlan;
use millpond::{
    Clock, DStream, ManualClock, Record, Result, RunningContext, StateSpec, StopMode, StreamingContext, Visit,
};
use proptest::prelude::*;
use support::{Chunk, Emitted, Run, ScriptedSource, Sink};

/// How a run works.
#[derive(Clone, Debug)]
struct Setup {
    run: Run,
    interval_ms: u64,
    length_ms: u64,
    slide_ms: u64,
    /// Only one window of each kind, where a test has many runs.
    few: bool,
    /// Only merged windows, where a test has many batches.
    merged: bool,
}

impl Setup {
    fn of(length_ms: u64, slide_ms: u64) -> Self {
        Setup { run: Run::default(), interval_ms: 1_000, length_ms, slide_ms, few: false, merged: false }
    }
}

/// Every windowed operation on one stream of pairs.
fn describe(context: &StreamingContext, chunks: &Arc<Vec<Chunk>>, setup: &Setup, sink: &Sink) {
    let (length, slide) = (Duration::from_millis(setup.length_ms), Duration::from_millis(setup.slide_ms));
    let source = ScriptedSource { chunks: chunks.clone(), ranges: setup.run.ranges, flaky: false };
    let pairs = context.replayable_stream("script", source);
    emit("raw", &pairs, sink);
    let ends = pairs.map_values(|value| (value, value));
    let first_and_last = |a: (i64, i64), b: (i64, i64)| (a.0, b.1);
    emit("ends", &ends.reduce_by_key_and_window("ends", length, slide, first_and_last), sink);
    // Associative but for the last bits, which must be the same in the same job whatever becomes of it.
    let thirds = pairs.map_values(|value| value as f64 / 3.0);
    let sums = thirds.reduce_by_key_and_window("sums", length, slide, |a, b| a + b);
    let bits = sums.map_values(f64::to_bits);
    let to = sink.clone();
    bits.for_each_rdd(move |rdd, info| {
        to.emit(format!("as it comes: sums {:09}", info.time.0), format!("{:?}", rdd.collect()?));
        Ok(())
    });
    if setup.merged {
        return;
    }
    let window = pairs.window("window", length, slide);
    emit("window", &window, sink);
    let lists = pairs.map_values(|value| vec![value]);
    let concat = |mut a: Vec<i64>, b: Vec<i64>| {
        a.extend(b);
        a
    };
    // Takes out of the front what left: a window of lists is only right when batches leave in their order.
    let without = |mut all: Vec<i64>, old: Vec<i64>| {
        assert_eq!(all[..old.len()], old, "left in another order");
        all.split_off(old.len())
    };
    let inverse = lists.reduce_by_key_and_window_with_inverse("inverse", length, slide, concat, without);
    emit("inverse", &inverse, sink);
    if setup.few {
        return;
    }
    emit("window of windows", &window.window("again", 2 * slide, 2 * slide), sink);
    emit("lists", &lists.reduce_by_key_and_window("lists", length, slide, concat), sink);
    emit("groups", &pairs.group_by_key_and_window("groups", length, slide), sink);
    emit("count", &pairs.count_by_window("count", length, slide), sink);
    let keys = pairs.map(|(key, _)| key);
    emit("values", &keys.count_by_value_and_window("values", length, slide), sink);
    let all = lists.map(|(_, value)| value);
    emit("all", &all.reduce_by_window("all", length, slide, concat), sink);
    let all_inverse = all.reduce_by_window_with_inverse("all, inverse", length, slide, concat, without);
    emit("all, inverse", &all_inverse, sink);
    // How many windows there were since each key was first in one.
    let ages = inverse
        .update_state_by_key(StateSpec::named("ages").visit(Visit::All), |_, age: Option<u64>| {
            Some(age.unwrap_or(0) + 1)
        });
    emit("ages", &ages, sink);
    emit("joined", &inverse.join(&ages.map_values(|age| vec![age])), sink);
}

/// Records what a stream has, sorted, and, for runs that must do the same byte for byte, as it comes.
fn emit<T: Record + Debug + Ord>(label: &'static str, stream: &DStream<T>, sink: &Sink) {
    let sink = sink.clone();
    stream.for_each_rdd(move |rdd, info| {
        let mut rows = rdd.collect()?;
        sink.emit(format!("as it comes: {label} {:09}", info.time.0), format!("{rows:?}"));
        // Raw records and lists of values have an order that counts.
        if !matches!(label, "raw" | "window" | "window of windows") {
            rows.sort();
        }
        sink.emit(format!("{label} {:09}", info.time.0), format!("{rows:?}"));
        Ok(())
    });
}

fn start(
    store: &Path,
    clock: &Arc<ManualClock>,
    chunks: &Arc<Vec<Chunk>>,
    setup: &Setup,
    sink: &Sink,
    faults: &Arc<FaultPlan>,
) -> Result<RunningContext> {
    let context = StreamingContext::builder("windows-test")
        .store(store)
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(setup.interval_ms))
        .checkpoint_every_batches(setup.run.checkpoint_every)
        .threads(setup.run.threads)
        .partitions(setup.run.partitions)
        .stop_on_signals(false)
        .faults(faults.clone())
        .build()?;
    describe(&context, chunks, setup, sink);
    context.start()
}

/// Moves the clock to `time` and waits for its batch; `false` when the job ended before.
fn run_to(job: &RunningContext, clock: &ManualClock, time: u64) -> bool {
    clock.advance(time.saturating_sub(clock.now_ms()));
    while job.progress().last_batch.is_none_or(|(_, last)| last.0 < time) {
        if !matches!(job.await_termination_or_timeout(Duration::from_millis(1)), Ok(false)) {
            return false;
        }
    }
    true
}

/// The batches of a run that was never disturbed, as their raw records.
fn raw_batches(emitted: &Emitted, records: &[Chunk]) -> BTreeMap<u64, Chunk> {
    let mut chunks = records.iter();
    let raw = emitted.iter().filter_map(|(key, rows)| Some((key.strip_prefix("raw ")?, rows)));
    raw.map(|(time, rows)| {
        let chunk = if rows == "[]" { Chunk::new() } else { chunks.find(|c| !c.is_empty()).unwrap().clone() };
        assert_eq!(format!("{chunk:?}"), *rows);
        (time.parse().unwrap(), chunk)
    })
    .collect()
}

/// What every operation must have emitted, computed anew for each window from the records of its batches.
fn model(raw: &BTreeMap<u64, Chunk>, setup: &Setup) -> Emitted {
    let mut expected = Emitted::new();
    let mut ages = BTreeMap::<u16, u64>::new();
    let mut pending = Vec::new();
    for (end, chunk) in raw {
        let mut add = |label: &str, rows: String| expected.insert(format!("{label} {end:09}"), rows);
        add("raw", format!("{chunk:?}"));
        if !end.is_multiple_of(setup.slide_ms) {
            continue;
        }
        let records: Vec<(u16, i64)> = raw
            .range(end.saturating_sub(setup.length_ms) + 1..=*end)
            .flat_map(|(_, chunk)| chunk.clone())
            .collect();
        let mut groups = BTreeMap::<u16, Vec<i64>>::new();
        records.iter().for_each(|(key, value)| groups.entry(*key).or_default().push(*value));
        for key in groups.keys() {
            ages.entry(*key).or_default();
        }
        ages.values_mut().for_each(|age| *age += 1);
        let rows: Vec<_> = groups.iter().collect();
        for label in ["lists", "inverse", "groups"] {
            add(label, format!("{rows:?}"));
        }
        let ends = groups.iter().map(|(key, list)| (key, (list[0], list[list.len() - 1])));
        add("ends", format!("{:?}", ends.collect::<Vec<_>>()));
        add("window", format!("{records:?}"));
        add("count", format!("[{}]", records.len()));
        add(
            "values",
            format!("{:?}", groups.iter().map(|(key, list)| (key, list.len())).collect::<Vec<_>>()),
        );
        let all: Vec<i64> = records.iter().map(|(_, value)| *value).collect();
        for label in ["all", "all, inverse"] {
            let some = (!all.is_empty()).then_some(&all);
            add(label, format!("{:?}", some.into_iter().collect::<Vec<_>>()));
        }
        add("ages", format!("{:?}", ages.iter().collect::<Vec<_>>()));
        let joined: Vec<_> = groups.iter().map(|(key, list)| (key, (list, vec![ages[key]]))).collect();
        add("joined", format!("{joined:?}"));
        pending.push((*end, records));
        if end.is_multiple_of(2 * setup.slide_ms) {
            let in_window = |time: u64| time + 2 * setup.slide_ms > *end;
            let nested = pending.iter().filter(|(time, _)| in_window(*time)).flat_map(|(_, records)| records);
            add("window of windows", format!("{:?}", nested.collect::<Vec<_>>()));
        }
    }
    expected
}

/// Without what depends on how many partitions there are.
fn sorted_only(emitted: &Emitted) -> Emitted {
    let kept = emitted.iter().filter(|(key, _)| !key.starts_with("as it comes: "));
    kept.map(|(key, rows)| (key.clone(), rows.clone())).collect()
}

/// Runs through the batch times, starting anew after every crash; the n-th start gets the n-th plan.
fn run_through(chunks: &Arc<Vec<Chunk>>, setup: &Setup, times: &[u64], plans: &[Arc<FaultPlan>]) -> Emitted {
    let dir = tempfile::tempdir().unwrap();
    let (clock, sink) = (ManualClock::at(0), Sink::default());
    let mut plans = plans.iter().cloned();
    let mut left = times.to_vec();
    for _ in 0..50 {
        let faults = plans.next().unwrap_or_else(FaultPlan::never);
        let Ok(job) = start(&dir.path().join("store"), &clock, chunks, setup, &sink, &faults) else {
            assert!(faults.has_crashed(), "a start failed without a crash");
            continue;
        };
        while left.first().is_some_and(|time| run_to(&job, &clock, *time)) {
            left.remove(0);
        }
        if left.is_empty() && job.stop(StopMode::Graceful).is_ok() {
            return sink.rows();
        }
        assert!(faults.has_crashed(), "the job ended without a crash: {:?}", job.await_termination());
    }
    panic!("the job does not get through");
}

fn chunk() -> impl Strategy<Value = Chunk> {
    prop_oneof![1 => Just(Chunk::new()), 3 => prop::collection::vec((0u16..6, -5i64..6), 0..12)]
}

fn chunks(batches: std::ops::Range<usize>) -> impl Strategy<Value = Arc<Vec<Chunk>>> {
    prop::collection::vec(chunk(), batches).prop_map(Arc::new)
}

fn run() -> impl Strategy<Value = Run> {
    (1usize..4, 1usize..20, 1usize..4, 1u64..11).prop_map(
        |(threads, partitions, ranges, checkpoint_every)| Run {
            threads,
            partitions,
            ranges,
            checkpoint_every,
            ..Run::default()
        },
    )
}

/// Batch times with pauses of several intervals in between.
fn times_of(gaps: &[u64], interval_ms: u64) -> Vec<u64> {
    let mut time = 0;
    gaps.iter()
        .map(|gap| {
            time += gap * interval_ms;
            time
        })
        .collect()
}

fn gaps(batches: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(prop_oneof![4 => Just(1u64), 1 => 2u64..9], batches)
}

/// With slides that tumble nothing may be lost, whatever pauses there are: the end of a window is run for itself.
fn assert_nothing_lost(raw: &BTreeMap<u64, Chunk>, setup: &Setup) {
    let last = *raw.keys().next_back().unwrap();
    for (time, _) in raw.iter().filter(|(_, chunk)| !chunk.is_empty()) {
        let end = time.div_ceil(setup.slide_ms) * setup.slide_ms;
        let in_window = *time > end.saturating_sub(setup.length_ms);
        assert!(!in_window || end > last || raw.contains_key(&end), "no window has the records of {time}");
    }
}

proptest! {
    #![proptest_config(cases(24))]

    /// Random lengths, slides, inputs and pauses.
    #[test]
    fn windows_hold_what_the_model_says(
        chunks in chunks(1..16),
        run in run(),
        (length, slide) in (1u64..8, 1u64..6),
        gaps in gaps(4..16),
    ) {
        let setup = Setup { run, ..Setup::of(length * 1_000, slide * 1_000) };
        let emitted = run_through(&chunks, &setup, &times_of(&gaps, 1_000), &[]);
        let raw = raw_batches(&emitted, &chunks);
        assert_nothing_lost(&raw, &setup);
        prop_assert_eq!(sorted_only(&emitted), model(&raw, &setup));
    }

    /// Stopped in either way after some batches, and started with other threads, partitions, checkpoint
    /// intervals and another batch interval: windows stay what the model says.
    #[test]
    fn windows_survive_restarts_with_another_setup(
        chunks in chunks(1..16),
        (length, slide) in (1u64..4, 1u64..3),
        runs in prop::collection::vec((run(), prop::sample::select(vec![500u64, 1_000, 2_000]), gaps(1..5), any::<bool>()), 1..6),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (clock, sink) = (ManualClock::at(0), Sink::default());
        let setup = Setup::of(length * 2_000, slide * 2_000);
        for (run, interval_ms, gaps, graceful) in runs {
            // Ranges are how the source reads, which is up to it.
            let run = Run { ranges: 2, ..run };
            let setup = Setup { run, interval_ms, ..setup.clone() };
            let job = start(&dir.path().join("store"), &clock, &chunks, &setup, &sink, &FaultPlan::never()).unwrap();
            for gap in gaps {
                let now = clock.now_ms();
                prop_assert!(run_to(&job, &clock, now - now % interval_ms + gap * interval_ms));
            }
            if graceful {
                job.stop(StopMode::Graceful).unwrap();
            }
        }
        let emitted = sink.rows();
        let raw = raw_batches(&emitted, &chunks);
        assert_nothing_lost(&raw, &setup);
        prop_assert_eq!(sorted_only(&emitted), model(&raw, &setup));
    }

    /// Up to three crashes at random steps, of batches and of recoveries.
    #[test]
    fn crashes_change_nothing(
        chunks in chunks(1..10),
        run in run(),
        (length, slide) in (1u64..6, 1u64..4),
        gaps in gaps(2..10),
        crashes in prop::collection::vec(1u64..150, 1..4),
    ) {
        let setup = Setup { run, ..Setup::of(length * 1_000, slide * 1_000) };
        let times = times_of(&gaps, 1_000);
        let expected = run_through(&chunks, &setup, &times, &[]);
        let plans: Vec<_> = crashes.iter().map(|step| FaultPlan::crash_at(*step)).collect();
        prop_assert_eq!(run_through(&chunks, &setup, &times, &plans), expected);
    }
}

proptest! {
    #![proptest_config(cases(12))]

    /// So long that there are partial aggregates of several levels, with pauses, and a crash somewhere.
    #[test]
    fn long_windows_are_merged_from_parts(
        chunks in chunks(20..50),
        run in run(),
        (length, slide) in (4u64..40, 1u64..5),
        gaps in gaps(30..60),
        crash in 100u64..700,
    ) {
        let setup = Setup { run, merged: true, ..Setup::of(length * 1_000, slide * 1_000) };
        let times = times_of(&gaps, 1_000);
        let expected = run_through(&chunks, &setup, &times, &[]);
        let raw = raw_batches(&expected, &chunks);
        assert_nothing_lost(&raw, &setup);
        let mut by_model = model(&raw, &setup);
        by_model.retain(|key, _| ["raw ", "ends "].iter().any(|kept| key.starts_with(kept)));
        prop_assert_eq!(sorted_only(&expected), by_model);
        let crashed = run_through(&chunks, &setup, &times, &[FaultPlan::crash_at(crash)]);
        prop_assert_eq!(crashed, expected);
    }
}

fn fixed_chunks() -> Arc<Vec<Chunk>> {
    let chunk = |batch: u16| (0..6u16).map(|n| ((n * 7 + batch * 3) % 5, i64::from(n % 5) - 2)).collect();
    Arc::new((0..5).map(chunk).collect())
}

/// Not a sample: a crash at each disk step of a run with several checkpoints, windows and a pause.
#[test]
fn a_crash_at_every_single_step_changes_nothing() {
    let (chunks, times) = (fixed_chunks(), [1_000, 2_000, 3_000, 7_000, 8_000]);
    let run = Run { threads: 1, checkpoint_every: 2, ..Run::default() };
    let setup = Setup { run, few: true, ..Setup::of(3_000, 2_000) };
    let never = FaultPlan::never();
    let expected = run_through(&chunks, &setup, &times, std::slice::from_ref(&never));
    let raw = raw_batches(&expected, &chunks);
    assert!(raw.contains_key(&4_000), "a window that ended in the pause");
    let mut by_model = model(&raw, &setup);
    by_model
        .retain(|key, _| ["raw ", "ends ", "window 0", "inverse "].iter().any(|kept| key.starts_with(kept)));
    assert_eq!(sorted_only(&expected), by_model);
    let steps = never.steps();
    assert!(steps > 40, "only {steps} steps: the run does not do what it should");
    for step in 1..=steps {
        let crashed = run_through(&chunks, &setup, &times, &[FaultPlan::crash_at(step)]);
        assert_eq!(crashed, expected, "after a crash at step {step} of {steps}");
    }
}
