//! Streams whose records say when they happened. The models are those of `tests/event_time`; here is what makes
//! an input theirs.

use std::fmt::{Debug, Formatter};
use std::time::Duration;

use millpond::{EventStream, Timer, Watermarks};

use crate::event_time_model::{self as model, Chunk, Emitted, Shape, Step, time_of};
use crate::lives::INTERVAL_MS;
use crate::suite::{BY_HASH, Expected, Input, Job, Order, Pair, Row};

/// The models go from one millisecond to the next: this many of the input's are one.
const SHRINK: u64 = 50;

pub const SHAPE: Shape = Shape {
    size: 30,
    slide: 12,
    offset: 5,
    gap: 9,
    bound: 15,
    lateness: 22,
    idle_after: 1,
    within: 4,
    bounds: (-12, 20),
};

pub type Events = EventStream<Pair>;

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A record whose time is part of its value, as the models have them.
fn timed((key, value): Pair, time_ms: u64) -> Pair {
    (key, (time_ms / SHRINK) as i64 * 1_000 + 100 + value)
}

/// The other input has no times: around that of the batch, by key and value.
fn timed_right(pair: Pair, batch_ms: u64) -> Pair {
    let (key, value) = pair;
    timed(pair, (batch_ms + 600).saturating_sub(u64::from(key % 7) * 350 + value.unsigned_abs() * 90))
}

fn watermarks(name: &str) -> Watermarks {
    Watermarks::bounded(name, ms(SHAPE.bound)).idle_after(ms(SHAPE.idle_after * INTERVAL_MS))
}

pub fn left(job: &Job, name: &str) -> Events {
    let records = job.events.map(|(time_ms, pair)| timed(pair, time_ms));
    records.with_event_time(watermarks(&format!("{name} left")), |(_, value)| time_of(*value))
}

pub fn right(job: &Job, name: &str) -> Events {
    let records = job.right.transform(|rdd, batch| Ok(rdd.map(move |pair: Pair| timed_right(pair, batch.0))));
    records.with_event_time(watermarks(&format!("{name} right")), |(_, value)| time_of(*value))
}

pub fn both(job: &Job, name: &str) -> Events {
    left(job, name).union(name, &right(job, name))
}

fn left_chunks(input: &Input) -> Vec<Chunk> {
    let batches = input.left.iter().zip(&input.times);
    batches
        .map(|(pairs, times)| pairs.iter().zip(times).map(|(pair, at)| timed(*pair, *at)).collect())
        .collect()
}

fn right_chunks(input: &Input) -> Vec<Chunk> {
    let batches = input.right.iter().enumerate();
    let of_batch = |(at, pairs): (usize, &Vec<Pair>)| {
        pairs.iter().map(|pair| timed_right(*pair, Input::batch_time(at))).collect()
    };
    batches.map(of_batch).collect()
}

/// What the models take, and the watermarks by name and batch.
pub fn steps(input: &Input) -> (Vec<Step>, Emitted) {
    let mut emitted = Emitted::new();
    let steps = model::steps(&left_chunks(input), &right_chunks(input), &SHAPE, &mut emitted);
    (steps, emitted)
}

/// A row of a model.
struct Shown<'a>(&'a str);

impl Debug for Shown<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// The stream has what the model emitted under `label`.
pub fn expect(expected: &mut Expected, label: &str, emitted: &Emitted) {
    let batches = emitted.iter().filter(|(of, _)| of.rsplit_once(' ').is_some_and(|(of, _)| of == label));
    expected.emit(batches.map(|(_, rows)| rows.lines().map(Shown)));
}

