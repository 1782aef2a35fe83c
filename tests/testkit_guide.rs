//! The code of `docs/testing-your-job.md`, and more of the same: what a test of a user's job looks like.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

use millpond::testkit::strategies::{self, batches, crash_plans, cut_into_batches, setups};
use millpond::testkit::{self, CrashPlan, Setup, TestContext};
use millpond::{DStream, Sink, StateSpec, StreamingContext};
use proptest::prelude::*;

type Order = (String, u64);

/// The job, as its program describes it too: there with the orders of a socket, and a database as the ledger.
fn describe(orders: &DStream<Order>, ledger: impl Sink<Order>) {
    let totals = orders.update_state_by_key("totals", |new, total: Option<u64>| {
        let total = total.unwrap_or(0) + new.iter().sum::<u64>();
        (total > 0).then_some(total)
    });
    let _best = totals
        .map(|(customer, total)| ((), (total, customer)))
        .update_state_by_key("best", |new: &[(u64, String)], best: Option<(u64, String)>| {
            new.iter().cloned().chain(best).max()
        });
    totals.write_to("ledger", ledger);
}

/// The job in a test.
fn job(context: &TestContext, orders: DStream<Order>) {
    describe(&orders, context.sink("ledger"));
}

fn order(customer: &str, amount: u64) -> Order {
    (customer.to_owned(), amount)
}

fn orders() -> Vec<Vec<Order>> {
    vec![
        vec![order("ada", 20), order("bob", 7), order("ada", 1)],
        vec![],
        vec![order("eve", 300), order("bob", 3)],
        vec![order("ada", 5)],
    ]
}

#[test]
fn it_counts() {
    let outcome = testkit::run(job, &orders());
    let totals = outcome.state::<String, u64>("totals").unwrap();
    assert_eq!(totals.get(&"ada".to_owned()).unwrap(), Some(26));
    let ledger = outcome.output::<Order>("ledger");
    assert_eq!(ledger.len(), 4);
    assert_eq!(ledger[3], (4, vec![order("ada", 26)]));
}

#[test]
fn it_recovers() {
    testkit::assert_recovers(job, &orders());
}

#[test]
fn it_is_deterministic() {
    testkit::assert_deterministic(job, &orders());
}

#[test]
fn it_withstands_a_failing_disk() {
    testkit::assert_withstands_faults(job, &orders());
}

/// Every total also says how many orders it is made of.
fn next_version(context: &TestContext, orders: DStream<Order>) {
    let totals = StateSpec::named("totals").migrate_from(|total: u64| (total, 0u64));
    let totals = orders.update_state_by_key(totals, |new, total: Option<(u64, u64)>| {
        let (total, count) = total.unwrap_or_default();
        Some((total + new.iter().sum::<u64>(), count + new.len() as u64))
    });
    let _best = totals
        .map(|(customer, (total, _))| ((), (total, customer)))
        .update_state_by_key("best", |new: &[(u64, String)], best: Option<(u64, String)>| {
            new.iter().cloned().chain(best).max()
        });
    context.collect("ledger", &totals);
}

#[test]
fn the_next_version_takes_over() {
    for upgraded in testkit::assert_upgrades(job, next_version, &orders()) {
        let totals = upgraded.outcome.state::<String, (u64, u64)>("totals").unwrap();
        let (total, count) = totals.get(&"ada".to_owned()).unwrap().unwrap();
        assert_eq!(total, 26, "{upgraded:?}");
        assert!(count <= 3);
    }
}

proptest! {
    #![proptest_config(strategies::cases(12))]

    #[test]
    fn it_recovers_whatever_it_is_fed(
        input in batches(("[a-c]", 0u64..100), 1..5, 0..8),
        setup in setups(),
        plan in crash_plans(3),
    ) {
        setup.recovers_from(job, &input, &plan)?;
    }

    /// Where batches begin is no part of the answer.
    #[test]
    fn batch_boundaries_do_not_matter(input in cut_into_batches(orders().concat(), 6)) {
        let outcome = testkit::run(job, &input);
        let totals = outcome.state::<String, u64>("totals").unwrap();
        prop_assert_eq!(totals.get(&"ada".to_owned()).unwrap(), Some(26));
        prop_assert_eq!(totals.get(&"eve".to_owned()).unwrap(), Some(300));
    }
}

/// Two inputs, windows and timers: the checks know nothing of what a job is made of.
#[test]
fn a_join_over_windows_recovers() {
    let job = |context: &TestContext, (orders, rates): (DStream<Order>, DStream<Order>)| {
        let _: &StreamingContext = context;
        let (window, slide) = (std::time::Duration::from_secs(2), std::time::Duration::from_secs(1));
        let rates = rates.window("rates", window, slide);
        context.collect("converted", &orders.join(&rates).map(|(customer, (n, rate))| (customer, n * rate)));
        let windowed = orders.reduce_by_key_and_window("windowed", window, slide, |a, b| a + b);
        context.collect("windowed", &windowed);
    };
    let rates = vec![vec![order("ada", 2)], vec![order("bob", 3)], vec![], vec![order("ada", 4)]];
    let input = (orders(), rates);
    let setup = Setup { pairs_max: 30, batches_after_input: 2, ..Setup::default() };
    let coverage = setup.recovers(job, &input).unwrap();
    assert!(coverage.boundaries > 60, "{coverage:?}");
    assert_eq!(coverage.pairs, 30, "{coverage:?}");
    setup.deterministic(job, &input).unwrap();
}

#[test]
fn a_plan_crashes_where_it_says() {
    let crashed = testkit::run_and_recover(job, &orders(), &CrashPlan::at([1, 30, 7]));
    assert_eq!(crashed.starts(), 4);
    assert_eq!(testkit::run(job, &orders()).differences(&crashed), []);
}

/// Files that an output writes are compared by whoever knows what is in them.
#[test]
fn saved_files_are_there_once() {
    let job = |context: &TestContext, orders: DStream<Order>| {
        let dir = context.directory();
        orders
            .map(|(customer, amount)| format!("{customer} {amount}"))
            .save_as_text_files(dir.join("orders"), "");
        context.compare("files", move || {
            let mut dirs: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|dir| dir.unwrap().path()).collect();
            dirs.sort();
            let files = dirs.iter().flat_map(|dir| ["part-00000", "part-00001"].map(|part| dir.join(part)));
            files.filter_map(|file| std::fs::read_to_string(file).ok()).collect()
        });
    };
    let coverage = Setup { pairs_max: 20, ..Setup::default() }.recovers(job, &orders()).unwrap();
    assert!(coverage.boundaries > 60, "{coverage:?}");
}
