//! Windows over the last batches. All durations are whole batches: the batch `n` has the time `n` intervals.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::time::Duration;

use millpond::BatchTime;

use crate::lives::INTERVAL_MS;
use crate::rows::pairs::grouped;
use crate::suite::{BY_HASH, Input, Order, Pair, Row};

fn batches(count: u64) -> Duration {
    Duration::from_millis(count * INTERVAL_MS)
}

/// What each batch of a window of this length and slide has, as the batches in it; nothing in between.
fn windows<T>(all: &[T], length: usize, slide: usize) -> impl Iterator<Item = Option<&[T]>> {
    let window = move |end: usize| &all[end.saturating_sub(length)..end];
    (1..=all.len()).map(move |end| end.is_multiple_of(slide).then(|| window(end)))
}

/// The batches of the last window that has ended.
fn last_window<T>(all: &[T], length: usize, slide: usize) -> &[T] {
    windows(all, length, slide).flatten().last().unwrap_or_default()
}

/// How many keys the aggregates of a window end with.
fn keys_of(input: &Input, length: usize, slide: usize) -> RangeInclusive<u64> {
    let keys = grouped(&last_window(&input.left, length, slide).concat()).len() as u64;
    keys..=keys
}

fn concat(mut list: Vec<i64>, mut more: Vec<i64>) -> Vec<i64> {
    list.append(&mut more);
    list
}

/// Takes the oldest values out again, and sees that they are what came.
fn without_oldest(mut list: Vec<i64>, oldest: Vec<i64>) -> Vec<i64> {
    assert_eq!(list[..oldest.len()], oldest, "what leaves a window is not what came first");
    list.split_off(oldest.len())
}

fn values(batch: &[Pair]) -> Option<Vec<i64>> {
    (!batch.is_empty()).then(|| batch.iter().map(|(_, value)| *value).collect())
}

