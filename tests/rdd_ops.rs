//! Every operation on RDDs against what plain vectors give: over any number of partitions, empty ones too, and
//! the same for every number of threads.
#![cfg(feature = "testkit")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};

use millpond::testkit::LocalRdds;
use millpond::{ErrorKind, Rdd, Result, StorageLevel};
use proptest::prelude::*;

/// (key, which one of its key): few keys, so that most come more than once.
type Row = (u8, u32);

type Parts<T> = Vec<Vec<T>>;

fn parts() -> impl Strategy<Value = Parts<u16>> {
    prop::collection::vec(prop::collection::vec(0u16..40, 0..30), 0..6)
}

/// Rows that are told apart by their second half.
fn rows() -> impl Strategy<Value = Parts<Row>> {
    parts().prop_map(|parts| {
        let mut next = 0;
        let mut row = |n: u16| {
            next += 1;
            (n as u8 % 8, next)
        };
        parts.into_iter().map(|part| part.into_iter().map(&mut row).collect()).collect()
    })
}

/// What `make` gives on one thread, after checking that more threads, and another run, give the same.
fn on_any_threads<R: PartialEq + Debug>(make: impl Fn(&LocalRdds) -> Result<R>) -> R {
    let expected = make(&LocalRdds::new(1).unwrap()).unwrap();
    for threads in 2..=3 {
        let rdds = LocalRdds::new(threads).unwrap();
        assert_eq!(make(&rdds).unwrap(), expected, "{threads} threads");
        assert_eq!(make(&rdds).unwrap(), expected, "{threads} threads, again");
    }
    expected
}

fn flat<T: Clone>(parts: &Parts<T>) -> Vec<T> {
    parts.concat()
}

fn sorted<T: Ord>(mut records: Vec<T>) -> Vec<T> {
    records.sort();
    records
}

