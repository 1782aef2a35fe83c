//! Where records are: sorted, side by side, counted, in fewer partitions.

use std::cmp::Reverse;

use crate::suite::{Input, Order, Pair, Row};

pub const ROWS: &[Row] = &[
    Row {
        // Records of equal keys keep their order, in descending order too.
        name: "rdd, sorted",
        covers: &["Rdd::sort_by", "Rdd::sort_by_descending", "Rdd::sort_by_key"],
        describe: |job| {
            job.emit(&job.left.transform(|rdd, _| Ok(rdd.sort_by(|(key, _)| *key))), Order::Exact);
            job.emit(&job.left.transform(|rdd, _| Ok(rdd.sort_by_key())), Order::Exact);
            let down = job.left.transform(|rdd, _| Ok(rdd.sort_by_descending(|(_, value)| *value)));
            job.emit(&down, Order::Exact);
            job.act(&job.left, Order::Exact, |rdd| Ok(vec![rdd.sort_by(|record| *record).partitions()]));
        },
        oracle: |input, expected| {
            let mut up = input.left.clone();
            up.iter_mut().for_each(|batch| batch.sort_by_key(|(key, _)| *key));
            expected.emit(&up);
            expected.emit(&up);
            let mut down = input.left.clone();
            down.iter_mut().for_each(|batch| batch.sort_by_key(|(_, value)| Reverse(*value)));
            expected.emit(down);
            expected.emit(input.left.iter().map(|_| [input.ranges]));
        },
    },
    Row {
        name: "rdd, zipped",
        covers: &["Rdd::zip", "Rdd::zip_with_index"],
        describe: |job| {
            let zipped = job.left.transform(|rdd, _| Ok(rdd.zip(&rdd.map(|(key, value)| (value, key)))));
            job.emit(&zipped, Order::Exact);
            let numbered = job.left.transform(|rdd, _| Ok(rdd.zip_with_index()));
            job.emit(&numbered, Order::Exact);
        },
        oracle: |input, expected| {
            let zipped = |batch: &Vec<Pair>| batch.clone().into_iter().map(|(k, v)| ((k, v), (v, k)));
            expected.emit(input.left.iter().map(zipped));
            expected.emit(input.left.iter().map(|batch| batch.iter().zip(0u64..)));
        },
    },
    Row {
        name: "rdd, neighbours",
        covers: &["Rdd::coalesce", "Rdd::glom", "Rdd::collect_partitions"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| rdd.glom().collect());
            job.act(&job.left, Order::Exact, |rdd| {
                let two = rdd.coalesce(2);
                let none = rdd.coalesce(0);
                Ok(vec![(two.partitions(), two.collect()?, none.collect_partitions()?)])
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left_partitions());
            let whole = |batch| (input.ranges.min(2), batch, [batch]);
            expected.emit(input.left.iter().map(|batch| [whole(batch)]));
        },
    },
    Row {
        name: "rdd, keys and values",
        covers: &["Rdd::key_by", "Rdd::keys", "Rdd::values"],
        describe: |job| {
            let keyed = job.left.transform(|rdd, _| Ok(rdd.key_by(|(key, value)| i64::from(*key) - value)));
            job.emit(&keyed, Order::Exact);
            job.emit(&job.left.transform(|rdd, _| Ok(rdd.keys())), Order::Exact);
            job.emit(&job.left.transform(|rdd, _| Ok(rdd.values())), Order::Exact);
        },
        oracle: |input: &Input, expected| {
            let keyed = |record: &Pair| (i64::from(record.0) - record.1, *record);
            expected.emit(input.left.iter().map(|batch| batch.iter().map(keyed)));
            expected.emit(input.left.iter().map(|batch| batch.iter().map(|record| record.0)));
            expected.emit(input.left.iter().map(|batch| batch.iter().map(|record| record.1)));
        },
    },
];
