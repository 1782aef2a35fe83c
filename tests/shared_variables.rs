//! Broadcast values, accumulators and data sets: each batch sees one value and counts once, whatever is tried
//! again, computed twice, crashed or replayed.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "support/driven.rs"]
mod driven;
mod support;

#[path = "shared_variables/crashes.rs"]
mod crashes;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use driven::{builder, tick};
use millpond::{Accumulator, Broadcast, ErrorKind, LoadError, ManualClock, Reload, Result, StopMode};

fn sum(a: u64, b: u64) -> u64 {
    a + b
}

/// Panics the first `times` times that it is called with each input.
#[derive(Clone, Default)]
struct Flaky(Arc<Mutex<BTreeMap<(&'static str, u64), u32>>>);

impl Flaky {
    fn call(&self, place: &'static str, input: u64, times: u32) {
        let mut calls = self.0.lock().unwrap();
        let call = calls.entry((place, input)).or_default();
        *call += 1;
        let fails = *call <= times;
        drop(calls);
        assert!(!fails, "{place} fails on {input}");
    }
}

/// Runs a job over one batch of `records` and returns the accumulator's value.
fn counted_by(
    records: impl IntoIterator<Item = u64>,
    describe: impl FnOnce(millpond::DStream<u64>, Accumulator<u64>),
) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).task_attempts_max(8).build().unwrap();
    let count = context.accumulator("count", 0, sum);
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    describe(numbers, count.clone());
    let job = context.start().unwrap();
    queue.push(records).unwrap();
    tick(&job, &clock);
    count.value()
}

#[test]
fn a_task_that_is_tried_again_counts_once() {
    let flaky = Flaky::default();
    let counted = counted_by(0..2_000, |numbers, count| {
        let (mapped, merged, updated, acted) = (count.clone(), count.clone(), count.clone(), count);
        let (map, merge, update, act) = (flaky.clone(), flaky.clone(), flaky.clone(), flaky.clone());
        let pairs = numbers.map(move |n| {
            mapped.add(1);
            if n == 1_500 {
                map.call("map", n, 2);
            }
            (n % 10, 1u64)
        });
        let sums = pairs.reduce_by_key(move |a, b| {
            merged.add(100_000);
            if a == 150 {
                merge.call("merge", a, 1);
            }
            a + b
        });
        let totals = sums.update_state_by_key("totals", move |new, _: Option<u64>| {
            updated.add(1_000_000_000);
            update.call("update", 0, 1);
            Some(new.iter().sum::<u64>())
        });
        totals.for_each_rdd(move |rdd, _| {
            let (act, acted) = (act.clone(), acted.clone());
            rdd.for_each_partition(move |_, records| {
                acted.add(1_000_000_000_000 * records.len() as u64);
                act.call("act", 0, 3);
                Ok(())
            })?;
            Ok(())
        });
    });
    // 2,000 records, 1,990 merges of 10 keys in one partition, 10 updates, 10 rows seen by the action.
    assert_eq!(counted, 2_000 + 1_990 * 100_000 + 10 * 1_000_000_000 + 10 * 1_000_000_000_000);
}

#[test]
fn a_partition_that_is_computed_again_counts_once() {
    let counted = counted_by(0..1_200, |numbers, count| {
        let each = count.clone();
        let once = numbers.map(move |n| {
            each.add(1);
            n
        });
        let each = count.clone();
        let reduced = once.map(|n| (n % 7, 1u64)).reduce_by_key(|a, b| a + b).map_values(move |n| {
            each.add(10_000);
            n
        });
        let cached = once.cache();
        once.union(&once).count().for_each_rdd(|rdd, _| {
            rdd.take(1)?;
            rdd.collect()?;
            Ok(())
        });
        once.for_each_rdd(|rdd, _| {
            rdd.take(3)?;
            rdd.count()?;
            rdd.collect()?;
            Ok(())
        });
        cached.for_each_rdd(|rdd, _| {
            rdd.count()?;
            rdd.uncache(0);
            rdd.count()?;
            Ok(())
        });
        reduced.for_each_rdd(|rdd, _| {
            rdd.count()?;
            rdd.map(|(n, _)| n).collect()?;
            Ok(())
        });
        let _ = reduced.update_state_by_key("state", |new, _: Option<u64>| new.first().copied());
        reduced.join(&reduced).for_each_rdd(|rdd, _| {
            rdd.count()?;
            Ok(())
        });
    });
    assert_eq!(counted, 1_200 + 7 * 10_000);
}

