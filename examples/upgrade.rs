//! A job gets a new version and keeps its state: version 1 counts orders, version 2 goes on with these counts under
//! another name, and adds up amounts too.
//!
//! ```text
//! cargo run --example upgrade
//! ```

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

use std::path::Path;
use std::sync::Arc;

use millpond::{ContextBuilder, DStream, ManualClock, Queue, Result, StateSpec, StopMode, StreamingContext};

type Order = (String, u64);

/// What both versions have: orders of customers, with their amounts.
fn orders(builder: ContextBuilder) -> Result<(StreamingContext, DStream<Order>, Queue<Order>)> {
    let context = builder.build()?;
    let (orders, queue) = context.queue_stream::<Order>("orders");
    Ok((context, orders, queue))
}

fn order(customer: &str, amount: u64) -> Order {
    (customer.to_owned(), amount)
}

/// Counts the orders of each customer.
fn version_1(builder: ContextBuilder, clock: &ManualClock) -> Result<()> {
    let (context, orders, queue) = orders(builder)?;
    let counts = orders
        .update_state_by_key("counts", |new, count: Option<u64>| Some(count.unwrap_or(0) + new.len() as u64));
    counts.print(10);
    let job = context.start()?;
    queue.push([order("ada", 20), order("bob", 5), order("ada", 7)])?;
    clock.advance(1_000);
    job.stop(StopMode::Graceful)
}

/// Counts them and adds up their amounts; what came before has no amounts.
fn version_2(builder: ContextBuilder, clock: &ManualClock) -> Result<()> {
    let (context, orders, queue) = orders(builder)?;
    let sales = StateSpec::named("sales").was("counts").migrate_from(|count: u64| (count, 0u64));
    let sales = orders.update_state_by_key(sales, |new, sales: Option<(u64, u64)>| {
        let (count, amount) = sales.unwrap_or_default();
        Some((count + new.len() as u64, amount + new.iter().sum::<u64>()))
    });
    sales.print(10);
    println!("{}", context.plan()?);
    let job = context.start()?;
    queue.push([order("ada", 100)])?;
    clock.advance(1_000);
    job.stop(StopMode::Graceful)?;
    let sales = job.state::<String, (u64, u64)>("sales")?;
    assert_eq!(sales.get(&"ada".to_owned())?, Some((3, 100)));
    assert_eq!(sales.get(&"bob".to_owned())?, Some((1, 0)));
    Ok(())
}

fn main() -> Result<()> {
    let dir = tempfile::tempdir().map_err(|cause| {
        millpond::Error::new(millpond::ErrorKind::Io, "make a temporary directory").caused_by(cause)
    })?;
    let clock = ManualClock::at(0);
    let builder = |store: &Path, clock: &Arc<ManualClock>| {
        StreamingContext::builder("sales").store(store.join("store")).clock(clock.clone())
    };
    version_1(builder(dir.path(), &clock), &clock)?;
    version_2(builder(dir.path(), &clock), &clock)
}