proptest! {
    #[test]
    fn narrow_operations_keep_the_order(parts in parts(), more in parts(), n in 0usize..8) {
        let glom = on_any_threads(|rdds| rdds.rdd(parts.clone()).glom().collect());
        prop_assert_eq!(&glom, &parts);
        let keyed = on_any_threads(|rdds| rdds.rdd(parts.clone()).key_by(|n| n % 3).collect());
        prop_assert_eq!(keyed, flat(&parts).into_iter().map(|n| (n % 3, n)).collect::<Vec<_>>());
        let indexed = on_any_threads(|rdds| rdds.rdd(parts.clone()).zip_with_index().collect_partitions());
        prop_assert_eq!(indexed.iter().map(Vec::len).collect::<Vec<_>>(), parts.iter().map(Vec::len).collect::<Vec<_>>());
        prop_assert_eq!(flat(&indexed), flat(&parts).into_iter().zip(0u64..).collect::<Vec<_>>());
        let coalesced = on_any_threads(|rdds| rdds.rdd(parts.clone()).coalesce(n).collect_partitions());
        prop_assert_eq!(coalesced.len(), n.max(1).min(parts.len()));
        prop_assert_eq!(flat(&coalesced), flat(&parts));
        let union = on_any_threads(|rdds| {
            let (a, b) = (rdds.rdd(parts.clone()), rdds.rdd(more.clone()));
            assert_eq!(a.union(&b).collect()?, [flat(&parts), flat(&more)].concat());
            a.union_all(&[b.clone(), a.clone(), b]).collect_partitions()
        });
        prop_assert_eq!(union, [parts.clone(), more.clone(), parts.clone(), more.clone()].concat());
        let cartesian = on_any_threads(|rdds| {
            rdds.rdd(parts.clone()).cartesian(&rdds.rdd(more.clone())).collect_partitions()
        });
        let mut expected = Vec::new();
        for left in &parts {
            for right in &more {
                let pairs = left.iter().flat_map(|a| right.iter().map(|b| (*a, *b)));
                expected.push(pairs.collect::<Vec<_>>());
            }
        }
        prop_assert_eq!(cartesian, expected);
    }

    #[test]
    fn a_zip_pairs_by_place_or_names_the_partition(parts in parts(), at in any::<prop::sample::Index>()) {
        let zipped = on_any_threads(|rdds| {
            let numbers = rdds.rdd(parts.clone());
            numbers.zip(&numbers.map(|n| n * 2)).collect()
        });
        prop_assert_eq!(zipped, flat(&parts).into_iter().map(|n| (n, n * 2)).collect::<Vec<_>>());
        let rdds = LocalRdds::new(2).unwrap();
        let numbers = rdds.rdd(parts.clone());
        let uneven = numbers.zip(&rdds.rdd([parts.clone(), vec![vec![1u16]]].concat())).collect().unwrap_err();
        prop_assert_eq!(uneven.kind(), ErrorKind::InvalidGraph);
        if !parts.is_empty() {
            let at = at.index(parts.len());
            let mut longer = parts.clone();
            longer[at].push(1);
            for pair in [[numbers.clone(), rdds.rdd(longer.clone())], [rdds.rdd(longer), numbers]] {
                let error = pair[0].zip(&pair[1]).collect().unwrap_err();
                prop_assert_eq!(error.kind(), ErrorKind::InvalidGraph);
                let named = error.to_string().contains(&format!("partition {at} of a zip has"));
                prop_assert!(named, "{}", error);
            }
        }
    }

    #[test]
    fn sorting_is_global_and_stable(parts in rows()) {
        let ascending = on_any_threads(|rdds| rdds.rdd(parts.clone()).sort_by(|row| row.0).collect_partitions());
        prop_assert_eq!(ascending.len(), parts.len());
        let mut expected = flat(&parts);
        expected.sort_by_key(|row| row.0);
        prop_assert_eq!(flat(&ascending), expected);
        // Equal keys meet in one partition.
        let keys = ascending.iter().flat_map(|part| part.iter().map(|row| row.0).collect::<BTreeSet<_>>());
        let keys: Vec<u8> = keys.collect();
        prop_assert_eq!(keys.len(), keys.iter().collect::<BTreeSet<_>>().len());
        let descending = on_any_threads(|rdds| rdds.rdd(parts.clone()).sort_by_descending(|row| row.0).collect());
        let mut expected = flat(&parts);
        expected.sort_by_key(|row| Reverse(row.0));
        prop_assert_eq!(descending, expected);
    }

    #[test]
    fn sets(parts in parts(), other in parts()) {
        let distinct = on_any_threads(|rdds| rdds.rdd(parts.clone()).distinct().collect_partitions());
        let mut first = BTreeMap::new();
        flat(&parts).into_iter().enumerate().for_each(|(place, n)| _ = first.entry(n).or_insert(place));
        for part in &distinct {
            prop_assert!(part.is_sorted_by_key(|n| first[n]), "in order of first appearance: {:?}", part);
        }
        prop_assert_eq!(sorted(flat(&distinct)), first.keys().copied().collect::<Vec<_>>());

        let (left, right) = (flat(&parts), flat(&other));
        let pair = |rdds: &LocalRdds| (rdds.rdd(parts.clone()), rdds.rdd(other.clone()));
        let subtracted = on_any_threads(|rdds| {
            let (left, right) = pair(rdds);
            left.subtract(&right).collect()
        });
        let expected = left.iter().filter(|n| !right.contains(n)).copied().collect();
        prop_assert_eq!(sorted(subtracted), sorted(expected));
        let common = on_any_threads(|rdds| {
            let (left, right) = pair(rdds);
            left.intersection(&right).collect()
        });
        let expected: BTreeSet<u16> = left.iter().filter(|n| right.contains(n)).copied().collect();
        prop_assert_eq!(sorted(common), expected.into_iter().collect::<Vec<_>>());
        let counts = on_any_threads(|rdds| rdds.rdd(parts.clone()).count_by_value());
        let mut expected = BTreeMap::new();
        left.iter().for_each(|n| *expected.entry(*n).or_insert(0u64) += 1);
        prop_assert_eq!(counts, expected.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn samples_are_subsets_in_order(parts in rows(), seed in any::<u64>(), fraction in 0.0f64..=1.0) {
        let all = flat(&parts);
        let sample = on_any_threads(|rdds| rdds.rdd(parts.clone()).sample(fraction, seed).collect());
        prop_assert!(sample.is_sorted_by_key(|row| row.1) && sample.iter().all(|row| all.contains(row)));
        let copies = on_any_threads(|rdds| {
            rdds.rdd(parts.clone()).sample_with_replacement(fraction * 3.0, seed).collect()
        });
        prop_assert!(copies.is_sorted_by_key(|row| row.1) && copies.iter().all(|row| all.contains(row)));
        let weights = [fraction, 0.0, 1.0, 2.0 * fraction, 0.0];
        let split = on_any_threads(|rdds| {
            let split = rdds.rdd(parts.clone()).random_split(&weights, seed);
            split.iter().map(Rdd::collect).collect::<Result<Vec<_>>>()
        });
        prop_assert!(split[1].is_empty() && split[4].is_empty());
        prop_assert!(split.iter().all(|part| part.is_sorted_by_key(|row| row.1)));
        prop_assert_eq!(sorted(split.concat()), sorted(all.clone()));
        let n = (fraction * 20.0) as usize;
        let taken = on_any_threads(|rdds| rdds.rdd(parts.clone()).take_sample(n, seed));
        prop_assert_eq!(taken.len(), n.min(all.len()));
        prop_assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len(), "without replacement");
        prop_assert!(taken.iter().all(|row| all.contains(row)));
    }

    #[test]
    fn ordered_actions(parts in rows(), n in 0usize..12) {
        let all = flat(&parts);
        let mut by_key = all.clone();
        by_key.sort_by_key(|row| row.0);
        let mut by_key_down = all.clone();
        by_key_down.sort_by_key(|row| Reverse(row.0));
        by_key.truncate(n);
        by_key_down.truncate(n);
        let up: Vec<Row> = sorted(all.clone()).into_iter().take(n).collect();
        let down: Vec<Row> = sorted(all.clone()).into_iter().rev().take(n).collect();
        on_any_threads(|rdds| {
            let rdd = rdds.rdd(parts.clone());
            assert_eq!(rdd.take_ordered(n)?, up);
            assert_eq!(rdd.top(n)?, down);
            assert_eq!(rdd.take_ordered_by(n, |row| row.0)?, by_key);
            assert_eq!(rdd.top_by(n, |row| row.0)?, by_key_down);
            assert_eq!(rdd.min()?, all.iter().min().copied());
            assert_eq!(rdd.max()?, all.iter().max().copied());
            assert_eq!(rdd.min_by(|row| row.0)?, all.iter().min_by_key(|row| row.0).copied());
            assert_eq!(rdd.max_by(|row| row.0)?, all.iter().rev().max_by_key(|row| row.0).copied());
            assert_eq!(rdd.first()?, all.first().copied());
            assert_eq!(rdd.is_empty()?, all.is_empty());
            assert_eq!(rdd.take(n)?, all.iter().take(n).copied().collect::<Vec<_>>());
            assert_eq!(rdd.collect_partitions()?, parts);
            Ok(())
        });
    }

    #[test]
    fn merging_actions(parts in parts(), zero in 0u64..5) {
        let all = flat(&parts);
        let sum: u64 = all.iter().map(|n| u64::from(*n)).sum();
        on_any_threads(|rdds| {
            let numbers = rdds.rdd(parts.clone()).map(u64::from);
            assert_eq!(numbers.sum()?, sum);
            // Each partition starts from zero, and so does their merging.
            assert_eq!(numbers.fold(zero, |a, b| a + b)?, sum + zero * (parts.len() as u64 + 1));
            // Not commutative: the order must be that of the partitions.
            let text = numbers.aggregate(String::new(), |text, n| format!("{text}{n},"), |a, b| a + &b)?;
            assert_eq!(text, all.iter().map(|n| format!("{n},")).collect::<String>());
            let visited = AtomicUsize::new(0);
            numbers.for_each(|n| {
                visited.fetch_add(n as usize, Ordering::Relaxed);
                Ok(())
            })?;
            assert_eq!(visited.into_inner() as u64, sum);
            numbers.map(|n| 1.0 / (n as f64 + 0.1)).sum().map(f64::to_bits)
        });
    }

    #[test]
    fn persisting_changes_nothing(parts in parts()) {
        let expected: Vec<(u16, String)> = flat(&parts).into_iter().map(|n| (n, "x".repeat(n.into()))).collect();
        on_any_threads(|rdds| {
            let levels = [StorageLevel::Memory, StorageLevel::MemorySerialized, StorageLevel::Disk];
            for level in levels.map(Some).into_iter().chain([None]) {
                let computed = std::sync::Arc::new(AtomicUsize::new(0));
                let counter = computed.clone();
                let made = rdds.rdd(parts.clone()).map(move |n| {
                    counter.fetch_add(1, Ordering::Relaxed);
                    (n, "x".repeat(n.into()))
                });
                let kept = level.map_or_else(|| made.checkpoint(), |level| made.persist(level));
                assert_eq!(computed.load(Ordering::Relaxed), 0, "nothing happens before an action");
                assert_eq!(kept.collect()?, expected, "{level:?}");
                assert_eq!(kept.collect()?, expected, "{level:?}");
                assert_eq!(computed.load(Ordering::Relaxed), expected.len(), "{level:?}");
                kept.unpersist();
                assert_eq!(kept.collect()?, expected, "{level:?}");
                let again = if level.is_some() { expected.len() } else { 0 };
                assert_eq!(computed.load(Ordering::Relaxed), expected.len() + again, "{level:?}");
            }
            Ok(())
        });
    }
}

/// Partitions of very different sizes: the result is even enough to be of use.
#[test]
fn sorting_many_records_divides_them_evenly() {
    let rdds = LocalRdds::new(2).unwrap();
    let numbers: Parts<u64> = (0..20u64)
        .map(|part| (0..1000 * (part + 1)).map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20).collect())
        .collect();
    let sorted_parts = rdds.rdd(numbers.clone()).sort_by(|n| *n).collect_partitions().unwrap();
    assert_eq!(flat(&sorted_parts), sorted(flat(&numbers)));
    let mean = flat(&numbers).len() / 20;
    let largest = sorted_parts.iter().map(Vec::len).max().unwrap();
    assert!(largest < mean * 5 / 4, "{largest} records in a partition, {mean} in the mean");
}

