//! The kit finds what is wrong with a job: each check fails on jobs that are broken in the way that it is for, and says
//! where.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond::testkit::{CrashPlan, Difference, Failure, Setup, TestContext};
use millpond::{DStream, FnSink, StateSpec};

type Sale = (String, u64);

fn sales() -> Vec<Vec<Sale>> {
    let sale = |customer: &str, amount| (customer.to_owned(), amount);
    vec![
        vec![sale("ada", 20), sale("bob", 7), sale("eve", 1)],
        vec![sale("ada", 1), sale("dan", 2)],
        vec![sale("eve", 300), sale("bob", 3)],
        vec![sale("ada", 5), sale("tom", 5)],
    ]
}

fn quick() -> Setup {
    Setup { pairs_max: 10, ..Setup::default() }
}

fn totals(sales: &DStream<Sale>, name: &str) -> DStream<Sale> {
    sales.update_state_by_key(name, |new, total: Option<u64>| {
        Some(total.unwrap_or(0) + new.iter().sum::<u64>())
    })
}

/// The failure says where it was, and names the replay; the case that it names is enough to see it again.
fn assert_replays(failure: &Failure, job: impl Fn(&TestContext, DStream<Sale>) + Sync) {
    let replay = failure.replay.clone().unwrap();
    let page = failure.to_string();
    assert!(page.contains(&format!("setup.replay(job, &input, &\"{replay}\".parse().unwrap())")), "{page}");
    assert!(page.contains("at disk step"), "{page}");
    let read = replay.to_string().parse().unwrap();
    assert!(quick().replay(job, &sales(), &read).is_err(), "{page}");
}

/// A closure that changes something outside: what is computed again changes it again.
#[test]
fn a_side_effect_in_a_closure_is_caught() {
    let job = |context: &TestContext, sales: DStream<Sale>| {
        let seen = context.outside::<u64>("sales seen");
        let counted = sales.map(move |sale| {
            *seen.lock().unwrap() += 1;
            sale
        });
        context.collect("totals", &totals(&counted, "totals"));
    };
    quick().deterministic(job, &vec![sales().concat()]).unwrap();
    let failure = quick().recovers(job, &sales()).unwrap_err();
    let Difference::Outside { name, expected, found } = &failure.differences[0] else { panic!("{failure}") };
    assert_eq!(name, "sales seen");
    assert!(expected[0] < found[0] || expected[0].len() < found[0].len(), "{failure}");
    assert_replays(&failure, job);
}

/// A closure that keeps state of its own, which is not the engine's and so is lost with a life.
#[test]
fn state_in_a_closure_is_caught_with_operator_and_key() {
    let job = |context: &TestContext, sales: DStream<Sale>| {
        let calls = AtomicU64::new(0);
        let numbered = sales.map(move |(customer, _)| (customer, calls.fetch_add(1, Ordering::SeqCst)));
        context.collect("last", &totals(&numbered, "numbers"));
    };
    let failure = quick().recovers(job, &sales()).unwrap_err();
    let Difference::State { operator, key, .. } = &failure.differences[0] else { panic!("{failure}") };
    assert_eq!(operator, "numbers");
    assert!(key.starts_with('"'), "a key is shown as text: {failure}");
    assert_replays(&failure, job);
}

/// The same found by running on other threads: which record gets which number is by chance.
#[test]
fn a_map_that_is_not_deterministic_is_caught() {
    let job = |context: &TestContext, sales: DStream<Sale>| {
        let drawn = sales.map(|(customer, amount)| {
            // Each hasher state has a seed of its own.
            let hasher = std::hash::RandomState::new();
            (customer, std::hash::BuildHasher::hash_one(&hasher, amount))
        });
        let healthy = totals(&sales, "healthy");
        let drawn = drawn.update_state_by_key("drawn", |new, _: Option<u64>| new.last().copied());
        context.collect("healthy", &healthy);
        context.collect("drawn", &drawn);
    };
    let failure = quick().deterministic(job, &sales()).unwrap_err();
    for difference in &failure.differences {
        match difference {
            Difference::State { operator, .. } => assert_eq!(operator, "drawn"),
            Difference::Output { output, .. } => assert_eq!(output, "drawn"),
            other => panic!("{other}"),
        }
    }
    assert!(failure.case.contains("run once more"), "{failure}");
    let failure = quick().recovers(job, &sales()).unwrap_err();
    assert!(failure.to_string().contains("operator `drawn`, key \""), "{failure}");
}

