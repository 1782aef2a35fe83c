//! Windows as users write them. Cases of Spark's suites are marked with the suite they come from.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driven::{INTERVAL_MS, builder, tick};
use millpond::{
    BatchTime, Clock, DStream, ErrorKind, ManualClock, Queue, Rdd, Record, RunningContext, StopMode,
    StreamingContext,
};

type Pair = (String, i64);

type Seen<T> = Arc<Mutex<Vec<Vec<T>>>>;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn pairs(text: &str) -> Vec<Pair> {
    let pair = |word: &str| (word[..1].to_owned(), word[1..].parse().unwrap());
    text.split_whitespace().map(pair).collect()
}

/// Everything a stream has, sorted, per batch in which it is due.
fn see<T: Record + Ord>(stream: &DStream<T>) -> Seen<T> {
    let seen = Seen::default();
    let sink = seen.clone();
    stream.for_each_rdd(move |rdd, _| {
        let mut rows = rdd.collect()?;
        rows.sort();
        sink.lock().unwrap().push(rows);
        Ok(())
    });
    seen
}

/// Runs a job over one input per batch, and returns what its stream had.
fn windows_of<T: Record + Ord>(
    inputs: &[&str],
    describe: impl Fn(&DStream<Pair>) -> DStream<T>,
) -> Vec<Vec<T>> {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (stream, queue) = context.queue_stream::<Pair>("pairs");
    let seen = see(&describe(&stream));
    let job = context.start().unwrap();
    for input in inputs {
        queue.push(pairs(input)).unwrap();
        tick(&job, &clock);
    }
    job.stop(StopMode::Graceful).unwrap();
    seen.lock().unwrap().clone()
}

