//! The queries of Nexmark as jobs give what plain loops over the same events give, and give it also when they crash.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "../benches/nexmark/events.rs"]
mod events;
#[path = "../benches/nexmark/plain.rs"]
mod plain;
#[path = "../benches/nexmark/queries.rs"]
mod queries;

use millpond::DStream;
use millpond::testkit::{CrashPlan, Outcome, Setup, TestContext};

use events::{Event, generate};
use queries::{QUERIES, Row};

const BATCH: usize = 500;

/// Some minutes of a quiet auction house.
fn input() -> Vec<Vec<Event>> {
    generate(12_000, 100).chunks(BATCH).map(<[Event]>::to_vec).collect()
}

/// The rows of each batch, in order.
fn expected(query: &str, input: &[Vec<Event>]) -> Vec<Vec<Row>> {
    let mut plain = plain::query(query);
    let rows_of = |batch: &Vec<Event>| {
        let mut rows = Vec::new();
        plain.batch(&mut batch.iter().cloned(), &mut |row| rows.push(row));
        rows.sort();
        rows
    };
    input.iter().map(rows_of).collect()
}

fn rows(outcome: &Outcome, batches: usize) -> Vec<Vec<Row>> {
    let mut rows = vec![Vec::new(); batches];
    for (batch, found) in outcome.output::<Row>("rows") {
        rows[batch as usize - 1] = found;
        rows[batch as usize - 1].sort();
    }
    rows
}

#[test]
fn every_query_gives_what_a_plain_loop_gives() {
    let input = input();
    for query in QUERIES {
        let job = |context: &TestContext, events: DStream<Event>| {
            context.collect("rows", &queries::query(query, &events));
        };
        let expected = expected(query, &input);
        let count: usize = expected.iter().map(Vec::len).sum();
        assert!(count > 5, "{query} has {count} rows");
        let setup = Setup { threads: 2, partitions: 5, ..Setup::default() };
        let found = setup.run(job, &input).unwrap();
        assert_eq!(rows(&found, input.len()), expected, "{query}");
        // In the middle of the run, in the start after it, and close to the end.
        let crashed = setup.run_and_recover(job, &input, &CrashPlan::at([150, 9, 60])).unwrap();
        assert_eq!(crashed.starts(), 4, "{query}");
        assert_eq!(rows(&crashed, input.len()), expected, "{query}, crashed");
    }
}
