//! Records that fail: they stop the batch, are skipped and counted, or become dead letters, the same after any
//! crash and on any number of threads.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "support/cases.rs"]
mod cases;
#[path = "support/driven.rs"]
mod driven;
mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once};

use cases::cases;
use driven::{builder, tick};
use millpond::testkit::FaultPlan;
use millpond::{
    DeadLetter, Emitter, ErrorKind, Fallible, ManualClock, RunningContext, StopMode, StreamingContext,
};
use proptest::prelude::*;
use support::{Chunk, Run, ScriptedSource, Sink, emit, run_through_with};

/// Panics of tasks are what these tests are about; those of the tests themselves are printed.
fn hush() {
    static HUSH: Once = Once::new();
    HUSH.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let thread = std::thread::current();
            if !thread.name().is_some_and(|name| name.starts_with("millpond-task")) {
                print(info);
            }
        }));
    });
}

/// A third of the values fail, some of them by a panic.
fn judge((key, value): (u16, i64)) -> Result<(u16, i64), String> {
    assert!(value % 5 != 4, "value {value} panics");
    if value % 5 == 3 { Err(format!("value {value} is bad")) } else { Ok((key, value)) }
}

fn error_of(value: i64) -> Option<String> {
    match value % 5 {
        4 => Some(format!("panicked: value {value} panics")),
        3 => Some(format!("value {value} is bad")),
        _ => None,
    }
}

/// Emits more than a chunk of records holds before it fails.
fn expand((key, value): (u16, i64), out: &mut Emitter<'_, (u16, u16)>) -> Result<(), String> {
    (0..key % 7 * 100).for_each(|n| out.emit((key, n)));
    judge((key, value)).map(drop)
}

type Letters<T> = Vec<DeadLetter<T>>;

/// What left the job, one sink per output.
#[derive(Clone, Default)]
struct Sinks {
    good: Sink,
    dead: Sink,
    expanded: Sink,
    dead_groups: Sink,
}

impl Sinks {
    fn rows(&self) -> [support::Emitted; 4] {
        [&self.good, &self.dead, &self.expanded, &self.dead_groups].map(Sink::rows)
    }
}

fn describe(context: &StreamingContext, chunks: &Arc<Vec<Chunk>>, run: &Run, sinks: &Sinks) {
    let source = ScriptedSource { chunks: chunks.clone(), ranges: run.ranges, flaky: run.flaky };
    // The cache is filled by the operator of "seen": origins are known behind it too.
    let pairs = context.replayable_stream("script", source).cache();
    let _seen = pairs.update_state_by_key("seen", |_, seen: Option<u64>| Some(seen.unwrap_or(0) + 1));
    let (good, dead) = pairs.try_map(judge).or_dead_letters();
    emit(&good, &sinks.good);
    emit(&dead, &sinks.dead);
    let _sums = good.update_state_by_key("sums", |new, sum: Option<i64>| {
        Some(new.iter().fold(sum.unwrap_or(0), |a, b| a + b))
    });
    let _latest = dead.map(|letter| (letter.record.0, letter)).update_state_by_key(
        "letters",
        |new: &[DeadLetter<(u16, i64)>], _: Option<DeadLetter<(u16, i64)>>| new.last().cloned(),
    );
    emit(&pairs.try_flat_map(expand).or_skip("expand").count(), &sinks.expanded);
    let _unread = pairs.try_filter(|pair| judge(*pair).map(|(_, value)| value % 2 == 0)).or_skip("filter");
    let (_, dead_groups) = pairs
        .group_by_key()
        .try_map_values(|values| if values.len() > 2 { Err("too many") } else { Ok(values.len() as u64) })
        .or_dead_letters();
    emit(&dead_groups, &sinks.dead_groups);
}

fn states(job: &RunningContext) -> String {
    let mut shown = String::new();
    for name in ["expand", "filter"] {
        shown += &format!("{name} {:?}\n", job.state::<(), u64>(name).unwrap().get(&()).unwrap());
    }
    let sums = job.state::<u16, i64>("sums").unwrap();
    sums.for_each(|key, sum| shown += &format!("sum {key} {sum}\n")).unwrap();
    let letters = job.state::<u16, DeadLetter<(u16, i64)>>("letters").unwrap();
    letters.for_each(|key, letter| shown += &format!("letter {key} {letter:?}\n")).unwrap();
    shown
}

