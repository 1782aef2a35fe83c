//! Operators in event time against plain models, over restarts, crashes, threads and partitions.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "support/cases.rs"]
mod cases;
#[path = "event_time/edges.rs"]
mod edges;
#[path = "event_time/model.rs"]
mod model;
mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cases::cases;
use millpond::testkit::FaultPlan;
use millpond::{
    DStream, EventStream, EventWindows, ManualClock, Result, RunningContext, StopMode, StreamingContext,
    Timer, Watermarks,
};
use model::{Chunk, Emitted, FLUSH, Shape, time_of};
use proptest::prelude::*;
use support::{INTERVAL_MS, Run, ScriptedSource, Sink, wait_for_batch};

type Pairs = EventStream<(u16, i64)>;

/// The two inputs of a job, batch by batch.
#[derive(Clone, Debug)]
struct Inputs {
    left: Arc<Vec<Chunk>>,
    right: Arc<Vec<Chunk>>,
}

const STATES: [&str; 9] = [
    "tumbling",
    "sliding",
    "tumbling-text",
    "sliding-text",
    "session",
    "unique",
    "unique-value",
    "join",
    "timers",
];

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn emit<T: millpond::Record + std::fmt::Debug>(stream: &DStream<T>, label: &'static str, sink: &Sink) {
    let sink = sink.clone();
    stream.for_each_rdd(move |rdd, info| {
        let rows: Vec<String> = rdd.collect()?.iter().map(|row| format!("{row:?}")).collect();
        sink.emit(format!("{label} {:04}", info.batch.0), rows.join("\n"));
        Ok(())
    });
}

fn event_stream(
    context: &StreamingContext,
    name: &str,
    chunks: &Arc<Vec<Chunk>>,
    run: &Run,
    shape: &Shape,
) -> Pairs {
    let source = ScriptedSource { chunks: chunks.clone(), ranges: run.ranges, flaky: false };
    let watermarks =
        Watermarks::bounded(name, ms(shape.bound)).idle_after(ms(shape.idle_after * INTERVAL_MS));
    let records = context.replayable_stream(name, source);
    // What flushes at the end moves the watermark and is no record of any operator.
    records.with_event_time(watermarks, |(_, value)| time_of(*value)).filter(|(key, _)| *key != FLUSH)
}

/// A job with every operator.
fn describe(context: &StreamingContext, inputs: &Inputs, run: &Run, shape: &Shape, sink: &Sink) {
    let left = event_stream(context, "left", &inputs.left, run, shape);
    let right = event_stream(context, "right", &inputs.right, run, shape);
    let both = left.union("both", &right);
    emit(&left.watermarks(), "watermark-left", sink);
    emit(&right.watermarks(), "watermark-right", sink);
    emit(&both.watermarks(), "watermark-both", sink);
    describe_windows(&both, shape, sink);
    describe_windows_of_text(&both, shape, sink);

    let unique = both.deduplicate("unique", ms(shape.within));
    emit(&unique.with_times(), "unique", sink);
    emit(&unique.late(), "unique-late", sink);
    let unique = both.map(|(_, value)| value).deduplicate_by("unique-value", ms(shape.within), |v| v % 7);
    emit(&unique.records(), "unique-value", sink);

    let joined = left.interval_join("join", &right, shape.bounds.0..=shape.bounds.1);
    emit(&joined.with_times(), "join", sink);
    emit(&joined.unpaired_left(), "join-unpaired-left", sink);
    emit(&joined.unpaired_right(), "join-unpaired-right", sink);
    emit(&joined.late_left(), "join-late-left", sink);
    emit(&joined.late_right(), "join-late-right", sink);

    let wait = shape.gap;
    let timers = both.transform_with_state("timers", move |key, values: &[(u64, i64)]| {
        let mut count = key.take().unwrap_or(0u64);
        if !key.due().is_empty() {
            key.emit((*key.key(), count));
            count = 0;
        }
        for (time_ms, _) in values {
            if key.is_late(*time_ms) {
                continue;
            }
            if count == 0 {
                key.set_timer(Timer::EventTime(time_ms + wait));
            }
            count += 1;
        }
        if count > 0 {
            key.update(count);
        }
    });
    emit(&timers, "timers", sink);
}

