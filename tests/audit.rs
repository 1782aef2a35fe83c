//! Batches that are computed again have to change what they changed: replays at a start say where they did not, and an
//! audit proves a checkpoint beside its store.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/beside.rs"]
mod beside;
#[path = "support/cases.rs"]
mod cases;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use beside::{INTERVAL_MS, advance, builder, contents};
use millpond::{
    BatchId, CheckpointId, ErrorKind, EventWindows, ManualClock, Queue, Reload, RunningContext, StateMatch,
    StateSpec, StopMode, StreamingContext, Watermarks,
};
use proptest::prelude::*;

type Pair = (u16, i64);

fn intervals(intervals: u64) -> Duration {
    Duration::from_millis(intervals * INTERVAL_MS)
}

/// How often things outside of the job were touched.
#[derive(Default)]
struct Outside {
    emitted: AtomicU64,
    loaded: AtomicU64,
}

/// One operator of each kind that keeps state, and every shared variable.
fn everything(context: &StreamingContext, outside: &Arc<Outside>) -> Queue<Pair> {
    let (pairs, queue) = context.queue_stream::<Pair>("pairs");
    let limit = context.broadcast("limit", 50i64);
    let seen = context.accumulator("seen", 0u64, |a, b| a + b);
    let (counted, below) = (seen.clone(), limit.clone());
    let pairs = pairs.filter(move |(_, amount)| {
        counted.add(1);
        *amount < *below.value()
    });
    let loads = outside.clone();
    let rates = context.dataset("rates", Reload::every(intervals(3)), move || {
        let load = loads.loaded.fetch_add(1, Ordering::SeqCst);
        Ok((0..4u16).map(|key| (key, load as i64)).collect())
    });
    let priced = pairs.join_dataset(&rates).map_values(|(amount, rate)| amount * rate);
    let _sums = priced.update_state_by_key("sums", |new, sum: Option<i64>| {
        let sum = sum.unwrap_or(0) + new.iter().sum::<i64>();
        (sum % 7 != 0).then_some(sum)
    });
    let hits = pairs.map_with_state(StateSpec::named("hits").timeout(intervals(2)), |key, value, hits| {
        let before = *hits.get().unwrap_or(&0u64);
        if !hits.is_timing_out() {
            hits.update(before + u64::from(value.is_some()));
        }
        Some((*key, before))
    });
    let whole = hits.reduce_by_key_and_window("whole", intervals(4), intervals(2), |a, b| a + b);
    let inverse = pairs.reduce_by_key_and_window_with_inverse(
        "inverse",
        intervals(3),
        intervals(1),
        |a, b| a + b,
        |a, b| a - b,
    );
    let odd = |(key, amount): Pair| {
        if amount % 5 == 0 { Err("a multiple of five") } else { Ok((key, amount as u64)) }
    };
    let timed = pairs
        .try_map(odd)
        .or_skip("skipped")
        .with_event_time(Watermarks::bounded("events", intervals(1)), |(_, amount)| amount * 400);
    let once = timed.key_by(|(key, _)| *key).deduplicate("once", intervals(2));
    let panes =
        once.map_values(|(_, amount)| amount).window("panes", EventWindows::tumbling(intervals(2))).count();
    let emitted = outside.clone();
    whole.for_each_rdd(move |_, _| {
        emitted.emitted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let emitted = outside.clone();
    let all = inverse.map(|(key, _)| key).union(&panes.results().map(|window| window.key));
    all.for_each_rdd(move |rdd, _| {
        emitted.emitted.fetch_add(1, Ordering::SeqCst);
        seen.add(rdd.count()?);
        Ok(())
    });
    queue
}

fn job(store: &Path, clock: &Arc<ManualClock>, outside: &Arc<Outside>) -> (StreamingContext, Queue<Pair>) {
    let context = builder(store, clock).build().unwrap();
    let queue = everything(&context, outside);
    (context, queue)
}

fn pairs() -> impl Strategy<Value = Vec<(Vec<Pair>, u64)>> {
    let chunk = prop::collection::vec((0u16..6, 0i64..60), 0..8);
    prop::collection::vec((chunk, 1u64..5), 3..9)
}

proptest! {
    #![proptest_config(cases::cases(8))]
    /// From every checkpoint to every later one, beside the running job and after it was stopped; nothing outside
    /// is touched and no byte of the store changes.
    #[test]
    fn every_audit_of_a_deterministic_job_is_clean(input in pairs(), threads in 1usize..4) {
        let dir = tempfile::tempdir().unwrap();
        let (store, clock) = (dir.path().join("store"), ManualClock::at(0));
        let outside = Arc::new(Outside::default());
        let (context, queue) = job(&store, &clock, &outside);
        let running = context.start().unwrap();
        for (chunk, jump) in &input {
            queue.push(chunk.clone()).unwrap();
            advance(&running, &clock, *jump);
        }
        let audit = |from: CheckpointId, to: CheckpointId| {
            let touched = (outside.emitted.load(Ordering::SeqCst), outside.loaded.load(Ordering::SeqCst));
            let context = builder(&store, &clock).threads(threads).build().unwrap();
            everything(&context, &outside);
            let report = context.audit(from, to).unwrap();
            assert!(report.is_clean(), "{report}");
            assert_eq!(report.batches_compared, report.batches.len());
            let now = (outside.emitted.load(Ordering::SeqCst), outside.loaded.load(Ordering::SeqCst));
            assert_eq!(now, touched, "outputs and loaders are left alone");
            report
        };
        // The writer is a thread of its own, and may not be done yet.
        let first = loop {
            if let Some(first) = job(&store, &clock, &outside).0.checkpoints().unwrap().first() {
                break first.checkpoint;
            }
            assert!(!running.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
        };
        audit(CheckpointId(0), first);
        running.stop(StopMode::Graceful).unwrap();
        drop(running);
        let before = contents(&store);
        let all = job(&store, &clock, &outside).0.checkpoints().unwrap();
        for (at, from) in all.iter().enumerate() {
            for to in all[at..].iter().take(3) {
                let report = audit(from.checkpoint, to.checkpoint);
                prop_assert_eq!(report.batches.len() as u64, to.batch.0 - from.batch.0);
            }
        }
        let whole = audit(CheckpointId(0), all.last().unwrap().checkpoint);
        prop_assert!(whole.operators.iter().map(|operator| operator.equal).sum::<u64>() > 0);
        prop_assert_eq!(contents(&store), before);
    }
}

/// Sums by key, of which that of `odd_key` depends on a counter outside; and what reads them.
fn moody(context: &StreamingContext, odd_key: u16, counter: &Arc<AtomicU64>) -> Queue<Pair> {
    let (pairs, queue) = context.queue_stream::<Pair>("pairs");
    let counter = counter.clone();
    let _calm =
        pairs.update_state_by_key("calm", |new, sum: Option<i64>| Some(sum.unwrap_or(0) + new.len() as i64));
    let sums = pairs
        .map(move |(key, amount)| {
            let mood = if key == odd_key { counter.fetch_add(1, Ordering::SeqCst) as i64 } else { 0 };
            (key, amount + mood)
        })
        .update_state_by_key("sums", |new, sum: Option<i64>| {
            Some(sum.unwrap_or(0) + new.iter().sum::<i64>())
        });
    let _peaks =
        sums.update_state_by_key("peaks", |new, peak: Option<i64>| new.iter().copied().chain(peak).max());
    queue
}

fn push_all(running: &RunningContext, clock: &ManualClock, queue: &Queue<Pair>, chunks: &[Vec<u16>]) {
    for chunk in chunks {
        queue.push(chunk.iter().map(|key| (*key, 10))).unwrap();
        advance(running, clock, 1);
    }
}

#[test]
fn a_replay_that_differs_names_batch_operator_and_key_and_can_be_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock, counter) = (dir.path().join("store"), ManualClock::at(0), Arc::new(AtomicU64::new(0)));
    let start = |refuse: bool| {
        let context = builder(&store, &clock).checkpoint_every_batches(100).refuse_replay_differences(refuse);
        let context = context.build().unwrap();
        let queue = moody(&context, 7, &counter);
        (context.start(), queue)
    };
    let (running, queue) = start(true);
    let running = running.unwrap();
    let chunks: Vec<Vec<u16>> = vec![(0..7).collect(), (100..400).collect(), (0..300).collect(), vec![7]];
    push_all(&running, &clock, &queue, &chunks);
    running.stop(StopMode::Now).unwrap();
    drop((running, queue));
    let before = contents(&store.join("state"));
    let error = start(true).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Nondeterministic);
    assert!(
        error.to_string().starts_with("batch 3: `sums`") && error.to_string().contains("key 7"),
        "{error}"
    );
    assert_eq!(contents(&store.join("state")), before, "nothing was built upon the replay");
    let (running, _queue) = start(false);
    let running = running.unwrap();
    let found: Vec<_> =
        running.recovery().differences.iter().map(|d| (d.batch, &*d.operator, d.key.as_deref())).collect();
    assert_eq!(found, [(BatchId(3), "sums", Some("7")), (BatchId(4), "sums", Some("7"))]);
    assert_eq!(running.recovery().replayed.len(), 4);
}

