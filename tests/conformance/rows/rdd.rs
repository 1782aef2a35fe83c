//! What `Rdd` offers besides: the same operations inside `transform`, and actions.

use crate::rows::pairs::{grouped, joined};
use crate::suite::{BY_HASH, Order, Pair, Row};

fn flat(parts: Vec<&[Pair]>) -> Vec<Pair> {
    parts.into_iter().flatten().copied().collect()
}

pub const ROWS: &[Row] = &[
    Row {
        name: "rdd, narrow",
        covers: &[
            "Rdd::map",
            "Rdd::filter",
            "Rdd::flat_map",
            "Rdd::map_partitions",
            "Rdd::map_values",
            "Rdd::union",
        ],
        describe: |job| {
            let narrow = job.left.transform(|rdd, _| {
                let even = rdd.filter(|(key, _)| key % 2 == 0).map_values(|value| value + 1);
                let twice = rdd.flat_map(|record, out| (0..2).for_each(|_| out.emit(record)));
                let last = rdd.map_partitions(|part| part.last().copied());
                Ok(even.union(&twice).union(&last).map(|(key, value)| (value, key)))
            });
            job.emit(&narrow, Order::Exact);
        },
        oracle: |input, expected| {
            expected.emit(input.left_partitions().map(|parts| {
                let last: Vec<Pair> = parts.iter().filter_map(|part| part.last().copied()).collect();
                let all = flat(parts);
                let even = all.iter().filter(|(key, _)| key % 2 == 0).map(|(key, value)| (*key, value + 1));
                let twice = all.iter().flat_map(|record| [*record, *record]);
                even.chain(twice).chain(last).map(|(key, value)| (value, key)).collect::<Vec<_>>()
            }));
        },
    },
    Row {
        name: "rdd, by key",
        covers: &["Rdd::reduce_by_key", "Rdd::group_by_key", "Rdd::join"],
        describe: |job| {
            job.emit(
                &job.left.transform(|rdd, _| Ok(rdd.reduce_by_key(|a, b| a * 3 + b))).map(|(key, _)| key),
                BY_HASH,
            );
            job.emit(&job.left.transform(|rdd, _| Ok(rdd.group_by_key())), BY_HASH);
            job.emit(
                &job.left.transform(|rdd, _| Ok(rdd.join(&rdd.filter(|(_, value)| *value > 0)))),
                BY_HASH,
            );
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| grouped(batch).into_keys()));
            expected.emit(input.left.iter().map(|batch| grouped(batch)));
            expected.emit(input.left.iter().map(|batch| {
                let positive: Vec<Pair> = batch.iter().filter(|(_, value)| *value > 0).copied().collect();
                joined(batch, &positive)
            }));
        },
    },
    Row {
        name: "rdd, partitions and caches",
        covers: &["Rdd::repartition", "Rdd::cache", "Rdd::uncache", "Rdd::partitions"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                let cached = rdd.repartition(3).cache();
                let first = cached.collect()?;
                cached.uncache(1);
                Ok(vec![(cached.partitions(), first, cached.collect()?)])
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left_partitions().map(|parts| {
                let mut three = vec![Vec::new(); 3];
                for (number, part) in parts.into_iter().enumerate() {
                    part.iter().enumerate().for_each(|(at, record)| three[(number + at) % 3].push(*record));
                }
                let all = three.concat();
                [(3, all.clone(), all)]
            }));
        },
    },
    Row {
        name: "rdd, actions",
        covers: &["Rdd::collect", "Rdd::take", "Rdd::count", "Rdd::reduce", "Rdd::for_each_partition"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                let values = rdd.map(|(_, value)| vec![value]);
                let merged = values.reduce(|one, other| [one, other].concat())?;
                Ok(vec![(rdd.collect()?, rdd.take(3)?, rdd.count()?, merged)])
            });
            job.act(&job.left, Order::Exact, |rdd| {
                let parts = std::sync::Mutex::new(std::collections::BTreeMap::new());
                rdd.for_each_partition(|number, records| {
                    parts.lock().unwrap().insert(number, records);
                    Ok(())
                })?;
                Ok(parts.into_inner().unwrap().into_iter().collect())
            });
        },
        oracle: |input, expected| {
            let merged =
                |batch: &[Pair]| (!batch.is_empty()).then(|| batch.iter().map(|(_, value)| *value).collect());
            expected.emit(input.left.iter().map(|batch| {
                let merged: Option<Vec<i64>> = merged(batch);
                [(batch, batch.iter().take(3).collect::<Vec<_>>(), batch.len(), merged)]
            }));
            expected
                .emit(input.left_partitions().map(|parts| parts.into_iter().enumerate().collect::<Vec<_>>()));
        },
    },
];