fn describe_windows(both: &Pairs, shape: &Shape, sink: &Sink) {
    let windows = EventWindows::tumbling(ms(shape.size)).offset(ms(shape.offset));
    let tumbling = both.window("tumbling", windows.allowed_lateness(ms(shape.lateness))).collect();
    emit(&tumbling.results(), "tumbling", sink);
    emit(&tumbling.late(), "tumbling-late", sink);
    let windows = EventWindows::sliding(ms(shape.size), ms(shape.slide)).offset(ms(shape.offset));
    let sliding = both.window("sliding", windows.allowed_lateness(ms(shape.lateness))).aggregate(
        (0u64, 0i64),
        |(count, sum), value| (count + 1, sum + value),
        |a, b| (a.0 + b.0, a.1 + b.1),
    );
    emit(&sliding.results(), "sliding", sink);
    emit(&sliding.late(), "sliding-late", sink);
    let windows = EventWindows::session(ms(shape.gap)).allowed_lateness(ms(shape.lateness));
    let session = both.window("session", windows).collect();
    emit(&session.results(), "session", sink);
    emit(&session.late(), "session-late", sink);
}

/// Functions that are associative only.
fn describe_windows_of_text(both: &Pairs, shape: &Shape, sink: &Sink) {
    let texts = both.map_values(|value| format!("{value},"));
    let windows = EventWindows::tumbling(ms(shape.size)).offset(ms(shape.offset));
    let tumbling =
        texts.window("tumbling-text", windows.allowed_lateness(ms(shape.lateness))).reduce(|a, b| a + &b);
    emit(&tumbling.results(), "tumbling-text", sink);
    emit(
        &tumbling.late().map(|(time_ms, (key, text))| (time_ms, (key, number(&text)))),
        "tumbling-text-late",
        sink,
    );
    let windows = EventWindows::sliding(ms(shape.size), ms(shape.slide)).offset(ms(shape.offset));
    let sliding = both.window("sliding-text", windows.allowed_lateness(ms(shape.lateness))).aggregate(
        String::new(),
        |text, value| format!("{text}{value},"),
        |a, b| a + &b,
    );
    emit(&sliding.results(), "sliding-text", sink);
    emit(&sliding.late(), "sliding-text-late", sink);
}

fn number(text: &str) -> i64 {
    text.trim_end_matches(',').parse().unwrap()
}

/// Runs the job over all batches: anew after every crash, with the n-th start's plan, and before each batch that
/// `restarts` says yes to.
fn run_through(
    inputs: &Inputs,
    run: &Run,
    shape: &Shape,
    plans: &[Arc<FaultPlan>],
    restarts: impl Fn(u64) -> bool,
) -> Emitted {
    let dir = tempfile::tempdir().unwrap();
    let (clock, sink) = (ManualClock::at(0), Sink::default());
    let start = |faults: &Arc<FaultPlan>| -> Result<RunningContext> {
        let context = StreamingContext::builder("event-time")
            .store(dir.path().join("store"))
            .clock(clock.clone())
            .batch_interval(ms(INTERVAL_MS))
            .checkpoint_every_batches(run.checkpoint_every)
            .threads(run.threads)
            .partitions(run.partitions)
            .stop_on_signals(false)
            .faults(faults.clone())
            .build()?;
        describe(&context, inputs, run, shape, &sink);
        context.start()
    };
    let (batches, mut restarted) = (inputs.left.len() as u64, 0);
    let mut plans = plans.iter().cloned();
    for _ in 0..100 {
        let faults = plans.next().unwrap_or_else(FaultPlan::never);
        let Ok(job) = start(&faults) else {
            assert!(faults.has_crashed(), "a start failed without a crash");
            continue;
        };
        let mut alive = true;
        loop {
            let batch = job.progress().last_batch.map_or(0, |(last, _)| last.0) + 1;
            if !alive || batch > batches || (batch > restarted && restarts(batch)) {
                restarted = batch;
                break;
            }
            let due = batch * INTERVAL_MS;
            clock.advance(due.saturating_sub(millpond::Clock::now_ms(&*clock)));
            alive = wait_for_batch(&job, batch);
        }
        let is_through = alive && job.progress().last_batch.is_some_and(|(last, _)| last.0 == batches);
        if is_through && job.stop(StopMode::Graceful).is_ok() {
            assert_nothing_is_left(&job);
            return sink.rows();
        }
        drop(job);
    }
    panic!("the job does not get through");
}