/// A fold whose result depends on the order in which a hash map gives its entries.
#[test]
fn a_fold_in_the_order_of_a_hash_map_is_caught() {
    let job = |context: &TestContext, sales: DStream<Sale>| {
        let chains =
            sales.map(|sale| ((), sale)).update_state_by_key("chain", |new, chain: Option<String>| {
                let by_customer: HashMap<&String, u64> =
                    new.iter().map(|(name, amount)| (name, *amount)).collect();
                Some(by_customer.keys().fold(chain.unwrap_or_default(), |chain, name| chain + name))
            });
        context.collect("chain", &chains);
    };
    let many = |batch: u64| (0..20).map(|n| (format!("customer {n}"), batch)).collect::<Vec<_>>();
    let failure = quick().deterministic(job, &vec![many(1), many(2)]).unwrap_err();
    let Difference::State { operator, key, .. } = &failure.differences[0] else { panic!("{failure}") };
    assert_eq!((operator.as_str(), key.as_str()), ("chain", "()"));
}

/// What looks at a partition as a whole sees how many there are, and nothing but their number shows it.
#[test]
fn a_job_that_depends_on_partitions_is_caught() {
    let job = |context: &TestContext, sales: DStream<Sale>| {
        let sizes = totals(&sales, "totals").glom().map(|partition| ((), partition.len() as u64));
        let most = sizes.update_state_by_key("largest partition", |new, most: Option<u64>| {
            new.iter().copied().chain(most).max()
        });
        context.collect("largest", &most);
    };
    let failure = quick().deterministic(job, &sales()).unwrap_err();
    assert!(failure.case.contains("in 1 partitions instead of 3"), "{failure}");
    let Difference::State { operator, found, .. } = &failure.differences[0] else { panic!("{failure}") };
    assert_eq!((operator.as_str(), found.as_deref()), ("largest partition", Some("3")));
    quick().recovers(job, &sales()).unwrap();
}

/// An output that appends has a batch twice when the crash comes between it and the record that it is done.
#[test]
fn an_output_that_is_not_idempotent_is_caught() {
    let job = |context: &TestContext, sales: DStream<Sale>| {
        let mailbox = context.outside::<Vec<Sale>>("mailbox");
        sales.write_to(
            "mailbox",
            FnSink::new(move |_, mut sales| {
                mailbox.lock().unwrap().append(&mut sales);
                Ok(())
            }),
        );
    };
    let failure = quick().recovers(job, &sales()).unwrap_err();
    let Difference::Outside { name, expected, found } = &failure.differences[0] else { panic!("{failure}") };
    assert_eq!(name, "mailbox");
    assert!(expected[0].len() < found[0].len(), "{failure}");
    assert_replays(&failure, job);
    let failure = quick().withstands_faults(job, &sales()).unwrap_err();
    assert!(failure.to_string().contains("outside `mailbox`"), "{failure}");
    assert_replays(&failure, job);
}

/// A version that gave an operator another name and does not say so would lose its state.
#[test]
fn an_upgrade_that_loses_state_is_caught() {
    let job = |name: &'static str| {
        move |context: &TestContext, sales: DStream<Sale>| {
            context.collect("totals", &totals(&sales, name));
        }
    };
    let failure = quick().upgrades(job("totals"), job("sums"), &sales()).unwrap_err();
    let page = failure.to_string();
    assert!(page.contains("the old version stopped after batch 1"), "{page}");
    assert!(page.contains("- `totals`: 3 keys are dropped"), "{page}");
    quick().upgrades(job("totals"), job("totals"), &vec![sales()[0].clone()]).unwrap();
}