/// A name, the input of each batch, length and slide in seconds, and what each window has.
type Case = (&'static str, &'static [&'static str], u64, u64, &'static [&'static str]);

/// WindowOperationsSuite, reduceByKeyAndWindow with and without an inverse function: basic, key already in the
/// window, new key, removed key, larger slide, tumbling, and the big test.
#[test]
fn reductions_by_key_and_window() {
    const BIG: [&str; 12] =
        ["a1", "a1 b1", "a1 b1 c1", "a1 b1", "a1", "", "a1", "a1 b1", "a1 b1 c1", "a1 b1", "a1", ""];
    let cases: [Case; 7] = [
        ("basic", &["a1 a3"], 2, 1, &["a4"]),
        ("a key already in the window", &["a1", "a1"], 2, 1, &["a1", "a2"]),
        ("a new key", &["a1", "a1 b1"], 2, 1, &["a1", "a2 b1"]),
        ("a key that leaves", &["a1", "a1", "", ""], 2, 1, &["a1", "a2", "a1", ""]),
        (
            "the big one",
            &BIG,
            2,
            1,
            &[
                "a1", "a2 b1", "a2 b2 c1", "a2 b2 c1", "a2 b1", "a1", "a1", "a2 b1", "a2 b2 c1", "a2 b2 c1",
                "a2 b1", "a1",
            ],
        ),
        ("a larger slide", &BIG, 4, 2, &["a2 b1", "a4 b3 c1", "a3 b2 c1", "a3 b1", "a4 b3 c1", "a3 b2 c1"]),
        ("tumbling", &BIG, 3, 3, &["a3 b2 c1", "a2 b1", "a3 b2 c1", "a2 b1"]),
    ];
    for (name, inputs, length, slide, expected) in cases {
        let expected: Vec<_> = expected.iter().map(|window| pairs(window)).collect();
        let (length, slide) = (seconds(length), seconds(slide));
        let plain = windows_of(inputs, |s| s.reduce_by_key_and_window("w", length, slide, |a, b| a + b));
        assert_eq!(plain, expected, "{name}");
        let inverse = windows_of(inputs, |stream| {
            stream.reduce_by_key_and_window_with_inverse(
                "w",
                length,
                slide,
                |a, b| a + b,
                |all, old| all - old,
            )
        });
        assert_eq!(inverse, expected, "{name}, with an inverse");
    }
}

/// WindowOperationsSuite, inverse and filter functions; and values that cancel out and do not stay so.
#[test]
fn unwanted_values_are_filtered_without_losing_them() {
    let inputs = ["a1 b2", "a-1", "b-2 c0", "", ""];
    let sums = windows_of(&inputs, |stream| {
        stream
            .reduce_by_key_and_window_with_inverse(
                "w",
                seconds(2),
                seconds(1),
                |a, b| a + b,
                |all, old| all - old,
            )
            .filter(|(_, sum)| *sum != 0)
    });
    assert_eq!(sums, ["a1 b2", "b2", "a-1 b-2", "b-2", ""].map(pairs));
}

/// WindowOperationsSuite: window, groupByKeyAndWindow, countByWindow, countByValueAndWindow, reduceByWindow.
#[test]
fn the_other_windows() {
    let inputs = ["a1", "b2 a3", "", "a4", ""];
    let (length, slide) = (seconds(2), seconds(1));
    let window = windows_of(&inputs, |stream| stream.window("w", length, slide));
    assert_eq!(window, ["a1", "a1 a3 b2", "a3 b2", "a4", "a4"].map(pairs));
    let larger = windows_of(&inputs, |stream| stream.window("w", seconds(2), seconds(4)));
    assert_eq!(larger, [pairs("a4")]);
    let groups = windows_of(&inputs, |stream| stream.group_by_key_and_window("w", length, slide));
    let row = |key: &str, values: &[i64]| (key.to_owned(), values.to_vec());
    assert_eq!(groups[1], [row("a", &[1, 3]), row("b", &[2])]);
    assert_eq!(groups[2], [row("a", &[3]), row("b", &[2])]);
    let counts =
        windows_of(&["", "", "a1", "a1 a1", "", "", ""], |stream| stream.count_by_window("w", length, slide));
    assert_eq!(counts.concat(), [0, 0, 1, 3, 2, 0, 0]);
    let values = windows_of(&inputs, |stream| {
        stream.map(|(key, _)| key).count_by_value_and_window("w", length, slide)
    });
    assert_eq!(values[1], [("a".to_owned(), 2), ("b".to_owned(), 1)]);
    assert_eq!(values[4], [("a".to_owned(), 1)]);
    let numbers = |stream: &DStream<Pair>| stream.map(|(_, number)| number);
    let largest =
        windows_of(&inputs, |stream| numbers(stream).reduce_by_window("w", length, slide, i64::max));
    assert_eq!(largest, [vec![1], vec![3], vec![3], vec![4], vec![4]]);
    let sums = windows_of(&inputs, |stream| {
        numbers(stream).reduce_by_window_with_inverse("w", length, slide, |a, b| a + b, |all, old| all - old)
    });
    assert_eq!(sums, [vec![1], vec![6], vec![5], vec![4], vec![4]]);
}

/// A job with every kind of window on a stream of pairs.
fn start_all(dir: &Path, clock: &Arc<ManualClock>, length: u64) -> (RunningContext, Queue<Pair>, Seen<Pair>) {
    let context = builder(dir, clock).build().unwrap();
    let (stream, queue) = context.queue_stream::<Pair>("pairs");
    let (length, slide) = (seconds(length), seconds(1));
    let _ = see(&stream.window("window", length, slide));
    let add = |a: i64, b: i64| a + b;
    let plain = see(&stream.reduce_by_key_and_window("plain", length, slide, add));
    let inverse =
        see(&stream
            .reduce_by_key_and_window_with_inverse("inverse", length, slide, add, |all, old| all - old));
    stream.count_by_window("count", length, slide).for_each_rdd(move |_, info| {
        let (plain, inverse) = (plain.lock().unwrap(), inverse.lock().unwrap());
        assert_eq!(plain.last(), inverse.last(), "at {}", info.time);
        Ok(())
    });
    let sums = see(&stream.reduce_by_key_and_window("sums", length, slide, add));
    (context.start().unwrap(), queue, sums)
}

/// CheckpointSuite, recovery with an inverse window: stopped and started after every batch, with and without a
/// pause.
#[test]
fn windows_go_on_after_a_stop_at_every_batch() {
    for pause in [0, 3] {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(0);
        let mut input = Vec::<(u64, i64)>::new();
        for batch in 1..10 {
            let (job, queue, sums) = start_all(dir.path(), &clock, 4);
            // The time at which the pause ended is a batch of its own.
            while job.progress().last_batch.map_or(0, |(_, time)| time.0) < clock.now_ms() {
                assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
            }
            queue.push(vec![("a".to_owned(), batch), ("a".to_owned(), 1)]).unwrap();
            tick(&job, &clock);
            let now = clock.now_ms();
            input.push((now, batch + 1));
            let expected: i64 = input.iter().filter(|(time, _)| time + 4_000 > now).map(|(_, n)| n).sum();
            assert_eq!(*sums.lock().unwrap().last().unwrap(), [("a".to_owned(), expected)]);
            if batch % 2 == 0 {
                job.stop(StopMode::Graceful).unwrap();
            }
            drop(job);
            clock.advance(pause * INTERVAL_MS);
        }
    }
}

/// What is still there counts when the length changes; the windows of both forms stay the same.
#[test]
fn length_and_slide_may_change_between_runs() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let run = |length: u64, inputs: &[&str]| {
        let (job, queue, sums) = start_all(dir.path(), &clock, length);
        for input in inputs {
            queue.push(pairs(input)).unwrap();
            tick(&job, &clock);
        }
        job.stop(StopMode::Graceful).unwrap();
        drop(job);
        sums.lock().unwrap().clone()
    };
    assert_eq!(run(3, &["a1", "a2", "a4 b1"]), ["a1", "a3", "a7 b1"].map(pairs));
    assert_eq!(run(5, &["a8", ""]), ["a15 b1", "a15 b1"].map(pairs));
    assert_eq!(run(2, &["", ""]), ["", ""].map(pairs));
    assert_eq!(run(9, &["a16", ""]), ["a16", "a16"].map(pairs));
}

/// State follows what windows hold: keys that came and went leave nothing in the store.
#[cfg(feature = "tool")]
#[test]
fn windows_that_passed_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let (job, queue, sums) = start_all(dir.path(), &clock, 3);
    for batch in 0..30 {
        let new = |n: i64| (format!("{batch} {n}"), n);
        queue.push((0..50).map(new)).unwrap();
        tick(&job, &clock);
    }
    assert_eq!(sums.lock().unwrap().last().unwrap().len(), 150);
    for _ in 0..5 {
        tick(&job, &clock);
    }
    job.stop(StopMode::Graceful).unwrap();
    drop(job);
    let report = millpond::inspect::inspect(&dir.path().join("store")).unwrap();
    assert!(report.sound);
    let keys: Vec<_> = report.operators.iter().map(|operator| (&*operator.name, operator.keys)).collect();
    assert_eq!(keys.len(), 7);
    assert!(keys.iter().all(|(_, keys)| *keys == 0), "{keys:?}");
}

/// What a batch costs with an inverse follows what enters and leaves, not the length of the window.
#[test]
fn a_longer_window_costs_no_more_per_batch() {
    let calls_of = |length: u64| {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(0);
        let context = builder(dir.path(), &clock).build().unwrap();
        let (stream, queue) = context.queue_stream::<Pair>("pairs");
        let calls = Arc::new(AtomicU64::new(0));
        let (merges, inverses) = (calls.clone(), calls.clone());
        let merge = move |a: i64, b: i64| {
            merges.fetch_add(1, Ordering::Relaxed);
            a + b
        };
        let inverse = move |a: i64, b: i64| {
            inverses.fetch_add(1, Ordering::Relaxed);
            a - b
        };
        let sums =
            stream.reduce_by_key_and_window_with_inverse("w", seconds(length), seconds(1), merge, inverse);
        let seen = see(&sums);
        let job = context.start().unwrap();
        let mut before = 0;
        for _ in 0..length + 5 {
            before = calls.load(Ordering::Relaxed);
            queue.push(pairs("a1 b1 b1")).unwrap();
            tick(&job, &clock);
        }
        let length = length as i64;
        assert_eq!(
            *seen.lock().unwrap().last().unwrap(),
            [("a".to_owned(), length), ("b".to_owned(), 2 * length)]
        );
        calls.load(Ordering::Relaxed) - before
    };
    assert_eq!(calls_of(4), calls_of(60));
}

/// A batch whose closure fails changes neither chunks nor aggregates: the next start computes it from its plan.
#[test]
fn a_failed_window_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = |refused: i64| {
        let context = builder(dir.path(), &clock).task_attempts_max(2).build().unwrap();
        let (stream, queue) = context.queue_stream::<Pair>("pairs");
        let add = move |a: i64, b: i64| {
            assert!(b != refused, "refused");
            a + b
        };
        let (length, slide) = (seconds(3), seconds(1));
        let sums =
            stream.reduce_by_key_and_window_with_inverse("w", length, slide, add, |all, old| all - old);
        let seen = see(&sums);
        (context.start(), queue, seen)
    };
    // The third batch's value is merged with those of the batches before, after its chunks were taken up.
    let (job, queue, _) = start(4);
    let job = job.unwrap();
    for input in ["a1", "a2"] {
        queue.push(pairs(input)).unwrap();
        tick(&job, &clock);
    }
    queue.push(pairs("a4")).unwrap();
    clock.advance(INTERVAL_MS);
    assert_eq!(job.await_termination().unwrap_err().kind(), ErrorKind::UserCode);
    drop(job);
    assert_eq!(start(4).0.unwrap_err().kind(), ErrorKind::UserCode, "the replay fails in the same way");
    let (job, _queue, seen) = start(i64::MAX);
    let job = job.unwrap();
    tick(&job, &clock);
    job.stop(StopMode::Graceful).unwrap();
    assert_eq!(*seen.lock().unwrap(), ["a7", "a6"].map(pairs));
}

