//! Changing stores by hand: every verb that writes, on stores of real jobs, planned only, crashed at every step on
//! the disk, on damaged stores and beside a running job.
#![cfg(all(feature = "tool", feature = "testkit"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "maintenance/bench.rs"]
mod bench;
#[path = "support/cases.rs"]
mod cases;
#[path = "maintenance/mishaps.rs"]
mod mishaps;
#[path = "maintenance/pins.rs"]
mod pins;
#[path = "maintenance/repair.rs"]
mod repair;
mod support;
#[path = "support/tool.rs"]
mod tool;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bench::Bench;
use millpond::maintenance::Maintenance;
use millpond::testkit::FaultPlan;
use millpond::{ErrorKind, inspect};
use support::Run;
use tool::snapshot;

type Verb = (&'static str, fn(&Maintenance) -> millpond::Result<()>);

/// Every verb, so that it has something to do on the store of [`Bench::lived`].
const VERBS: [Verb; 5] = [
    ("pin", |store| store.pin("kept", "again").map(drop)),
    ("unpin", |store| store.unpin("kept").map(drop)),
    ("rollback", |store| store.rollback("3", false).map(drop)),
    ("rollback to a pin", |store| store.rollback("kept", true).map(drop)),
    ("prune", |store| store.prune(None).map(drop)),
];

#[test]
fn what_is_not_confirmed_changes_nothing() {
    let bench = Bench::lived();
    for (verb, run) in VERBS {
        let before = snapshot(&bench.store());
        run(&Maintenance::planned(bench.store())).unwrap_or_else(|error| panic!("{verb}: {error:?}"));
        assert!(before == snapshot(&bench.store()), "{verb} changed the store");
    }
}

#[test]
fn a_running_job_keeps_its_store_to_itself() {
    let bench = Bench::lived();
    let job = bench.start(&FaultPlan::never()).unwrap();
    for (verb, run) in VERBS {
        let planned = run(&Maintenance::planned(bench.store()));
        let is_gone = |error: &millpond::Error| error.kind() == ErrorKind::InvalidConfig;
        assert!(planned.as_ref().err().is_none_or(is_gone), "{verb}: {planned:?}");
        let refused = run(&Maintenance::confirmed(bench.store())).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Locked, "{verb}: {refused:?}");
    }
    drop(job);
}

/// The number of the oldest checkpoint that is kept.
fn oldest_checkpoint(bench: &Bench) -> String {
    let kept = inspect::checkpoints(&bench.store()).unwrap().checkpoints;
    kept.first().unwrap().checkpoint.to_string()
}

/// What a job removes while a verb is planned is not damage: the plan is made again.
#[test]
fn what_a_running_job_removes_is_no_damage() {
    let batches = 60;
    let run = Run { threads: 1, checkpoint_every: 1, ..Run::default() };
    let bench = Bench::new(bench::chunks(batches), run);
    bench.live(4);
    Maintenance::confirmed(bench.store()).pin(&oldest_checkpoint(&bench), "kept").unwrap();
    let (ends, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let planner = scope.spawn(|| {
            while !ends.load(Ordering::Acquire) {
                let oldest = oldest_checkpoint(&bench);
                let store = Maintenance::planned(bench.store());
                let verbs: [(&str, millpond::Result<()>); 5] = [
                    ("pin", store.pin(&oldest, "oldest").map(drop)),
                    ("rollback", store.rollback(&oldest, false).map(drop)),
                    ("rollback to a pin", store.rollback("kept", true).map(drop)),
                    ("prune", store.prune(None).map(drop)),
                    ("repair", store.repair(None).map(|report| assert!(!report.was_damaged, "{report:?}"))),
                ];
                for (verb, planned) in verbs {
                    let is_gone = |error: &millpond::Error| error.kind() == ErrorKind::InvalidConfig;
                    assert!(planned.as_ref().err().is_none_or(is_gone), "{verb}: {planned:?}");
                }
                rounds.fetch_add(1, Ordering::AcqRel);
            }
        });
        bench.live(u64::from(batches));
        ends.store(true, Ordering::Release);
        planner.join().unwrap();
    });
    assert!(rounds.load(Ordering::Acquire) > 0, "nothing was planned");
}

