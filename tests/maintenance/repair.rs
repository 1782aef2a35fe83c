//! Repairs: the job starts afterwards, nothing sound is lost, and a crash on the way costs nothing more.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millpond::maintenance::{Maintenance, RepairReport};
use millpond::testkit::FaultPlan;
use millpond::{ErrorKind, ManualClock, Queue, RunningContext, StopMode, StreamingContext, inspect};

use crate::bench::{Bench, End};
use crate::tool::{copy_dir, snapshot};

fn flip(bytes: &mut [u8], at: usize) {
    bytes[at] ^= 1;
}

fn epochs(bench: &Bench) -> Vec<u64> {
    let names = fs::read_dir(bench.store().join("epochs")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut numbers: Vec<u64> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// Damages every segment, so that no checkpoint is sound, and no pin is left to go on from.
fn every_segment(bench: &Bench, change: impl Fn(&mut Vec<u8>)) {
    fs::remove_file(bench.store().join("pins/kept.pin")).unwrap();
    for entry in fs::read_dir(bench.store().join("state")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        drop(bench.damage(&format!("state/{name}"), &change));
    }
}

type Damage = (&'static str, fn(&Bench));

/// Damage that costs nothing, because something else says the same.
const HARMLESS: [Damage; 5] = [
    ("no identity", |bench| fs::remove_file(bench.store().join("millpond.id")).unwrap()),
    ("a flipped identity", |bench| drop(bench.damage("millpond.id", |bytes| flip(bytes, 30)))),
    ("a damaged witness", |bench| {
        drop(bench.damage(&format!("epochs/{}/witness", epochs(bench)[1]), |bytes| flip(bytes, 20)));
    }),
    ("a damaged newest checkpoint", |bench| {
        drop(bench.damage(&bench.own_segment_of_newest(), |bytes| flip(bytes, 200)));
    }),
    ("a damaged pin", |bench| drop(bench.damage("pins/kept.pin", |bytes| flip(bytes, 40)))),
];

/// Damage that costs something.
const COSTLY: [Damage; 5] = [
    ("a damaged page in every segment", |bench| every_segment(bench, |bytes| flip(bytes, 100))),
    ("every segment cut", |bench| every_segment(bench, |bytes| bytes.truncate(bytes.len() - 10))),
    ("no segment left", |bench| {
        every_segment(bench, |_| ());
        fs::remove_dir_all(bench.store().join("state")).unwrap();
        fs::create_dir(bench.store().join("state")).unwrap();
    }),
    ("a cut database", |bench| {
        let newest = *epochs(bench).last().unwrap();
        drop(bench.damage(&format!("epochs/{newest}/db"), |bytes| bytes.truncate(bytes.len() / 2)));
    }),
    ("all databases flipped", |bench| {
        for epoch in epochs(bench) {
            drop(bench.damage(&format!("epochs/{epoch}/db"), |bytes| {
                let at = bytes.windows(4).position(|four| four == b"MLPD").unwrap() + 30;
                flip(bytes, at);
            }));
        }
    }),
];

fn damaged(bench: &Bench, damage: fn(&Bench)) -> Bench {
    let copy = bench.copy();
    damage(&copy);
    copy
}

/// Repairs a copy and runs the job to its end.
fn repaired(bench: &Bench, (name, damage): Damage) -> (RepairReport, End, u64) {
    let copy = damaged(bench, damage);
    let before = snapshot(&copy.store());
    let planned = Maintenance::planned(copy.store()).repair(None).unwrap_or_else(|e| panic!("{name}: {e:?}"));
    assert!(before == snapshot(&copy.store()), "{name}: a plan changed the store");
    let count = FaultPlan::never();
    let report = Maintenance::confirmed(copy.store()).faults(count.clone()).repair(None).unwrap();
    assert_eq!(RepairReport { done: false, ..report.clone() }, planned, "{name}");
    assert!(report.was_damaged, "{name}");
    for place in &report.quarantined {
        assert!(copy.store().join("quarantine").join(place).exists(), "{name}: {place}");
    }
    let verified = inspect::verify(&copy.store()).unwrap();
    // Files that were gone before stay missed by the checkpoints that had them.
    let is_costly = COSTLY.iter().any(|(costly, _)| *costly == name);
    assert!(is_costly || verified.sound, "{name}: {:?}", verified.findings);
    let refused = verified.restart.and_then(|restart| restart.refused);
    assert_eq!(refused, None, "{name}: {:?}", verified.findings);
    let end = copy.live_to_the_end();
    let refused = inspect::verify(&copy.store()).unwrap().restart.and_then(|restart| restart.refused);
    assert_eq!(refused, None, "{name}");
    let again = Maintenance::confirmed(copy.store()).repair(None).unwrap();
    assert!(!again.was_damaged, "{name}: {again:?}");
    (report, end, count.steps())
}

fn crash_everywhere(bench: &Bench, case: Damage, steps: u64, end: &End) {
    let (name, damage) = case;
    // An epoch that is said again takes a few steps for each record, which are all alike.
    let stride = (steps / 24).max(1) as usize;
    for step in (1..=steps).step_by(stride) {
        let copy = damaged(bench, damage);
        let crash = FaultPlan::crash_at(step);
        let crashed = Maintenance::confirmed(copy.store()).faults(crash).repair(None);
        assert_eq!(crashed.unwrap_err().kind(), ErrorKind::Io, "{name}, step {step}");
        Maintenance::confirmed(copy.store()).repair(None).unwrap_or_else(|e| panic!("{name}, {step}: {e:?}"));
        assert_eq!(&copy.live_to_the_end(), end, "{name}, crashed at step {step} of {steps}");
    }
}

#[test]
fn a_sound_store_is_left_as_it_is() {
    let bench = Bench::lived();
    let before = snapshot(&bench.store());
    let report = Maintenance::confirmed(bench.store()).repair(Some("another")).unwrap();
    assert!(!report.was_damaged && report.checkpoint.is_none(), "{report:?}");
    assert!(before == snapshot(&bench.store()));
}

#[test]
fn what_something_else_says_too_is_repaired_at_no_cost() {
    let bench = Bench::lived();
    let expected = bench.uninterrupted();
    for case in HARMLESS {
        let (report, end, steps) = repaired(&bench, case);
        assert_eq!(end, expected, "{}: {report:?}", case.0);
        crash_everywhere(&bench, case, steps, &end);
    }
}

#[test]
fn what_is_lost_is_said_and_the_rest_is_kept() {
    let bench = Bench::lived();
    for case in COSTLY {
        let (report, end, steps) = repaired(&bench, case);
        // Behind a flipped first record every other one may still be found.
        let may_be_free = case.0 == "all databases flipped";
        assert!(may_be_free || !report.lost.is_empty(), "{}: {report:?}", case.0);
        assert!(end.1.lines().count() > 10, "{}: {}", case.0, end.1);
        crash_everywhere(&bench, case, steps, &end);
    }
}

/// A damaged page costs no more than its key group.
#[test]
fn one_damaged_page_costs_one_key_group() {
    let bench = Bench::lived();
    let newest = inspect::checkpoint(&bench.store(), bench.newest_checkpoint()).unwrap();
    let keys: u64 = newest.operators.iter().map(|operator| operator.keys).sum();
    COSTLY[0].1(&bench);
    assert_eq!(bench.start(&FaultPlan::never()).unwrap_err().kind(), ErrorKind::Corrupt);
    let report = Maintenance::confirmed(bench.store()).repair(None).unwrap();
    let left = inspect::checkpoint(&bench.store(), report.checkpoint.unwrap()).unwrap();
    assert!(left.sound, "{:?}", left.findings);
    let left: u64 = left.operators.iter().map(|operator| operator.keys).sum();
    assert!(left < keys && left * 2 > keys, "{left} of {keys} keys are left: {report:?}");
    assert!(report.lost.iter().any(|line| line.contains("damaged key groups")), "{report:?}");
}

#[test]
fn the_name_of_the_job_is_asked_for_when_nothing_has_it() {
    let bench = Bench::lived();
    fs::remove_file(bench.store().join("millpond.id")).unwrap();
    let other = Maintenance::planned(bench.store()).repair(Some("another")).unwrap_err();
    assert_eq!(other.kind(), ErrorKind::InvalidConfig, "{other:?}");
    fs::remove_dir_all(bench.store().join("epochs")).unwrap();
    fs::create_dir_all(bench.store().join("epochs/1")).unwrap();
    let unknown = Maintenance::planned(bench.store()).repair(None).unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::InvalidConfig, "{unknown:?}");
}

/// A job whose input is received, so that it is in the log.
struct Counting {
    running: RunningContext,
    queue: Queue<(String, u64)>,
    clock: Arc<ManualClock>,
}

impl Counting {
    fn start(store: &Path, batches: u64) -> millpond::Result<Counting> {
        let clock = ManualClock::at(1_000_000 + batches * 1_000);
        let context = StreamingContext::builder("counting")
            .store(store)
            .clock(clock.clone())
            .batch_interval(Duration::from_secs(1))
            .checkpoint_every_batches(2)
            .stop_on_signals(false)
            .build()?;
        let (words, queue) = context.queue_stream::<(String, u64)>("words");
        let totals = words.update_state_by_key("totals", |new, total: Option<u64>| {
            Some(total.unwrap_or(0) + new.iter().sum::<u64>())
        });
        totals.for_each_rdd(|rdd, _| Ok(rdd.count().map(drop)?));
        Ok(Counting { running: context.start()?, queue, clock })
    }

    fn batch(&self) {
        let before = self.running.progress().batches;
        self.clock.advance(1_000);
        while self.running.progress().batches == before {
            assert!(!self.running.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
        }
    }

    /// The words that were counted, of which each came once.
    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let state = self.running.state::<String, u64>("totals").unwrap();
        state
            .for_each(|word, count| {
                assert_eq!(count, 1, "{word} was counted twice");
                words.push(word);
            })
            .unwrap();
        words.sort_unstable();
        words
    }
}

fn word(number: u64) -> String {
    format!("word {number:02}")
}

/// Five batches of a word each, the last after the newest checkpoint, and three blocks that wait.
fn received(dir: &Path) -> PathBuf {
    let store = dir.join("received");
    let job = Counting::start(&store, 0).unwrap();
    for number in 0..5 {
        job.queue.push([(word(number), 1)]).unwrap();
        job.batch();
    }
    (5..8).for_each(|number| job.queue.push([(word(number), 1)]).unwrap());
    job.running.stop(StopMode::Now).unwrap();
    store
}

fn counted_after_repair(store: &Path) -> (Vec<String>, usize) {
    let job = Counting::start(store, 5).unwrap();
    let pending = job.running.recovery().pending_blocks;
    job.batch();
    (job.words(), pending)
}

/// Blocks that wait: every other one stays, whatever is damaged, and a crash counts none of them twice.
#[test]
fn sound_blocks_of_a_damaged_log_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = received(dir.path());
    let blocks = inspect::blocks(&store, None).unwrap().blocks;
    assert_eq!(blocks.len(), 8);
    for (at, lost) in [(6usize, Some(6u64)), (7, Some(7)), (4, Some(4)), (0, None)] {
        let offset = if lost.is_some() { blocks[at].offset as usize + 45 } else { 30 };
        let damage = |to: &Path| {
            copy_dir(&store, to);
            let path = to.join("log/1.extent");
            let mut bytes = fs::read(&path).unwrap();
            flip(&mut bytes, offset);
            fs::write(&path, bytes).unwrap();
        };
        let expected: Vec<String> = (0..8).filter(|number| Some(*number) != lost).map(word).collect();
        let whole = dir.path().join(format!("whole-{at}"));
        damage(&whole);
        assert_eq!(
            Counting::start(&whole, 5).err().map(|error| error.kind()),
            Some(ErrorKind::Corrupt),
            "{at}"
        );
        let count = FaultPlan::never();
        let report = Maintenance::confirmed(&whole).faults(count.clone()).repair(None).unwrap();
        assert!(report.was_damaged, "{report:?}");
        let waiting = if lost.is_some_and(|lost| lost >= 5) { 2 } else { 3 };
        assert_eq!(counted_after_repair(&whole), (expected.clone(), waiting), "{at}: {report:?}");
        for step in 1..=count.steps() {
            let cut = dir.path().join(format!("cut-{at}-{step}"));
            damage(&cut);
            let crash = FaultPlan::crash_at(step);
            // A start that was refused while it replayed has left an epoch more in the other copy.
            let crashed = Maintenance::confirmed(&cut).faults(crash.clone()).repair(None);
            assert_eq!(crashed.is_err(), crash.has_crashed(), "{at}, step {step}");
            Maintenance::confirmed(&cut).repair(None).unwrap();
            assert_eq!(counted_after_repair(&cut), (expected.clone(), waiting), "{at}, step {step}");
        }
    }
}