fn assert_nothing_is_left(job: &RunningContext) {
    for state in STATES {
        assert_eq!(job.keys_in_state(state).unwrap(), 0, "`{state}` left something behind");
    }
}

fn sorted(emitted: &Emitted) -> Emitted {
    let sort = |rows: &String| {
        let mut rows: Vec<&str> = rows.lines().collect();
        rows.sort_unstable();
        rows.join("\n")
    };
    emitted.iter().map(|(key, rows)| (key.clone(), sort(rows))).collect()
}

fn assert_same(found: &Emitted, expected: &Emitted) {
    let (found, expected) = (sorted(found), sorted(expected));
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (key, rows) in &expected {
        assert_eq!(&found[key], rows, "{key}");
    }
}

/// Batches whose times go up by 20 ms each, with records out of order and late, and pauses.
fn chunks(batches: usize) -> impl Strategy<Value = Arc<Vec<Chunk>>> {
    let record = (0u16..4, -70i64..20);
    let chunk = prop_oneof![1 => Just(Vec::new()), 3 => prop::collection::vec(record, 0..6)];
    prop::collection::vec(chunk, batches).prop_map(|chunks| {
        let mut number = 0;
        let mut pack = |key, time: i64| {
            number += 1;
            (key, time.max(0) * 1_000 + number)
        };
        let mut packed: Vec<Chunk> = Vec::new();
        for (batch, chunk) in chunks.into_iter().enumerate() {
            let now = batch as i64 * 20;
            packed.push(chunk.into_iter().map(|(key, off)| pack(key, now + off)).collect());
        }
        packed.push(vec![pack(FLUSH, 100_000)]);
        Arc::new(packed)
    })
}

fn inputs() -> impl Strategy<Value = Inputs> {
    (1usize..12).prop_flat_map(|batches| {
        (chunks(batches), chunks(batches)).prop_map(|(left, right)| Inputs { left, right })
    })
}

fn shape() -> impl Strategy<Value = Shape> {
    let windows = (1u64..8, 1u64..5, 0u64..30, 1u64..30);
    let times = (0u64..25, 0u64..50, 1u64..5, 0u64..30, (-30i64..20, 0i64..30));
    (windows, times).prop_map(
        |((slide, panes, offset, gap), (bound, lateness, idle, within, (start, more)))| Shape {
            size: (slide * (panes + 1)) / 2 + slide,
            slide,
            offset,
            gap,
            bound,
            lateness,
            idle_after: idle,
            within,
            bounds: (start, start + more),
        },
    )
}

fn any_run() -> impl Strategy<Value = Run> {
    (1usize..4, 1usize..20, 1usize..4, 1u64..7).prop_map(|(threads, partitions, ranges, checkpoint_every)| {
        Run { threads, partitions, ranges, checkpoint_every, ..Run::default() }
    })
}