/// Whatever a crash leaves of a verb, the job goes on and ends as if nothing had happened.
#[test]
fn a_crash_at_every_step_of_a_verb_costs_nothing() {
    let bench = Bench::lived();
    let expected = bench.uninterrupted();
    for (verb, run) in VERBS.into_iter().filter(|(verb, _)| *verb != "rollback to a pin") {
        let count = FaultPlan::never();
        let copy = bench.copy();
        run(&Maintenance::confirmed(copy.store()).faults(count.clone())).unwrap();
        assert_eq!(copy.live_to_the_end(), expected, "after {verb}");
        assert!(count.steps() > 0, "{verb} did nothing");
        for step in 1..=count.steps() {
            let copy = bench.copy();
            let crash = FaultPlan::crash_at(step);
            let crashed = run(&Maintenance::confirmed(copy.store()).faults(crash));
            assert_eq!(crashed.unwrap_err().kind(), ErrorKind::Io);
            assert_eq!(copy.live_to_the_end(), expected, "{verb}, crashed at step {step}");
            // And again, on what the job made of it.
            let again = run(&Maintenance::confirmed(copy.store()));
            let is_done = |error: &millpond::Error| error.kind() == ErrorKind::InvalidConfig;
            assert!(again.as_ref().err().is_none_or(is_done), "{verb}: {again:?}");
        }
    }
}

#[test]
fn a_rollback_computes_again_and_emits_nothing_again() {
    let bench = Bench::lived();
    let report = Maintenance::confirmed(bench.store()).rollback("3", false).unwrap();
    assert!(report.done && report.lost.is_none(), "{report:?}");
    assert_eq!(report.dropped, [4]);
    let emitted = bench.sink.rows();
    let job = bench.start(&FaultPlan::never()).unwrap();
    let recovery = job.recovery();
    let replay = report.replay.unwrap();
    assert_eq!(recovery.checkpoint.unwrap().0.0, report.becomes);
    assert_eq!(
        recovery.replayed.iter().map(|batch| batch.0).collect::<Vec<_>>(),
        Vec::from_iter(replay.from..=replay.to)
    );
    assert!(recovery.emitted.is_empty(), "{recovery:?}");
    assert_eq!(bench.sink.rows(), emitted);
    drop(job);
    assert_eq!(bench.live_to_the_end(), bench.uninterrupted());
}

/// Back, further back, and forth to what was dropped: nothing is used twice.
#[test]
fn a_rollback_can_be_taken_back_until_the_job_has_started() {
    let bench = Bench::lived();
    let store = Maintenance::confirmed(bench.store());
    let newest = bench.newest_checkpoint();
    let first = store.rollback("3", false).unwrap();
    let second = store.rollback(&first.becomes.to_string(), false).unwrap();
    let back = store.rollback(&newest.to_string(), false).unwrap();
    assert_eq!([first.becomes, second.becomes, back.becomes], [newest + 1, newest + 2, newest + 3]);
    assert_eq!(back.replay.map_or(0, |span| span.to + 1 - span.from), 1);
    assert_eq!(bench.live_to_the_end(), bench.uninterrupted());
}

/// The batches after an old pin are gone with their plans; a replayable source reads them anew.
#[test]
fn going_back_to_an_old_pin_loses_batches_only_with_permission() {
    let bench = Bench::lived();
    // Clean-up follows: every start that computes a batch again takes a checkpoint in an epoch of its own.
    (10..=12).step_by(2).for_each(|batch| drop(bench.live(batch)));
    let store = Maintenance::confirmed(bench.store());
    let before = snapshot(&bench.store());
    let planned = Maintenance::planned(bench.store()).rollback("kept", false).unwrap();
    let lost = planned.lost.unwrap();
    assert_eq!((lost.from, lost.to), (3, 9));
    let refused = store.rollback("kept", false).unwrap_err();
    assert!(
        refused.kind() == ErrorKind::InvalidConfig && refused.to_string().contains("3 to 9"),
        "{refused}"
    );
    assert!(before == snapshot(&bench.store()));
    let report = store.rollback("kept", true).unwrap();
    assert_eq!(report.replay.map(|span| (span.from, span.to)), Some((10, 12)));
    let job = bench.start(&FaultPlan::never()).unwrap();
    assert!(job.recovery().lost_plans.is_empty());
    assert_eq!(job.recovery().replayed.len(), 3);
    // They change another state than before, which says nothing about the job's code.
    assert_eq!(job.recovery().differences, []);
    assert_eq!(bench.last_batch(&job), 12);
}