#[test]
fn samples_have_about_the_size_asked_for() {
    let rdds = LocalRdds::new(2).unwrap();
    let numbers = rdds.rdd((0..4u32).map(|part| (part * 5000..(part + 1) * 5000).collect()).collect());
    for seed in [0, 1, 42, u64::MAX] {
        let near = |count: u64, expected: f64| {
            let off = (count as f64 / expected - 1.0).abs();
            assert!(off < 0.1, "{count} records, about {expected} expected");
        };
        near(numbers.sample(0.1, seed).count().unwrap(), 2000.0);
        near(numbers.sample_with_replacement(1.5, seed).count().unwrap(), 30_000.0);
        let split = numbers.random_split(&[1.0, 3.0], seed);
        near(split[0].count().unwrap(), 5000.0);
        let sample = numbers.take_sample(2000, seed).unwrap();
        near(sample.iter().map(|n| u64::from(*n)).sum(), 2000.0 * 10_000.0);
        assert_eq!(numbers.sample(1.0, seed).count().unwrap(), 20_000);
        assert_eq!(numbers.sample(0.0, seed).count().unwrap(), 0);
    }
    assert_ne!(numbers.sample(0.1, 1).collect().unwrap(), numbers.sample(0.1, 2).collect().unwrap());
}

#[test]
fn fractions_and_weights_out_of_range_are_refused() {
    let rdds = LocalRdds::new(1).unwrap();
    let numbers = rdds.rdd(vec![vec![1u8, 2]]);
    let mut wrong = vec![numbers.sample(1.5, 1), numbers.sample(-0.1, 1), numbers.sample(f64::NAN, 1)];
    wrong.extend([-1.0, f64::NAN, f64::INFINITY].map(|mean| numbers.sample_with_replacement(mean, 1)));
    for weights in [[1.0, -0.5], [0.0, 0.0], [f64::NAN, 1.0], [f64::INFINITY, 1.0]] {
        wrong.extend(numbers.random_split(&weights, 1));
    }
    for rdd in wrong {
        assert_eq!(rdd.collect().unwrap_err().kind(), ErrorKind::InvalidGraph, "{rdd:?}");
    }
    assert!(numbers.random_split(&[], 1).is_empty());
}

