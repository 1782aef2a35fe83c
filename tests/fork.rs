//! What other code would have made of the same input, beside the original and without touching it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/beside.rs"]
mod beside;
#[path = "support/cases.rs"]
mod cases;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use beside::{advance, builder, contents};
use millpond::{
    CheckpointId, ErrorKind, ManualClock, Queue, StateMatch, StateSpec, StopMode, StreamingContext,
};
use proptest::prelude::*;

type Pair = (u16, i64);
type Sums = BTreeMap<u16, i64>;

/// Adds amounts up, those below `least` as nothing; a sum of zero is no sum. `emitted` counts calls of the output.
fn sums(context: &StreamingContext, spec: StateSpec, least: i64, emitted: &Arc<AtomicU64>) -> Queue<Pair> {
    let (pairs, queue) = context.queue_stream::<Pair>("pairs");
    let sums = pairs
        .map_values(move |amount| if amount < least { 0 } else { amount })
        .update_state_by_key(spec, |new, sum: Option<i64>| {
            Some(sum.unwrap_or(0) + new.iter().sum::<i64>()).filter(|sum| *sum != 0)
        });
    let emitted = emitted.clone();
    sums.for_each_rdd(move |_, _| {
        emitted.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    queue
}

/// The same without millpond: version 1 up to some batch, then the other.
fn oracle(chunks: &[Vec<Pair>], until: usize, least: i64) -> Sums {
    let mut all = Sums::new();
    for (at, chunk) in chunks.iter().enumerate() {
        for (key, amount) in chunk {
            *all.entry(*key).or_default() += if at >= until && *amount < least { 0 } else { *amount };
        }
        all.retain(|_, sum| *sum != 0);
    }
    all
}

/// Runs version 1 over all chunks.
fn run(store: &Path, clock: &Arc<ManualClock>, chunks: &[Vec<Pair>], emitted: &Arc<AtomicU64>) {
    let context = builder(store, clock).build().unwrap();
    let queue = sums(&context, StateSpec::named("sums"), i64::MIN, emitted);
    let running = context.start().unwrap();
    for chunk in chunks {
        queue.push(chunk.clone()).unwrap();
        advance(&running, clock, 1);
    }
    running.stop(StopMode::Graceful).unwrap();
}

proptest! {
    #![proptest_config(cases::cases(8))]
    /// From any checkpoint on, the fork has what the other code makes of the input, and differs from the original in
    /// exactly the keys that the oracle says.
    #[test]
    fn a_fork_shows_exactly_the_keys_that_differ(
        chunks in prop::collection::vec(prop::collection::vec((0u16..8, -3i64..4), 0..6), 3..8), least in -4i64..4,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (store, clock, emitted) = (dir.path().join("store"), ManualClock::at(0), Arc::default());
        run(&store, &clock, &chunks, &emitted);
        let (before, calls) = (contents(&store), emitted.load(Ordering::SeqCst));
        let describe = || {
            let context = builder(&store, &clock).build().unwrap();
            sums(&context, StateSpec::named("sums"), least, &emitted);
            context
        };
        let mut froms = vec![(CheckpointId(0), 0)];
        froms.extend(describe().checkpoints().unwrap().iter().map(|kept| (kept.checkpoint, kept.batch.0 as usize)));
        let original = oracle(&chunks, 0, i64::MIN);
        for (from, batch) in froms {
            let fork = describe().fork(from).unwrap();
            let expected = oracle(&chunks, batch, least);
            let mut found = Sums::new();
            fork.state::<u16, i64>("sums").unwrap().for_each(|key, sum| assert!(found.insert(key, sum).is_none())).unwrap();
            prop_assert_eq!(&found, &expected);
            let keys: BTreeSet<u16> = original.keys().chain(expected.keys()).copied().collect();
            let differ: Vec<u16> = keys.into_iter().filter(|key| original.get(key) != expected.get(key)).collect();
            let operator = fork.operator("sums").unwrap();
            let named: Vec<u16> = operator.keys.iter().map(|key| key.key_as().unwrap()).collect();
            prop_assert_eq!(&named, &differ);
            for key in &operator.keys {
                let number = key.key_as().unwrap();
                prop_assert_eq!(key.before_as::<i64>().unwrap(), original.get(&number).copied());
                prop_assert_eq!(key.after_as::<i64>().unwrap(), expected.get(&number).copied());
                prop_assert_eq!(&key.key, &number.to_string());
            }
            let count = |kind: fn(bool, bool) -> bool| {
                differ.iter().filter(|key| kind(original.contains_key(key), expected.contains_key(key))).count() as u64
            };
            prop_assert_eq!(operator.added, count(|before, after| !before && after));
            prop_assert_eq!(operator.removed, count(|before, after| before && !after));
            prop_assert_eq!(operator.changed, count(|before, after| before && after));
            prop_assert!(differ.is_empty() || fork.first_difference.is_some());
        }
        prop_assert_eq!(contents(&store), before);
        prop_assert_eq!(emitted.load(Ordering::SeqCst), calls);
    }
}

#[test]
fn a_fork_takes_state_over_as_an_upgrade_does() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock, emitted) = (dir.path().join("store"), ManualClock::at(0), Arc::default());
    let chunks: Vec<Vec<Pair>> = (0..6).map(|batch| vec![(batch, 1), (9, 1)]).collect();
    run(&store, &clock, &chunks, &emitted);
    let context = builder(&store, &clock).build().unwrap();
    let (pairs, _queue) = context.queue_stream::<Pair>("pairs");
    let totals = StateSpec::named("totals").was("sums").migrate_from(|sum: i64| (sum, 0u64));
    let _totals = pairs.update_state_by_key(totals, |new, total: Option<(i64, u64)>| {
        let (sum, count) = total.unwrap_or_default();
        Some((sum + new.iter().sum::<i64>(), count + new.len() as u64))
    });
    let _fresh =
        pairs.update_state_by_key("fresh", |new, sum: Option<i64>| Some(sum.unwrap_or(0) + new.len() as i64));
    let from = context.checkpoints().unwrap()[0];
    let fork = context.fork(from.checkpoint).unwrap();
    assert_eq!(fork.batches.len() as u64, 6 - from.batch.0);
    // Of version 1 there are sums alone: the counts of the fork differ where there was input after the checkpoint.
    let totals = fork.operator("totals").unwrap();
    assert!(matches!(totals.outcome, StateMatch::Upgraded { .. }), "{fork}");
    assert_eq!((totals.equal, totals.changed), (from.batch.0, 7 - from.batch.0), "{fork}");
    let nine = totals.keys.iter().find(|key| key.key_as() == Some(9u16)).unwrap();
    assert_eq!(nine.before_as::<(i64, u64)>().unwrap(), Some((6, 0)));
    assert_eq!(nine.after_as::<(i64, u64)>().unwrap(), Some((6, 6 - from.batch.0)));
    let fresh = fork.operator("fresh").unwrap();
    assert_eq!((&fresh.outcome, fresh.added, fresh.equal), (&StateMatch::New, 7 - from.batch.0, 0));
    assert!(fork.plan.problems.is_empty() && fork.state::<u16, i64>("none").is_err());
    let shown = fork.to_string();
    assert!(shown.contains("! `fresh`: ") && shown.contains("`totals`"), "{shown}");
}

#[test]
fn what_a_fork_no_longer_has_is_counted_and_what_it_cannot_read_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (store, clock, emitted) = (dir.path().join("store"), ManualClock::at(0), Arc::default());
    run(&store, &clock, &[vec![(1, 1)], vec![(2, 2)], vec![(3, 3)]], &emitted);
    let context = builder(&store, &clock).build().unwrap();
    let other = context.queue_stream::<Pair>("other").0;
    let _counts = other.update_state_by_key("counts", |new, _: Option<u64>| Some(new.len() as u64));
    let fork = context.fork(CheckpointId(1)).unwrap();
    let dropped = fork.operator("sums").unwrap();
    assert_eq!((&dropped.outcome, dropped.removed), (&StateMatch::Dropped, 3));
    assert_eq!(fork.state::<u16, u64>("counts").unwrap().len(), 0, "nothing was received for it");
    let context = builder(&store, &clock).build().unwrap();
    let pairs = context.queue_stream::<Pair>("pairs").0;
    let _sums = pairs.update_state_by_key("sums", |_, _: Option<String>| None);
    let error = context.fork(CheckpointId(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
}
