//! Sinks: what they hold is outside of the job, and no crash of it touches that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use millpond::{BatchInfo, Begin, FnSink, OutputError, Record, Sink, SinkId, SinkStart};

use crate::rows::pairs::grouped;
use crate::suite::{BY_HASH, Input, Job, Order, Pair, Row};

/// The records of some partitions, as text.
fn shown<T: Debug>(partitions: &[Vec<T>]) -> Vec<String> {
    partitions.iter().flatten().map(|record| format!("{record:?}")).collect()
}

/// A transactional sink: a ledger, and what it has committed of each batch.
struct Ledger<T> {
    store: Option<String>,
    starts: u64,
    last: u64,
    /// By the time of the batch.
    rows: BTreeMap<u64, Vec<Vec<T>>>,
    failed: BTreeSet<(u64, &'static str)>,
}

impl<T> Default for Ledger<T> {
    fn default() -> Self {
        Ledger { store: None, starts: 0, last: 0, rows: BTreeMap::new(), failed: BTreeSet::new() }
    }
}

impl<T> Ledger<T> {
    /// Fails in every batch of such a number, for once.
    fn fails(&mut self, info: &BatchInfo, every: u64, when: &'static str) -> Result<(), OutputError> {
        let batch = info.batch.0;
        match batch.is_multiple_of(every) && self.failed.insert((batch, when)) {
            true => Err(format!("the ledger has trouble {when} the commit").into()),
            false => Ok(()),
        }
    }
}

struct Transactional<T> {
    ledger: Arc<Mutex<Ledger<T>>>,
    start: AtomicU64,
}

impl<T> Transactional<T> {
    fn ledger(&self) -> MutexGuard<'_, Ledger<T>> {
        self.ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<T: Record + Debug> Sink<T> for Transactional<T> {
    type Staged = (usize, Vec<T>);

    fn open(&self, start: &SinkStart) -> Result<(), OutputError> {
        let mut ledger = self.ledger();
        let of_another = ledger.store.as_ref().is_some_and(|store| *store != start.store);
        if of_another || ledger.last > start.last_batch.0 || !start.lost.is_empty() {
            return Err(format!("{start:?} does not fit a ledger at batch {}", ledger.last).into());
        }
        ledger.store = Some(start.store.clone());
        ledger.starts += 1;
        self.start.store(ledger.starts, Ordering::SeqCst);
        Ok(())
    }

    fn begin(&self, info: &BatchInfo) -> Result<Begin, OutputError> {
        Ok(if info.batch.0 <= self.ledger().last { Begin::Skip } else { Begin::Write })
    }

    fn write(&self, id: &SinkId, records: Vec<T>) -> Result<Self::Staged, OutputError> {
        Ok((id.partition, records))
    }

    fn commit(&self, info: &BatchInfo, staged: Vec<Self::Staged>) -> Result<(), OutputError> {
        let mut ledger = self.ledger();
        assert_eq!(ledger.starts, self.start.load(Ordering::SeqCst), "a job that is over commits");
        assert_eq!(ledger.last + 1, info.batch.0, "batches come one after the other");
        assert!(staged.iter().map(|(number, _)| *number).eq(0..staged.len()), "in order of the partitions");
        ledger.fails(info, 4, "before")?;
        ledger.last = info.batch.0;
        ledger.rows.insert(info.time.0, staged.into_iter().map(|(_, records)| records).collect());
        ledger.fails(info, 3, "after")
    }
}

/// Writes a stream to a ledger, and compares what is in it in the end.
fn write_to_ledger<T: Record + Debug>(
    job: &Job<'_>,
    stream: &millpond::DStream<T>,
    name: &str,
    order: Order,
) {
    let ledger = job.outside::<Arc<Mutex<Ledger<T>>>>();
    stream.write_to(name, Transactional { ledger: (*ledger).clone(), start: AtomicU64::new(0) });
    job.emitted_outside(order, move |time_ms| {
        ledger.lock().unwrap().rows.get(&time_ms).map(|rows| shown(rows)).unwrap_or_default()
    });
}

/// What an idempotent sink holds: records by the time of their batch, its partition and its key.
type ByKey = Mutex<BTreeMap<(u64, usize, String), Vec<Pair>>>;

pub const ROWS: &[Row] = &[
    Row {
        // The ledger fails before some commits, and after others.
        name: "write_to, transactional",
        covers: &["DStream::write_to"],
        describe: |job| {
            write_to_ledger(job, &job.left, "pairs", Order::Exact);
            let groups = job.right.group_by_key();
            write_to_ledger(job, &groups, "groups", BY_HASH);
        },
        oracle: |input, expected| {
            expected.emit(&input.left);
            expected.emit(input.right.iter().map(|batch| grouped(batch)));
        },
    },
    Row {
        // Some partitions are stored, and the attempt fails; what comes again is the same under the same key.
        name: "write_to, idempotent",
        covers: &["DStream::write_to"],
        describe: |job| {
            let rows = job.outside::<ByKey>();
            let (written, failed) = (rows.clone(), Mutex::new(BTreeSet::new()));
            let write = move |id: &SinkId, records: Vec<Pair>| {
                let place = (id.batch.time.0, id.partition, id.idempotency_key());
                let before = written.lock().unwrap().insert(place, records.clone());
                if before.is_some_and(|before| before != records) {
                    return Err(format!("{} was written with other records", id.idempotency_key()).into());
                }
                let (batch, partition) = (id.batch.batch.0, id.partition as u64);
                let fails = (batch + partition).is_multiple_of(3);
                match fails && failed.lock().unwrap().insert((batch, partition)) {
                    true => Err("the connection is lost after a write".into()),
                    false => Ok(()),
                }
            };
            job.left.write_to("rows by key", FnSink::new(write));
            job.emitted_outside(Order::Exact, move |time_ms| {
                let rows = rows.lock().unwrap();
                let of_batch = rows.iter().filter(|((time, ..), _)| *time == time_ms);
                shown(&of_batch.map(|(_, records)| records.clone()).collect::<Vec<_>>())
            });
        },
        oracle: |input: &Input, expected| expected.emit(&input.left),
    },
];