/// A migration that is not a function of the value gives another state after a crash of the start.
#[test]
fn a_migration_that_is_not_deterministic_is_caught() {
    let old = |_: &TestContext, sales: DStream<Sale>| drop(totals(&sales, "totals"));
    let new = |_: &TestContext, sales: DStream<Sale>| {
        let calls = AtomicU64::new(0);
        let spec = StateSpec::named("totals").migrate_from(move |total: u64| {
            (
                total,
                std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), total)
                    + calls.fetch_add(1, Ordering::SeqCst) % 2,
            )
        });
        let _totals = sales.update_state_by_key(spec, |new, total: Option<(u64, u64)>| {
            let (total, drawn) = total.unwrap_or_default();
            Some((total + new.iter().sum::<u64>(), drawn))
        });
    };
    let failure = quick().upgrades(old, new, &sales()).unwrap_err();
    assert!(failure.case.contains("with a crash at disk step"), "{failure}");
    assert!(failure.to_string().contains("operator `totals`, key \""), "{failure}");
}

#[test]
fn a_job_that_stops_by_itself_is_reported_with_its_error() {
    let job = |context: &TestContext, sales: DStream<Sale>| {
        let failing = sales.map(|(customer, amount)| {
            assert!(amount < 300, "too much for {customer}");
            amount
        });
        context.collect("amounts", &failing);
    };
    let failure = quick().run(job, &sales()).unwrap_err();
    assert!(failure.to_string().contains("too much for eve"), "{failure}");
    assert!(quick().recovers(job, &sales()).is_err());
    assert!(quick().run_and_recover(job, &sales(), &CrashPlan::at([3])).is_err());
}

/// What a customer has bought: no number, and no type that the crate has.
#[millpond::data]
#[derive(Clone, PartialEq)]
struct Account {
    total: u64,
    last: Option<String>,
}

#[test]
fn values_are_shown_by_their_schema() {
    let job = |context: &TestContext, sales: DStream<Sale>| {
        let calls = AtomicU64::new(0);
        let accounts = sales.update_state_by_key("accounts", move |new, account: Option<Account>| {
            let last = Some(format!("sale {}", calls.fetch_add(1, Ordering::SeqCst)));
            Some(Account {
                total: account.map_or(0, |account| account.total) + new.iter().sum::<u64>(),
                last,
            })
        });
        context.collect("accounts", &accounts.map(|(customer, account)| (customer, account.total)));
    };
    let failure = quick().recovers(job, &sales()).unwrap_err();
    let Difference::State { key, expected: Some(expected), found: Some(found), .. } = &failure.differences[0]
    else {
        panic!("{failure}")
    };
    assert_eq!(key, "\"ada\"");
    assert!(expected.starts_with("{\"last\":\"sale ") && expected.ends_with("\",\"total\":26}"), "{failure}");
    assert_ne!(expected, found);
    let line = format!("operator `accounts`, key \"ada\": expected {expected}, found {found}");
    assert!(failure.to_string().contains(&line), "{failure}");
}

#[test]
fn a_case_is_not_replayed_by_a_check_that_it_is_not_of() {
    let job = |_: &TestContext, sales: DStream<Sale>| drop(totals(&sales, "totals"));
    let upgrade = "upgrade:1,stopped".parse().unwrap();
    let refused = quick().replay(job, &sales(), &upgrade).unwrap_err();
    assert!(refused.to_string().contains("takes two jobs"), "{refused}");
    quick().replay_upgrade(job, job, &sales(), &upgrade).unwrap();
    let refused = quick().replay_upgrade(job, job, &sales(), &CrashPlan::at([3]).into()).unwrap_err();
    assert!(refused.to_string().contains("takes one job"), "{refused}");
}