#[test]
fn pruning_says_what_it_frees_and_keeps_what_the_job_needs() {
    let bench = Bench::lived();
    std::fs::create_dir_all(bench.store().join("quarantine/state")).unwrap();
    std::fs::write(bench.store().join("quarantine/state/1.segment"), [0; 100]).unwrap();
    for stray in ["notes.txt", "pins/half.tmp", "state/99.segment"] {
        std::fs::write(bench.store().join(stray), "left behind").unwrap();
    }
    let size = |bench: &Bench| {
        snapshot(&bench.store()).values().filter_map(|(_, bytes)| bytes.as_ref()).map(Vec::len).sum::<usize>()
    };
    let before = size(&bench);
    let refused = Maintenance::confirmed(bench.store()).prune(Some(1)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
    let report = Maintenance::confirmed(bench.store()).prune(None).unwrap();
    assert_eq!(report.kept, [3, 4]);
    let strays = ["pins/half.tmp", "state/99.segment"];
    for stray in strays {
        assert!(report.removed.iter().any(|removal| removal.place == stray), "{report:?}");
    }
    assert_eq!(size(&bench) as u64 + report.freed_bytes, before as u64);
    assert!(report.removed.iter().any(|removal| removal.place == "quarantine" && removal.bytes == 110));
    assert!(bench.store().join("notes.txt").exists());
    let again = Maintenance::confirmed(bench.store()).prune(None).unwrap();
    assert_eq!((again.removed, again.freed_bytes), (vec![], 0));
    assert!(millpond::inspect::verify(&bench.store()).unwrap().sound);
    assert_eq!(bench.live_to_the_end(), bench.uninterrupted());
}

/// A start that passes over a damaged checkpoint keeps the damaged file, whatever it crashes at.
#[test]
fn a_walk_back_puts_damaged_segments_into_quarantine() {
    let bench = Bench::lived();
    let expected = bench.uninterrupted();
    let newest = bench.own_segment_of_newest();
    let damaged = bench.damage(&newest, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    let count = FaultPlan::never();
    let copy = bench.copy();
    let job = copy.start(&count).unwrap();
    let recovery = job.recovery();
    let place = format!("quarantine/{newest}");
    assert_eq!((recovery.walked_back.len(), &recovery.quarantined), (1, &vec![place.clone()]));
    assert!(!recovery.replayed.is_empty() && recovery.emitted.is_empty());
    let steps = count.steps();
    drop(job);
    assert_eq!(std::fs::read(copy.store().join(&place)).unwrap(), damaged);
    let verified = millpond::inspect::verify(&copy.store()).unwrap();
    assert!(verified.sound, "what is passed over is not missed any more: {verified:?}");
    assert_eq!(copy.live_to_the_end(), expected);
    let verified = millpond::inspect::verify(&copy.store()).unwrap();
    assert!(
        verified.sound && verified.findings.iter().any(|finding| finding.place == "quarantine"),
        "{verified:?}"
    );
    for step in 1..=steps {
        let copy = bench.copy();
        let outcome = copy.start(&FaultPlan::crash_at(step));
        drop(outcome);
        assert_eq!(copy.live_to_the_end(), expected, "crashed at step {step} of {steps}");
        assert_eq!(std::fs::read(copy.store().join(&place)).unwrap(), damaged, "step {step}");
    }
}

/// The command itself: plans by default, does what is confirmed, one line for who cannot have the lock.
#[test]
fn the_command_changes_only_what_is_confirmed() {
    let bench = Bench::lived();
    let dir = bench.store();
    let plans: [(&str, &[&str]); 5] = [
        ("pin", &["kept", "again"]),
        ("unpin", &["kept"]),
        ("rollback", &["3"]),
        ("prune", &["--keep", "2"]),
        ("repair", &[]),
    ];
    for (verb, args) in plans {
        let planned = tool::millpond(verb, &dir, args);
        assert_eq!(planned.code, 0, "{planned:?}");
        assert!(planned.text().ends_with("nothing was changed: add --confirm\n"), "{}", planned.text());
        let report = tool::millpond(verb, &dir, &[args, &["--json"][..]].concat());
        let report: serde_json::Value = serde_json::from_slice(&report.out).unwrap();
        assert_eq!((&report["schema"], &report["done"]), (&1.into(), &false.into()), "{verb}: {report}");
    }
    let job = bench.start(&FaultPlan::never()).unwrap();
    for (verb, args) in plans {
        let locked = tool::beside(verb, &dir, &[args, &["--confirm"][..]].concat());
        assert_eq!((locked.code, locked.out.len(), locked.err.lines().count()), (2, 0, 1), "{locked:?}");
    }
    drop(job);
    let pinned = tool::beside("pin", &dir, &["kept", "again", "--confirm", "--json"]);
    assert_eq!(pinned.code, 0, "{pinned:?}");
    for (verb, args) in [
        ("checkpoint", &["again"][..]),
        ("state", &["sums", "--at", "again"]),
        ("diff", &["kept", "again"]),
        ("copy", &["DIR", "--checkpoint", "nobody"]),
    ] {
        let shown = tool::millpond(verb, &dir, args);
        assert_eq!(shown.code, if verb == "copy" { 2 } else { 0 }, "{verb}: {shown:?}");
    }
    let listed = tool::millpond("checkpoints", &dir, &[]);
    assert!(listed.text().contains("again, kept"), "{}", listed.text());
}
