//! Damage of state that comes to light while the job runs: whoever reads the page first stops the job before anything is
//! done with it, and the next start goes back to a sound checkpoint. Until all of the state was read nothing that such a start
//! needs is removed.
#![allow(clippy::disallowed_methods, reason = "what another thread does is waited for in real time")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "support/driven.rs"]
mod driven;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driven::{INTERVAL_MS, builder, tick};
use millpond::testkit::FaultPlan;
use millpond::{ErrorKind, ManualClock, Queue, RunningContext, StopMode};

/// Some in every key group.
const KEYS: u32 = 6_000;

/// By batch and key.
type Emitted = BTreeMap<(u64, u32), Vec<u64>>;

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    emitted: Arc<Mutex<Emitted>>,
    expected: Mutex<BTreeMap<u32, u64>>,
}

struct Life {
    job: RunningContext,
    queue: Queue<(u32, u64)>,
}

impl Bench {
    /// A store with two checkpoints, of batch 2 and of batch 4, each with a segment of its own.
    fn lived() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let (clock, emitted) = (ManualClock::at(1_000_000), Arc::default());
        let bench = Bench { dir, clock, emitted, expected: Mutex::default() };
        let life = bench.start(&FaultPlan::never(), 0).unwrap();
        bench.add(&life, 0..KEYS);
        bench.add(&life, 0..1);
        bench.add(&life, 0..KEYS);
        bench.add(&life, 0..1);
        life.job.stop(StopMode::Graceful).unwrap();
        assert_eq!(bench.segments(), [1, 2]);
        bench
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn segments(&self) -> Vec<u64> {
        let entries = std::fs::read_dir(self.store().join("state")).unwrap();
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut numbers: Vec<u64> =
            entries.map(|entry| name(entry).strip_suffix(".segment").unwrap().parse().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    }

    fn start(&self, plan: &Arc<FaultPlan>, verify_at_start_bytes: u64) -> millpond::Result<Life> {
        let context = builder(self.dir.path(), &self.clock)
            .checkpoint_every_batches(2)
            .verify_at_start_bytes(verify_at_start_bytes)
            .faults(plan.clone())
            .build()?;
        let (added, queue) = context.queue_stream::<(u32, u64)>("added");
        let sums = added.update_state_by_key("sums", |new: &[u64], sum: Option<u64>| {
            Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
        });
        let emitted = self.emitted.clone();
        sums.for_each_rdd(move |sums, info| {
            let rows = sums.collect()?;
            let mut emitted = emitted.lock().unwrap();
            for (key, sum) in rows {
                emitted.entry((info.batch.0, key)).or_default().push(sum);
            }
            Ok(())
        });
        Ok(Life { job: context.start()?, queue })
    }

    fn push(&self, life: &Life, keys: std::ops::Range<u32>) {
        let mut expected = self.expected.lock().unwrap();
        keys.clone().for_each(|key| *expected.entry(key).or_default() += u64::from(key) + 1);
        life.queue.push(keys.map(|key| (key, u64::from(key) + 1))).unwrap();
    }

    /// A batch that adds to these keys.
    fn add(&self, life: &Life, keys: std::ops::Range<u32>) {
        self.push(life, keys);
        tick(&life.job, &self.clock);
    }

    /// Flips a bit of the newest segment, `at` of its bytes from the begin or, below zero, from its end.
    fn damage(&self, at: isize) {
        let path = self.store().join("state/2.segment");
        let mut bytes = std::fs::read(&path).unwrap();
        let at = if at < 0 { bytes.len().checked_add_signed(at).unwrap() } else { at as usize };
        bytes[at] ^= 4;
        std::fs::write(path, bytes).unwrap();
    }

    fn damage_the_middle(&self) {
        let length = std::fs::metadata(self.store().join("state/2.segment")).unwrap().len();
        self.damage(length as isize / 2);
    }

    /// Waits until the job has stopped by itself over damage, and says so for the next start.
    fn stops_as_corrupt(&self, life: Life) {
        let ended = life.job.await_termination_or_timeout(Duration::from_secs(60));
        let error = ended.expect_err("the job fails");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("state/2.segment"), "{error}");
        drop(life);
        assert!(self.store().join("suspect").exists());
    }

