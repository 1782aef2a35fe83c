//! RDDs taken as sets, and all pairs of two.

use std::collections::{BTreeMap, BTreeSet};

use crate::suite::{BY_HASH, Order, Pair, Row};

/// How often each record comes.
fn counted(batch: &[Pair]) -> BTreeMap<Pair, usize> {
    let mut counts = BTreeMap::new();
    batch.iter().for_each(|record| *counts.entry(*record).or_default() += 1);
    counts
}

/// The records that the rows take away, or look for, on the other side.
fn even(batch: &[Pair]) -> Vec<Pair> {
    batch.iter().filter(|(key, _)| key % 2 == 0).copied().collect()
}

/// Neighbours that are the same as one, with how many they are.
fn runs(part: Vec<Pair>) -> Vec<(Pair, usize)> {
    part.chunk_by(|one, next| one == next).map(|run| (run[0], run.len())).collect()
}

pub const ROWS: &[Row] = &[
    Row {
        // Each partition has its records in the order in which they first came.
        name: "rdd, distinct",
        covers: &["Rdd::distinct"],
        describe: |job| {
            job.emit(&job.left.transform(|rdd, _| Ok(rdd.distinct())), BY_HASH);
            job.act(&job.left, Order::Exact, |rdd| {
                let all = rdd.collect()?;
                let place = |record: &Pair| all.iter().position(|other| other == record);
                let parts = rdd.distinct().collect_partitions()?;
                Ok(vec![parts.iter().all(|part| part.is_sorted_by_key(place))])
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| batch.iter().collect::<BTreeSet<_>>()));
            expected.emit(input.left.iter().map(|_| [true]));
        },
    },
    Row {
        name: "rdd, intersection",
        covers: &["Rdd::intersection"],
        describe: |job| {
            let both = job.left.transform_with(&job.right, |left, right, _| Ok(left.intersection(&right)));
            job.emit(&both, BY_HASH);
            let even = job.left.transform(|rdd, _| {
                let even = rdd.filter(|(key, _)| key % 2 == 0);
                Ok(rdd.intersection(&even.union(&even)))
            });
            job.emit(&even, BY_HASH);
        },
        oracle: |input, expected| {
            let both = input.left.iter().zip(&input.right).map(|(left, right)| {
                let left: BTreeSet<_> = left.iter().collect();
                left.intersection(&right.iter().collect()).copied().collect::<Vec<_>>()
            });
            expected.emit(both);
            expected.emit(input.left.iter().map(|batch| counted(&even(batch)).into_keys()));
        },
    },
    Row {
        // Copies of a record stand next to each other, so that each has one run.
        name: "rdd, subtract",
        covers: &["Rdd::subtract"],
        describe: |job| {
            let left = job.left.transform(|rdd, _| {
                Ok(rdd.subtract(&rdd.filter(|(key, _)| key % 2 == 0)).map_partitions(runs))
            });
            job.emit(&left, BY_HASH);
            let other = job.left.transform_with(&job.right, |left, right, _| Ok(left.subtract(&right)));
            job.emit(&other, BY_HASH);
        },
        oracle: |input, expected| {
            let odd = |batch: &Vec<Pair>| counted(batch).into_iter().filter(|((key, _), _)| key % 2 != 0);
            expected.emit(input.left.iter().map(odd));
            expected.emit(input.left.iter().zip(&input.right).map(|(left, right)| {
                left.iter().filter(|record| !right.contains(record)).collect::<Vec<_>>()
            }));
        },
    },
    Row {
        name: "rdd, union_all",
        covers: &["Rdd::union_all"],
        describe: |job| {
            let all = job.left.transform(|rdd, _| {
                let even = rdd.filter(|(key, _)| key % 2 == 0);
                Ok(rdd.union_all(&[even.clone(), rdd.filter(|_| false), even]).union_all(&[]))
            });
            job.emit(&all, Order::Exact);
        },
        oracle: |input, expected| {
            let all = |batch: &Vec<Pair>| [batch.clone(), even(batch), even(batch)].concat();
            expected.emit(input.left.iter().map(all));
        },
    },
    Row {
        name: "rdd, cartesian",
        covers: &["Rdd::cartesian"],
        describe: |job| {
            let all = job.left.transform_with(&job.right, |left, right, _| Ok(left.cartesian(&right)));
            job.emit(&all, Order::Exact);
        },
        oracle: |input, expected| {
            let batches = input.left_partitions().zip(input.right_partitions());
            expected.emit(batches.map(|(left, right)| {
                let mut all = Vec::new();
                for one in &left {
                    for other in &right {
                        all.extend(one.iter().flat_map(|one| other.iter().map(move |other| (one, other))));
                    }
                }
                all
            }));
        },
    },
];