#[test]
fn a_replay_by_the_same_code_differs_in_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock, outside) =
        (dir.path().join("store"), ManualClock::at(0), Arc::new(Outside::default()));
    for life in 0..4u64 {
        let context = builder(&store, &clock).checkpoint_every_batches(7).threads(1 + life as usize);
        // Partitions that are not as before make nothing differ either.
        let context =
            context.partitions([3, 3, 3, 5][life as usize]).refuse_replay_differences(true).build().unwrap();
        let queue = everything(&context, &outside);
        let running = context.start().unwrap();
        assert_eq!(running.recovery().replayed.is_empty(), life == 0);
        for batch in 0..5 {
            queue.push((0..6).map(|key| (key, (batch * 13 + i64::from(key) * 7) % 60))).unwrap();
            advance(&running, &clock, 1 + batch as u64 % 2);
        }
        running.stop(StopMode::Now).unwrap();
    }
}

#[test]
fn an_audit_names_the_first_batch_operator_and_key_that_differ() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock, counter) = (dir.path().join("store"), ManualClock::at(0), Arc::new(AtomicU64::new(0)));
    let describe = || {
        let context = builder(&store, &clock).build().unwrap();
        let queue = moody(&context, 7, &counter);
        (context, queue)
    };
    let (context, queue) = describe();
    let running = context.start().unwrap();
    let chunks: Vec<Vec<u16>> = vec![(0..7).collect(), vec![1, 2], vec![3], (0..200).collect(), vec![1]];
    push_all(&running, &clock, &queue, &chunks);
    running.stop(StopMode::Graceful).unwrap();
    drop(running);
    let checkpoints = describe().0.checkpoints().unwrap();
    let [first, .., last] = &checkpoints[..] else { panic!("{checkpoints:?}") };
    assert_eq!((first.batch, last.batch >= BatchId(5)), (BatchId(2), true));
    let report = describe().0.audit(first.checkpoint, last.checkpoint).unwrap();
    let difference = report.first_difference.as_ref().unwrap();
    assert_eq!(
        (difference.batch, &*difference.operator, difference.key.as_deref()),
        (BatchId(4), "sums", Some("7"))
    );
    assert_eq!(difference.key_bytes.as_deref(), Some(&7u16.to_be_bytes()[..]));
    let operator = |name: &str| report.operators.iter().find(|operator| operator.operator == name).unwrap();
    assert!(operator("calm").is_equal() && operator("calm").equal == 200);
    for name in ["sums", "peaks"] {
        let found = operator(name);
        assert_eq!((found.added, found.removed, found.changed, found.equal), (0, 0, 1, 199), "{report}");
        let [key] = &found.keys[..] else { panic!("{report}") };
        assert_eq!((key.key_as::<u16>(), key.before_as::<i64>().unwrap()), (Some(7), Some(10)));
        assert!(key.after_as::<i64>().unwrap() > Some(10));
    }
    let shown = report.to_string();
    assert!(!report.is_clean() && shown.contains("first difference: batch 4 changed `sums`"), "{shown}");
    assert!(describe().0.audit(first.checkpoint, first.checkpoint).unwrap().is_clean(), "nothing to compute");
}

