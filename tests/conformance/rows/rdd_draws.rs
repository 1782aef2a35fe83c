//! What is drawn at random: the same in every run, and in every version, so that a replay draws it again.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::suite::{Order, Pair, Row};

const SEED: u64 = 7;

/// A draw is the XXH3 of its place.
fn bits(partition: usize, position: usize, nth: u64) -> u64 {
    let place = [partition as u64, position as u64, nth].map(u64::to_le_bytes);
    xxh3_64_with_seed(&place.concat(), SEED)
}

/// The same as a number from 0 to 1.
fn unit(partition: usize, position: usize, nth: u64) -> f64 {
    (bits(partition, position, nth) >> 11) as f64 / (1u64 << 53) as f64
}

/// Draws from the Poisson distribution of mean 1 (Knuth's method): even draws are multiplied until the
/// product falls below 1 / e.
fn poisson(partition: usize, position: usize) -> usize {
    let mut product = 1.0;
    (0..)
        .take_while(|nth| {
            product *= unit(partition, position, *nth);
            product >= 1.0 / std::f64::consts::E
        })
        .count()
}

/// The records of a batch with the partition and the position of each.
fn placed(parts: Vec<&[Pair]>) -> Vec<(usize, usize, Pair)> {
    let parts = parts.into_iter().enumerate();
    let place = |(number, part): (usize, &[Pair])| {
        part.iter().enumerate().map(|(at, record)| (number, at, *record)).collect::<Vec<_>>()
    };
    parts.flat_map(place).collect()
}

pub const ROWS: &[Row] = &[
    Row {
        name: "rdd, samples",
        covers: &["Rdd::sample", "Rdd::sample_with_replacement"],
        describe: |job| {
            job.emit(&job.left.transform(|rdd, _| Ok(rdd.sample(0.6, SEED))), Order::Exact);
            let copies = job.left.transform(|rdd, _| Ok(rdd.sample_with_replacement(1.0, SEED)));
            job.emit(&copies, Order::Exact);
        },
        oracle: |input, expected| {
            expected.emit(input.left_partitions().map(|parts| {
                let kept = placed(parts).into_iter().filter(|(part, at, _)| unit(*part, *at, 0) < 0.6);
                kept.map(|(_, _, record)| record)
            }));
            expected.emit(input.left_partitions().map(|parts| {
                let copies = |(part, at, record)| std::iter::repeat_n(record, poisson(part, at));
                placed(parts).into_iter().flat_map(copies)
            }));
        },
    },
    Row {
        name: "rdd, random_split",
        covers: &["Rdd::random_split"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                rdd.random_split(&[1.0, 0.0, 3.0], SEED).iter().map(|part| part.collect()).collect()
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left_partitions().map(|parts| {
                let mut split = [Vec::new(), Vec::new(), Vec::new()];
                for (part, at, record) in placed(parts) {
                    split[if unit(part, at, 0) < 0.25 { 0 } else { 2 }].push(record);
                }
                split
            }));
        },
    },
    Row {
        name: "rdd, take_sample",
        covers: &["Rdd::take_sample"],
        describe: |job| job.act(&job.left, Order::Exact, |rdd| rdd.take_sample(5, SEED)),
        oracle: |input, expected| {
            expected.emit(input.left_partitions().map(|parts| {
                let mut drawn = placed(parts);
                drawn.sort_by_key(|(part, at, _)| bits(*part, *at, 0));
                drawn.into_iter().map(|(_, _, record)| record).take(5)
            }));
        },
    },
];