/// Nothing is lost without a word, and each window comes once, then in revisions one higher each.
fn assert_every_record_is_accounted_for(emitted: &Emitted, inputs: &Inputs) {
    let sent = inputs.left.iter().chain(&*inputs.right).flatten().filter(|(key, _)| *key != FLUSH).count();
    for label in ["tumbling", "session"] {
        let rows_of = |label: &str| -> Vec<&str> {
            let of = |key: &&String| key.rsplit_once(' ').unwrap().0 == label;
            emitted.keys().filter(of).flat_map(|key| emitted[key].lines()).collect()
        };
        // A window's last revision: the newest row of its end, or of a session around it.
        let mut last: BTreeMap<(String, u64), (u64, usize, u64)> = BTreeMap::new();
        for row in rows_of(label) {
            let number = |field: &str| {
                let rest = &row[row.find(field).unwrap() + field.len()..];
                rest[..rest.find([',', ' ']).unwrap()].parse::<u64>().unwrap()
            };
            let (key, start, end) = (number("key: ").to_string(), number("start_ms: "), number("end_ms: "));
            let values = row[row.find('[').unwrap()..].split(']').next().unwrap().split(',').count();
            let within = |(other, from): &(String, u64), (to, ..): &(u64, usize, u64)| {
                *other == key && *from >= start && *to <= end
            };
            let before =
                last.iter().filter(|(at, row)| within(at, row)).map(|(_, (.., revision))| *revision).max();
            let revision = number("revision: ");
            assert_eq!(revision, before.map_or(0, |before| before + 1), "{label}: {row}");
            last.retain(|at, row| !within(at, row));
            last.insert((key, start), (end, values, revision));
        }
        let in_windows: usize = last.values().map(|(_, values, _)| values).sum();
        assert_eq!(in_windows + rows_of(&format!("{label}-late")).len(), sent, "{label}");
    }
}

proptest! {
    #![proptest_config(cases(64))]

    /// Random times, cuts into batches and windows, against models that keep everything for ever.
    #[test]
    fn every_operator_does_what_its_model_says(inputs in inputs(), shape in shape(), run in any_run()) {
        let emitted = run_through(&inputs, &run, &shape, &[], |_| false);
        assert_same(&emitted, &model::run(&inputs.left, &inputs.right, &shape));
        assert_every_record_is_accounted_for(&emitted, &inputs);
    }
}

proptest! {
    #![proptest_config(cases(8))]

    /// The same rows in the same order, whatever the number of threads and wherever the job is started anew; the
    /// same rows for any partitions.
    #[test]
    fn threads_partitions_and_restarts_change_nothing(
        inputs in inputs(), shape in shape(), one in any_run(), other in any_run(),
    ) {
        let expected = run_through(&inputs, &one, &shape, &[], |_| false);
        let threads = Run { threads: other.threads, checkpoint_every: other.checkpoint_every, ..one.clone() };
        prop_assert_eq!(&run_through(&inputs, &threads, &shape, &[], |_| true), &expected);
        prop_assert_eq!(&run_through(&inputs, &threads, &shape, &[], |batch| batch % 3 == 2), &expected);
        assert_same(&run_through(&inputs, &other, &shape, &[], |_| false), &expected);
    }
}

/// Three records of two keys per side and batch, some late, and a pause of the right side.
fn fixed_inputs() -> (Inputs, Shape) {
    let chunk = |batch: i64, side: i64| -> Chunk {
        let time =
            |n: i64| (batch * 20 + side * 3 + n * 5 - (batch + n) % 4 * 23 - (batch + n) / 7 * 40).max(0);
        (0..3).map(|n| ((n % 2) as u16, time(n) * 1_000 + batch * 10 + side * 5 + n)).collect()
    };
    let side = |side: i64| -> Arc<Vec<Chunk>> {
        let pause = |batch: i64| side == 1 && (2..5).contains(&batch);
        let mut chunks: Vec<Chunk> =
            (0..6).map(|batch| if pause(batch) { Vec::new() } else { chunk(batch, side) }).collect();
        chunks.push(vec![(FLUSH, 100_000_000)]);
        Arc::new(chunks)
    };
    let shape = Shape {
        size: 20,
        slide: 8,
        offset: 3,
        gap: 12,
        bound: 6,
        lateness: 15,
        idle_after: 2,
        within: 9,
        bounds: (-10, 15),
    };
    (Inputs { left: side(0), right: side(1) }, shape)
}