#[test]
fn an_audit_that_cannot_prove_anything_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock, counter) = (dir.path().join("store"), ManualClock::at(0), Arc::new(AtomicU64::new(0)));
    let describe = |partitions: usize| {
        let context = builder(&store, &clock).partitions(partitions).build().unwrap();
        let queue = moody(&context, 1_000, &counter);
        (context, queue)
    };
    let refused = |context: StreamingContext, from: u64, to: u64, kind: ErrorKind, what: &str| {
        let error = context.audit(CheckpointId(from), CheckpointId(to)).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.chain().contains(what), "{error:?}");
    };
    refused(describe(3).0, 0, 1, ErrorKind::InvalidConfig, "is no store yet");
    assert!(!store.exists());
    let (context, queue) = describe(3);
    let running = context.start().unwrap();
    push_all(&running, &clock, &queue, &vec![vec![1, 2]; 6]);
    running.stop(StopMode::Graceful).unwrap();
    drop(running);
    let last = describe(3).0.checkpoints().unwrap().last().unwrap().checkpoint.0;
    refused(describe(3).0, 1, 99, ErrorKind::InvalidConfig, "no checkpoint 99");
    refused(describe(3).0, last, 1, ErrorKind::InvalidConfig, "is older");
    refused(describe(4).0, 1, last, ErrorKind::Incompatible, "3 partitions");
    let other = builder(&store, &clock).build().unwrap();
    let _sums = other.queue_stream::<Pair>("pairs").0.update_state_by_key("total", |_, sum: Option<i64>| sum);
    let error = other.audit(CheckpointId(1), CheckpointId(last)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    let stranger = StreamingContext::builder("stranger").store(&store).build().unwrap();
    moody(&stranger, 0, &counter);
    refused(stranger, 1, last, ErrorKind::Incompatible, "is the store of job `beside`");
    // Damage is told, not walked around.
    let newest = std::fs::read_dir(store.join("state")).unwrap().map(|entry| entry.unwrap().path());
    let newest = newest
        .max_by_key(|path| path.file_stem().unwrap().to_str().unwrap().parse::<u64>().unwrap())
        .unwrap();
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    refused(describe(3).0, 1, last, ErrorKind::Corrupt, "checkpoint");
    std::fs::remove_file(&newest).unwrap();
    refused(describe(3).0, last, last, ErrorKind::InvalidConfig, "not in the store any more");
}

