//! What is kept while a batch runs.

use millpond::StorageLevel;

use crate::suite::{Order, Pair, Row};

const LEVELS: [StorageLevel; 3] = [StorageLevel::Memory, StorageLevel::MemorySerialized, StorageLevel::Disk];

pub const ROWS: &[Row] = &[
    Row {
        name: "persist",
        covers: &["DStream::persist"],
        describe: |job| {
            for level in LEVELS {
                let kept = job.left.map(|(key, value)| (value, key)).persist(level);
                job.emit(&kept, Order::Exact);
                job.emit(&kept.map(|(value, key)| value + i64::from(key)), Order::Exact);
            }
        },
        oracle: |input, expected| {
            for _ in LEVELS {
                expected.emit(input.left.iter().map(|batch| batch.iter().map(|(key, value)| (value, key))));
                let sum = |(key, value): &Pair| value + i64::from(*key);
                expected.emit(input.left.iter().map(|batch| batch.iter().map(sum)));
            }
        },
    },
    Row {
        name: "rdd, kept",
        covers: &["Rdd::persist", "Rdd::unpersist", "Rdd::checkpoint"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                let mut all = Vec::new();
                for level in LEVELS {
                    let kept = rdd.persist(level);
                    all.push(kept.collect()?);
                    all.push(kept.collect()?);
                    kept.unpersist();
                    all.push(kept.collect()?);
                }
                let cut = rdd.filter(|(key, _)| key % 2 == 0).checkpoint();
                all.push(cut.collect()?);
                all.push(cut.collect()?);
                Ok(all)
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| {
                let even: Vec<Pair> = batch.iter().filter(|(key, _)| key % 2 == 0).copied().collect();
                let whole = std::iter::repeat_n(batch.clone(), 3 * LEVELS.len());
                whole.chain([even.clone(), even]).collect::<Vec<_>>()
            }));
        },
    },
];