fn run_through(
    chunks: &Arc<Vec<Chunk>>,
    run: &Run,
    plans: &[Arc<FaultPlan>],
) -> ([support::Emitted; 4], String) {
    hush();
    let sinks = Sinks::default();
    let describe = |context: &StreamingContext| describe(context, chunks, run, &sinks);
    let state = run_through_with(chunks.len(), run, plans, &describe, &states);
    (sinks.rows(), state)
}

/// What each batch gives, from the records alone.
struct Model {
    good: Vec<Chunk>,
    dead: Vec<Letters<(u16, i64)>>,
    expanded: Vec<u64>,
    failed: u64,
}

fn model(chunks: &[Chunk], ranges: usize) -> Model {
    let mut model = Model { good: vec![], dead: vec![], expanded: vec![], failed: 0 };
    for (at, chunk) in chunks.iter().enumerate() {
        let (mut good, mut dead, mut expanded) = (vec![], vec![], 0);
        for part in 0..ranges {
            let (from, to) = (chunk.len() * part / ranges, chunk.len() * (part + 1) / ranges);
            let start = ((at as u64) << 32) + from as u64;
            let end =
                if part + 1 == ranges { (at as u64 + 1) << 32 } else { ((at as u64) << 32) + to as u64 };
            for (position, record) in (1..).zip(&chunk[from..to]) {
                match error_of(record.1) {
                    None => {
                        good.push(*record);
                        expanded += u64::from(record.0 % 7 * 100);
                    }
                    Some(error) => {
                        let origin = format!("script from {start} to {end} of `script`, record {position}");
                        dead.push(DeadLetter { record: *record, error, origin });
                    }
                }
            }
        }
        model.failed += dead.len() as u64;
        model.good.push(good);
        model.dead.push(dead);
        model.expanded.push(expanded);
    }
    model
}

/// What a sink got, by batch, without the batch's time.
fn by_batch(emitted: &support::Emitted) -> Vec<String> {
    let batch = |key: &str| key.rsplit('/').next().unwrap().parse::<u64>().unwrap();
    let records = |rows: &str| rows[rows.find('[').unwrap()..].to_owned();
    let rows: BTreeMap<u64, String> = emitted.iter().map(|(key, rows)| (batch(key), records(rows))).collect();
    rows.into_values().collect()
}

fn shown<T: std::fmt::Debug>(batches: &[T]) -> Vec<String> {
    batches.iter().map(|batch| format!("{batch:?}")).collect()
}

fn assert_is_model(found: &([support::Emitted; 4], String), chunks: &[Chunk], run: &Run) {
    let model = model(chunks, run.ranges);
    let [good, dead, expanded, dead_groups] = &found.0;
    assert_eq!(by_batch(good), shown(&model.good));
    assert_eq!(by_batch(dead), shown(&model.dead));
    assert_eq!(by_batch(expanded), shown(&model.expanded.iter().map(|count| [count]).collect::<Vec<_>>()));
    let failed = (model.failed > 0).then_some(model.failed);
    for name in ["expand", "filter"] {
        assert!(found.1.contains(&format!("{name} {failed:?}\n")), "{name}: {failed:?} in {}", found.1);
    }
    for (chunk, row) in chunks.iter().zip(by_batch(dead_groups)) {
        let mut counts = BTreeMap::<u16, u64>::new();
        chunk.iter().for_each(|(key, _)| *counts.entry(*key).or_default() += 1);
        assert_eq!(row.matches("too many").count(), counts.values().filter(|count| **count > 2).count());
        assert_eq!(row.matches("of group_by_key, record ").count(), row.matches("too many").count());
    }
}

fn chunk() -> impl Strategy<Value = Chunk> {
    prop::collection::vec((0u16..40, 0i64..50), 0..40)
}

fn chunks() -> impl Strategy<Value = Arc<Vec<Chunk>>> {
    prop::collection::vec(chunk(), 1..8).prop_map(Arc::new)
}

fn run() -> impl Strategy<Value = Run> {
    (1usize..4, 1usize..9, 1usize..4, 1u64..5).prop_map(|(threads, partitions, ranges, checkpoint_every)| {
        Run { threads, partitions, ranges, checkpoint_every, ..Run::default() }
    })
}