/// What a job lets go of cannot be computed again, and the checkpoints that can are listed.
#[test]
fn what_is_pruned_is_no_longer_offered() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock, counter) = (dir.path().join("store"), ManualClock::at(0), Arc::new(AtomicU64::new(0)));
    let describe = || {
        let context =
            builder(&store, &clock).checkpoint_every_batches(1).checkpoints_retained(2).build().unwrap();
        let queue = moody(&context, 1_000, &counter);
        (context, queue)
    };
    for _life in 0..3 {
        let (context, queue) = describe();
        let running = context.start().unwrap();
        push_all(&running, &clock, &queue, &vec![(0..20).collect(); 6]);
        running.stop(StopMode::Graceful).unwrap();
    }
    let kept = describe().0.checkpoints().unwrap();
    let (oldest, newest) = (kept.first().unwrap(), kept.last().unwrap());
    assert!(oldest.checkpoint > CheckpointId(1) && newest.checkpoint >= CheckpointId(18), "{kept:?}");
    let error = describe().0.audit(CheckpointId(0), newest.checkpoint).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("a checkpoint that is retained"), "{error}");
    for from in &kept {
        assert!(describe().0.audit(from.checkpoint, newest.checkpoint).unwrap().is_clean());
    }
    let report = describe().0.audit(oldest.checkpoint, newest.checkpoint).unwrap();
    assert!(report.operators.iter().all(|operator| operator.outcome == StateMatch::Matched));
}