/// Only so much is computed as an action needs, and nothing before there is one.
#[test]
fn take_and_first_stop_when_they_have_enough() {
    let rdds = LocalRdds::new(2).unwrap();
    let computed = std::sync::Arc::new(AtomicUsize::new(0));
    let counter = computed.clone();
    let parts: Parts<u64> = vec![vec![], (0..100_000).collect(), vec![1]];
    let numbers = rdds.rdd(parts).map(move |n| {
        counter.fetch_add(1, Ordering::Relaxed);
        n
    });
    let chain = numbers.flat_map(|n, out| (0..2).for_each(|_| out.emit(n))).filter(|n| n % 2 == 0);
    let chain = chain.union(&numbers).coalesce(2).key_by(|n| n % 7);
    let since = |what: &str| {
        let count = computed.swap(0, Ordering::Relaxed);
        assert!(count <= 1024, "{what} computed {count} records");
        count
    };
    assert_eq!(chain.first().unwrap(), Some((0, 0)));
    assert!(since("first") > 0);
    assert!(!chain.is_empty().unwrap());
    since("is_empty");
    assert_eq!(chain.take(3).unwrap(), [(0, 0), (0, 0), (2, 2)]);
    since("take");
    assert!(numbers.take(0).unwrap().is_empty());
    assert_eq!(numbers.zip_with_index().take(1).unwrap(), [(0, 0)]);
    computed.store(0, Ordering::Relaxed);
    let lazy = (numbers.sort_by(|n| *n), numbers.distinct(), numbers.zip_with_index(), numbers.checkpoint());
    assert_eq!(computed.load(Ordering::Relaxed), 0, "describing computes nothing");
    drop(lazy);
}