/// A cache filled by an attempt that fails afterwards is not computed again, and still counts.
#[test]
fn what_a_failed_attempt_left_in_a_cache_or_a_shuffle_counts() {
    let flaky = Flaky::default();
    let counted = counted_by(0..100, |numbers, count| {
        let (each, merged) = (count.clone(), count.clone());
        let cached = numbers
            .map(move |n| {
                each.add(1);
                (n % 2, n)
            })
            .cache();
        let sums = cached.reduce_by_key(move |a, b| {
            merged.add(1_000);
            a + b
        });
        sums.for_each_rdd(move |rdd, _| {
            let task = flaky.clone();
            rdd.for_each_partition(move |partition, _| {
                if partition == 0 {
                    task.call("task", 0, 2);
                }
                Ok(())
            })?;
            flaky.call("output", 0, 2);
            Ok(())
        });
    });
    assert_eq!(counted, 100 + 98 * 1_000);
}

#[test]
fn an_output_that_is_tried_again_counts_its_last_attempt() {
    let flaky = Flaky::default();
    let counted = counted_by(0..10, |numbers, count| {
        numbers.for_each_rdd(move |rdd, _| {
            count.add(1_000);
            let own = count.clone();
            let made_here = rdd.map(move |n| {
                own.add(1);
                n
            });
            made_here.count()?;
            made_here.count()?;
            let acted = count.clone();
            // An action counts for each time it is called.
            rdd.for_each_partition(move |_, records| {
                acted.add(100 * records.len() as u64);
                Ok(())
            })?;
            flaky.call("output", 0, 3);
            Ok(())
        });
    });
    assert_eq!(counted, 1_000 + 10 + 1_000);
}

#[test]
fn contributions_are_merged_in_a_fixed_order() {
    let run = |threads: usize| {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(0);
        let context = builder(dir.path(), &clock).threads(threads).build().unwrap();
        // Not commutative.
        let order = context.accumulator("order", String::new(), |a, b| a + &b);
        let (words, queue) = context.queue_stream::<u64>("words");
        let (first, second) = (order.clone(), order.clone());
        let pairs = words.repartition(5).map(move |n| {
            first.add(format!("m{n} "));
            (n % 3, n)
        });
        let _ = pairs.update_state_by_key("state", move |new, _: Option<u64>| {
            second.add(format!("u{new:?} "));
            new.last().copied()
        });
        pairs.for_each_rdd(|rdd, _| Ok(rdd.count().map(drop)?));
        let job = context.start().unwrap();
        for batch in 0..3 {
            queue.push(batch * 40..batch * 40 + 40).unwrap();
            tick(&job, &clock);
        }
        order.value()
    };
    let expected = run(1);
    assert!(expected.len() > 400, "{expected}");
    for threads in [2, 4, 4, 4] {
        assert_eq!(run(threads), expected);
    }
}

#[test]
fn what_is_added_outside_of_a_batch_does_not_count() {
    let counted = counted_by(0..3, |numbers, count| {
        count.add(5);
        numbers.for_each_rdd(move |rdd, _| {
            count.add(rdd.count()?);
            let count = count.clone();
            std::thread::spawn(move || count.add(7)).join().unwrap();
            Ok(())
        });
    });
    assert_eq!(counted, 3);
}

#[test]
fn a_large_contribution_takes_several_records_and_survives() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    for round in 0..3u64 {
        let context = builder(dir.path(), &clock).checkpoint_every_batches(100).build().unwrap();
        let all = context.accumulator("all", Vec::new(), |mut a: Vec<u64>, b: Vec<u64>| {
            a.extend(b);
            a
        });
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        let seen = all.clone();
        numbers.for_each_rdd(move |rdd, _| {
            seen.add(rdd.collect()?);
            Ok(())
        });
        let job = context.start().unwrap();
        assert_eq!(all.value().len() as u64, round * 50_000);
        queue.push(round * 50_000..(round + 1) * 50_000).unwrap();
        tick(&job, &clock);
        assert_eq!(all.value(), (0..(round + 1) * 50_000).collect::<Vec<_>>());
    }
}

