//! Operations on streams that have RDD operations of the same name: they give what those give, in the
//! partitions that the job's settings say; and what a start says when streams do not belong together.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;

use std::sync::{Arc, Mutex};

use driven::{builder, tick};
use millpond::{DStream, ErrorKind, ManualClock, Queue, Rdd, Record, StopMode, StreamingContext};

type Pair = (u32, String);

const PARTITIONS: usize = 5;

type Kept<T> = Arc<Mutex<Vec<Rdd<T>>>>;

fn keep<T: Record>(stream: &DStream<T>) -> Kept<T> {
    let kept = Kept::default();
    let sink = kept.clone();
    stream.for_each_rdd(move |rdd, _| {
        sink.lock().unwrap().push(rdd);
        Ok(())
    });
    kept
}

fn pairs(records: &[(u32, &str)]) -> Vec<Pair> {
    records.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
}

/// Batches with both sides, with one, and with none.
fn batches() -> Vec<[Vec<Vec<Pair>>; 2]> {
    let left = vec![pairs(&[(1, "a"), (2, "b"), (1, "c")]), pairs(&[(3, "d"), (1, "e")])];
    let right = vec![pairs(&[(4, "v"), (1, "w")]), pairs(&[(3, "x")]), pairs(&[(1, "y")])];
    vec![[left.clone(), right.clone()], [left, vec![]], [vec![], right], [vec![], vec![]]]
}

/// The same operation on the streams and on their RDDs gives the same, batch by batch.
macro_rules! same_as_on_rdds {
    (|$left:ident, $right:ident| $made:expr, partitions $partitions:expr) => {{
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(0);
        let context = builder(dir.path(), &clock).partitions(PARTITIONS).build().unwrap();
        let (left, left_queue) = context.queue_stream::<Pair>("left");
        let (right, right_queue) = context.queue_stream::<Pair>("right");
        let on_streams = keep(&{
            let ($left, $right) = (&left, &right);
            $made
        });
        let (lefts, rights) = (keep(&left), keep(&right));
        let job = context.start().unwrap();
        for sides in batches() {
            for (queue, parts) in [&left_queue, &right_queue].into_iter().zip(sides) {
                parts.into_iter().for_each(|part| queue.push(part).unwrap());
            }
            tick(&job, &clock);
        }
        let (on_streams, lefts, rights) =
            (on_streams.lock().unwrap(), lefts.lock().unwrap(), rights.lock().unwrap());
        assert_eq!(on_streams.len(), batches().len());
        let mut seen = 0;
        for (batch, made) in on_streams.iter().enumerate() {
            let expected = {
                let ($left, $right) = (&lefts[batch], &rights[batch]);
                $made
            };
            let (made_records, expected) = (made.collect().unwrap(), expected.collect().unwrap());
            seen += made_records.len();
            assert_eq!(made_records, expected, "batch {batch}");
            let partitions: Option<usize> = $partitions;
            assert!(partitions.is_none_or(|partitions| partitions == made.partitions()));
        }
        assert!(seen > 0, "nothing was compared");
    }};
}

#[test]
fn streams_do_what_rdds_do() {
    let wide = Some(PARTITIONS);
    same_as_on_rdds!(|left, right| left.join(right), partitions wide);
    same_as_on_rdds!(|left, right| left.left_outer_join(right), partitions wide);
    same_as_on_rdds!(|left, right| left.right_outer_join(right), partitions wide);
    same_as_on_rdds!(|left, right| left.full_outer_join(right), partitions wide);
    same_as_on_rdds!(|left, right| left.cogroup(right), partitions wide);
    same_as_on_rdds!(|left, right| left.union(right), partitions None);
    same_as_on_rdds!(
        |left, right| left.union(right).combine_by_key(|a| (1u64, a), |a, b| (a.0 + 1, a.1 + &b), |a, b| {
            (a.0 + b.0, a.1 + &b.1)
        }),
        partitions wide
    );
    same_as_on_rdds!(
        |left, right| left.union(right).reduce_by_key(|a, b| a + &b).flat_map_values(|value, out| {
            value.chars().for_each(|letter| out.emit(letter.to_string()));
        }),
        partitions wide
    );
}

