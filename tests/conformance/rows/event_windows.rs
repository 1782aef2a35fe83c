//! Windows of event time, of every kind and with every fold.

use millpond::EventWindows;

use crate::event_time_model as model;
use crate::rows::event_time::{SHAPE, both, expect, ms, steps};
use crate::suite::{BY_HASH, Row};

fn in_order(values: &mut [i64]) -> Vec<i64> {
    values.sort_by_key(|value| model::time_of(*value));
    values.to_vec()
}

fn count_and_sum(values: &mut [i64]) -> (u64, i64) {
    (values.len() as u64, values.iter().sum())
}

fn add((count, sum): (u64, i64), value: i64) -> (u64, i64) {
    (count + 1, sum + value)
}

fn merge(one: (u64, i64), other: (u64, i64)) -> (u64, i64) {
    (one.0 + other.0, one.1 + other.1)
}

fn tumbling() -> EventWindows {
    EventWindows::tumbling(ms(SHAPE.size)).offset(ms(SHAPE.offset)).allowed_lateness(ms(SHAPE.lateness))
}

fn sliding() -> EventWindows {
    let windows = EventWindows::sliding(ms(SHAPE.size), ms(SHAPE.slide));
    windows.offset(ms(SHAPE.offset)).allowed_lateness(ms(SHAPE.lateness))
}

fn session() -> EventWindows {
    EventWindows::session(ms(SHAPE.gap)).allowed_lateness(ms(SHAPE.lateness))
}

pub const ROWS: &[Row] = &[
    Row {
        name: "event time, tumbling windows",
        covers: &[
            "EventStream::window",
            "WindowedEvents::collect",
            "WindowedEvents::count",
            "Windowed::results",
            "Windowed::late",
        ],
        describe: |job| {
            let both = both(job, "tumbling events");
            let collected = both.window("tumbling", tumbling()).collect();
            job.emit(&collected.results(), BY_HASH);
            job.emit(&collected.late(), BY_HASH);
            // Nothing is kept for late ones.
            let strict = EventWindows::tumbling(ms(SHAPE.size));
            let counted = both.window("strict", strict).count();
            job.emit(&counted.results(), BY_HASH);
            job.emit(&counted.late(), BY_HASH);
            job.counts_keys_of("tumbling");
            job.counts_keys_of("strict");
        },
        oracle: |input, expected| {
            let (steps, mut emitted) = steps(input);
            let keys = model::windows(&steps, &SHAPE, SHAPE.size, "tumbling", in_order, &mut emitted);
            let strict = model::Shape { offset: 0, lateness: 0, ..SHAPE };
            let count = |values: &mut [i64]| values.len();
            let strict_keys = model::windows(&steps, &strict, strict.size, "strict", count, &mut emitted);
            for label in ["tumbling", "tumbling-late", "strict", "strict-late"] {
                expect(expected, label, &emitted);
            }
            expected.exact_keys("tumbling", keys);
            expected.exact_keys("strict", strict_keys);
        },
    },
    Row {
        name: "event time, sliding windows",
        covers: &["WindowedEvents::aggregate", "WindowedEvents::reduce"],
        describe: |job| {
            let both = both(job, "sliding events");
            let aggregated = both.window("sliding", sliding()).aggregate((0, 0), add, merge);
            job.emit(&aggregated.results(), BY_HASH);
            job.emit(&aggregated.late(), BY_HASH);
            job.emit(&both.window("largest", sliding()).reduce(i64::max).results(), BY_HASH);
            job.counts_keys_of("sliding");
            job.counts_keys_of("largest");
        },
        oracle: |input, expected| {
            let (steps, mut emitted) = steps(input);
            let keys = model::windows(&steps, &SHAPE, SHAPE.slide, "sliding", count_and_sum, &mut emitted);
            let largest = |values: &mut [i64]| values.iter().copied().fold(0, i64::max);
            model::windows(&steps, &SHAPE, SHAPE.slide, "largest", largest, &mut emitted);
            for label in ["sliding", "sliding-late", "largest"] {
                expect(expected, label, &emitted);
            }
            expected.exact_keys("sliding", keys);
            expected.exact_keys("largest", keys);
        },
    },
    Row {
        name: "event time, sessions",
        covers: &["EventStream::window", "Windowed::results", "Windowed::late"],
        describe: |job| {
            let both = both(job, "session events");
            let sessions = both.window("sessions", session()).collect();
            job.emit(&sessions.results(), BY_HASH);
            job.emit(&sessions.late(), BY_HASH);
            job.counts_keys_of("sessions");
        },
        oracle: |input, expected| {
            let (steps, mut emitted) = steps(input);
            let keys = model::sessions(&steps, &SHAPE, &mut emitted);
            expect(expected, "session", &emitted);
            expect(expected, "session-late", &emitted);
            expected.exact_keys("sessions", keys);
        },
    },
];
