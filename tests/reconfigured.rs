//! The batch interval, N, partitions and threads change from run to run, with batches to compute again in between: sums,
//! windows and timers stay what a plain model makes of the batches that there were.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "support/cases.rs"]
mod cases;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cases::cases;
use millpond::{
    Clock, DStream, ErrorKind, EventWindows, ManualClock, Queue, Record, RunningContext, StopMode,
    StreamingContext, Timer, Watermarks,
};
use proptest::prelude::*;

/// Every interval divides it, and some divide no other one.
const SLIDE_MS: u64 = 2_000;
const LENGTH_MS: u64 = 3 * SLIDE_MS;
const INTERVALS_MS: [u64; 6] = [200, 250, 400, 500, 1_000, 2_000];
const WAIT_MS: u64 = 3_300;
const BOUND_MS: u64 = 900;
const TUMBLING_MS: u64 = 1_500;

/// A key, and when it happened.
type Event = (u8, u64);

/// One run of the job.
#[derive(Clone, Debug)]
struct Life {
    interval_ms: u64,
    partitions: usize,
    threads: usize,
    checkpoint_every: u64,
    /// The events that come before each step of the clock, and how far that goes.
    steps: Vec<(Vec<Event>, u64)>,
    gracefully: bool,
}

fn lives() -> impl Strategy<Value = Vec<Life>> {
    let events = prop::collection::vec((0u8..5, 0u64..12_000), 0..6);
    let steps = prop::collection::vec((events, 1u64..2_600), 1..9);
    let run = (prop::sample::select(&INTERVALS_MS[..]), 1usize..6, 1usize..4, 1u64..12);
    let life = (run, steps, prop::bool::weighted(0.3)).prop_map(
        |((interval_ms, partitions, threads, checkpoint_every), steps, gracefully)| Life {
            interval_ms,
            partitions,
            threads,
            checkpoint_every,
            steps,
            gracefully,
        },
    );
    prop::collection::vec(life, 2..5)
}

