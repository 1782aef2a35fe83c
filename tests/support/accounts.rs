//! A job that keeps accounts: state of an own type with everything that exports and edits have to deal with.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use millpond::{ManualClock, Queue, RunningContext, StopMode, StreamingContext};

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

pub struct Accounts {
    pub running: RunningContext,
    pub queue: Queue<Payment>,
    clock: Arc<ManualClock>,
}

/// A checkpoint after every other batch, the first at a time that goes on from life to life.
pub fn start(store: &Path, since_ms: u64) -> Accounts {
    let clock = ManualClock::at(1_000_000 + since_ms);
    let context = StreamingContext::builder("accounts")
        .store(store)
        .clock(clock.clone())
        .batch_interval(Duration::from_secs(1))
        .checkpoint_every_batches(2)
        .threads(2)
        .stop_on_signals(false)
        .build()
        .unwrap();
    let (payments, queue) = context.queue_stream::<Payment>("payments");
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
    Accounts { running: context.start().unwrap(), queue, clock }
}

impl Accounts {
    /// A batch of these payments.
    pub fn batch(&self, payments: impl IntoIterator<Item = Payment>) {
        let before = self.running.progress().batches;
        self.queue.push(payments).unwrap();
        self.clock.advance(1_000);
        while self.running.progress().batches == before {
            assert!(!self.running.await_termination_or_timeout(Duration::from_millis(2)).unwrap());
        }
    }

    /// Waits until so many checkpoints of this life are written.
    pub fn settle(&self, checkpoints: u64) {
        while self.running.progress().checkpoints < checkpoints {
            assert!(!self.running.await_termination_or_timeout(Duration::from_millis(2)).unwrap());
        }
    }

    pub fn stop(self) {
        self.running.stop(StopMode::Now).unwrap();
    }
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
    accounts.stop();
}
