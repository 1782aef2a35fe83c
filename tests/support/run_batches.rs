//! Runs an operation over batches of input as Spark's `TestSuiteBase` does: what goes in, what comes out.
//!
//! Every case runs undisturbed on one and on three threads, and then once for each batch with the job dropped
//! and started anew before it. All runs must give the same.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;
use std::sync::{Arc, Mutex};

use millpond::{DStream, Data, ManualClock, Queue, Record, StreamingContext};

use crate::driven::{builder, tick};

/// Each batch is pushed as so many blocks, and so read in so many partitions.
pub const INPUT_PARTITIONS: usize = 2;

/// Pushes what a batch has of one input.
type Feed = Box<dyn Fn(usize)>;

/// The records of `describe`'s stream, batch by batch, when `inputs` are the batches of the stream it is given.
pub fn run_batches<T: Data, U: Record + Debug + PartialEq>(
    inputs: &[Vec<T>],
    describe: impl Fn(&StreamingContext, DStream<T>) -> DStream<U>,
) -> Vec<Vec<U>> {
    run_all_ways(inputs.len(), &|context| {
        let (stream, feed) = input(context, "first", inputs);
        (describe(context, stream), vec![feed])
    })
}

/// The same with two inputs, which have equally many batches.
pub fn run_two<T: Data, V: Data, U: Record + Debug + PartialEq>(
    first: &[Vec<T>],
    second: &[Vec<V>],
    describe: impl Fn(&StreamingContext, DStream<T>, DStream<V>) -> DStream<U>,
) -> Vec<Vec<U>> {
    assert_eq!(first.len(), second.len());
    run_all_ways(first.len(), &|context| {
        let (one, feed_one) = input(context, "first", first);
        let (two, feed_two) = input(context, "second", second);
        (describe(context, one, two), vec![feed_one, feed_two])
    })
}

/// Each batch sorted, where an operation promises no order that is worth writing down.
pub fn sorted<U: Ord>(mut batches: Vec<Vec<U>>) -> Vec<Vec<U>> {
    batches.iter_mut().for_each(|batch| batch.sort());
    batches
}

fn input<T: Data>(context: &StreamingContext, name: &str, inputs: &[Vec<T>]) -> (DStream<T>, Feed) {
    let (stream, queue): (_, Queue<T>) = context.queue_stream(name);
    let inputs = inputs.to_vec();
    let feed = move |batch: usize| {
        let records: &Vec<T> = &inputs[batch];
        let block = records.len().div_ceil(INPUT_PARTITIONS).max(1);
        records.chunks(block).for_each(|block| queue.push(block.to_vec()).unwrap());
    };
    (stream, Box::new(feed))
}

type Describe<'a, U> = dyn Fn(&StreamingContext) -> (DStream<U>, Vec<Feed>) + 'a;

fn run_all_ways<U: Record + Debug + PartialEq>(batches: usize, describe: &Describe<'_, U>) -> Vec<Vec<U>> {
    let expected = run_one_way(batches, 1, None, describe);
    assert_eq!(run_one_way(batches, 3, None, describe), expected, "three threads");
    for batch in 0..batches {
        let restarted = run_one_way(batches, 3, Some(batch), describe);
        assert_eq!(restarted, expected, "started anew before batch {batch}");
    }
    expected
}

fn run_one_way<U: Record>(
    batches: usize,
    threads: usize,
    restart_before: Option<usize>,
    describe: &Describe<'_, U>,
) -> Vec<Vec<U>> {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let seen = Arc::default();
    let middle = restart_before.unwrap_or(0);
    run_range(dir.path(), &clock, threads, 0..middle, describe, &seen);
    run_range(dir.path(), &clock, threads, middle..batches, describe, &seen);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), batches, "not every batch was emitted");
    seen.into_values().collect()
}

fn run_range<U: Record>(
    dir: &Path,
    clock: &Arc<ManualClock>,
    threads: usize,
    batches: std::ops::Range<usize>,
    describe: &Describe<'_, U>,
    seen: &Arc<Mutex<BTreeMap<u64, Vec<U>>>>,
) {
    if batches.is_empty() {
        return;
    }
    let context = builder(dir, clock).threads(threads).partitions(4).build().unwrap();
    let (stream, feeds) = describe(&context);
    let sink = seen.clone();
    stream.for_each_rdd(move |rdd, info| {
        let records = rdd.collect()?;
        assert!(sink.lock().unwrap().insert(info.batch.0, records).is_none(), "a batch was emitted twice");
        Ok(())
    });
    let job = context.start().unwrap();
    for batch in batches {
        feeds.iter().for_each(|feed| feed(batch));
        tick(&job, clock);
    }
}