pub const ROWS: &[Row] = &[
    Row {
        name: "event time, carried along",
        covers: &[
            "DStream::with_event_time",
            "EventStream::records",
            "EventStream::with_times",
            "EventStream::map",
            "EventStream::filter",
            "EventStream::flat_map",
            "EventStream::key_by",
            "EventStream::map_values",
            "EventStream::watermarks",
        ],
        describe: |job| {
            let events = left(job, "carried");
            job.emit(&events.records(), Order::Exact);
            job.emit(&events.with_times(), Order::Exact);
            job.emit(&events.map(|(_, value)| value % 7).with_times(), Order::Exact);
            // Those that are left out move the watermark all the same.
            let some = events.filter(|(key, _)| key % 3 == 1);
            job.emit(&some.with_times(), Order::Exact);
            job.emit(&some.watermarks(), Order::Exact);
            let twice = events.flat_map(|(key, value), out| {
                (0..key % 3).for_each(|n| out.emit((n, value)));
            });
            job.emit(&twice.with_times(), Order::Exact);
            job.emit(&events.key_by(|(_, value)| *value as u16).with_times(), Order::Exact);
            job.emit(&events.map_values(|value| -value).with_times(), Order::Exact);
            job.counts_keys_of("carried left");
        },
        oracle: |input, expected| {
            let chunks = left_chunks(input);
            let times = |chunk: &Chunk| -> Vec<(u64, Pair)> {
                chunk.iter().map(|(key, value)| (time_of(*value), (*key, *value))).collect()
            };
            let all: Vec<Vec<(u64, Pair)>> = chunks.iter().map(times).collect();
            expected.emit(chunks.iter());
            expected.emit(all.iter());
            expected.emit(all.iter().map(|batch| batch.iter().map(|(at, (_, value))| (at, value % 7))));
            expected.emit(all.iter().map(|batch| batch.iter().filter(|(_, (key, _))| key % 3 == 1)));
            expect(expected, "watermark-left", &steps(input).1);
            expected.emit(all.iter().map(|batch| {
                batch.iter().flat_map(|(at, (key, value))| (0..key % 3).map(move |n| (at, (n, value))))
            }));
            expected.emit(all.iter().map(|batch| batch.iter().map(|(at, pair)| (at, (pair.1 as u16, pair)))));
            expected.emit(all.iter().map(|batch| batch.iter().map(|(at, (key, value))| (at, (key, -value)))));
            expected.exact_keys("carried left", usize::from(!chunks.is_empty()));
        },
    },
    Row {
        name: "event time, union",
        covers: &["EventStream::union", "EventStream::watermarks"],
        describe: |job| {
            let (one, other) = (left(job, "met"), right(job, "met"));
            let both = one.union("met", &other);
            job.emit(&both.records(), Order::Exact);
            job.emit(&both.watermarks(), Order::Exact);
            job.emit(&other.watermarks(), Order::Exact);
            // Of one watermark: nothing more is kept.
            job.emit(&one.union("same", &one.filter(|(key, _)| *key > 3)).records(), Order::Exact);
            job.counts_keys_of("met");
        },
        oracle: |input, expected| {
            let (left, right) = (left_chunks(input), right_chunks(input));
            let (_, emitted) = steps(input);
            expected.emit(left.iter().zip(&right).map(|(left, right)| left.iter().chain(right)));
            expect(expected, "watermark-both", &emitted);
            expect(expected, "watermark-right", &emitted);
            expected.emit(left.iter().map(|left| left.iter().chain(left.iter().filter(|(key, _)| *key > 3))));
            let (last, moved) = (format!("watermark-both {:04}", left.len()), |mark: &String| mark != "0");
            expected.exact_keys("met", usize::from(emitted.get(&last).is_some_and(moved)));
        },
    },
    Row {
        name: "event time, deduplicate",
        covers: &["EventStream::deduplicate", "EventStream::deduplicate_by", "Deduplicated::late"],
        describe: |job| {
            let both = both(job, "all");
            let unique = both.deduplicate("unique", ms(SHAPE.within));
            job.emit(&unique.with_times(), BY_HASH);
            job.emit(&unique.late(), BY_HASH);
            let values =
                both.map(|(_, value)| value).deduplicate_by("unique values", ms(SHAPE.within), |v| v % 7);
            job.emit(&values.records(), BY_HASH);
            job.counts_keys_of("unique");
            job.counts_keys_of("unique values");
        },
        oracle: |input, expected| {
            let (steps, mut emitted) = steps(input);
            let [keys, values] = model::unique(&steps, &SHAPE, &mut emitted);
            for label in ["unique", "unique-late", "unique-value"] {
                expect(expected, label, &emitted);
            }
            expected.exact_keys("unique", keys);
            expected.exact_keys("unique values", values);
        },
    },
    Row {
        name: "event time, interval_join",
        covers: &[
            "EventStream::interval_join",
            "IntervalJoined::late_left",
            "IntervalJoined::late_right",
            "IntervalJoined::unpaired_left",
            "IntervalJoined::unpaired_right",
        ],
        describe: |job| {
            let (start, end) = SHAPE.bounds;
            let joined = left(job, "pairs").interval_join("pairs", &right(job, "pairs"), start..=end);
            job.emit(&joined.with_times(), BY_HASH);
            job.emit(&joined.unpaired_left(), BY_HASH);
            job.emit(&joined.unpaired_right(), BY_HASH);
            job.emit(&joined.late_left(), BY_HASH);
            job.emit(&joined.late_right(), BY_HASH);
            job.counts_keys_of("pairs");
        },
        oracle: |input, expected| {
            let (steps, mut emitted) = steps(input);
            let keys = model::join(&steps, &SHAPE, &mut emitted);
            for of in ["", "-unpaired-left", "-unpaired-right", "-late-left", "-late-right"] {
                expect(expected, &format!("join{of}"), &emitted);
            }
            expected.exact_keys("pairs", keys);
        },
    },
    Row {
        // Counts what comes until a timer of event time, set by the first.
        name: "event time, transform_with_state",
        covers: &["EventStream::transform_with_state", "KeyContext::is_late"],
        describe: |job| {
            let counted = both(job, "timed").transform_with_state("timers", |key, values: &[(u64, i64)]| {
                let mut count = key.take().unwrap_or(0u64);
                if !key.due().is_empty() {
                    key.emit((*key.key(), count));
                    count = 0;
                }
                let late = values.iter().filter(|(time_ms, _)| key.is_late(*time_ms)).count();
                let first = values.iter().map(|(time_ms, _)| *time_ms).find(|time_ms| !key.is_late(*time_ms));
                if let Some(first) = first.filter(|_| count == 0) {
                    key.set_timer(Timer::EventTime(first + SHAPE.gap));
                }
                count += (values.len() - late) as u64;
                if count > 0 {
                    key.update(count);
                }
            });
            job.emit(&counted, BY_HASH);
            job.keeps::<u16, u64>("timers");
        },
        oracle: |input, expected| {
            let (steps, mut emitted) = steps(input);
            let waiting = model::timers(&steps, &SHAPE, &mut emitted);
            expect(expected, "timers", &emitted);
            expected.state("timers", waiting);
        },
    },
];

/// What nothing is late or idle in would be no test.
#[test]
fn the_fixed_input_has_something_of_everything() {
    let input = crate::fixed_input(6);
    let emitted = model::run(&left_chunks(&input), &right_chunks(&input), &SHAPE);
    let labels: std::collections::BTreeSet<&str> =
        emitted.keys().filter_map(|key| key.rsplit_once(' ')).map(|(label, _)| label).collect();
    for label in labels {
        let rows = emitted.iter().filter(|(key, _)| key.rsplit_once(' ').is_some_and(|(of, _)| of == label));
        assert!(rows.map(|(_, rows)| rows.len()).sum::<usize>() > 0, "there is no {label}");
    }
    for revised in ["tumbling", "session"] {
        let is_revised =
            |(key, rows): (&String, &String)| key.starts_with(revised) && rows.contains("revision: 1");
        assert!(emitted.iter().any(is_revised), "no {revised} comes in two revisions");
    }
}
