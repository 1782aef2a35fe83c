//! Damage, crashes, pins, pruning, repairs and going back, in any order: the totals come out right, or a start says what
//! is damaged.

use std::fs;
use std::time::Duration;

use millpond::inspect;
use millpond::maintenance::Maintenance;
use millpond::testkit::FaultPlan;
use millpond::{ErrorKind, StopMode};
use proptest::prelude::*;

use crate::bench::{Bench, End, chunks};
use crate::cases::cases;
use crate::support::Run;

#[derive(Clone, Debug)]
enum Deed {
    Live(u64),
    Crash(u64),
    Pin,
    Prune(usize),
    Rollback(prop::sample::Index),
    /// Of the newest checkpoint, or of any segment.
    Flip(Option<prop::sample::Index>),
    Remove(Option<prop::sample::Index>),
    Repair,
}

fn deed() -> impl Strategy<Value = Deed> {
    let any_index = any::<prop::sample::Index>;
    let of = move || prop::option::weighted(0.2, any_index());
    prop_oneof![
        5 => (1u64..5).prop_map(Deed::Live),
        2 => (1u64..90).prop_map(Deed::Crash),
        2 => Just(Deed::Pin),
        1 => (2usize..4).prop_map(Deed::Prune),
        3 => any_index().prop_map(Deed::Rollback),
        2 => of().prop_map(Deed::Flip),
        1 => of().prop_map(Deed::Remove),
        1 => Just(Deed::Repair),
    ]
}

fn segment(bench: &Bench, of: &Option<prop::sample::Index>) -> Option<String> {
    let files = fs::read_dir(bench.store().join("state")).unwrap();
    let mut numbers: Vec<u64> =
        files.filter_map(|file| file.unwrap().path().file_stem()?.to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    let number = match of {
        Some(index) if !numbers.is_empty() => Some(index.get(&numbers)),
        _ => numbers.last(),
    };
    number.map(|number| format!("state/{number}.segment"))
}

/// The newest batch that was planned.
fn newest_batch(bench: &Bench) -> u64 {
    let batches = inspect::batches(&bench.store(), Some(1)).map(|report| report.batches);
    batches.ok().and_then(|batches| batches.last().map(|batch| batch.batch)).unwrap_or(0)
}

/// What a verb or a start may say about a store that was damaged.
fn is_fair(error: &millpond::Error) -> bool {
    [ErrorKind::Corrupt, ErrorKind::InvalidConfig].contains(&error.kind())
}

/// `false` when the store is past help: no sound checkpoint is left.
fn act(bench: &Bench, deed: &Deed, at: usize) -> Result<bool, TestCaseError> {
    let store = Maintenance::confirmed(bench.store());
    let fair = |outcome: millpond::Result<()>| match outcome {
        Err(error) if !is_fair(&error) => Err(TestCaseError::fail(format!("{deed:?}: {}", error.chain()))),
        _ => Ok(()),
    };
    match deed {
        Deed::Live(batches) => {
            let job = match bench.start(&FaultPlan::never()) {
                Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(false),
                started => started.unwrap(),
            };
            prop_assert_eq!(&job.recovery().differences, &[]);
            let until = (bench.last_batch(&job) + batches).min(bench.chunks.len() as u64);
            job.stop(StopMode::Now).unwrap();
            bench.live(until);
            let verified = inspect::verify(&bench.store()).unwrap();
            prop_assert!(verified.restart.unwrap().refused.is_none());
        }
        // All input was read: a batch without any would come in addition.
        Deed::Crash(_) if newest_batch(bench) >= bench.chunks.len() as u64 => {}
        Deed::Crash(step) => {
            if let Ok(job) = bench.start(&FaultPlan::crash_at(*step)) {
                bench.clock.advance(1_000);
                drop(job.await_termination_or_timeout(Duration::from_millis(20)));
            }
        }
        Deed::Pin => {
            let found = inspect::checkpoints(&bench.store()).unwrap().checkpoints;
            let Some(newest) = found.last() else { return Ok(true) };
            fair(store.pin(&newest.checkpoint.to_string(), &format!("pin-{at}")).map(drop))?;
        }
        Deed::Prune(keep) => fair(store.prune(Some(*keep)).map(drop))?,
        Deed::Rollback(which) => {
            let found = inspect::checkpoints(&bench.store()).unwrap().checkpoints;
            if found.is_empty() {
                return Ok(true);
            }
            let target = which.get(&found).checkpoint.to_string();
            fair(store.rollback(&target, false).map(drop))?;
        }
        Deed::Flip(of) => {
            let Some(name) = segment(bench, of) else { return Ok(true) };
            bench.damage(&name, |bytes| {
                // A crash may have left an empty one.
                let middle = bytes.len() / 2;
                bytes.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
            });
        }
        Deed::Remove(of) => {
            let Some(name) = segment(bench, of) else { return Ok(true) };
            fs::remove_file(bench.store().join(name)).unwrap();
        }
        Deed::Repair => match store.repair(None) {
            // It has said so: what comes then is no longer what would have come.
            Ok(report) if !report.lost.is_empty() => return Ok(false),
            repaired => fair(repaired.map(drop))?,
        },
    }
    Ok(true)
}

/// Without the times of batches: a crash before a batch is planned takes its time away.
fn timeless((emitted, state): End) -> End {
    let rows = |text: String| text.split_once(" ms ").map_or(text.clone(), |(_, rows)| rows.to_owned());
    (emitted.into_iter().map(|(key, text)| (key, rows(text))).collect(), state)
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn nothing_is_lost_or_counted_twice(deeds in prop::collection::vec(deed(), 4..16), every in 1u64..4) {
        let bench = Bench::new(chunks(24), Run { threads: 1, checkpoint_every: every, ..Run::default() });
        bench.live(3);
        for (at, deed) in deeds.iter().enumerate() {
            if !act(&bench, deed, at)? {
                return Ok(());
            }
        }
        match bench.start(&FaultPlan::never()) {
            Err(error) => prop_assert!(error.kind() == ErrorKind::Corrupt, "{}", error.chain()),
            Ok(job) => {
                job.stop(StopMode::Now).unwrap();
                prop_assert_eq!(timeless(bench.live_to_the_end()), timeless(bench.uninterrupted()));
            }
        }
    }
}