#[test]
fn an_accumulator_that_is_gone_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = |with: bool, dropping: bool| {
        let context = builder(dir.path(), &clock).allow_dropping_state(dropping).build().unwrap();
        let count = with.then(|| context.accumulator("count", 0, sum));
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        numbers.for_each_rdd(move |rdd, _| {
            let records = rdd.count()?;
            count.iter().for_each(|count| count.add(records));
            Ok(())
        });
        context.start().map(|job| (job, queue))
    };
    let (job, queue) = start(true, false).unwrap();
    queue.push([1, 2]).unwrap();
    tick(&job, &clock);
    job.stop(StopMode::Now).unwrap();
    drop(job);
    // Not in a checkpoint yet.
    assert_eq!(start(false, false).map(drop).unwrap_err().kind(), ErrorKind::Incompatible);
    let (job, _) = start(true, false).unwrap();
    job.stop(StopMode::Graceful).unwrap();
    assert_eq!(job.state::<(), u64>("accumulator count").unwrap().get(&()).unwrap(), Some(2));
    drop(job);
    assert_eq!(start(false, false).map(drop).unwrap_err().kind(), ErrorKind::Incompatible);
    start(false, true).unwrap();
}

/// Every operator and output of a batch sees one value, although the variable is made after them and updated
/// while the batch runs.
#[test]
fn a_batch_sees_one_value_of_a_broadcast() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let rule: Arc<OnceLock<Broadcast<u64>>> = Arc::default();
    let in_state = rule.clone();
    let states = numbers
        .map(|n| (n, ()))
        .update_state_by_key("seen", move |_, _: Option<u64>| Some(*in_state.get().unwrap().value()));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (sink, in_output) = (seen.clone(), rule.clone());
    states.for_each_rdd(move |rdd, _| {
        let rule = in_output.get().unwrap().clone();
        let before = *rule.value();
        rule.update(before + 1)?;
        let lazy = rdd.map(move |(_, state)| (state, *rule.value()));
        sink.lock().unwrap().push((before, lazy.collect()?));
        Ok(())
    });
    let variable = context.broadcast("rule", 10u64);
    rule.set(variable.clone()).unwrap();
    assert_eq!(variable.update(1).unwrap_err().kind(), ErrorKind::Stopped);
    assert_eq!(*variable.value(), 10);
    let job = context.start().unwrap();
    for _ in 0..3 {
        queue.push([1, 2]).unwrap();
        tick(&job, &clock);
    }
    variable.update(98).unwrap();
    variable.update(99).unwrap();
    queue.push([1, 2]).unwrap();
    tick(&job, &clock);
    let expected = [10, 11, 12, 99].map(|value| (value, vec![(value, value), (value, value)]));
    assert_eq!(*seen.lock().unwrap(), expected);
    job.stop(StopMode::Now).unwrap();
    assert_eq!(variable.update(1).unwrap_err().kind(), ErrorKind::Stopped);
}

#[test]
fn a_stored_broadcast_counts_and_not_the_initial_one() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = |initial: &str| {
        let context = builder(dir.path(), &clock).build().unwrap();
        let value = context.broadcast("value", initial.to_owned());
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        numbers.for_each_rdd(|rdd, _| Ok(rdd.count().map(drop)?));
        (context.start().unwrap(), value, queue)
    };
    let (job, value, _queue) = start("first");
    tick(&job, &clock);
    job.stop(StopMode::Graceful).unwrap();
    drop(job);
    assert_eq!(*value.value(), "first");
    let (job, value, _queue) = start("second");
    assert_eq!(*value.value(), "first");
    // Durable, and in no batch yet.
    value.update("third".to_owned()).unwrap();
    job.stop(StopMode::Now).unwrap();
    drop(job);
    let (job, value, _queue) = start("fourth");
    assert_eq!(*value.value(), "first");
    tick(&job, &clock);
    assert_eq!(*value.value(), "third");
}

/// The rows that the loader gives; `None` makes it fail.
type Rows = Arc<Mutex<Option<Vec<(u64, String)>>>>;

fn loader(
    rows: &Rows,
    calls: &Arc<Mutex<u32>>,
) -> impl Fn() -> Result<Vec<(u64, String)>, LoadError> + use<> {
    let (rows, calls) = (rows.clone(), calls.clone());
    move || {
        *calls.lock().unwrap() += 1;
        rows.lock().unwrap().clone().ok_or_else(|| "the table is gone".into())
    }
}