proptest! {
    #![proptest_config(cases(16))]

    /// What goes through and the dead letters have every record exactly once, in order; so after crashes, and
    /// on any number of threads.
    #[test]
    fn every_record_goes_through_or_is_a_dead_letter(
        chunks in chunks(),
        run in run(),
        threads in 1usize..4,
        crashes in prop::collection::vec(1u64..120, 0..3),
    ) {
        let expected = run_through(&chunks, &run, &[]);
        assert_is_model(&expected, &chunks, &run);
        let plans: Vec<_> = crashes.iter().map(|step| FaultPlan::crash_at(*step)).collect();
        prop_assert_eq!(run_through(&chunks, &Run { threads, ..run }, &plans), expected);
    }
}

fn fixed_chunks() -> Arc<Vec<Chunk>> {
    let chunk =
        |batch: u16| (0..12u16).map(|n| ((n * 7 + batch * 3) % 10, i64::from(n + batch) % 10)).collect();
    Arc::new((0..5).map(chunk).collect())
}

#[test]
fn a_crash_at_every_disk_step_neither_loses_nor_doubles_a_failure() {
    let (chunks, run) = (fixed_chunks(), Run { threads: 1, checkpoint_every: 2, ..Run::default() });
    let counting = FaultPlan::never();
    let expected = run_through(&chunks, &run, std::slice::from_ref(&counting));
    assert_is_model(&expected, &chunks, &run);
    let steps = counting.steps();
    assert!(steps > 50, "only {steps} steps: the run does not do what it should");
    for step in 1..=steps {
        let crashed = run_through(&chunks, &run, &[FaultPlan::crash_at(step)]);
        assert_eq!(crashed, expected, "after a crash at step {step} of {steps}");
    }
}

/// Records that cannot be processed, seen by an operation that counts its calls.
struct Counted {
    calls: Arc<AtomicU64>,
    fail: Arc<AtomicBool>,
}

impl Counted {
    fn new() -> Self {
        Counted { calls: Arc::default(), fail: Arc::new(AtomicBool::new(true)) }
    }

    fn parse(&self, context: &StreamingContext) -> (Fallible<String, u64>, millpond::Queue<String>) {
        let (texts, queue) = context.queue_stream::<String>("texts");
        let (calls, fail) = (self.calls.clone(), self.fail.clone());
        let parsed = texts.filter(|text| !text.is_empty()).try_map(move |text| {
            calls.fetch_add(1, Ordering::SeqCst);
            let parsed = text.parse::<u64>();
            if fail.load(Ordering::SeqCst) { parsed } else { Ok(parsed.unwrap_or(0)) }
        });
        (parsed, queue)
    }

    fn calls(&self) -> u64 {
        self.calls.swap(0, Ordering::SeqCst)
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Both streams read several times, also in one stage, on several threads.
#[test]
fn the_closure_runs_once_per_record_however_often_both_streams_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, counted) = (ManualClock::at(0), Counted::new());
    let context = builder(dir.path(), &clock).threads(3).build().unwrap();
    let (parsed, queue) = counted.parse(&context);
    let (good, dead) = parsed.or_dead_letters();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    good.map(|n| n.to_string()).union(&dead.map(|letter| letter.origin)).for_each_rdd(move |rdd, _| {
        sink.lock().unwrap().push(rdd.collect()?);
        Ok(())
    });
    good.reduce(|a, b| a + b).print(0);
    dead.print(1);
    let _sums =
        good.map(|n| (n, n)).update_state_by_key("seen", |_, seen: Option<u64>| Some(seen.unwrap_or(0) + 1));
    let job = context.start().unwrap();
    queue.push(texts(&["1", "", "x", "3"])).unwrap();
    queue.push(texts(&["y", "5"])).unwrap();
    tick(&job, &clock);
    assert_eq!(counted.calls(), 5);
    // Places are counted among the records that the operation is given, which are not the empty ones.
    let expected = ["1", "3", "5", "block 1 of `texts`, record 2", "block 2 of `texts`, record 1"];
    assert_eq!(*seen.lock().unwrap(), [expected]);
    tick(&job, &clock);
    assert_eq!((counted.calls(), seen.lock().unwrap()[1].len()), (0, 0));
}