    /// The next start goes back to the first checkpoint, computes batches 3 to `last` again, and emits from `emits` on.
    fn walks_back(&self, last: u64, emits: u64) {
        let life = self.start(&FaultPlan::never(), 0).unwrap();
        let recovery = life.job.recovery();
        assert_eq!(recovery.checkpoint.map(|(_, batch)| batch.0), Some(2));
        assert_eq!(recovery.walked_back.len(), 1, "{recovery:?}");
        assert!(recovery.walked_back[0].1.contains("state/2.segment"), "{recovery:?}");
        assert_eq!(recovery.quarantined, ["quarantine/state/2.segment"]);
        let numbers = |batches: &[millpond::BatchId]| batches.iter().map(|batch| batch.0).collect::<Vec<_>>();
        assert_eq!(numbers(&recovery.replayed), (3..=last).collect::<Vec<_>>());
        assert_eq!(numbers(&recovery.emitted), (emits..=last).collect::<Vec<_>>());
        assert!(recovery.differences.is_empty() && recovery.lost_plans.is_empty(), "{recovery:?}");
        assert!(!self.store().join("suspect").exists());
        self.is_right(&life);
        self.add(&life, 0..KEYS);
        self.is_right(&life);
        life.job.stop(StopMode::Graceful).unwrap();
        let life = self.start(&FaultPlan::never(), u64::MAX).unwrap();
        assert!(life.job.recovery().walked_back.is_empty());
        self.is_right(&life);
        life.job.stop(StopMode::Graceful).unwrap();
    }

    /// Each key has its sum, and was put out once with each of the sums it had.
    fn is_right(&self, life: &Life) {
        let mut found = BTreeMap::new();
        let state = life.job.state::<u32, u64>("sums").unwrap();
        state.for_each(|key, sum| found.extend([(key, sum)])).unwrap();
        let expected = self.expected.lock().unwrap();
        assert!(found == *expected, "the state is another one");
        let mut last = BTreeMap::new();
        for ((_, key), sums) in &*self.emitted.lock().unwrap() {
            let [sum] = sums[..] else { panic!("key {key} was emitted with {sums:?} in one batch") };
            last.insert(*key, sum);
        }
        assert!(last == *expected, "other sums were put out");
    }

    fn note_is_there(&self) -> bool {
        self.store().join("suspect").exists()
    }
}

/// Whether the clock has to move for what is waited for.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..60_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what}: not within a minute");
}

#[test]
fn a_batch_that_reads_a_damaged_page_changes_nothing() {
    let bench = Bench::lived();
    bench.damage_the_middle();
    let life = bench.start(&FaultPlan::holding_sweep(), 0).unwrap();
    assert!(life.job.recovery().walked_back.is_empty());
    bench.push(&life, 0..KEYS);
    bench.clock.advance(INTERVAL_MS);
    bench.stops_as_corrupt(life);
    bench.walks_back(5, 5);
}

#[test]
fn the_sweep_finds_what_nobody_reads() {
    let bench = Bench::lived();
    bench.damage_the_middle();
    let life = bench.start(&FaultPlan::never(), 0).unwrap();
    bench.stops_as_corrupt(life);
    bench.walks_back(4, 5);
}

#[test]
fn a_question_that_reads_a_damaged_page_is_refused_and_stops_the_job() {
    let bench = Bench::lived();
    bench.damage_the_middle();
    let life = bench.start(&FaultPlan::holding_sweep(), 0).unwrap();
    let state = life.job.state::<u32, u64>("sums").unwrap();
    let refused = (0..KEYS).find_map(|key| state.get(&key).err()).expect("a page is damaged");
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    bench.clock.advance(INTERVAL_MS);
    bench.stops_as_corrupt(life);
    // The batch that was due may have been planned, without anything in it.
    let life = bench.start(&FaultPlan::never(), 0).unwrap();
    assert_eq!(life.job.recovery().checkpoint.map(|(_, batch)| batch.0), Some(2));
    bench.is_right(&life);
}

