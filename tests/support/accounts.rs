//! A job that keeps accounts: state of an own type with everything that exports and edits have to deal with.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;

use millpond::{DStream, StopMode, StreamingContext};

use crate::manual_job::ManualJob;

#[millpond::data]
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    pub sum: i64,
    pub rate: f64,
    pub note: Option<String>,
    pub by_day: BTreeMap<u16, Vec<i64>>,
    pub kind: Kind,
    pub raw: Vec<u8>,
}

#[millpond::data]
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Kind {
    #[default]
    Plain,
    Shared(String, u8),
}

pub type Payment = ((String, u32), i64);

pub type Accounts = ManualJob<Payment>;

/// A checkpoint after every other batch, the first at a time that goes on from life to life.
pub fn start(store: &Path, since_ms: u64) -> Accounts {
    Accounts::start("accounts", store, 1_000_000 + since_ms, "payments", describe)
}

fn describe(context: &StreamingContext, payments: DStream<Payment>) {
    let total = context.accumulator("paid", 0i64, |a, b| a + b);
    let counted = payments.map(move |payment| {
        total.add(payment.1);
        payment
    });
    let _ = counted.update_state_by_key("accounts", |new, old: Option<Account>| {
        let mut account = old.unwrap_or_default();
        for amount in new {
            account.sum += amount;
            account.rate += 0.1;
            account.by_day.entry((amount % 7).unsigned_abs() as u16).or_default().push(*amount);
            if amount % 5 == 0 {
                account.kind = Kind::Shared(format!("shared, \"{amount}\""), 7);
                account.note = Some(format!("line\nof {amount}"));
                account.raw = vec![0xff, 0, 1];
            }
        }
        (account.sum != 0).then_some(account)
    });
}

pub fn payments(from: i64) -> Vec<Payment> {
    (from..from + 40).map(|n| ((format!("customer {}", n % 30), (n % 3) as u32), n)).collect()
}

/// A store after three batches, with a checkpoint after the second.
pub fn lived(store: &Path) {
    let accounts = start(store, 0);
    for batch in 0..3 {
        accounts.batch(payments(batch * 17 + 1));
    }
    accounts.settle(1);
    accounts.running.stop(StopMode::Now).unwrap();
}
