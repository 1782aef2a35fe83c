//! Values that the closures of a job share.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond::Reload;

use crate::lives::INTERVAL_MS;
use crate::rows::pairs::grouped;
use crate::suite::{BY_HASH, Order, Pair, Row};

fn sum(a: u64, b: u64) -> u64 {
    a + b
}

/// The version that a batch sees of what changes with every batch of an odd number.
fn version(batch: usize) -> u64 {
    (batch as u64 - 1) / 2 * 2 + 1
}

/// A data set: most keys up to 9, a third of them with rows that change; some are there twice.
fn prices(version: u64) -> Vec<(u16, u64)> {
    let there = (0..10u16).filter(move |key| u64::from(*key) != version % 10);
    let price = move |key: u16| u64::from(key) * 100 + if key.is_multiple_of(3) { version } else { 0 };
    there.clone().map(|key| (key, 0)).chain(there.map(|key| (key, price(key)))).collect()
}

pub const ROWS: &[Row] = &[
    Row {
        // A stream that is computed for two outputs, an output that fails once after it has added, and a
        // visit per key: each adds once.
        name: "accumulator",
        covers: &["Accumulator::add", "Accumulator::value"],
        describe: |job| {
            let count = job.context.accumulator("counted", 0u64, sum);
            let (mapped, visited) = (count.clone(), count.clone());
            let added = job.left.map(move |record| {
                mapped.add(1);
                record
            });
            job.emit(&added, Order::Exact);
            let values = added.update_state_by_key("values", move |new: &[i64], _: Option<u64>| {
                visited.add(1_000);
                Some(new.len() as u64)
            });
            job.keeps::<u16, u64>("values");
            let (emitted, failed) = (job.collector(Order::Exact), AtomicU64::new(0));
            values.for_each_rdd(move |_, info| {
                emitted.put(info, [count.value()]);
                count.add(1_000_000);
                if info.batch.0 % 2 == 0 && failed.swap(info.batch.0, Ordering::SeqCst) != info.batch.0 {
                    return Err("the sink has trouble for once".into());
                }
                Ok(())
            });
            job.keeps::<(), u64>("accumulator counted");
        },
        oracle: |input, expected| {
            let (mut values, mut before, mut total) = (BTreeMap::new(), Vec::new(), 0);
            for batch in &input.left {
                before.push([total]);
                let keys = grouped(batch);
                total += batch.len() as u64 + keys.len() as u64 * 1_000 + 1_000_000;
                values.extend(keys.into_iter().map(|(key, values)| (key, values.len())));
            }
            expected.emit(&input.left);
            expected.emit(before);
            expected.state("values", values);
            expected.state("accumulator counted", [((), total)]);
        },
    },
    Row {
        // The rules are asked on the driver's thread just before a batch is planned: what they note is what
        // the batch sees, also when it is replayed, and no rule is asked again.
        name: "broadcast and data sets",
        covers: &[
            "Broadcast::update",
            "Broadcast::value",
            "DStream::join_dataset",
            "DStream::left_join_dataset",
            "Reload::every",
            "Reload::once",
            "Reload::when",
        ],
        describe: |job| {
            let factor = job.context.broadcast("factor", 0i64);
            let (updated, read) = (factor.clone(), factor);
            let version = Arc::new(AtomicU64::new(0));
            let noted = version.clone();
            let odd = Reload::when(move |time| {
                let batch = time.0 / INTERVAL_MS;
                if batch.is_multiple_of(2) {
                    return false;
                }
                noted.store(batch, Ordering::SeqCst);
                // Refused where the job ends: the batch is then not planned.
                drop(updated.update(batch as i64));
                true
            });
            let load = move || Ok(prices(version.load(Ordering::SeqCst)));
            let changing = job.context.dataset("changing", odd, load);
            let scaled = job.left.map(move |(key, value)| (key % 12, value * *read.value()));
            job.emit(&scaled, Order::Exact);
            job.emit(&scaled.join_dataset(&changing), BY_HASH);
            job.emit(&scaled.left_join_dataset(&changing), BY_HASH);
            job.keeps::<(), i64>("broadcast factor");
            job.keeps::<u16, u64>("dataset changing");
            let often = Reload::every(std::time::Duration::from_millis(2 * INTERVAL_MS));
            for (name, reload) in [("reloaded", often), ("loaded once", Reload::once())] {
                let fixed = job.context.dataset(name, reload, || Ok(prices(5)));
                job.emit(&job.right.left_join_dataset(&fixed), BY_HASH);
            }
        },
        oracle: |input, expected| {
            let scale = |(batch, records): (usize, &Vec<Pair>)| -> Vec<Pair> {
                let factor = version(batch + 1) as i64;
                records.iter().map(|(key, value)| (key % 12, value * factor)).collect()
            };
            let scaled: Vec<Vec<Pair>> = input.left.iter().enumerate().map(scale).collect();
            let with_price = |batch: &Vec<Pair>, version| -> Vec<(u16, (i64, Option<u64>))> {
                let prices = BTreeMap::from_iter(prices(version));
                batch.iter().map(|(key, value)| (*key, (*value, prices.get(key).copied()))).collect()
            };
            let joined: Vec<_> =
                (1..).zip(&scaled).map(|(batch, records)| with_price(records, version(batch))).collect();
            expected.emit(&scaled);
            expected.emit(joined.iter().map(|batch| {
                batch.iter().filter_map(|(key, (value, price))| Some((key, (value, (*price)?))))
            }));
            expected.emit(&joined);
            for _ in 0..2 {
                expected.emit(input.right.iter().map(|batch| with_price(batch, 5)));
            }
            let last = version(input.left.len());
            expected.state("broadcast factor", [((), last)]);
            expected.state("dataset changing", BTreeMap::from_iter(prices(last)));
        },
    },
];