fn three(context: &StreamingContext) -> (Vec<DStream<u64>>, Vec<Queue<u64>>) {
    ["one", "two", "three"].into_iter().map(|name| context.queue_stream::<u64>(name)).unzip()
}

#[test]
fn many_streams_are_united_and_transformed_in_one_node() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (streams, queues) = three(&context);
    let united = keep(&context.union(&streams));
    let alone = keep(&context.union(&streams[1..2]));
    let transformed =
        keep(&context.transform(&streams, |rdds, time| Ok(rdds[2].union(&rdds[0]).map(move |n| n + time.0))));
    let job = context.start().unwrap();
    // Pushed in another order than that of the streams, some twice, and a stream that has nothing.
    for (at, n) in [(2, 5), (0, 1), (2, 6), (0, 2)] {
        queues[at].push([n, n * 10]).unwrap();
    }
    tick(&job, &clock);
    queues[1].push([7]).unwrap();
    tick(&job, &clock);
    tick(&job, &clock);
    let shown = |kept: &Kept<u64>| -> Vec<Vec<u64>> {
        kept.lock().unwrap().iter().map(|rdd| rdd.collect().unwrap()).collect()
    };
    assert_eq!(shown(&united), [vec![1, 10, 2, 20, 5, 50, 6, 60], vec![7], vec![]]);
    assert_eq!(shown(&alone), [vec![], vec![7], vec![]]);
    assert_eq!(
        shown(&transformed),
        [vec![1_005, 1_050, 1_006, 1_060, 1_001, 1_010, 1_002, 1_020], vec![], vec![]]
    );
    let lineage = united.lock().unwrap()[0].to_debug_string();
    assert_eq!((lineage.matches("union").count(), lineage.lines().count()), (1, 4), "{lineage}");
    job.stop(StopMode::Graceful).unwrap();
}

/// What a start says to a job in which `describe` mixed up contexts or gave no streams.
fn refused(describe: impl FnOnce(&StreamingContext, &DStream<Pair>, &DStream<Pair>)) -> String {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let other = builder(dir.path(), &clock).build().unwrap();
    // In the other context the stream has a number that this one has as well.
    let (own, foreign) = (context.queue_stream::<Pair>("pairs").0, other.queue_stream::<Pair>("pairs").0);
    own.print(1);
    describe(&context, &own, &foreign);
    let error = context.start().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidGraph);
    assert!(!dir.path().join("store").exists(), "the store was touched");
    error.to_string()
}

#[test]
fn a_stream_of_another_context_is_refused_at_the_start() {
    let messages = [
        ("union", refused(|_, own, foreign| drop(own.union(foreign)))),
        ("union", refused(|context, own, foreign| drop(context.union(&[own.clone(), foreign.clone()])))),
        ("join", refused(|_, own, foreign| drop(own.join(foreign)))),
        ("left_outer_join", refused(|_, own, foreign| drop(own.left_outer_join(foreign)))),
        ("right_outer_join", refused(|_, own, foreign| drop(own.right_outer_join(foreign)))),
        ("full_outer_join", refused(|_, own, foreign| drop(own.full_outer_join(foreign)))),
        ("cogroup", refused(|_, own, foreign| drop(own.cogroup(foreign)))),
        (
            "transform",
            refused(|context, own, foreign| {
                drop(context.transform(&[own.clone(), foreign.clone()], |rdds, _| Ok(rdds[0].clone())));
            }),
        ),
    ];
    for (operation, message) in messages {
        let expected = format!("`{operation}` is given a stream of another context");
        assert!(message.contains(&expected), "{message}");
    }
}

#[test]
fn no_stream_at_all_is_refused_at_the_start() {
    let message = refused(|context, _, _| drop(context.union::<Pair>(&[])));
    assert!(message.contains("`union` is given no stream"), "{message}");
    let message = refused(|context, _, _| {
        drop(context.transform::<Pair, Pair>(&[], |rdds, _| Ok(rdds[0].clone())));
    });
    assert!(message.contains("`transform` is given no stream"), "{message}");
}