pub const ROWS: &[Row] = &[
    Row {
        name: "window",
        covers: &["DStream::window"],
        describe: |job| {
            for (name, length, slide) in [("slid", 3, 1), ("tumbled", 2, 2), ("sampled", 2, 3)] {
                job.emit(&job.left.window(name, batches(length), batches(slide)), Order::Exact);
                job.counts_keys_of(name);
            }
            // The batches of a window are windows, and what is derived slides with it.
            let pairs = job.left.window("windowed once", batches(3), batches(2));
            job.emit(&pairs.window("windowed twice", batches(4), batches(4)).count(), Order::Exact);
        },
        oracle: |input, expected| {
            for (name, length, slide) in [("slid", 3, 1), ("tumbled", 2, 2), ("sampled", 2, 3)] {
                expected.emit_some(
                    windows(&input.left, length, slide).map(|window| Some(window?.iter().flatten())),
                );
                // Each part of a batch in the last window, ended or not, is one chunk.
                let end = input.left.len().next_multiple_of(slide);
                let parts: Vec<_> = input.left_partitions().skip(end.saturating_sub(length)).collect();
                let chunks = parts.iter().flatten().filter(|part| !part.is_empty()).count() as u64;
                expected.keys(name, chunks..=chunks);
            }
            let once: Vec<_> = windows(&input.left, 3, 2).map(|window| window.unwrap_or_default()).collect();
            let count = |window: &[&[Vec<Pair>]]| [window.concat().iter().map(Vec::len).sum::<usize>()];
            expected.emit_some(windows(&once, 4, 4).map(|window| window.map(count)));
        },
    },
    Row {
        // A merge that is associative and not commutative: the order of the records shows.
        name: "reduce_by_window",
        covers: &["DStream::reduce_by_window", "DStream::reduce_by_window_with_inverse"],
        describe: |job| {
            let lists = job.left.map(|(_, value)| vec![value]);
            let (length, slide) = (batches(3), batches(2));
            job.emit(&lists.reduce_by_window("merged", length, slide, concat), Order::Exact);
            let (length, slide) = (batches(4), batches(1));
            let turned = lists.reduce_by_window_with_inverse("turned", length, slide, concat, without_oldest);
            job.emit(&turned, Order::Exact);
            job.counts_keys_of("turned");
        },
        oracle: |input, expected| {
            let merged = |window: &[Vec<Pair>]| values(&window.concat());
            expected.emit_some(windows(&input.left, 3, 2).map(|window| window.map(merged)));
            expected.emit_some(windows(&input.left, 4, 1).map(|window| window.map(merged)));
            let left = u64::from(merged(last_window(&input.left, 4, 1)).is_some());
            expected.keys("turned", left..=left);
        },
    },
    Row {
        name: "reduce_by_key_and_window",
        covers: &["DStream::reduce_by_key_and_window", "DStream::group_by_key_and_window"],
        describe: |job| {
            let lists = job.left.map_values(|value| vec![value]);
            let merged = lists.reduce_by_key_and_window("lists", batches(3), batches(1), concat);
            job.emit(&merged, BY_HASH);
            job.emit(&job.left.group_by_key_and_window("groups", batches(2), batches(2)), BY_HASH);
        },
        oracle: |input, expected| {
            let group = |window: &[Vec<Pair>]| grouped(&window.concat());
            expected.emit_some(windows(&input.left, 3, 1).map(|window| window.map(group)));
            expected.emit_some(windows(&input.left, 2, 2).map(|window| window.map(group)));
        },
    },
    Row {
        name: "reduce_by_key_and_window_with_inverse",
        covers: &["DStream::reduce_by_key_and_window_with_inverse"],
        describe: |job| {
            let lists = job.left.map_values(|value| vec![value]);
            for (name, length, slide) in [("aggregated", 3, 1), ("in leaps", 2, 3)] {
                let (length, slide) = (batches(length), batches(slide));
                let turned =
                    lists.reduce_by_key_and_window_with_inverse(name, length, slide, concat, without_oldest);
                job.emit(&turned, BY_HASH);
                job.counts_keys_of(name);
            }
        },
        oracle: |input, expected| {
            for (name, length, slide) in [("aggregated", 3, 1), ("in leaps", 2, 3)] {
                let group = |window: &[Vec<Pair>]| grouped(&window.concat());
                expected.emit_some(windows(&input.left, length, slide).map(|window| window.map(group)));
                expected.keys(name, keys_of(input, length, slide));
            }
        },
    },
    Row {
        name: "count_by_window",
        covers: &["DStream::count_by_window", "DStream::count_by_value_and_window"],
        describe: |job| {
            job.emit(&job.left.count_by_window("counted", batches(3), batches(2)), Order::Exact);
            let keys = job.left.map(|(key, _)| key);
            let counts = keys.count_by_value_and_window("counted values", batches(2), batches(1));
            job.emit(&counts, BY_HASH);
            job.counts_keys_of("counted values");
        },
        oracle: |input, expected| {
            let count = |window: &[Vec<Pair>]| [window.concat().len()];
            expected.emit_some(windows(&input.left, 3, 2).map(|window| window.map(count)));
            let of_keys = |window: &[Vec<Pair>]| {
                grouped(&window.concat()).into_iter().map(|(key, values)| (key, values.len()))
            };
            expected.emit_some(windows(&input.left, 2, 1).map(|window| window.map(of_keys)));
            expected.keys("counted values", keys_of(input, 2, 1));
        },
    },
    Row {
        // Keys are visited once per slide, and two windows of one slide meet.
        name: "what slides goes on sliding",
        covers: &["DStream::window", "DStream::reduce_by_key_and_window"],
        describe: |job| {
            let sums =
                job.left.reduce_by_key_and_window("windowed sums", batches(4), batches(2), |a, b| a + b);
            let all = sums.update_state_by_key("sums of windows", |new, sum: Option<i64>| {
                Some(sum.unwrap_or(0) + new.iter().sum::<i64>())
            });
            job.emit(&all, BY_HASH);
            job.keeps::<u16, i64>("sums of windows");
            let right = job.right.window("windowed right", batches(2), batches(2));
            job.emit(&sums.join(&right).map(|(key, _)| key), BY_HASH);
        },
        oracle: |input, expected| {
            let mut state = BTreeMap::<u16, i64>::new();
            let sums: Vec<Option<BTreeMap<u16, i64>>> = windows(&input.left, 4, 2)
                .map(|window| {
                    let sum = |(key, values): (u16, Vec<i64>)| (key, values.iter().sum());
                    Some(grouped(&window?.concat()).into_iter().map(sum).collect())
                })
                .collect();
            let mut add = |(key, sum): (&u16, &i64)| {
                let total = state.entry(*key).or_default();
                *total += sum;
                (*key, *total)
            };
            let totals: Vec<Option<Vec<Pair>>> =
                sums.iter().map(|sums| Some(sums.as_ref()?.iter().map(&mut add).collect())).collect();
            expected.emit_some(totals);
            expected.state("sums of windows", state);
            expected.emit_some(sums.iter().zip(windows(&input.right, 2, 2)).map(|(sums, right)| {
                let keys: BTreeSet<u16> = sums.as_ref()?.keys().copied().collect();
                let right = right?.concat().into_iter().map(|(key, _)| key);
                Some(right.filter(move |key| keys.contains(key)))
            }));
        },
    },
    Row {
        // Each start remembers anew, so what is remembered is compared with what this life has seen.
        name: "remember",
        covers: &["DStream::remember", "Remembered::slice"],
        describe: |job| {
            let remembered = job.left.remember(batches(3));
            let emitted = job.collector(Order::Exact);
            let seen = Mutex::new(VecDeque::<(BatchTime, Vec<Pair>)>::new());
            job.left.for_each_rdd(move |rdd, info| {
                let mut seen = seen.lock().unwrap();
                seen.retain(|(time, _)| *time < info.time && time.0 + 3 * INTERVAL_MS > info.time.0);
                seen.push_back((info.time, rdd.collect()?));
                let mut all = Vec::new();
                for (time, rdd) in remembered.slice(BatchTime(0), BatchTime(u64::MAX)) {
                    all.push((time, rdd.collect()?));
                }
                assert_eq!(all, *seen.make_contiguous(), "what is remembered is not what was there");
                // From and to anywhere in a batch's interval is the batch.
                let within = BatchTime(info.time.0 + INTERVAL_MS / 2);
                let slice = remembered.slice(within, within);
                let now: Result<Vec<_>, _> = slice
                    .iter()
                    .map(|(time, rdd)| Ok::<_, millpond::Error>((time.0, rdd.collect()?)))
                    .collect();
                emitted.put(info, now?);
                Ok(())
            });
        },
        oracle: |input, expected| {
            let batches = input.left.iter().enumerate();
            expected.emit(batches.map(|(index, batch)| [(Input::batch_time(index), batch)]));
        },
    },
];