#[test]
fn a_panic_of_user_code_is_an_error_of_the_action() {
    #[derive(Clone, PartialEq, Eq)]
    struct Unordered(u8);
    impl Ord for Unordered {
        fn cmp(&self, _: &Self) -> std::cmp::Ordering {
            panic!("no order")
        }
    }
    impl PartialOrd for Unordered {
        fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
            Some(self.cmp(other))
        }
    }
    let rdds = LocalRdds::new(2).unwrap();
    let bytes = rdds.rdd(vec![vec![1u8, 2], vec![3, 4], vec![5]]);
    let one_each = rdds.rdd(vec![vec![1u8], vec![2]]);
    let outcomes = [
        bytes.sort_by(|n| Unordered(*n)).collect().map(drop),
        // One record per partition: compared for the first time where partitions meet.
        one_each.sort_by(|n| Unordered(*n)).collect().map(drop),
        one_each.map(Unordered).take_ordered(1).map(drop),
        one_each.reduce(|_, _| panic!("no sum")).map(drop),
        one_each.aggregate(0, |_, n| n, |_, _| panic!("no sum")).map(drop),
        bytes.for_each(|_| panic!("no visit")),
        bytes.checkpoint().map(|_| -> u8 { panic!("no map") }).checkpoint().count().map(drop),
    ];
    for (at, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::UserCode, "outcome {at}");
    }
    assert_eq!(bytes.count().unwrap(), 5, "and the threads go on");
    let third = bytes.map(|n| if n == 5 { panic!("five") } else { n });
    assert_eq!(third.take(4).unwrap(), [1, 2, 3, 4]);
    let error = third.take(5).unwrap_err();
    assert_eq!(
        error.to_string(),
        "stage `take of map`, partition 2, reading partition 2 of collection: panicked: five"
    );
}

