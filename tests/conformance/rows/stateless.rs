//! What is done to the records of one batch.

use crate::suite::{Input, Order, Row};

pub const ROWS: &[Row] = &[
    Row {
        name: "map",
        covers: &["DStream::map"],
        describe: |job| {
            job.emit(&job.left.map(|(key, value)| (value, key)), Order::Exact);
            job.emit(&job.events.map(|(at_ms, (key, _))| (key, at_ms)), Order::Exact);
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| batch.iter().map(|(key, value)| (value, key))));
            let events = input.left.iter().zip(&input.times);
            expected.emit(events.map(|(batch, times)| batch.iter().map(|(key, _)| key).zip(times)));
        },
    },
    Row {
        name: "filter",
        covers: &["DStream::filter"],
        describe: |job| job.emit(&job.left.filter(|(key, _)| key % 3 != 0), Order::Exact),
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| batch.iter().filter(|(key, _)| key % 3 != 0)));
        },
    },
    Row {
        name: "flat_map",
        covers: &["DStream::flat_map"],
        describe: |job| {
            let repeated = job.left.flat_map(|(key, value), out| {
                for turn in 0..key % 4 {
                    out.emit((value, turn));
                }
            });
            job.emit(&repeated, Order::Exact);
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| {
                batch.iter().flat_map(|(key, value)| (0..key % 4).map(move |turn| (*value, turn)))
            }));
        },
    },
    Row {
        name: "map_partitions",
        covers: &["DStream::map_partitions"],
        describe: |job| {
            let sums = job.left.map_partitions(|part| {
                let sum: i64 = part.iter().map(|(_, value)| value).sum();
                [(part.len(), sum)]
            });
            job.emit(&sums, Order::Exact);
        },
        oracle: |input, expected| {
            let sum = |part: &[(u16, i64)]| (part.len(), part.iter().map(|(_, value)| value).sum::<i64>());
            expected.emit(input.left_partitions().map(|parts| parts.into_iter().map(sum)));
        },
    },
    Row {
        name: "union",
        covers: &["DStream::union"],
        describe: |job| job.emit(&job.left.union(&job.right).union(&job.left), Order::Exact),
        oracle: |input, expected| {
            let batches = input.left.iter().zip(&input.right);
            expected.emit(batches.map(|(left, right)| left.iter().chain(right).chain(left)));
        },
    },
    Row {
        name: "cache",
        covers: &["DStream::cache"],
        describe: |job| {
            let cached = job.left.map(|(key, value)| value * i64::from(key)).cache();
            job.emit(&cached, Order::Exact);
            job.emit(&cached.map(|value| -value), Order::Exact);
        },
        oracle: |input, expected| {
            for sign in [1, -1] {
                let value = move |(key, value): &(u16, i64)| sign * value * i64::from(*key);
                expected.emit(input.left.iter().map(|batch| batch.iter().map(value)));
            }
        },
    },
    Row {
        name: "count",
        covers: &["DStream::count"],
        describe: |job| job.emit(&job.left.count(), Order::Exact),
        oracle: |input, expected| expected.emit(input.left.iter().map(|batch| [batch.len()])),
    },
    Row {
        // A merge that is associative and not commutative: the order of the records shows.
        name: "reduce",
        covers: &["DStream::reduce"],
        describe: |job| {
            let lists = job.left.map(|(_, value)| vec![value]);
            let merged = lists.reduce(|mut list, mut more| {
                list.append(&mut more);
                list
            });
            job.emit(&merged, Order::Exact);
        },
        oracle: |input, expected| {
            let values = |batch: &Vec<(u16, i64)>| batch.iter().map(|(_, value)| *value).collect();
            let merged = |batch| (!Vec::is_empty(batch)).then(|| -> Vec<i64> { values(batch) });
            expected.emit(input.left.iter().map(merged));
        },
    },
    Row {
        name: "repartition",
        covers: &["DStream::repartition"],
        describe: |job| {
            let dealt = job.left.repartition(5);
            job.emit(&dealt.map_partitions(|part| [part]), Order::Exact);
            job.emit(&dealt, Order::Exact);
        },
        oracle: |input, expected| {
            let mut dealt = Vec::new();
            for parts in input.left_partitions() {
                let mut five = vec![Vec::new(); 5];
                for (number, part) in parts.into_iter().enumerate() {
                    part.iter().enumerate().for_each(|(at, record)| five[(number + at) % 5].push(*record));
                }
                dealt.push(five);
            }
            expected.emit(&dealt);
            expected.emit(dealt.iter().map(|five| five.iter().flatten()));
        },
    },
    Row {
        name: "transform",
        covers: &["DStream::transform"],
        describe: |job| {
            let pairs = job.left.transform(|rdd, time| {
                let both = rdd.union(&rdd.filter(|(_, value)| *value > 0));
                Ok(both.map(move |(key, value)| (time.0, key, value)))
            });
            job.emit(&pairs, Order::Exact);
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().enumerate().map(|(index, batch)| {
                let positive = batch.iter().filter(|(_, value)| *value > 0);
                batch.iter().chain(positive).map(move |(key, value)| (Input::batch_time(index), key, value))
            }));
        },
    },
];
