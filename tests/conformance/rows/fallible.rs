//! Operations whose closure may fail for a record.

use std::sync::atomic::{AtomicBool, Ordering};

use millpond::{DStream, DeadLetter, Emitter, Rdd};

use crate::suite::{Expected, Input, Job, Order, Pair, Row};

/// Fails for keys that three divides, by an error or, where the value is negative, by a panic.
fn refuse((key, value): Pair) -> Result<Pair, String> {
    // Not by the macro, whose hook would print a message for each.
    match key.is_multiple_of(3) {
        true if value < 0 => std::panic::resume_unwind(Box::new("out of range")),
        true => Err(format!("no {key}")),
        false => Ok((key, value)),
    }
}

fn refused(record: &Pair) -> Option<String> {
    record.0.is_multiple_of(3).then(|| match record.1 < 0 {
        true => "panicked: out of range".to_owned(),
        false => format!("no {}", record.0),
    })
}

/// What a record that goes through becomes by the `try_flat_map` of the rows; it emits before it fails.
fn split(record: Pair, out: &mut Emitter<'_, Pair>) -> Result<(), String> {
    out.emit(record);
    out.emit(refuse(record)?);
    Ok(())
}

/// A dead letter with its origin, of which only the record's place is what an oracle can say.
fn told(letter: DeadLetter<Pair>) -> (Pair, String, usize) {
    let place = letter.origin.rsplit("record ").next().and_then(|place| place.parse().ok());
    (letter.record, letter.error, place.unwrap())
}

fn dead_letters(input: &Input, expected: &mut Expected, refused: impl Fn(&Pair) -> Option<String>) {
    expected.emit(input.left_partitions().map(|parts| {
        let dead = |(at, record): (usize, &Pair)| Some((*record, refused(record)?, at + 1));
        parts.iter().flat_map(|part| part.iter().enumerate().filter_map(dead)).collect::<Vec<_>>()
    }));
}

fn good(input: &Input) -> impl Iterator<Item = Vec<Pair>> {
    let good = |batch: &Vec<Pair>| batch.iter().filter(|pair| refused(pair).is_none()).copied().collect();
    input.left.iter().map(good)
}

/// Emits both halves of a stream.
fn emit_both(job: &Job<'_>, (good, dead): (DStream<Pair>, DStream<DeadLetter<Pair>>)) {
    job.emit(&good, Order::Exact);
    job.emit(&dead.map(told), Order::Exact);
}

type Halves = (Vec<Pair>, Vec<(Pair, String, usize)>);

fn both((good, dead): (Rdd<Pair>, Rdd<DeadLetter<Pair>>)) -> millpond::Result<Halves> {
    Ok((good.collect()?, dead.map(told).collect()?))
}

pub const ROWS: &[Row] = &[
    Row {
        name: "dead letters",
        covers: &[
            "DStream::try_map",
            "DStream::try_flat_map",
            "DStream::try_filter",
            "DStream::try_map_values",
            "Fallible::or_dead_letters",
        ],
        describe: |job| {
            emit_both(job, job.left.try_map(refuse).or_dead_letters());
            emit_both(job, job.left.try_flat_map(split).or_dead_letters());
            let kept = job.left.try_filter(|record| refuse(*record).map(|(_, value)| value != 0));
            emit_both(job, kept.or_dead_letters());
            let doubled =
                job.left.try_map_values(|value| if value > 3 { Err("too much") } else { Ok(value * 2) });
            emit_both(job, doubled.or_dead_letters());
        },
        oracle: |input, expected| {
            expected.emit(good(input));
            dead_letters(input, expected, refused);
            expected.emit(good(input).map(|batch| batch.into_iter().flat_map(|record| [record, record])));
            dead_letters(input, expected, refused);
            expected.emit(good(input).map(|batch| batch.into_iter().filter(|(_, value)| *value != 0)));
            dead_letters(input, expected, refused);
            let small = |batch: &Vec<Pair>| batch.clone().into_iter().filter(|(_, value)| *value <= 3);
            expected.emit(input.left.iter().map(|batch| small(batch).map(|(key, value)| (key, value * 2))));
            dead_letters(input, expected, |(_, value)| (*value > 3).then(|| "too much".to_owned()));
        },
    },
    Row {
        // The count is state: each record that is left out counts once, whatever happens.
        name: "or_skip",
        covers: &["Fallible::or_skip"],
        describe: |job| {
            job.emit(&job.left.try_map(refuse).or_skip("skipped"), Order::Exact);
            job.keeps::<(), u64>("skipped");
        },
        oracle: |input, expected| {
            expected.emit(good(input));
            let skipped = input.left.iter().flatten().filter(|pair| refused(pair).is_some()).count();
            expected.state("skipped", (skipped > 0).then_some(((), skipped)));
        },
    },
    Row {
        // The first record of a start fails, and its task with it; the next attempt takes it.
        name: "or_fail",
        covers: &["Fallible::or_fail"],
        describe: |job| {
            let failed = AtomicBool::new(false);
            let taken = job.left.try_map(move |record| match failed.swap(true, Ordering::SeqCst) {
                false => Err("the first attempt"),
                true => Ok(record),
            });
            job.emit(&taken.or_fail(), Order::Exact);
        },
        oracle: |input, expected| expected.emit(&input.left),
    },
    Row {
        name: "rdd, fallible",
        covers: &[
            "Rdd::try_map",
            "Rdd::try_flat_map",
            "Rdd::try_filter",
            "Rdd::try_map_values",
            "FallibleRdd::or_dead_letters",
        ],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                Ok(vec![
                    both(rdd.try_map(refuse).or_dead_letters())?,
                    both(rdd.try_flat_map(split).or_dead_letters())?,
                    both(rdd.try_filter(|record| refuse(*record).map(|_| true)).or_dead_letters())?,
                    both(rdd.try_map_values(|value| refuse((1, value)).map(|_| value)).or_dead_letters())?,
                ])
            });
        },
        oracle: |input, expected| {
            let mut letters = Vec::new();
            for parts in input.left_partitions() {
                let dead = |(at, record): (usize, &Pair)| Some((*record, refused(record)?, at + 1));
                let dead = parts.iter().flat_map(|part| part.iter().enumerate().filter_map(dead));
                letters.push(dead.collect::<Vec<_>>());
            }
            let batches = input.left.iter().zip(good(input)).zip(letters);
            expected.emit(batches.map(|((batch, good), dead)| {
                let twice = good.iter().flat_map(|record| [*record, *record]).collect();
                [
                    (good.clone(), dead.clone()),
                    (twice, dead.clone()),
                    (good, dead),
                    (batch.clone(), Vec::new()),
                ]
            }));
        },
    },
    Row {
        name: "rdd, or_skip and or_fail",
        covers: &["FallibleRdd::or_skip", "FallibleRdd::or_fail"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                let (good, skipped) = rdd.try_map(refuse).or_skip();
                let all = rdd.try_map(|record| refuse((1, record.1)).map(|_| record)).or_fail();
                Ok(vec![(good.collect()?, skipped.collect()?, all.collect()?)])
            });
        },
        oracle: |input, expected| {
            let skipped = input.left_partitions().map(|parts| {
                let of = |part: &&[Pair]| part.iter().filter(|pair| refused(pair).is_some()).count();
                parts.iter().map(of).collect::<Vec<_>>()
            });
            let batches = input.left.iter().zip(good(input)).zip(skipped);
            expected.emit(batches.map(|((batch, good), skipped)| [(good, skipped, batch)]));
        },
    },
];