/// A window's RDD that somebody keeps stays what it was.
#[test]
fn a_kept_window_outlives_its_batch() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (stream, queue) = context.queue_stream::<Pair>("pairs");
    let kept: Arc<Mutex<Vec<Rdd<Pair>>>> = Arc::default();
    let sink = kept.clone();
    let (length, slide) = (seconds(2), seconds(1));
    let sums = stream.reduce_by_key_and_window_with_inverse(
        "sums",
        length,
        slide,
        |a, b| a + b,
        |all, old| all - old,
    );
    stream.window("window", length, slide).union(&sums).for_each_rdd(move |rdd, _| {
        sink.lock().unwrap().push(rdd);
        Ok(())
    });
    let job = context.start().unwrap();
    for input in ["a1", "a2", "a3", ""] {
        queue.push(pairs(input)).unwrap();
        tick(&job, &clock);
    }
    job.stop(StopMode::Graceful).unwrap();
    let kept = kept.lock().unwrap();
    let read: Vec<_> = kept.iter().map(|rdd| rdd.collect().unwrap()).collect();
    assert_eq!(read, ["a1 a1", "a1 a2 a3", "a2 a3 a5", "a3 a3"].map(pairs));
}

#[test]
fn remembered_batches_are_queried_from_another_thread() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = || {
        let context = builder(dir.path(), &clock).build().unwrap();
        let (stream, queue) = context.queue_stream::<Pair>("pairs");
        let recent = stream.remember(seconds(3));
        let windows = stream.count_by_window("count", seconds(2), seconds(2)).remember(seconds(100));
        (context.start().unwrap(), queue, recent, windows)
    };
    let (job, queue, recent, windows) = start();
    for input in ["a1", "a2", "", "a4", "a5 b5"] {
        queue.push(pairs(input)).unwrap();
        tick(&job, &clock);
    }
    let at = |ms: u64| BatchTime(ms);
    let query = std::thread::spawn(move || {
        // Brought down to the interval: from 3,000 to 5,000.
        let slice = recent.clone().slice(at(3_999), at(5_999));
        slice.into_iter().map(|(time, rdd)| (time.0, rdd.collect().unwrap())).collect::<Vec<_>>()
    });
    let expected = [(3_000, pairs("")), (4_000, pairs("a4")), (5_000, pairs("a5 b5"))];
    assert_eq!(query.join().unwrap(), expected);
    let times: Vec<_> = windows.slice(at(3_000), at(u64::MAX)).iter().map(|(time, _)| time.0).collect();
    assert_eq!(times, [2_000, 4_000]);
    drop(job);
    let (job, queue, recent, _) = start();
    assert!(recent.slice(at(0), at(u64::MAX)).is_empty(), "it fills anew");
    queue.push(pairs("a6")).unwrap();
    tick(&job, &clock);
    let slice = recent.slice(at(0), at(u64::MAX));
    assert_eq!(slice.len(), 1);
    assert_eq!(slice[0].1.collect().unwrap(), pairs("a6"));
}

