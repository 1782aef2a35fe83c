//! What would have happened with other code? A shop gives loyal customers a discount, and wonders what its
//! revenue would be had it asked for more orders first: the batches that the store still has are computed again with the
//! other rule, beside the original, which is then proved by an audit.
//!
//! ```text
//! cargo run --example what_if
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use millpond::{
    CheckpointId, Error, ErrorKind, ManualClock, Queue, Result, StateSpec, StopMode, StreamingContext,
};

type Order = (String, u64);

/// Orders and cents of a customer.
type Account = (u64, u64);

const CUSTOMERS: [&str; 4] = ["ada", "bob", "cyd", "dot"];
const BATCHES: u64 = 12;

/// What is paid for the order that comes after so many others: 10 % less once a customer is loyal.
fn paid(orders: u64, cents: u64, loyal_from: u64) -> u64 {
    if orders >= loyal_from { cents - cents / 10 } else { cents }
}

/// The job, with the rule as its only difference.
fn shop(store: &Path, clock: &Arc<ManualClock>, loyal_from: u64) -> Result<(StreamingContext, Queue<Order>)> {
    let builder = StreamingContext::builder("shop").store(store.join("store")).clock(clock.clone());
    let context = builder.checkpoint_every_batches(4).checkpoints_retained(10).build()?;
    let (orders, queue) = context.queue_stream::<Order>("orders");
    let accounts =
        orders.update_state_by_key(StateSpec::named("accounts"), move |new, before: Option<Account>| {
            Some(new.iter().fold(before.unwrap_or_default(), |(orders, revenue), cents| {
                (orders + 1, revenue + paid(orders, *cents, loyal_from))
            }))
        });
    accounts.count().for_each_rdd(|rdd, info| {
        println!("{}: accounts changed: {}", info.time, rdd.collect()?.iter().sum::<u64>());
        Ok(())
    });
    Ok((context, queue))
}

/// The orders of a batch: `dot` orders too seldom to be loyal under either rule.
fn orders_of(batch: u64) -> Vec<Order> {
    let seldom = |name: &str| name != "dot" || batch.is_multiple_of(6);
    let names = CUSTOMERS.iter().filter(|name| seldom(name));
    names.zip(1..).map(|(name, nth)| ((*name).to_owned(), 100 * nth + batch)).collect()
}

/// The same in plain code.
fn expected(loyal_from: u64) -> BTreeMap<String, Account> {
    let mut accounts = BTreeMap::<String, Account>::new();
    for (name, cents) in (1..=BATCHES).flat_map(orders_of) {
        let (orders, revenue) = accounts.entry(name).or_default();
        *revenue += paid(*orders, cents, loyal_from);
        *orders += 1;
    }
    accounts
}

fn main() -> Result<()> {
    let io = |cause| Error::new(ErrorKind::Io, "make a temporary directory").caused_by(cause);
    let dir = tempfile::tempdir().map_err(io)?;
    let clock = ManualClock::at(0);
    let (context, queue) = shop(dir.path(), &clock, 3)?;
    let job = context.start()?;
    for batch in 1..=BATCHES {
        queue.push(orders_of(batch))?;
        clock.advance(1_000);
        while job.progress().batches < batch {
            job.await_termination_or_timeout(std::time::Duration::from_millis(1))?;
        }
    }
    job.stop(StopMode::Graceful)?;

    // The other rule, on the same input from the very beginning. No output is called, and the store stays as it is.
    let (context, _) = shop(dir.path(), &clock, 5)?;
    let fork = context.fork(CheckpointId(0))?;
    println!("{fork}");
    let (now, other) = (expected(3), expected(5));
    let mut differ = 0;
    for name in CUSTOMERS.map(str::to_owned) {
        assert_eq!(fork.state::<String, Account>("accounts")?.get(&name)?, other.get(&name).copied());
        differ += u64::from(now[&name] != other[&name]);
    }
    let accounts = fork.operator("accounts").ok_or_else(|| Error::new(ErrorKind::Corrupt, "no accounts"))?;
    assert_eq!((accounts.changed, accounts.equal, differ), (3, 1, 3));
    for key in &accounts.keys {
        let (before, after) = (key.before_as::<Account>()?, key.after_as::<Account>()?);
        let cents = |account: Option<Account>| account.map_or(0, |(_, revenue)| revenue);
        println!("{}: {} cents, {} with the other rule", key.key, cents(before), cents(after));
        assert_eq!(key.key_as::<String>().and_then(|name| now.get(&name).copied()), before);
    }

    // And the original is what its own rule makes.
    let (context, _) = shop(dir.path(), &clock, 3)?;
    let newest = context.checkpoints()?.last().map_or(CheckpointId(0), |kept| kept.checkpoint);
    let report = context.audit(CheckpointId(0), newest)?;
    println!("{report}");
    assert!(report.is_clean());
    Ok(())
}
