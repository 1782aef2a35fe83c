//! Operations on streams that do to every batch what the RDD operation of their name does.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use driven::{builder, tick};
use millpond::{DStream, ManualClock, Record, StorageLevel};

type Seen<T> = Arc<Mutex<Vec<Vec<T>>>>;

fn see<T: Record>(stream: &DStream<T>) -> Seen<T> {
    let seen = Seen::default();
    let sink = seen.clone();
    stream.for_each_rdd(move |rdd, _| {
        sink.lock().unwrap().push(rdd.collect()?);
        Ok(())
    });
    seen
}

/// BasicOperationsSuite: glom, count by value, transform with, union, over two batches and an empty one.
#[test]
fn every_batch_is_transformed_like_an_rdd() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).partitions(1).build().unwrap();
    let (left, left_queue) = context.queue_stream::<u64>("left");
    let (right, right_queue) = context.queue_stream::<u64>("right");
    let glom = see(&left.glom());
    let counts = see(&left.count_by_value());
    let totals = see(&left.count_by_value().reduce_by_key(|a, b| a + b).map(|(_, count)| count));
    let without = see(&left.transform_with(&right, |left, right, time| {
        Ok(left.subtract(&right).map(move |n| (time.0, n)).sort_by(|row| row.1))
    }));
    let union = see(&left.union_all(&[right.clone(), left.map(|n| n + 100)]));
    let job = context.start().unwrap();
    left_queue.push([1, 2, 2, 3]).unwrap();
    right_queue.push([2]).unwrap();
    tick(&job, &clock);
    left_queue.push([5]).unwrap();
    tick(&job, &clock);
    tick(&job, &clock);
    assert_eq!(*glom.lock().unwrap(), [vec![vec![1, 2, 2, 3]], vec![vec![5]], vec![]]);
    let mut first = counts.lock().unwrap()[0].clone();
    first.sort_unstable();
    assert_eq!(first, [(1, 1), (2, 2), (3, 1)]);
    assert_eq!(counts.lock().unwrap()[1..], [vec![(5, 1)], vec![]]);
    assert_eq!(totals.lock().unwrap()[0].iter().sum::<u64>(), 4);
    assert_eq!(*without.lock().unwrap(), [vec![(1000, 1), (1000, 3)], vec![(2000, 5)], vec![]]);
    assert_eq!(*union.lock().unwrap(), [vec![1, 2, 2, 3, 2, 101, 102, 102, 103], vec![5, 105], vec![]]);
}

#[test]
fn a_persisted_stream_is_computed_once_per_batch() {
    let levels = [StorageLevel::Memory, StorageLevel::MemorySerialized, StorageLevel::Disk];
    for level in levels {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(0);
        let context = builder(dir.path(), &clock).build().unwrap();
        let (words, queue) = context.queue_stream::<String>("words");
        let computed = Arc::new(AtomicUsize::new(0));
        let counter = computed.clone();
        let upper = words.map(move |word| {
            counter.fetch_add(1, Ordering::SeqCst);
            word.to_uppercase()
        });
        let upper = upper.persist(level);
        let (first, second) = (see(&upper), see(&upper.map(|word| word.len())));
        let job = context.start().unwrap();
        for batch in 1..=2 {
            queue.push(["a".to_owned(), "bc".to_owned()]).unwrap();
            tick(&job, &clock);
            assert_eq!(computed.load(Ordering::SeqCst), 2 * batch, "{level:?}");
        }
        assert_eq!(*first.lock().unwrap(), [["A", "BC"], ["A", "BC"]], "{level:?}");
        assert_eq!(*second.lock().unwrap(), [[1, 2], [1, 2]], "{level:?}");
    }
}

/// An output that wants a few records ends the reading early; what another one reads in full counts in full.
#[test]
fn records_are_counted_as_far_as_they_were_read() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    numbers.for_each_rdd(|rdd, info| {
        if info.batch.0 == 2 {
            rdd.count()?;
        }
        assert_eq!(rdd.take(2)?, [0, 1]);
        Ok(())
    });
    let job = context.start().unwrap();
    queue.push(0..2000).unwrap();
    tick(&job, &clock);
    let records = job.progress().records;
    assert!((2..2000).contains(&records), "{records}");
    queue.push(0..2000).unwrap();
    tick(&job, &clock);
    assert_eq!(job.progress().records, records + 2000);
}