/// Batches that do not read the damaged page go on; what they put out is right, and stays so.
#[test]
fn nothing_that_a_walk_back_needs_is_removed_before_all_was_read() {
    let bench = Bench::lived();
    bench.damage_the_middle();
    let plan = FaultPlan::holding_sweep();
    let life = bench.start(&plan, 0).unwrap();
    for _ in 0..7 {
        bench.add(&life, 0..1);
    }
    assert_eq!(bench.segments(), [1, 2], "a checkpoint was taken over what nobody has read");
    plan.release_sweep();
    bench.stops_as_corrupt(life);
    bench.walks_back(11, 12);
}

#[test]
fn a_checkpoint_that_is_due_is_taken_once_all_was_read() {
    let bench = Bench::lived();
    let plan = FaultPlan::holding_sweep();
    let life = bench.start(&plan, 0).unwrap();
    bench.add(&life, 0..1);
    bench.add(&life, 0..1);
    bench.add(&life, 0..1);
    assert_eq!(bench.segments(), [1, 2]);
    plan.release_sweep();
    wait_until("the checkpoint is taken without another batch", || bench.segments().contains(&3));
    bench.is_right(&life);
    life.job.stop(StopMode::Graceful).unwrap();
    assert!(!bench.note_is_there());
}

#[test]
fn a_graceful_stop_and_one_that_waited_for_long_read_the_rest_at_once() {
    let bench = Bench::lived();
    let plan = FaultPlan::holding_sweep();
    let life = bench.start(&plan, 0).unwrap();
    bench.add(&life, 0..1);
    life.job.stop(StopMode::Graceful).unwrap();
    assert!(bench.segments().contains(&3));
    let life = bench.start(&FaultPlan::holding_sweep(), 0).unwrap();
    assert!(life.job.recovery().replayed.is_empty());
    // Eight intervals of two batches.
    for _ in 0..16 {
        bench.add(&life, 0..1);
    }
    wait_until("the checkpoint is not put off any more", || bench.segments().contains(&4));
    life.job.stop(StopMode::Now).unwrap();
}

/// The header, the directory and the trailer are read by each start, which walks back at once.
#[test]
fn damage_outside_of_pages_is_found_by_the_start() {
    for at in [20, -100, -10] {
        let bench = Bench::lived();
        bench.damage(at);
        bench.walks_back(4, 5);
    }
}

#[test]
fn a_start_that_checks_everything_walks_back_at_once() {
    let bench = Bench::lived();
    bench.damage_the_middle();
    let life = bench.start(&FaultPlan::never(), u64::MAX).unwrap();
    assert_eq!(life.job.recovery().walked_back.len(), 1);
    bench.is_right(&life);
    life.job.stop(StopMode::Now).unwrap();
}

/// A note in the store, whatever is in it, makes the next start check everything; then it goes.
#[test]
fn a_note_of_damage_that_is_not_there_any_more_goes() {
    let bench = Bench::lived();
    std::fs::write(bench.store().join("suspect"), b"").unwrap();
    let life = bench.start(&FaultPlan::holding_sweep(), 0).unwrap();
    assert!(!bench.note_is_there() && life.job.recovery().walked_back.is_empty());
    // Nothing is left to be read: the checkpoint does not wait.
    bench.add(&life, 0..1);
    bench.add(&life, 0..1);
    wait_until("the checkpoint is taken", || bench.segments().contains(&3));
    life.job.stop(StopMode::Now).unwrap();
}

/// Where it lies is said in the format's document.
#[test]
fn the_note_is_no_stray_file() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoint-format.md"));
    assert!(text.unwrap().contains("| `suspect` |"));
}