#[test]
fn what_is_skipped_is_counted_though_nothing_reads_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, counted) = (ManualClock::at(0), Counted::new());
    let start = || {
        let context = builder(dir.path(), &clock).build().unwrap();
        let (parsed, queue) = counted.parse(&context);
        let _unread = parsed.or_skip("unreadable");
        (context.start().unwrap(), queue)
    };
    let skipped = |job: &RunningContext| job.state::<(), u64>("unreadable").unwrap().get(&()).unwrap();
    let (job, queue) = start();
    queue.push(texts(&["1"])).unwrap();
    tick(&job, &clock);
    assert_eq!(skipped(&job), None);
    for (batch, expected) in [(["x", "2"], 1), (["3", "4"], 1), (["y", "z"], 3)] {
        queue.push(texts(&batch)).unwrap();
        tick(&job, &clock);
        assert_eq!(skipped(&job), Some(expected));
    }
    drop(job);
    let (job, _queue) = start();
    assert_eq!(skipped(&job), Some(3), "after batches were replayed");
    job.stop(StopMode::Graceful).unwrap();
}

/// The batch fails with its place named on every start; code that takes the record finds the store as it was.
#[test]
fn a_batch_that_fails_is_named_and_goes_through_once_the_code_is_mended() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, counted) = (ManualClock::at(0), Counted::new());
    let start = || {
        let context = builder(dir.path(), &clock).task_attempts_max(2).threads(1).build().unwrap();
        let (parsed, queue) = counted.parse(&context);
        let _sum = parsed.or_fail().map(|n| ((), n)).update_state_by_key("sum", |new, sum: Option<u64>| {
            Some(new.iter().sum::<u64>() + sum.unwrap_or(0))
        });
        (context.start(), queue)
    };
    let sum = |job: &RunningContext| job.state::<(), u64>("sum").unwrap().get(&()).unwrap();
    let (job, queue) = start();
    let job = job.unwrap();
    queue.push(texts(&["1", "2"])).unwrap();
    tick(&job, &clock);
    assert_eq!(counted.calls(), 2, "nothing is run twice");
    queue.push(texts(&["3"])).unwrap();
    queue.push(texts(&["4", "", "x", "5"])).unwrap();
    clock.advance(driven::INTERVAL_MS);
    let error = job.await_termination().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UserCode);
    let named = ["batch 2", "stage `map side of update_state_by_key`", "partition 1", "block 3 of `texts`"];
    for part in named.into_iter().chain(["try_map of record 2: invalid digit found in string"]) {
        assert!(error.to_string().contains(part), "{error} does not name {part}");
    }
    // The good partition once; of the other two records, twice: the rest of it is not tried.
    assert_eq!(counted.calls(), 1 + 2 * 2);
    assert_eq!(sum(&job), Some(3));
    drop(job);
    assert_eq!(start().0.unwrap_err().kind(), ErrorKind::UserCode);
    counted.fail.store(false, Ordering::SeqCst);
    let (job, queue) = start();
    let job = job.unwrap();
    assert_eq!(sum(&job), Some(15));
    queue.push(texts(&["6"])).unwrap();
    tick(&job, &clock);
    assert_eq!(sum(&job), Some(21));
}

#[test]
fn a_panic_fails_the_record_alone_and_its_message_is_bounded() {
    hush();
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (sizes, queue) = context.queue_stream::<u32>("sizes");
    let tried = sizes.try_map(|size| -> Result<u32, String> {
        match size {
            0 => Ok(size),
            1 => std::panic::panic_any(size),
            _ => panic!("{}", "e\n".repeat(size as usize)),
        }
    });
    let (good, dead) = tried.or_dead_letters();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    dead.for_each_rdd(move |rdd, _| {
        sink.lock().unwrap().extend(rdd.collect()?);
        Ok(())
    });
    good.print(0);
    let job = context.start().unwrap();
    queue.push([0, 1, 2, 100_000, 0]).unwrap();
    tick(&job, &clock);
    let seen = seen.lock().unwrap();
    let short: Vec<_> = seen.iter().map(|letter| &letter.error[..letter.error.len().min(13)]).collect();
    assert_eq!(short, ["panicked: no ", "panicked: e\ne", "panicked: e\ne"]);
    assert_eq!(seen[0].error, "panicked: no message");
    assert!(seen[2].error.len() <= 1_003 && seen[2].error.ends_with("..."), "{}", seen[2].error.len());
    assert_eq!(seen[1].to_string(), r"block 1 of `sizes`, record 3: panicked: e\ne\n: 2");
}