/// Not a sample: a crash at each disk step of a run with several checkpoints.
#[test]
fn a_crash_at_every_single_step_changes_nothing() {
    let (inputs, shape) = fixed_inputs();
    let run = Run { threads: 1, checkpoint_every: 2, ..Run::default() };
    let plan = FaultPlan::never();
    let expected = run_through(&inputs, &run, &shape, std::slice::from_ref(&plan), |_| false);
    assert_same(&expected, &model::run(&inputs.left, &inputs.right, &shape));
    let rows = |label: &str| {
        expected.iter().filter(|(key, rows)| key.starts_with(label) && !rows.is_empty()).count()
    };
    for label in [
        "tumbling 0",
        "tumbling-late",
        "sliding-late",
        "session 0",
        "session-late",
        "unique 0",
        "join 0",
        "timers",
    ] {
        assert!(rows(label) > 0, "the run has no {label}");
    }
    let steps = plan.steps();
    assert!(steps > 60, "only {steps} steps: the run does not do what it should");
    for step in 1..=steps {
        let crashed = run_through(&inputs, &run, &shape, &[FaultPlan::crash_at(step)], |_| false);
        assert_eq!(crashed, expected, "after a crash at step {step} of {steps}");
    }
}

#[test]
fn a_watermark_never_goes_back_when_a_stream_that_was_idle_comes_back() {
    let at = |time: i64| vec![(1u16, time * 1_000)];
    let left = vec![at(100), at(110), at(200), at(300), at(310), vec![(FLUSH, 100_000_000)]];
    let right = vec![at(50), vec![], vec![], vec![], at(60), vec![(FLUSH, 100_000_000)]];
    let inputs = Inputs { left: Arc::new(left), right: Arc::new(right) };
    let (_, shape) = fixed_inputs();
    for every in [1, 3, 100] {
        let emitted = run_through(&inputs, &Run::default(), &shape, &[], |batch| batch % every == 0);
        let of = |label: &str| -> Vec<u64> {
            (1..=6).map(|batch| emitted[&format!("{label} {batch:04}")].parse().unwrap()).collect()
        };
        assert_eq!(of("watermark-right"), [44, 44, 44, 44, 54, 99_994]);
        // Idle from the third batch on; it comes back in the fifth, far behind.
        assert_eq!(of("watermark-both"), [44, 44, 194, 294, 294, 99_994]);
        assert_eq!(emitted["join-late-right 0005"], "(60, (1, 60000))");
    }
}

#[test]
fn a_record_that_is_over_by_itself_joins_an_open_session_and_does_not_lengthen_it() {
    let at = |times: &[i64]| times.iter().map(|time| (1u16, time * 1_000)).collect::<Chunk>();
    let steps: Vec<i64> = (10..=20).map(|n| n * 10).collect();
    let left = vec![at(&steps), at(&[100, 150, 99]), vec![(FLUSH, 100_000_000)]];
    let inputs = Inputs { right: Arc::new(vec![Chunk::new(); left.len()]), left: Arc::new(left) };
    let (_, shape) = fixed_inputs();
    let shape = Shape { bound: 0, lateness: 0, idle_after: 0, ..shape };
    let emitted = run_through(&inputs, &Run::default(), &shape, &[], |_| false);
    assert_same(&emitted, &model::run(&inputs.left, &inputs.right, &shape));
    assert_eq!(emitted["session-late 0002"], "(99, (1, 99000))");
    let session = &emitted["session 0003"];
    assert!(
        session.contains("start_ms: 100, end_ms: 212") && session.contains("[100000, 100000, 110000"),
        "{session}"
    );
}

