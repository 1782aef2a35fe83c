//! What is done to the pairs of one batch by key.

use std::collections::BTreeMap;

use crate::suite::{BY_HASH, Order, Pair, Row};

/// Each key's values in the order of their records.
pub fn grouped(batch: &[Pair]) -> BTreeMap<u16, Vec<i64>> {
    let mut groups = BTreeMap::<u16, Vec<i64>>::new();
    batch.iter().for_each(|(key, value)| groups.entry(*key).or_default().push(*value));
    groups
}

/// Every value of the one with every value of the other, by key, the left one's order first.
pub fn joined(left: &[Pair], right: &[Pair]) -> Vec<(u16, (i64, i64))> {
    let matching = |key: u16| right.iter().filter(move |(other, _)| *other == key);
    left.iter().flat_map(|(key, one)| matching(*key).map(|(key, other)| (*key, (*one, *other)))).collect()
}

pub const ROWS: &[Row] = &[
    Row {
        name: "map_values",
        covers: &["DStream::map_values"],
        describe: |job| {
            job.emit(&job.left.map_values(|value| value * 2), Order::Exact);
            let summed = job.left.reduce_by_key(|a, b| a + b).map_values(|value| value * 2);
            job.emit(&summed, BY_HASH);
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| batch.iter().map(|(key, value)| (key, value * 2))));
            let sums =
                |batch: &Vec<Pair>| grouped(batch).into_iter().map(|(k, v)| (k, v.iter().sum::<i64>() * 2));
            expected.emit(input.left.iter().map(sums));
        },
    },
    Row {
        // A merge that is associative and not commutative: the order of a key's values shows.
        name: "reduce_by_key",
        covers: &["DStream::reduce_by_key"],
        describe: |job| {
            let lists = job.left.map_values(|value| vec![value]);
            let merged = lists.reduce_by_key(|mut list, mut more| {
                list.append(&mut more);
                list
            });
            job.emit(&merged, BY_HASH);
        },
        oracle: |input, expected| expected.emit(input.left.iter().map(|batch| grouped(batch))),
    },
    Row {
        name: "group_by_key",
        covers: &["DStream::group_by_key"],
        describe: |job| job.emit(&job.left.group_by_key(), BY_HASH),
        oracle: |input, expected| expected.emit(input.left.iter().map(|batch| grouped(batch))),
    },
    Row {
        name: "join",
        covers: &["DStream::join"],
        describe: |job| {
            job.emit(&job.left.join(&job.right), BY_HASH);
            // Without a shuffle on either side: both are partitioned by key.
            let sums = job.left.reduce_by_key(|a, b| a + b);
            let lists = sums.join(&job.right.reduce_by_key(|a, b| a.max(b)));
            job.emit(&lists, BY_HASH);
        },
        oracle: |input, expected| {
            let batches = || input.left.iter().zip(&input.right);
            expected.emit(batches().map(|(left, right)| joined(left, right)));
            expected.emit(batches().map(|(left, right)| {
                let most = grouped(right)
                    .into_iter()
                    .filter_map(|(key, values)| Some((key, values.into_iter().max()?)));
                let most: BTreeMap<u16, i64> = most.collect();
                let sums = grouped(left).into_iter().map(|(key, values)| (key, values.iter().sum::<i64>()));
                sums.filter_map(move |(key, sum)| Some((key, (sum, *most.get(&key)?)))).collect::<Vec<_>>()
            }));
        },
    },
];
