//! What each operation makes of batches of input, after Spark's `BasicOperationsSuite`: the case of the same name
//! has the same meaning there.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;
#[path = "support/run_batches.rs"]
mod run_batches;

use std::sync::{Arc, Mutex, Weak};

use driven::{builder, tick};
use millpond::{DStream, ManualClock, StateSpec, Visit};
use run_batches::{INPUT_PARTITIONS, run_batches, run_two, sorted};

fn numbers() -> Vec<Vec<u32>> {
    vec![(1..5).collect(), (5..9).collect(), (9..13).collect()]
}

fn words(batches: &[&[&str]]) -> Vec<Vec<String>> {
    batches.iter().map(|batch| batch.iter().map(|word| (*word).to_owned()).collect()).collect()
}

fn pairs<V: Clone>(batches: &[&[(&str, V)]]) -> Vec<Vec<(String, V)>> {
    let pair = |(key, value): &(&str, V)| ((*key).to_owned(), value.clone());
    batches.iter().map(|batch| batch.iter().map(pair).collect()).collect()
}

/// One for each record.
fn ones(words: &DStream<String>) -> DStream<(String, u32)> {
    words.map(|word| (word, 1))
}

#[test]
fn map() {
    let found = run_batches(&numbers(), |_, numbers| numbers.map(|n| n.to_string()));
    let expected: Vec<Vec<String>> =
        numbers().iter().map(|batch| batch.iter().map(u32::to_string).collect()).collect();
    assert_eq!(found, expected);
}

#[test]
fn flat_map() {
    let found = run_batches(&numbers(), |_, numbers| {
        numbers.flat_map(|n, out| [n, n * 2].into_iter().for_each(|n| out.emit(n)))
    });
    let expected: Vec<Vec<u32>> =
        numbers().iter().map(|batch| batch.iter().flat_map(|n| [*n, n * 2]).collect()).collect();
    assert_eq!(found, expected);
}

#[test]
fn filter() {
    let found = run_batches(&numbers(), |_, numbers| numbers.filter(|n| n % 2 == 0));
    assert_eq!(found, [[2, 4], [6, 8], [10, 12]]);
}

/// `glom` as Spark's users would write it here: each partition as one record.
#[test]
fn glom() {
    assert_eq!(INPUT_PARTITIONS, 2);
    let found = run_batches(&numbers(), |_, numbers| numbers.map_partitions(|part| [part]));
    assert_eq!(found, [[vec![1, 2], vec![3, 4]], [vec![5, 6], vec![7, 8]], [vec![9, 10], vec![11, 12]]]);
}

#[test]
fn map_partitions() {
    let found = run_batches(&numbers(), |_, numbers| {
        numbers.map_partitions(|part| [format!("{}", part.iter().sum::<u32>())])
    });
    assert_eq!(found, [["3", "7"], ["11", "15"], ["19", "23"]]);
}

/// The numbers of records in each partition.
fn sizes(stream: &DStream<u32>) -> DStream<usize> {
    stream.map_partitions(|part| [part.len()])
}

#[test]
fn repartition_to_more_partitions() {
    let inputs = vec![(1..=100).collect(), (101..=200).collect(), (201..=300).collect()];
    let found = run_batches(&inputs, |_, numbers| sizes(&numbers.repartition(5)));
    assert_eq!(found, [[20; 5]; 3]);
    assert_eq!(sorted(run_batches(&inputs, |_, numbers| numbers.repartition(5))), inputs);
}

#[test]
fn repartition_to_fewer_partitions() {
    let inputs = vec![(1..=100).collect(), vec![], (201..=300).collect()];
    let found = run_batches(&inputs, |_, numbers| sizes(&numbers.repartition(1)));
    assert_eq!(found, [[100], [0], [100]]);
    assert_eq!(sorted(run_batches(&inputs, |_, numbers| numbers.repartition(1))), inputs);
}

#[test]
fn union() {
    let more: Vec<Vec<u32>> = vec![(101..105).collect(), vec![], (109..113).collect()];
    let found = run_two(&numbers(), &more, |_, first, second| first.union(&second));
    let expected: Vec<Vec<u32>> =
        numbers().into_iter().zip(more).map(|(first, second)| [first, second].concat()).collect();
    assert_eq!(found, expected);
}

/// Of more streams than two, one of them twice: by unions of two.
#[test]
fn union_of_many() {
    let found = run_batches(&[vec![1, 2], vec![], vec![3]], |_, numbers| {
        let streams = [numbers.map(|n: u32| n * 10), numbers.map(|n| n * 100), numbers.clone()];
        streams.iter().fold(numbers, |all, stream| all.union(stream))
    });
    assert_eq!(found, [vec![1, 2, 10, 20, 100, 200, 1, 2], vec![], vec![3, 30, 300, 3]]);
}