/// Shuffles run after those they read, in whatever order the lineage mentions them.
#[test]
fn a_shuffle_that_two_others_read_runs_first() {
    let rdds = LocalRdds::new(2).unwrap();
    let dealt = rdds.rdd(vec![vec![1u8, 2, 3], vec![2, 3, 3]]).repartition(3);
    let ones = dealt.map(|n| (n, 1u64));
    let joined = ones.reduce_by_key(|a, b| a + b).join(&ones);
    let expected = [(1, (1, 1)), (2, (2, 1)), (2, (2, 1)), (3, (3, 1)), (3, (3, 1)), (3, (3, 1))];
    assert_eq!(sorted(joined.collect().unwrap()), expected);
    let again = rdds.rdd(vec![vec![1u8, 2, 3], vec![2, 3, 3]]).repartition(3);
    assert_eq!(again.subtract(&again.sort_by(|n| *n).filter(|n| *n < 3)).collect().unwrap(), [3, 3, 3]);
    let indexed = again.sort_by(|n| *n).zip_with_index().checkpoint().sort_by_descending(|row| row.1);
    assert_eq!(indexed.take(2).unwrap(), [(3, 5), (3, 4)]);
}

/// An RDD that is carried from batch to batch: with checkpoints its lineage stays as short as it was.
#[test]
fn a_checkpoint_ends_the_lineage() {
    let rdds = LocalRdds::new(1).unwrap();
    let mut total = rdds.rdd(vec![vec![0u64]]);
    for round in 1..=2000 {
        total = total.map(move |n| n + round).checkpoint();
        assert_eq!(total.collect().unwrap(), [round * (round + 1) / 2]);
        assert_eq!(total.to_debug_string().lines().count(), 1);
    }
}

#[test]
fn filtered_pairs_stay_partitioned_by_key() {
    let rdds = LocalRdds::new(2).unwrap();
    let pairs = rdds.rdd(vec![(0..600u16).map(|n| (n % 40, u64::from(n))).collect::<Vec<_>>(); 3]);
    let together = pairs.partition_by_key(4).filter(|(key, n)| key % 3 == 0 && n % 2 == 0);
    let filtered = together.filter(|(_, n)| *n > 100);
    let groups = filtered.group_by_key();
    assert_eq!(groups.to_debug_string().matches("shuffle").count(), 1, "{}", groups.to_debug_string());
    let one_by_one = groups.flat_map(|(key, all), out| all.into_iter().for_each(|n| out.emit((key, n))));
    assert_eq!(filtered.collect().unwrap(), one_by_one.collect().unwrap());
    let plain = pairs.filter(|(key, n)| key % 3 == 0 && n % 2 == 0 && *n > 100);
    assert_eq!(sorted(filtered.collect().unwrap()), sorted(plain.collect().unwrap()));
    assert_eq!(plain.group_by_key().to_debug_string().matches("shuffle").count(), 1);
}
