//! Operations on (key, value) pairs against plain loops over vectors: what they give, in which order, after how
//! many shuffles; the same for every number of threads and partitions.
//!
//! Values are texts that are concatenated: merging is associative and nothing more, so that any change of order
//! shows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/cases.rs"]
mod cases;
#[path = "support/driven.rs"]
mod driven;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cases::cases;
use driven::{builder, tick};
use millpond::{ErrorKind, KEY_GROUPS, ManualClock, Queue, Rdd, RunningContext};
use proptest::prelude::*;
use tempfile::TempDir;
use xxhash_rust::xxh3::xxh3_64;

type Pair = (u32, String);

type Pairs = Rdd<Pair>;

/// Pairs by partition.
type Parts = Vec<Vec<Pair>>;

/// A running job that turns vectors into RDDs.
struct Bench {
    job: RunningContext,
    clock: Arc<ManualClock>,
    /// A block, and so a partition, for every push; none marks a partition that would be empty.
    queues: [Queue<Option<Pair>>; 2],
    made: [Arc<Mutex<Option<Pairs>>>; 2],
    _dir: TempDir,
}

impl Bench {
    fn new(threads: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(0);
        let context = builder(dir.path(), &clock).threads(threads).task_attempts_max(1).build().unwrap();
        let mut made = Vec::new();
        let queues = ["left", "right"].map(|name| {
            let (records, queue) = context.queue_stream::<Option<Pair>>(name);
            let slot = Arc::<Mutex<Option<Pairs>>>::default();
            made.push(slot.clone());
            let pairs = records.flat_map(|pair, out| pair.into_iter().for_each(|pair| out.emit(pair)));
            pairs.for_each_rdd(move |rdd, _| {
                *slot.lock().unwrap() = Some(rdd);
                Ok(())
            });
            queue
        });
        let job = context.start().unwrap();
        Bench { job, clock, queues, made: made.try_into().unwrap(), _dir: dir }
    }

    fn rdds(&self, left: &Parts, right: &Parts) -> [Pairs; 2] {
        for (queue, parts) in self.queues.iter().zip([left, right]) {
            for part in parts {
                queue.push(std::iter::once(None).chain(part.iter().cloned().map(Some))).unwrap();
            }
        }
        tick(&self.job, &self.clock);
        let rdds = self.made.each_ref().map(|slot| slot.lock().unwrap().take().unwrap());
        assert_eq!(rdds.each_ref().map(Rdd::partitions), [left.len(), right.len()]);
        rdds
    }
}

/// One to five partitions, any of which may be empty; half of the pairs have the same key.
fn parts() -> impl Strategy<Value = Parts> {
    let key = prop_oneof![Just(0u32), 0u32..8];
    let part = prop::collection::vec((key, "[a-z]{0,2}"), 0..8);
    prop_oneof![1 => Just(vec![vec![]]), 9 => prop::collection::vec(part, 1..=5)]
}

/// The keys by key group, then by first appearance.
fn keys_of(pairs: &[Pair]) -> Vec<u32> {
    let mut keys = Vec::new();
    for (key, _) in pairs {
        if !keys.contains(key) {
            keys.push(*key);
        }
    }
    keys.sort_by_key(|key| group_of(*key));
    keys
}

fn group_of(key: u32) -> usize {
    (xxh3_64(&key.to_be_bytes()) >> 48) as usize % KEY_GROUPS
}

fn values_of(pairs: &[Pair], key: u32) -> Vec<String> {
    pairs.iter().filter(|pair| pair.0 == key).map(|pair| pair.1.clone()).collect()
}

fn maybe(values: Vec<String>) -> Vec<Option<String>> {
    if values.is_empty() { vec![None] } else { values.into_iter().map(Some).collect() }
}

fn cross<A: Clone, B: Clone>(left: &[A], right: &[B]) -> Vec<(A, B)> {
    left.iter().flat_map(|a| right.iter().map(|b| (a.clone(), b.clone()))).collect()
}

/// What an operation on two sides should give: `each` makes the values of a key from those left and right.
fn by_key<O>(
    left: &[Pair],
    right: &[Pair],
    each: impl Fn(Vec<String>, Vec<String>) -> Vec<O>,
) -> Vec<(u32, O)> {
    let keys = keys_of(&[left, right].concat());
    let made = keys.into_iter().map(|key| (key, each(values_of(left, key), values_of(right, key))));
    made.flat_map(|(key, values)| values.into_iter().map(move |value| (key, value))).collect()
}

