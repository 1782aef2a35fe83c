//! Orders per customer: a type of your own as state, which is removed when the customer leaves.
//!
//! ```text
//! cargo run --release --example stateful_totals
//! ```
//!
//! It takes 6 000 orders in about six seconds, then ends. Kill it and start it again: it goes on where it was,
//! to the same totals. Remove `millpond-demo/stateful-totals` to start over.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "support/numbered.rs"]
mod numbered;
#[path = "support/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Duration;

use millpond::{BatchInfo, OutputError, Rdd, StreamingContext};
use numbered::Numbered;

const ORDERS: u64 = 6_000;
const ORDERS_PER_BATCH: u64 = 120;

/// What the stream is made of. It crosses a shuffle, so it is data.
#[millpond::data]
#[derive(Clone)]
struct Order {
    customer: String,
    cents: u64,
    leaves: bool,
}

/// What is kept for each customer. It is checkpointed, so it is data too.
#[millpond::data]
#[derive(Clone, Debug, Default, PartialEq)]
struct Account {
    orders: u64,
    cents: u64,
}

/// The new account of a customer; `None` removes it, and nothing of it stays behind.
fn settle(orders: &[Order], mut account: Option<Account>) -> Option<Account> {
    for order in orders {
        let open = account.get_or_insert_default();
        open.orders += 1;
        open.cents += order.cents;
        if order.leaves {
            account = None;
        }
    }
    account
}

/// Order number `number` of a shop that always sells the same.
fn order(number: u64) -> Order {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    Order {
        customer: format!("customer-{:03}", scattered % 300),
        cents: 100 + scattered % 9_900,
        leaves: number % 20 == 19,
    }
}

/// A sink outside of the job: one file per batch, under a name that is the same whenever this batch is
/// emitted. So one that is emitted again after a crash replaces itself, and none counts twice.
fn write_statement(dir: &Path, touched: Rdd<(String, Account)>, info: &BatchInfo) -> Result<(), OutputError> {
    let mut text = String::new();
    for (customer, account) in touched.collect()? {
        text += &format!("{customer}\t{}\t{}\n", account.orders, account.cents);
    }
    if !text.is_empty() {
        let name = info.idempotency_key().replace('/', "_");
        fs::write(dir.join("unfinished"), text)?;
        fs::rename(dir.join("unfinished"), dir.join(name))?;
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Path::new("millpond-demo/stateful-totals");
    let statements = dir.join("statements");
    fs::create_dir_all(&statements)?;
    let context = StreamingContext::builder("stateful-totals")
        .store(dir.join("store"))
        .batch_interval(Duration::from_millis(100))
        .build()?;
    let into = statements.clone();
    context
        .replayable_stream("orders", Numbered::new(ORDERS, ORDERS_PER_BATCH, order))
        .map(|order| (order.customer.clone(), order))
        .update_state_by_key("accounts", settle)
        .for_each_rdd(move |touched, info| write_statement(&into, touched, info));
    let job = context.start()?;
    run::tell(job.recovery());
    // The state can be read while the job runs.
    let accounts = job.state::<String, Account>("accounts")?;
    let ended = run::run_to_end(&job, || {
        println!("{} customers have open accounts", accounts.len());
        Ok(())
    })?;
    if !ended {
        return Ok(());
    }

    let mut expected = BTreeMap::new();
    for number in 0..ORDERS {
        let order = order(number);
        let account = settle(std::slice::from_ref(&order), expected.remove(&order.customer));
        expected.extend(account.map(|account| (order.customer, account)));
    }
    let mut found = BTreeMap::new();
    accounts.for_each(|customer, account| found.extend([(customer, account)]))?;
    let cents: u64 = found.values().map(|account| account.cents).sum();
    let written = fs::read_dir(&statements)?.count();
    println!("all orders taken: {} accounts, {cents} cents, {written} statements", found.len());
    if found != expected {
        return Err("these are not the accounts of these orders".into());
    }
    println!("checked: {ORDERS} orders each counted once");
    Ok(())
}