/// What is kept of windows means nothing to others.
#[test]
fn windows_of_another_size_do_not_take_up_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let (inputs, shape) = fixed_inputs();
    let start = |windows: EventWindows| -> Result<RunningContext> {
        let context = StreamingContext::builder("sizes")
            .store(dir.path().join("store"))
            .clock(clock.clone())
            .checkpoint_every_batches(1)
            .stop_on_signals(false)
            .build()?;
        let _ = event_stream(&context, "left", &inputs.left, &Run::default(), &shape)
            .window("w", windows)
            .count();
        context.start()
    };
    let job = start(EventWindows::tumbling(ms(20)).offset(ms(23))).unwrap();
    clock.advance(INTERVAL_MS);
    assert!(wait_for_batch(&job, 1));
    job.stop(StopMode::Graceful).unwrap();
    assert!(job.keys_in_state("w").unwrap() > 0);
    let others = [
        EventWindows::tumbling(ms(20)),
        EventWindows::tumbling(ms(40)).offset(ms(3)),
        EventWindows::sliding(ms(20), ms(10)).offset(ms(3)),
        EventWindows::session(ms(20)),
    ];
    for other in others {
        let error = start(other).expect_err("other windows are refused");
        assert_eq!(error.kind(), millpond::ErrorKind::Incompatible, "{error}");
    }
    // The lateness may change, and an offset by a whole slide is none.
    start(EventWindows::tumbling(ms(20)).offset(ms(3)).allowed_lateness(ms(9))).unwrap();
}

#[test]
fn closures_run_once_per_batch_and_nothing_of_it_is_kept_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let (inputs, _) = fixed_inputs();
    let context = StreamingContext::builder("once")
        .store(dir.path().join("store"))
        .clock(clock.clone())
        .stop_on_signals(false)
        .build()
        .unwrap();
    let records = context
        .replayable_stream("left", ScriptedSource { chunks: inputs.left.clone(), ranges: 2, flaky: false });
    let (token, mapped, timed) = (Arc::new(()), Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (of_record, map_calls, time_calls) = (token.clone(), mapped.clone(), timed.clone());
    let events = records
        .map(move |(key, value)| {
            map_calls.fetch_add(1, Ordering::SeqCst);
            (key, value, of_record.clone())
        })
        .with_event_time(Watermarks::bounded("left", ms(0)), move |(_, value, _)| {
            time_calls.fetch_add(1, Ordering::SeqCst);
            time_of(*value)
        });
    let pairs = events.map(|(key, value, _)| (key, value));
    let sink = Sink::default();
    emit(&pairs.window("w", EventWindows::tumbling(ms(10))).count().results(), "w", &sink);
    emit(&pairs.deduplicate("d", ms(1)).records(), "d", &sink);
    emit(&events.records().count(), "count", &sink);
    let tokens = Arc::strong_count(&token);
    let job = context.start().unwrap();
    for batch in 1..=4 {
        clock.advance(INTERVAL_MS);
        assert!(wait_for_batch(&job, batch));
        let calls = [&mapped, &timed].map(|calls| calls.load(Ordering::SeqCst));
        assert_eq!(calls, [batch * 3; 2]);
        assert_eq!(Arc::strong_count(&token), tokens, "records of batch {batch} were kept");
    }
}

#[test]
fn misuse_is_refused_at_start_and_says_what_to_change() {
    let refused = |describe: &dyn Fn(&Pairs)| {
        let dir = tempfile::tempdir().unwrap();
        let context = StreamingContext::builder("misuse").store(dir.path().join("store")).build().unwrap();
        let (inputs, shape) = fixed_inputs();
        describe(&event_stream(&context, "left", &inputs.left, &Run::default(), &shape));
        context.start().expect_err("misuse is refused").to_string()
    };
    let windows = |windows: EventWindows| refused(&|events| drop(events.window("w", windows).count()));
    assert!(windows(EventWindows::tumbling(ms(0))).contains("size must be at least 1 ms"));
    assert!(windows(EventWindows::sliding(ms(5), ms(0))).contains("slide must be at least 1 ms"));
    assert!(windows(EventWindows::sliding(ms(5), ms(6))).contains("slide by the size at most"));
    assert!(windows(EventWindows::session(ms(0))).contains("gap must be at least 1 ms"));
    assert!(windows(EventWindows::session(ms(5)).offset(ms(1))).contains("know no offset"));
    let error = refused(&|events| {
        let other = events.map(|pair| pair);
        drop(events.interval_join("j", &other, std::ops::RangeInclusive::new(5, 4)));
    });
    assert!(error.contains("`j` joins nothing"), "{error}");
    let error = refused(&|events| {
        drop(events.deduplicate("left", ms(1)));
    });
    assert!(error.contains("two stateful operators are called `left`"), "{error}");
}