#[test]
fn transform() {
    let found = run_batches(&numbers(), |_, numbers| {
        numbers.transform(|rdd, time| Ok(rdd.map(move |n| (time.0, n.to_string()))))
    });
    let row = |time: u64, n: u32| (time, n.to_string());
    assert_eq!(found[0], [row(1_000, 1), row(1_000, 2), row(1_000, 3), row(1_000, 4)]);
    assert_eq!(found[2], [row(3_000, 9), row(3_000, 10), row(3_000, 11), row(3_000, 12)]);
}

#[test]
fn count() {
    let inputs = vec![vec![], vec![1], vec![1, 2], vec![1, 2, 3]];
    assert_eq!(run_batches(&inputs, |_, numbers: DStream<u32>| numbers.count()), [[0], [1], [2], [3]]);
}

#[test]
fn reduce() {
    let inputs = vec![(1..5).collect(), vec![], vec![7]];
    let found = run_batches(&inputs, |_, numbers: DStream<u32>| numbers.reduce(|a, b| a + b));
    assert_eq!(found, [vec![10], vec![], vec![7]]);
    // In order, though it is merged by partition first.
    let found = run_batches(&words(&[&["a", "b", "c"], &["d"]]), |_, words| words.reduce(|a, b| a + &b));
    assert_eq!(found, [["abc"], ["d"]]);
}

/// As Spark's users would write it here.
#[test]
fn count_by_value() {
    let inputs = words(&[&["a", "a", "b"], &["", ""], &[]]);
    let found = run_batches(&inputs, |_, words| ones(&words).reduce_by_key(|a, b| a + b));
    assert_eq!(sorted(found), pairs(&[&[("a", 2), ("b", 1)], &[("", 2)], &[]]));
}

#[test]
fn map_values() {
    let inputs = words(&[&["a", "a", "b"], &["", ""], &[]]);
    let shuffled = run_batches(&inputs, |_, words| {
        ones(&words).reduce_by_key(|a, b| a + b).map_values(|count| count + 10)
    });
    assert_eq!(sorted(shuffled), pairs(&[&[("a", 12), ("b", 11)], &[("", 12)], &[]]));
    let plain = run_batches(&inputs, |_, words| ones(&words).map_values(|count| count + 10));
    assert_eq!(plain, pairs(&[&[("a", 11), ("a", 11), ("b", 11)], &[("", 11), ("", 11)], &[]]));
}

/// `flatMapValues` as Spark's users would write it here.
#[test]
fn flat_map_values() {
    let inputs = words(&[&["a", "a", "b"], &["", ""], &[]]);
    let found = run_batches(&inputs, |_, words| {
        ones(&words).reduce_by_key(|a, b| a + b).flat_map(|(word, count), out| {
            out.emit((word.clone(), count));
            out.emit((word, count + 10));
        })
    });
    let expected = pairs(&[&[("a", 2), ("a", 12), ("b", 1), ("b", 11)], &[("", 2), ("", 12)], &[]]);
    assert_eq!(sorted(found), expected);
}

