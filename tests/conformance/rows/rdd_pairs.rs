//! Values of one key, brought together inside `transform`.

use std::collections::{BTreeMap, BTreeSet};

use crate::rows::pairs::{grouped, joined};
use crate::suite::{BY_HASH, Order, Pair, Row};

fn push(mut list: Vec<i64>, value: i64) -> Vec<i64> {
    list.push(value);
    list
}

fn concat(one: Vec<i64>, other: Vec<i64>) -> Vec<i64> {
    [one, other].concat()
}

pub const ROWS: &[Row] = &[
    Row {
        // By what does not commute, before a shuffle and where the pairs are together already.
        name: "rdd, combined by key",
        covers: &["Rdd::combine_by_key", "Rdd::aggregate_by_key", "Rdd::fold_by_key"],
        describe: |job| {
            for partitioned in [false, true] {
                let pairs = job
                    .left
                    .transform(move |rdd, _| Ok(if partitioned { rdd.partition_by_key(5) } else { rdd }));
                let combined = |value| vec![value];
                let combine = move |rdd: &millpond::Rdd<Pair>| rdd.combine_by_key(combined, push, concat);
                job.emit(&pairs.transform(move |rdd, _| Ok(combine(&rdd))), BY_HASH);
                let aggregated = pairs.transform(|rdd, _| Ok(rdd.aggregate_by_key(Vec::new(), push, concat)));
                job.emit(&aggregated, BY_HASH);
                let lists = pairs.map_values(|value| vec![value]);
                job.emit(&lists.transform(|rdd, _| Ok(rdd.fold_by_key(Vec::new(), concat))), BY_HASH);
            }
        },
        oracle: |input, expected| {
            (0..6).for_each(|_| expected.emit(input.left.iter().map(|batch| grouped(batch))));
        },
    },
    Row {
        name: "rdd, flat_map_values",
        covers: &["Rdd::flat_map_values"],
        describe: |job| {
            let split = |rdd: &millpond::Rdd<Pair>| {
                rdd.flat_map_values(|value, out| (0..value.max(0)).for_each(|part| out.emit(part)))
            };
            job.emit(&job.left.transform(move |rdd, _| Ok(split(&rdd))), Order::Exact);
            let together =
                job.left.transform(move |rdd, _| Ok(split(&rdd.partition_by_key(3)).group_by_key()));
            job.emit(&together, BY_HASH);
        },
        oracle: |input, expected| {
            let split = |(key, value): &Pair| {
                let key = *key;
                (0..(*value).max(0)).map(move |part| (key, part))
            };
            let batches = || input.left.iter().map(|batch| batch.iter().flat_map(split).collect::<Vec<_>>());
            expected.emit(batches());
            expected.emit(batches().map(|batch| grouped(&batch)));
        },
    },
    Row {
        // Filtered twice where the pairs are together already, read as records and by key; some keys go.
        name: "filter, by key",
        covers: &["DStream::filter", "Rdd::filter"],
        describe: |job| {
            let together = job.left.transform(|rdd, _| Ok(rdd.partition_by_key(5)));
            let kept =
                together.filter(|(key, value)| key % 3 != 0 && *value > -4).filter(|(_, value)| *value < 4);
            job.emit(&kept, BY_HASH);
            job.emit(&kept.group_by_key(), BY_HASH);
            let joined = job.left.transform_with(&job.right, |left, right, _| {
                Ok(left.join(&right).filter(|(_, (one, other))| one < other).group_by_key())
            });
            job.emit(&joined, BY_HASH);
        },
        oracle: |input, expected| {
            let keep = |(key, value): &&Pair| key % 3 != 0 && (-3..4).contains(value);
            let kept = |batch: &Vec<Pair>| batch.iter().filter(keep).copied().collect::<Vec<_>>();
            expected.emit(input.left.iter().map(kept));
            expected.emit(input.left.iter().map(|batch| grouped(&kept(batch))));
            expected.emit(input.left.iter().zip(&input.right).map(|(left, right)| {
                let mut groups = BTreeMap::<u16, Vec<(i64, i64)>>::new();
                for (key, (one, other)) in joined(left, right) {
                    if one < other {
                        groups.entry(key).or_default().push((one, other));
                    }
                }
                groups
            }));
        },
    },
    Row {
        // Each key in one partition only, its values in their order.
        name: "rdd, partition_by_key",
        covers: &["Rdd::partition_by_key"],
        describe: |job| {
            let lists = job.left.transform(|rdd, _| {
                let keys_and_values = |part: Vec<Pair>| grouped(&part);
                Ok(rdd.partition_by_key(7).map_partitions(keys_and_values))
            });
            job.emit(&lists, BY_HASH);
            job.act(&job.left, Order::Exact, |rdd| {
                Ok(vec![(rdd.partition_by_key(7).partitions(), rdd.partition_by_key(0).partitions())])
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| grouped(batch)));
            expected.emit(input.left.iter().map(|_| [(7, 1)]));
        },
    },
    Row {
        name: "rdd, cogroup3",
        covers: &["Rdd::cogroup3"],
        describe: |job| {
            let three = job.left.transform_with(&job.right, |left, right, _| {
                let negative = left.filter(|(_, value)| *value < 0);
                Ok(left.filter(|(key, _)| key % 2 == 0).cogroup3(&right, &negative))
            });
            job.emit(&three, BY_HASH);
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().zip(&input.right).map(|(left, right)| {
                let mut first = grouped(left);
                first.retain(|key, _| key % 2 == 0);
                let second = grouped(right);
                let negative: Vec<Pair> = left.iter().filter(|(_, value)| *value < 0).copied().collect();
                let third = grouped(&negative);
                let keys: BTreeSet<u16> =
                    first.keys().chain(second.keys()).chain(third.keys()).copied().collect();
                let of = |map: &BTreeMap<u16, Vec<i64>>, key: &u16| map.get(key).cloned().unwrap_or_default();
                let all = |key| (key, (of(&first, &key), of(&second, &key), of(&third, &key)));
                keys.into_iter().map(all).collect::<Vec<_>>()
            }));
        },
    },
];