/// The rows of each output and batch, ordered, with the time of the batch.
type Emitted = Arc<Mutex<BTreeMap<(&'static str, u64), (u64, Vec<String>)>>>;

fn emit<T: Record + std::fmt::Debug>(stream: &DStream<T>, name: &'static str, emitted: &Emitted) {
    let emitted = emitted.clone();
    stream.for_each_rdd(move |rdd, info| {
        let mut rows: Vec<String> = rdd.collect()?.iter().map(|row| format!("{row:?}")).collect();
        rows.sort_unstable();
        let now = (info.time.0, rows);
        let before = emitted.lock().unwrap().insert((name, info.batch.0), now.clone());
        assert!(before.is_none_or(|before| before == now), "`{name}` has other rows than before");
        Ok(())
    });
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn describe(context: &StreamingContext, emitted: &Emitted) -> Queue<Event> {
    let (events, queue) = context.queue_stream::<Event>("events");
    emit(&events, "seen", emitted);
    let counts = events.map(|event| (event.0, 1u64)).reduce_by_key(|a, b| a + b);
    let totals = counts
        .update_state_by_key("totals", |new, total| Some(new.iter().sum::<u64>() + total.unwrap_or(0u64)));
    emit(&totals.reduce_by_key(|_, b| b), "totals", emitted);
    let (length, slide) = (ms(LENGTH_MS), ms(SLIDE_MS));
    emit(&events.window("plain", length, slide), "plain", emitted);
    let inverse = events.map(|event| (event.0, 1u64)).reduce_by_key_and_window_with_inverse(
        "inverse",
        length,
        slide,
        |a, b| a + b,
        |a, b| a - b,
    );
    emit(&inverse, "inverse", emitted);
    emit(&events.count_by_window("number", length, slide), "number", emitted);
    let due = events.transform_with_state("timers", |key, values: &[u64]| {
        let before = key.take();
        if !key.due().is_empty() {
            key.emit((*key.key(), before.unwrap_or(0u64) + values.len() as u64));
            return;
        }
        if before.is_none() {
            key.set_timer(Timer::ProcessingTime(key.batch_time().0 + WAIT_MS));
        }
        key.update(before.unwrap_or(0) + values.len() as u64);
    });
    emit(&due, "due", emitted);
    let timed = events.with_event_time(Watermarks::bounded("time", ms(BOUND_MS)), |event| event.1);
    let tumbling = timed.window("tumbling", EventWindows::tumbling(ms(TUMBLING_MS))).count();
    emit(&tumbling.results().map(|window| (window.key, window.end_ms, window.value)), "tumbling", emitted);
    emit(&tumbling.late().map(|(time_ms, (key, _))| (key, time_ms)), "late", emitted);
    // Of two streams, one of which is silent most of the time.
    let idle = |name, key: u8| {
        let some = events.filter(move |event| event.0 == key);
        some.with_event_time(Watermarks::bounded(name, ms(BOUND_MS)).idle_after(ms(1_500)), |event| event.1)
    };
    let both = idle("left", 0).union("both", &idle("right", 1));
    emit(&both.watermarks(), "watermarks", emitted);
    emit(&both.window("of both", EventWindows::tumbling(ms(TUMBLING_MS))).count().results(), "both", emitted);
    queue
}

fn start(
    store: &Path,
    clock: &Arc<ManualClock>,
    life: &Life,
    emitted: &Emitted,
) -> millpond::Result<(RunningContext, Queue<Event>)> {
    let context = StreamingContext::builder("reconfigured")
        .store(store)
        .clock(clock.clone())
        .batch_interval(ms(life.interval_ms))
        .partitions(life.partitions)
        .threads(life.threads)
        .checkpoint_every_batches(life.checkpoint_every)
        .stop_on_signals(false)
        .build()?;
    let queue = describe(&context, emitted);
    Ok((context.start()?, queue))
}

/// Runs one life; what it says is how many batches were computed again.
fn live(store: &Path, clock: &Arc<ManualClock>, life: &Life, emitted: &Emitted) -> usize {
    let (job, queue) = start(store, clock, life, emitted).unwrap();
    assert!(job.recovery().differences.is_empty(), "{:?}", job.recovery().differences);
    for (events, step_ms) in &life.steps {
        queue.push(events.iter().copied()).unwrap();
        clock.advance(*step_ms);
        let until = clock.now_ms() - clock.now_ms() % life.interval_ms;
        while job.progress().last_batch.is_none_or(|(_, time)| time.0 < until) && until > 0 {
            let ended = job.await_termination_or_timeout(Duration::from_millis(1)).unwrap();
            assert!(!ended, "the job ended by itself");
        }
    }
    let replayed = job.recovery().replayed.len();
    job.stop(if life.gracefully { StopMode::Graceful } else { StopMode::Now }).unwrap();
    replayed
}

/// What the batches of the job had, in order.
fn seen(emitted: &Emitted) -> Vec<(u64, Vec<Event>)> {
    let event = |row: &String| {
        let (key, time) = row[1..row.len() - 1].split_once(", ").unwrap();
        (key.parse().unwrap(), time.parse().unwrap())
    };
    let emitted = emitted.lock().unwrap();
    let seen = emitted.iter().filter(|((name, _), _)| *name == "seen");
    seen.map(|(_, (time, rows))| (*time, rows.iter().map(event).collect())).collect()
}

fn rows<T: std::fmt::Debug>(rows: impl IntoIterator<Item = T>) -> Vec<String> {
    let mut rows: Vec<String> = rows.into_iter().map(|row| format!("{row:?}")).collect();
    rows.sort_unstable();
    rows
}

fn counts<'a>(events: impl IntoIterator<Item = &'a Event>) -> BTreeMap<u8, u64> {
    let mut counts = BTreeMap::new();
    events.into_iter().for_each(|(key, _)| *counts.entry(*key).or_default() += 1);
    counts
}

/// What each output has in each batch.
#[derive(Default)]
struct Model {
    totals: BTreeMap<u8, u64>,
    /// By key: the count, and when its timer is due.
    timers: BTreeMap<u8, (u64, u64)>,
    latest: u64,
    watermark: u64,
    /// By end and key.
    tumbling: BTreeMap<(u64, u8), u64>,
}

impl Model {
    fn due(&mut self, time: u64, events: &[Event]) -> Vec<String> {
        for (key, new) in counts(events) {
            self.timers.entry(key).or_insert((0, time + WAIT_MS)).0 += new;
        }
        let due: Vec<_> =
            self.timers.iter().filter(|(_, (_, due))| *due <= time).map(|(k, v)| (*k, v.0)).collect();
        self.timers.retain(|_, (_, due)| *due > time);
        rows(due)
    }

    /// Windows that are complete, and events that are late.
    fn event_time(&mut self, events: &[Event]) -> (Vec<String>, Vec<String>) {
        let before = self.watermark;
        let mut late = Vec::new();
        for (key, time) in events {
            let end = time - time % TUMBLING_MS + TUMBLING_MS;
            if end <= before {
                late.push((*key, *time));
            } else {
                *self.tumbling.entry((end, *key)).or_default() += 1;
            }
            self.latest = self.latest.max(*time);
        }
        self.watermark = before.max(self.latest.saturating_sub(BOUND_MS));
        let open = self.tumbling.split_off(&(self.watermark + 1, 0));
        let complete = std::mem::replace(&mut self.tumbling, open);
        (rows(complete.into_iter().map(|((end, key), count)| (key, end, count))), rows(late))
    }
}

fn check(emitted: &Emitted, pushed: &[Event]) -> Result<(), TestCaseError> {
    let batches = seen(emitted);
    prop_assert!(batches.is_sorted_by(|a, b| a.0 < b.0), "times go up: {batches:?}");
    let all: Vec<Event> = batches.iter().flat_map(|(_, events)| events.clone()).collect();
    prop_assert_eq!(rows(&all), rows(pushed), "each event is in one batch");
    let emitted = emitted.lock().unwrap();
    let mut model = Model::default();
    for (at, (time, events)) in batches.iter().enumerate() {
        let of = |name| emitted.get(&(name, at as u64 + 1)).map(|(_, rows)| rows.clone());
        let mut new = counts(events);
        for (key, count) in &mut new {
            let total = model.totals.entry(*key).or_default();
            *total += *count;
            *count = *total;
        }
        prop_assert_eq!(of("totals"), Some(rows(new)), "at {}", time);
        prop_assert_eq!(of("due"), Some(model.due(*time, events)), "at {}", time);
        let (complete, late) = model.event_time(events);
        prop_assert_eq!(of("tumbling"), Some(complete), "at {}", time);
        prop_assert_eq!(of("late"), Some(late), "at {}", time);
        let window = || {
            let parts = batches.iter().filter(|(t, _)| *t <= *time && *t + LENGTH_MS > *time);
            parts.flat_map(|(_, events)| events)
        };
        let is_end = time.is_multiple_of(SLIDE_MS);
        prop_assert_eq!(of("plain"), is_end.then(|| rows(window())), "at {}", time);
        prop_assert_eq!(of("inverse"), is_end.then(|| rows(counts(window()))), "at {}", time);
        prop_assert_eq!(of("number"), is_end.then(|| rows([window().count()])), "at {}", time);
        // No window of new events is left out.
        let end = time.next_multiple_of(SLIDE_MS);
        let in_time = |batch: &&(u64, Vec<Event>)| batch.0 >= end;
        if !events.is_empty() && batches.last().is_some_and(|last| last.0 >= end) {
            let next = batches.iter().find(in_time).map(|batch| batch.0);
            prop_assert_eq!(next, Some(end), "the window that ends at {} is there", end);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn settings_change_between_runs(mut lives in lives()) {
        let dir = tempfile::tempdir().unwrap();
        let (clock, emitted) = (ManualClock::at(0), Emitted::default());
        lives.last_mut().unwrap().gracefully = true;
        for life in &lives {
            live(&dir.path().join("store"), &clock, life, &emitted);
        }
        let pushed: Vec<Event> =
            lives.iter().flat_map(|life| &life.steps).flat_map(|(events, _)| events.clone()).collect();
        check(&emitted, &pushed)?;
    }
}

/// Batches without records, done and to be computed again by a run whose batches are further apart.
#[test]
fn silence_lasts_as_long_as_it_did_when_it_is_computed_again() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, emitted) = (ManualClock::at(0), Emitted::default());
    let life = |interval_ms, steps| Life {
        interval_ms,
        partitions: 2,
        threads: 1,
        checkpoint_every: 100,
        steps,
        gracefully: false,
    };
    let silence = vec![(vec![], 250); 4];
    let first = [vec![(vec![(0, 100), (1, 9_000)], 250)], silence.clone()].concat();
    live(dir.path(), &clock, &life(250, first), &emitted);
    assert_eq!(live(dir.path(), &clock, &life(1_000, vec![]), &emitted), 5);
    assert_eq!(live(dir.path(), &clock, &life(250, silence), &emitted), 0);
    let emitted = emitted.lock().unwrap();
    let watermarks: Vec<&str> =
        (1..=9).filter_map(|batch| emitted.get(&("watermarks", batch))).map(|(_, rows)| &*rows[0]).collect();
    assert_eq!(watermarks, ["0", "0", "0", "0", "0", "0", "8100", "8100", "8100"]);
}

/// An interval that windows are no multiple of: refused, and nothing has changed.
#[test]
fn an_interval_that_does_not_fit_the_windows_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, emitted) = (ManualClock::at(0), Emitted::default());
    let life = |interval_ms| Life {
        interval_ms,
        partitions: 2,
        threads: 1,
        checkpoint_every: 3,
        steps: vec![(vec![(1, 1), (2, 2)], 2_000); 2],
        gracefully: false,
    };
    live(dir.path(), &clock, &life(500), &emitted);
    for interval_ms in [300, 3_000, 4_000] {
        let refused = start(dir.path(), &clock, &life(interval_ms), &emitted).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidGraph);
        assert!(refused.to_string().contains("a multiple of that"), "{refused}");
    }
    live(dir.path(), &clock, &Life { gracefully: true, ..life(1_000) }, &emitted);
    check(&emitted, &[(1, 1), (2, 2)].repeat(4)).unwrap();
}