#[test]
fn windows_that_fit_no_batches_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let refused = |describe: &dyn Fn(&StreamingContext, &DStream<Pair>)| {
        let context = builder(dir.path(), &clock).build().unwrap();
        let (stream, _queue) = context.queue_stream::<Pair>("pairs");
        stream.print(0);
        describe(&context, &stream);
        let error = context.start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidGraph);
        error.to_string()
    };
    let window =
        |length: Duration, slide: Duration| refused(&|_, stream| stream.window("w", length, slide).print(0));
    let half = Duration::from_millis(1_500);
    let said = window(half, seconds(1));
    assert!(said.contains("length of window `w` is 1.5s") && said.contains("every 1000 ms"), "{said}");
    assert!(window(seconds(1), half).contains("slide of window `w` is 1.5s"));
    assert!(window(seconds(1), Duration::ZERO).contains("slide of window `w` is 0ns"));
    assert!(window(Duration::ZERO, seconds(1)).contains("length of window `w` is 0ns"));
    assert!(window(Duration::MAX, seconds(1)).contains("length of window `w` is"));
    assert!(window(Duration::from_micros(1_000_001), seconds(1)).contains("1.000001s"));
    let nested = refused(&|_, stream| {
        let window = stream.window("w", seconds(2), seconds(2));
        window.count_by_window("count", seconds(4), seconds(3)).print(0);
    });
    assert!(nested.contains("`count") && nested.contains("every 2000 ms"), "{nested}");
    let (one, two) = (seconds(1), seconds(2));
    let join =
        refused(&|_, stream| stream.window("w", two, two).join(&stream.window("v", one, one)).print(0));
    assert!(join.contains("`join`") && join.contains("{1000, 2000} ms"), "{join}");
    let union = refused(&|_, stream| stream.union(&stream.window("w", two, two)).print(0));
    assert!(union.contains("`union`"), "{union}");
    let twice = refused(&|_, stream| {
        stream.window("w", one, one).print(0);
        stream.count_by_window("w", one, one).print(0);
    });
    assert!(twice.contains("called `w`"), "{twice}");
    // A slide of one interval is no slide at all.
    let context = builder(dir.path(), &clock).build().unwrap();
    let (stream, _queue) = context.queue_stream::<Pair>("pairs");
    stream.union(&stream.window("w", two, one)).print(0);
    context.start().unwrap();
}