fn row(key: u64, value: &str) -> (u64, String) {
    (key, value.to_owned())
}

#[test]
fn a_data_set_follows_its_rule_and_keeps_its_rows_when_a_load_fails() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let (rows, calls) = (Rows::default(), Arc::new(Mutex::new(0)));
    let start = || {
        let context = builder(dir.path(), &clock).build().unwrap();
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        let names = context.dataset("names", Reload::every(Duration::from_secs(2)), loader(&rows, &calls));
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let (inner, left) = (seen.clone(), seen.clone());
        let pairs = numbers.map(|n| (n, n));
        pairs.join_dataset(&names).for_each_rdd(move |rdd, _| {
            inner.lock().unwrap().push(format!("{:?}", rdd.collect()?));
            Ok(())
        });
        pairs.left_join_dataset(&names).for_each_rdd(move |rdd, _| {
            left.lock().unwrap().push(format!("{}", rdd.collect()?.len()));
            Ok(())
        });
        context.start().map(|job| (job, queue, seen))
    };
    let error = start().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UserCode);
    assert!(error.chain().contains("there is no data to begin with: `dataset names`: the loader failed"));

    let set = |new: Option<Vec<(u64, String)>>| *rows.lock().unwrap() = new;
    set(Some(vec![row(1, "one"), row(2, "two"), row(1, "uno")]));
    let (job, queue, seen) = start().unwrap();
    let batch = || {
        queue.push([1, 3]).unwrap();
        tick(&job, &clock);
        std::mem::take(&mut *seen.lock().unwrap())
    };
    assert_eq!(batch(), ["[(1, (1, \"uno\"))]", "2"]);
    set(Some(vec![row(3, "three")]));
    assert_eq!(batch(), ["[(3, (3, \"three\"))]", "2"]);
    set(None);
    assert_eq!(batch(), ["[(3, (3, \"three\"))]", "2"]);
    assert_eq!(*calls.lock().unwrap(), 3, "not due at 3 s");
    assert_eq!(batch(), ["[(3, (3, \"three\"))]", "2"]);
    assert_eq!(*calls.lock().unwrap(), 4, "failed at 4 s");
    set(Some(vec![]));
    assert_eq!(batch(), ["[]", "2"]);
    assert_eq!(*calls.lock().unwrap(), 5, "tried again at 5 s");
    job.stop(StopMode::Graceful).unwrap();
    drop(job);
    let (job, ..) = start().unwrap();
    tick(&job, &clock);
    assert_eq!(*calls.lock().unwrap(), 5, "an empty load is a load, and not due at 6 s");
    tick(&job, &clock);
    assert_eq!(*calls.lock().unwrap(), 6);
}

#[test]
fn a_large_data_set_is_loaded_in_blocks_and_a_reload_writes_what_changed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock)
        .checkpoint_every_batches(1)
        .block_bytes_max(64 << 10)
        .receive_buffer_bytes_max(256 << 10)
        .build()
        .unwrap();
    let version = Arc::new(Mutex::new(0u64));
    let current = version.clone();
    let table = context.dataset("table", Reload::when(|_| true), move || {
        let version = *current.lock().unwrap();
        Ok((0..40_000u64).map(|key| (key, if key == 7 { version } else { key })).collect())
    });
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let found = numbers.map(|n| (n, ())).join_dataset(&table).map(|(_, (_, row))| ((), row));
    let _ = found.update_state_by_key("found", |new, _: Option<u64>| Some(new.iter().sum()));
    let job = context.start().unwrap();
    let segments = || {
        let files = std::fs::read_dir(dir.path().join("store/state")).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().metadata().unwrap().len()).collect();
        files.sort_unstable();
        files
    };
    for round in 1..=3u64 {
        *version.lock().unwrap() = 1_000_000 * round;
        queue.push([7, 39_999, 40_000]).unwrap();
        tick(&job, &clock);
        let found = job.state::<(), u64>("found").unwrap().get(&()).unwrap();
        assert_eq!(found, Some(1_000_000 * round + 39_999));
    }
    job.stop(StopMode::Graceful).unwrap();
    let files = segments();
    assert!(files.len() >= 2 && files[0] < 20_000, "{files:?}");
    assert!(files[files.len() - 1] > 1_000_000, "{files:?}");
}