fn combined(pairs: &Pairs) -> Rdd<(u32, Vec<String>)> {
    pairs.combine_by_key(
        |value| vec![value],
        |mut all, value| {
            all.push(value);
            all
        },
        |all, more| [all, more].concat(),
    )
}

/// A value that becomes as many as it has letters.
fn letters(pairs: &Pairs) -> Pairs {
    pairs.flat_map_values(|value, out| value.chars().for_each(|letter| out.emit(letter.to_string())))
}

/// Operations on one side, which is given as it is or partitioned by key.
fn check_one(pairs: &Pairs, plain: &[Pair]) {
    let grouped: Vec<(u32, Vec<String>)> = by_key(plain, &[], |values, _| vec![values]);
    let joined: Vec<Pair> = grouped.iter().map(|(key, values)| (*key, values.concat())).collect();
    assert_eq!(pairs.group_by_key().collect().unwrap(), grouped);
    assert_eq!(combined(pairs).collect().unwrap(), grouped);
    assert_eq!(pairs.reduce_by_key(|a, b| a + &b).collect().unwrap(), joined);
    assert_eq!(pairs.fold_by_key(String::new(), |a, b| a + &b).collect().unwrap(), joined);
    let aggregated = pairs.aggregate_by_key(
        (0, String::new()),
        |(count, all): (u64, String), value| (count + 1, all + &value),
        |a, b| (a.0 + b.0, a.1 + &b.1),
    );
    let expected: Vec<(u32, (u64, String))> =
        grouped.iter().map(|(key, values)| (*key, (values.len() as u64, values.concat()))).collect();
    assert_eq!(aggregated.collect().unwrap(), expected);
    let counts: BTreeMap<u32, u64> =
        grouped.iter().map(|(key, values)| (*key, values.len() as u64)).collect();
    assert_eq!(pairs.count_by_key().unwrap(), counts);
    assert_eq!(pairs.collect_as_map().unwrap(), plain.iter().cloned().collect());
    for key in 0..9 {
        assert_eq!(pairs.lookup(&key).unwrap(), values_of(plain, key));
    }
    // Keys whose values all have no letters are gone, for those that group by key as well.
    let split: Vec<Pair> =
        plain.iter().flat_map(|(key, value)| value.chars().map(|letter| (*key, letter.into()))).collect();
    let mut expected: Vec<(u32, Vec<String>)> = by_key(&split, &[], |values, _| vec![values]);
    let mut found = letters(pairs).group_by_key().collect().unwrap();
    // Where a key that lost its first values stands in its key group depends on when it was grouped.
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

/// Operations on two sides, each given as it is or partitioned by key.
fn check_two(left: &Pairs, right: &Pairs, plain_left: &[Pair], plain_right: &[Pair]) {
    let (l, r) = (plain_left, plain_right);
    let expected = by_key(l, r, |left, right| vec![(left, right)]);
    assert_eq!(left.cogroup(right).collect().unwrap(), expected);
    let expected = by_key(l, r, |left, right| vec![(left.clone(), right, left)]);
    assert_eq!(left.cogroup3(right, left).collect().unwrap(), expected);
    let expected = by_key(l, r, |left, right| vec![(vec![], left, right)]);
    let none = left.filter(|_| false);
    assert_eq!(none.cogroup3(left, right).collect().unwrap(), expected);
    let expected = by_key(l, r, |left, right| cross(&left, &right));
    assert_eq!(left.join(right).collect().unwrap(), expected);
    let left_outer =
        by_key(l, r, |left, right| cross(&left, &if left.is_empty() { vec![] } else { maybe(right) }));
    assert_eq!(left.left_outer_join(right).collect().unwrap(), left_outer);
    let expected = by_key(l, r, |left, right| cross(&maybe(left), &right));
    assert_eq!(left.right_outer_join(right).collect().unwrap(), expected);
    let expected = by_key(l, r, |left, right| cross(&maybe(left), &maybe(right)));
    assert_eq!(left.full_outer_join(right).collect().unwrap(), expected);
    let expected = by_key(l, r, |left, right| if right.is_empty() { left } else { vec![] });
    assert_eq!(left.subtract_by_key(right).collect().unwrap(), expected);
    // What follows reads the joined pairs by key group and not as they are handed on.
    let sizes = left.left_outer_join(right).map_values(|_| 1u64).reduce_by_key(|a, b| a + b);
    let mut expected = BTreeMap::new();
    left_outer.iter().for_each(|(key, _)| *expected.entry(*key).or_insert(0) += 1);
    assert_eq!(sizes.collect_as_map().unwrap(), expected);
}

#[test]
fn pairs_are_what_plain_loops_make_of_them() {
    let benches = [1, 2, 3].map(Bench::new);
    proptest!(cases(24), |(left in parts(), right in parts(), partitions in 1usize..6)| {
        let (plain_left, plain_right) = (left.concat(), right.concat());
        for bench in &benches {
            let rdds = bench.rdds(&left, &right);
            prop_assert_eq!(rdds[0].keys().collect().unwrap(), plain_left.iter().map(|pair| pair.0).collect::<Vec<_>>());
            prop_assert_eq!(
                rdds[0].values().collect().unwrap(),
                plain_left.iter().map(|pair| pair.1.clone()).collect::<Vec<_>>()
            );
            let split = plain_left.iter().flat_map(|(key, value)| value.chars().map(|c| (*key, c.to_string())));
            prop_assert_eq!(letters(&rdds[0]).collect().unwrap(), split.collect::<Vec<_>>());
            let by_key_already = rdds.each_ref().map(|rdd| rdd.partition_by_key(partitions));
            prop_assert_eq!(by_key_already[0].partitions(), partitions);
            let expected = by_key(&plain_left, &[], |values, _| values);
            prop_assert_eq!(by_key_already[0].collect().unwrap(), expected);
            for rdd in [&rdds[0], &by_key_already[0]] {
                check_one(rdd, &plain_left);
            }
            check_two(&rdds[0], &rdds[1], &plain_left, &plain_right);
            check_two(&by_key_already[0], &rdds[1], &plain_left, &plain_right);
            check_two(&by_key_already[0], &by_key_already[1], &plain_left, &plain_right);
        }
    });
}

/// More values of one key, and more from one value, than a chunk of records holds.
#[test]
fn a_hot_key_goes_over_many_chunks() {
    let bench = Bench::new(3);
    let left: Parts = (0..3).map(|part| (0..700).map(|n| (7, format!("{part}.{n} "))).collect()).collect();
    let right = vec![vec![(7, "x".to_owned()), (7, "y".to_owned())]];
    let [hot, few] = bench.rdds(&left, &right);
    let plain = left.concat();
    let (left, right) = (values_of(&plain, 7), values_of(&right.concat(), 7));
    assert_eq!(hot.join(&few).values().collect().unwrap(), cross(&left, &right));
    assert_eq!(hot.reduce_by_key(|a, b| a + &b).collect().unwrap(), [(7, left.concat())]);
    for pairs in [few.clone(), few.partition_by_key(2)] {
        let many =
            pairs.flat_map_values(|value, out| (0..1_300).for_each(|n| out.emit(format!("{value}{n}"))));
        let expected: Vec<Pair> =
            right.iter().flat_map(|value| (0..1_300).map(move |n| (7, format!("{value}{n}")))).collect();
        assert_eq!(many.collect().unwrap(), expected);
        assert_eq!(many.partition_by_key(3).collect().unwrap(), expected);
    }
}

#[test]
fn what_is_partitioned_by_key_is_not_shuffled_again() {
    let bench = Bench::new(2);
    let parts = vec![vec![(1, "a".to_owned()), (2, "b".to_owned())]];
    let [left, right] = bench.rdds(&parts, &parts);
    let shuffles = |shown: String| shown.matches("+- shuffle").count();
    let left_keyed = left.partition_by_key(3);
    let right_keyed = right.group_by_key();
    assert_eq!(shuffles(left_keyed.to_debug_string()), 1);
    assert_eq!(shuffles(left.join(&right).to_debug_string()), 2);
    assert_eq!(shuffles(left_keyed.join(&right).to_debug_string()), 2);
    // Each of these operations on what is partitioned already adds none, and leaves it partitioned.
    let one_sided: [Pairs; 9] = [
        left_keyed.partition_by_key(5),
        left_keyed.reduce_by_key(|a, b| a + &b),
        left_keyed.fold_by_key(String::new(), |a, b| a + &b),
        left_keyed.aggregate_by_key(String::new(), |a, b| a + &b, |a, b| a + &b),
        left_keyed.combine_by_key(|a| a, |a, b| a + &b, |a, b| a + &b),
        left_keyed.map_values(|value| value),
        left_keyed.flat_map_values(|value, out| out.emit(value)),
        left_keyed.group_by_key().map_values(|values| values.concat()),
        left_keyed.subtract_by_key(&right.filter(|_| false)).map_values(|value| value),
    ];
    for (at, rdd) in one_sided.iter().enumerate() {
        let own = if at == 8 { 2 } else { 1 };
        assert_eq!(shuffles(rdd.to_debug_string()), own, "{at}: {}", rdd.to_debug_string());
        let after = rdd.join(&right_keyed);
        assert_eq!(shuffles(after.to_debug_string()), own + 1, "{at}: {}", after.to_debug_string());
    }
    let two_sided = [
        left_keyed.join(&right_keyed).map_values(|_| 1u64),
        left_keyed.left_outer_join(&right_keyed).map_values(|_| 1u64),
        left_keyed.right_outer_join(&right_keyed).map_values(|_| 1u64),
        left_keyed.full_outer_join(&right_keyed).map_values(|_| 1u64),
        left_keyed.cogroup(&right_keyed).map_values(|_| 1u64),
        left_keyed.cogroup3(&right_keyed, &left_keyed).map_values(|_| 1u64),
        left_keyed.subtract_by_key(&right_keyed).map_values(|_| 1u64),
    ];
    for (at, rdd) in two_sided.iter().enumerate() {
        // The third side of `cogroup3` is the first again: the same shuffle, shown for each edge.
        let own = if at == 5 { 3 } else { 2 };
        let after = rdd.reduce_by_key(|a, b| a + b).group_by_key();
        assert_eq!(shuffles(after.to_debug_string()), own, "{at}: {}", after.to_debug_string());
    }
}

#[test]
fn a_lookup_computes_only_the_key_group_that_owns_the_key() {
    let bench = Bench::new(2);
    let part: Vec<Pair> = (0..300).map(|key| (key, key.to_string())).collect();
    let [pairs, _] = bench.rdds(&vec![part], &vec![vec![]]);
    let computed = Arc::new(AtomicUsize::new(0));
    let counter = computed.clone();
    let counted = pairs.partition_by_key(4).map_values(move |value| {
        counter.fetch_add(1, Ordering::Relaxed);
        value
    });
    for key in [3, 77, 299] {
        computed.store(0, Ordering::Relaxed);
        assert_eq!(counted.lookup(&key).unwrap(), [key.to_string()]);
        let same_group = (0..300).filter(|other| group_of(*other) == group_of(key)).count();
        assert_eq!(computed.load(Ordering::Relaxed), same_group);
    }
    assert_eq!(counted.lookup(&300).unwrap(), [""; 0]);
    assert_eq!(pairs.lookup(&300).unwrap(), [""; 0]);
}

/// A closure that panics fails its task; nothing is left behind that a later computation would see.
#[test]
fn a_panicking_closure_fails_the_task_and_poisons_nothing() {
    let bench = Bench::new(2);
    let parts = vec![vec![(1, "a".to_owned())], vec![(1, "b".to_owned())]];
    let [left, right] = bench.rdds(&parts, &parts);
    let broken = Arc::new(AtomicBool::new(true));
    let merge = |broken: &Arc<AtomicBool>| {
        let broken = broken.clone();
        move |a: String, b: String| {
            assert!(!broken.load(Ordering::Relaxed), "broken");
            a + &b
        }
    };
    let made = [left.clone(), left.partition_by_key(2)].map(|pairs| {
        let emit = broken.clone();
        let split = pairs.flat_map_values(move |value, out| {
            out.emit(value.clone());
            assert!(!emit.load(Ordering::Relaxed), "broken");
            out.emit(value);
        });
        [
            pairs.reduce_by_key(merge(&broken)),
            split.reduce_by_key(|a, b| a + &b).join(&right).keys().map(|key| (key, "joined".into())),
        ]
    });
    for fails in [true, false] {
        broken.store(fails, Ordering::Relaxed);
        for [reduced, joined] in &made {
            if fails {
                for error in [reduced.collect().unwrap_err(), joined.collect().unwrap_err()] {
                    assert_eq!(error.kind(), ErrorKind::UserCode);
                    assert!(error.to_string().contains("broken"), "{error}");
                }
            } else {
                assert_eq!(reduced.collect().unwrap(), [(1, "ab".to_owned())]);
                assert_eq!(joined.collect().unwrap(), [(1, "joined".to_owned()), (1, "joined".to_owned())]);
            }
        }
    }
}