#[test]
fn reduce_by_key() {
    let inputs = words(&[&["a", "a", "b"], &["", ""], &[]]);
    let found =
        run_batches(&inputs, |_, words| words.map(|word| (word.clone(), word)).reduce_by_key(|a, b| a + &b));
    let expected = [vec![("a", "aa"), ("b", "b")], vec![("", "")], vec![]];
    let expected: Vec<Vec<_>> = expected
        .into_iter()
        .map(|batch| batch.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
        .collect();
    assert_eq!(sorted(found), expected);
}

#[test]
fn group_by_key() {
    let inputs = pairs(&[&[("a", 1), ("b", 9), ("a", 2), ("a", 3)], &[("", 1), ("", 1)], &[]]);
    let found = run_batches(&inputs, |_, pairs| pairs.group_by_key());
    // The values in the order of their records, over partitions.
    let expected = pairs(&[&[("a", vec![1, 2, 3]), ("b", vec![9])], &[("", vec![1, 1])], &[]]);
    assert_eq!(sorted(found), expected);
}

#[test]
fn join() {
    let left = pairs(&[&[("a", 1), ("b", 1), ("a", 2)], &[("", 1)], &[], &[("x", 1)]]);
    let right = pairs(&[&[("a", 'x'), ("b", 'x')], &[("b", 'x')], &[("", 'x')], &[("x", 'y'), ("x", 'z')]]);
    let found = run_two(&left, &right, |_, left, right| left.join(&right));
    let expected = pairs(&[
        &[("a", (1, 'x')), ("a", (2, 'x')), ("b", (1, 'x'))],
        &[],
        &[],
        &[("x", (1, 'y')), ("x", (1, 'z'))],
    ]);
    assert_eq!(sorted(found), expected);
}

#[test]
fn update_state_by_key() {
    let inputs = words(&[&["a"], &["a", "b"], &["a", "b", "c"], &["a", "b"], &["a"], &[]]);
    let sum = |new: &[u32], sum: Option<u32>| Some(sum.unwrap_or(0) + new.iter().sum::<u32>());
    // As in Spark: every key in every batch.
    let found = run_batches(&inputs, |_, words| {
        ones(&words).update_state_by_key(StateSpec::named("sums").visit(Visit::All), sum)
    });
    let expected = pairs(&[
        &[("a", 1)],
        &[("a", 2), ("b", 1)],
        &[("a", 3), ("b", 2), ("c", 1)],
        &[("a", 4), ("b", 3), ("c", 1)],
        &[("a", 5), ("b", 3), ("c", 1)],
        &[("a", 5), ("b", 3), ("c", 1)],
    ]);
    assert_eq!(sorted(found), expected);
    let found = run_batches(&inputs, |_, words| ones(&words).update_state_by_key("sums", sum));
    let touched = pairs(&[
        &[("a", 1)],
        &[("a", 2), ("b", 1)],
        &[("a", 3), ("b", 2), ("c", 1)],
        &[("a", 4), ("b", 3)],
        &[("a", 5)],
        &[],
    ]);
    assert_eq!(sorted(found), touched);
}

/// A `None` removes the key, also in a batch in which it has no value; when it comes again it is new.
#[test]
fn update_state_by_key_with_removals() {
    let inputs = words(&[&["a"], &["a", "b", "a"], &["a", "c"], &["c", "b"], &["b"], &[], &["a"]]);
    let found = run_batches(&inputs, |_, words| {
        let spec = StateSpec::named("runs").visit(Visit::All);
        ones(&words).update_state_by_key(spec, |new, state: Option<(u32, u32)>| {
            let (total, missed) = state.unwrap_or_default();
            let missed = if new.is_empty() { missed + 1 } else { 0 };
            (missed < 2).then(|| (total + new.iter().sum::<u32>(), missed))
        })
    });
    let expected = pairs(&[
        &[("a", (1, 0))],
        &[("a", (3, 0)), ("b", (1, 0))],
        &[("a", (4, 0)), ("b", (1, 1)), ("c", (1, 0))],
        &[("a", (4, 1)), ("b", (2, 0)), ("c", (2, 0))],
        &[("b", (3, 0)), ("c", (2, 1))],
        &[("b", (3, 1))],
        &[("a", (1, 0))],
    ]);
    assert_eq!(sorted(found), expected);
}

/// "Object lifecycle": state of a type of its own that counts how long it was seen.
#[test]
fn update_state_by_key_with_objects() {
    #[millpond::data]
    #[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
    struct Lifecycle {
        values: Vec<u32>,
        seen: u32,
    }
    let inputs = pairs(&[&[("a", 1)], &[("a", 2), ("b", 5)], &[("b", 6), ("b", 7)], &[("a", 3)]]);
    let found = run_batches(&inputs, |_, pairs| {
        pairs.update_state_by_key("lives", |new, life: Option<Lifecycle>| {
            let mut life = life.unwrap_or_default();
            life.values.extend_from_slice(new);
            life.seen += 1;
            (life.values.len() < 3).then_some(life)
        })
    });
    let life = |values: &[u32], seen: u32| Lifecycle { values: values.to_vec(), seen };
    let expected =
        pairs(&[&[("a", life(&[1], 1))], &[("a", life(&[1, 2], 2)), ("b", life(&[5], 1))], &[], &[]]);
    assert_eq!(sorted(found), expected);
}

/// What one stream shuffles, another may read both as it is and through a shuffle of its own, in any order.
#[test]
fn a_shuffled_stream_is_read_directly_and_through_another_shuffle() {
    let inputs = words(&[&["a", "a", "b"], &["c"], &[]]);
    for directly_first in [true, false] {
        let found = run_batches(&inputs, |_, words| {
            let counts = ones(&words).reduce_by_key(|a, b| a + b);
            let by_count = counts.map(|(word, count)| (count, word)).reduce_by_key(|a, b| a + &b);
            let back = by_count.map(|(count, word)| (word, count + 100));
            if directly_first { counts.union(&back) } else { back.union(&counts) }
        });
        let expected = pairs(&[&[("a", 2), ("a", 102), ("b", 1), ("b", 101)], &[("c", 1), ("c", 101)], &[]]);
        assert_eq!(sorted(found), expected);
    }
}

/// "Rdd cleanup": a batch that is over keeps nothing alive of its records.
#[test]
fn batches_that_are_over_let_go_of_their_records() {
    type Cached = Arc<Mutex<Vec<Weak<()>>>>;
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u32>("numbers");
    let cached = Cached::default();
    let log = cached.clone();
    let held = numbers.map(|_| Arc::new(())).cache();
    held.for_each_rdd(move |rdd, _| {
        log.lock().unwrap().extend(rdd.collect()?.iter().map(Arc::downgrade));
        let alive = rdd.collect()?.iter().all(|record| Arc::strong_count(record) > 1);
        if alive { Ok(()) } else { Err("the cache does not hold its records".into()) }
    });
    let job = context.start().unwrap();
    for batch in 0..5 {
        queue.push([batch, batch]).unwrap();
        tick(&job, &clock);
    }
    let cached = cached.lock().unwrap();
    assert_eq!(cached.len(), 10);
    assert_eq!(cached.iter().filter(|record| record.strong_count() > 0).count(), 0);
}
