//! Operations on several streams, and what else is done to one batch.

use std::collections::BTreeMap;

use crate::rows::pairs::grouped;
use crate::suite::{BY_HASH, Input, Order, Pair, Row};

pub const ROWS: &[Row] = &[
    Row {
        name: "glom",
        covers: &["DStream::glom"],
        describe: |job| job.emit(&job.left.glom(), Order::Exact),
        oracle: |input, expected| expected.emit(input.left_partitions()),
    },
    Row {
        name: "union of many",
        covers: &["DStream::union_all", "StreamingContext::union"],
        describe: |job| {
            job.emit(&job.left.union_all(&[job.right.clone(), job.left.clone()]), Order::Exact);
            let streams = [job.left.clone(), job.right.clone(), job.left.clone()];
            job.emit(&job.context.union(&streams), Order::Exact);
        },
        oracle: |input, expected| {
            for _ in 0..2 {
                let batches = input.left.iter().zip(&input.right);
                expected.emit(batches.map(|(left, right)| left.iter().chain(right).chain(left)));
            }
        },
    },
    Row {
        name: "transform of many",
        covers: &["DStream::transform_with", "StreamingContext::transform"],
        describe: |job| {
            let names = job.left.map(|(key, value)| format!("{key} {value}"));
            let both = names.transform_with(&job.right, |names, pairs, time| {
                let pairs = pairs.map(|(key, _)| key.to_string());
                Ok(names.union(&pairs).map(move |name| (time.0, name)))
            });
            job.emit(&both, Order::Exact);
            let streams = [job.right.clone(), job.left.clone()];
            let swapped = job.context.transform(&streams, |rdds, time| {
                Ok(rdds[1].union(&rdds[0]).map(move |record| (time.0, record)))
            });
            job.emit(&swapped, Order::Exact);
        },
        oracle: |input, expected| {
            let batches = || input.left.iter().zip(&input.right).enumerate();
            expected.emit(batches().map(|(index, (left, right))| {
                let names = left.iter().map(|(key, value)| format!("{key} {value}"));
                let keys = right.iter().map(|(key, _)| key.to_string());
                names.chain(keys).map(move |name| (Input::batch_time(index), name))
            }));
            expected.emit(batches().map(|(index, (left, right))| {
                left.iter().chain(right).map(move |record| (Input::batch_time(index), record))
            }));
        },
    },
    Row {
        name: "count_by_value",
        covers: &["DStream::count_by_value"],
        describe: |job| {
            let counts = job.left.map(|(key, _)| key).count_by_value();
            job.emit(&counts, BY_HASH);
            // Partitioned by value: no other shuffle.
            job.emit(&counts.reduce_by_key(|a, b| a + b), BY_HASH);
        },
        oracle: |input, expected| {
            for _ in 0..2 {
                let counts = |batch: &Vec<Pair>| -> BTreeMap<u16, usize> {
                    grouped(batch).into_iter().map(|(key, values)| (key, values.len())).collect()
                };
                expected.emit(input.left.iter().map(counts));
            }
        },
    },
    Row {
        // The order of a key's values shows.
        name: "combine_by_key",
        covers: &["DStream::combine_by_key"],
        describe: |job| {
            let add = |mut list: Vec<i64>, value| {
                list.push(value);
                list
            };
            let lists = job.left.combine_by_key(|value| vec![value], add, |one, other| [one, other].concat());
            job.emit(&lists, BY_HASH);
        },
        oracle: |input, expected| expected.emit(input.left.iter().map(|batch| grouped(batch))),
    },
    Row {
        name: "flat_map_values",
        covers: &["DStream::flat_map_values"],
        describe: |job| {
            let parts = |value: i64, out: &mut millpond::Emitter<'_, i64>| {
                (0..value.max(0)).for_each(|part| out.emit(part));
            };
            job.emit(&job.left.flat_map_values(parts), Order::Exact);
            job.emit(&job.left.reduce_by_key(|a, b| a + b).flat_map_values(parts), BY_HASH);
        },
        oracle: |input, expected| {
            let parts = |(key, value): (u16, i64)| (0..value.max(0)).map(move |part| (key, part));
            expected.emit(input.left.iter().map(|batch| batch.iter().copied().flat_map(parts)));
            expected.emit(input.left.iter().map(|batch| {
                let sums = grouped(batch).into_iter().map(|(key, values)| (key, values.iter().sum()));
                sums.flat_map(parts)
            }));
        },
    },
];
