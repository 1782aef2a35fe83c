//! Pins keep checkpoints readable, whatever the job does later.

use std::collections::BTreeMap;

use millpond::inspect::{self, EntryReport, StateQuery};
use millpond::maintenance::Maintenance;
use millpond::testkit::FaultPlan;
use millpond::{ErrorKind, StopMode};
use proptest::prelude::*;

use crate::bench::{Bench, chunks};
use crate::cases::cases;
use crate::support::Run;

/// All state of a checkpoint, from the store alone.
fn state_at(bench: &Bench, checkpoint: u64) -> BTreeMap<String, Vec<EntryReport>> {
    let detail = inspect::checkpoint(&bench.store(), checkpoint).unwrap();
    assert!(detail.sound, "{:?}", detail.findings);
    let query = StateQuery { key: None, prefix: None, limit: usize::MAX, at: Some(checkpoint) };
    let names = detail.operators.into_iter().map(|operator| operator.name);
    names.map(|name| (name.clone(), inspect::state(&bench.store(), &name, &query).unwrap().entries)).collect()
}

#[derive(Clone, Debug)]
enum Deed {
    Live(u64),
    Crash(u64),
    Pin,
    Unpin(prop::sample::Index),
    Prune(usize),
    Rollback,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (1u64..5).prop_map(Deed::Live),
        1 => (1u64..60).prop_map(Deed::Crash),
        3 => Just(Deed::Pin),
        1 => any::<prop::sample::Index>().prop_map(Deed::Unpin),
        2 => (1usize..3).prop_map(Deed::Prune),
        1 => Just(Deed::Rollback),
    ]
}

type Pins = BTreeMap<String, (u64, BTreeMap<String, Vec<EntryReport>>)>;

fn act(bench: &Bench, deed: &Deed, at: usize, pins: &mut Pins) {
    let store = Maintenance::confirmed(bench.store());
    let retained = || inspect::checkpoints(&bench.store()).unwrap().checkpoints;
    match deed {
        Deed::Live(batches) => {
            let job = bench.start(&FaultPlan::never()).unwrap();
            let until = bench.last_batch(&job) + batches;
            job.stop(StopMode::Now).unwrap();
            bench.live(until);
        }
        Deed::Crash(step) => {
            if let Ok(job) = bench.start(&FaultPlan::crash_at(*step)) {
                bench.clock.advance(1_000);
                drop(job.await_termination_or_timeout(std::time::Duration::from_millis(20)));
            }
        }
        Deed::Pin => {
            let Some(newest) = retained().pop() else { return };
            let name = format!("pin-{at}");
            store.pin(&newest.checkpoint.to_string(), &name).unwrap();
            pins.insert(name, (newest.checkpoint, state_at(bench, newest.checkpoint)));
        }
        Deed::Unpin(which) if !pins.is_empty() => {
            let name = pins.keys().nth(which.index(pins.len())).unwrap().clone();
            store.unpin(&name).unwrap();
            pins.remove(&name);
        }
        Deed::Unpin(_) => {}
        Deed::Prune(keep) => drop(store.prune(Some(*keep)).unwrap()),
        Deed::Rollback => {
            let Some(oldest) = retained().into_iter().find(|one| one.pins.is_empty()) else { return };
            drop(store.rollback(&oldest.checkpoint.to_string(), true));
        }
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn what_is_pinned_stays_as_it_was(deeds in prop::collection::vec(deed(), 4..14), every in 1u64..4) {
        let bench = Bench::new(chunks(80), Run { threads: 1, checkpoint_every: every, ..Run::default() });
        bench.live(3);
        let mut pins = Pins::new();
        for (at, deed) in deeds.iter().enumerate() {
            act(&bench, deed, at, &mut pins);
            for (name, (checkpoint, state)) in &pins {
                let found = inspect::checkpoint_number(&bench.store(), name).unwrap();
                prop_assert_eq!((found, &state_at(&bench, found)), (*checkpoint, state), "{} after {:?}", name, deed);
            }
        }
        let verified = inspect::verify(&bench.store()).unwrap();
        prop_assert!(verified.sound, "{:?}", verified.findings);
    }
}

#[test]
fn a_name_is_given_once_and_taken_once() {
    let bench = Bench::lived();
    let store = Maintenance::confirmed(bench.store());
    assert!(store.pin("kept", "kept").unwrap().was_pinned);
    let kind = |outcome: millpond::Result<()>| outcome.unwrap_err().kind();
    for (checkpoint, name) in
        [("4", "kept"), ("99", "new"), ("kept", "7"), ("kept", "a/b"), ("nobody", "new")]
    {
        assert_eq!(
            kind(store.pin(checkpoint, name).map(drop)),
            ErrorKind::InvalidConfig,
            "{checkpoint} {name}"
        );
    }
    assert_eq!(kind(store.unpin("nobody").map(drop)), ErrorKind::InvalidConfig);
    assert_eq!(store.unpin("kept").unwrap().checkpoint, Some(1));
    assert_eq!(kind(store.unpin("kept").map(drop)), ErrorKind::InvalidConfig);
    // Nothing keeps it any more.
    store.prune(None).unwrap();
    assert!(inspect::checkpoints(&bench.store()).unwrap().checkpoints.iter().all(|one| one.checkpoint > 1));
}

/// What a damaged pin needs is not known: the job goes on, and nothing that is there is removed.
#[test]
fn a_damaged_pin_keeps_everything() {
    let bench = Bench::lived();
    bench.damage("pins/kept.pin", |bytes| *bytes.last_mut().unwrap() ^= 1);
    let segments = || std::fs::read_dir(bench.store().join("state")).unwrap().count();
    let before = segments();
    let verified = inspect::verify(&bench.store()).unwrap();
    assert!(verified.findings.iter().any(|finding| finding.is_damage() && finding.place == "pins/kept.pin"));
    let job = bench.start(&FaultPlan::never()).unwrap();
    assert!(job.recovery().damage.iter().any(|damage| damage.contains("`kept`")), "{:?}", job.recovery());
    drop(job);
    assert_eq!(bench.live_to_the_end(), bench.uninterrupted());
    assert!(segments() > before);
    Maintenance::confirmed(bench.store()).unpin("kept").unwrap();
    assert!(Maintenance::confirmed(bench.store()).prune(None).unwrap().freed_bytes > 0);
}
