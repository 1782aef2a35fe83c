//! A job goes on with the state of its earlier versions: renamed, migrated, dropped when that is allowed, and refused
//! with a plan when something would be lost; through crashes at every step that touches the disk.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "upgrades/rules.rs"]
mod rules;
mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::testkit::FaultPlan;
use millpond::{
    Clock, DStream, Data, ManualClock, Record, RunningContext, StateMatch, StateSpec, StopMode,
    StreamingContext, Timer,
};
use support::lives::{INTERVAL_MS, Life, Run, Scripted, start_life, wait_for_batch};

type Pair = (u16, i64);

const BATCHES_BEFORE: u64 = 5;
const BATCHES: u64 = 11;

/// Keys come and go, so that timers are set, pushed ahead and due on both sides of the upgrade.
fn pairs(context: &StreamingContext, run: &Run) -> DStream<Pair> {
    let chunk = |batch: u16| (0..8).map(|n| ((batch * 5 + n * n) % 13, i64::from(batch + n))).collect();
    let chunks = Arc::new((0..BATCHES as u16).map(chunk).collect());
    context.replayable_stream("script", Scripted { chunks, ranges: run.ranges, flaky: false })
}

/// The rows of each output and batch, ordered.
type Emitted = Arc<Mutex<BTreeMap<(String, u64), Vec<String>>>>;

fn emit<T: Record + std::fmt::Debug>(stream: &DStream<T>, name: &str, emitted: &Emitted) {
    let (name, emitted) = (name.to_owned(), emitted.clone());
    stream.for_each_rdd(move |rdd, info| {
        let mut rows: Vec<String> = rdd.collect()?.iter().map(|row| format!("{row:?}")).collect();
        rows.sort_unstable();
        emitted.lock().unwrap().insert((name.clone(), info.time.0), rows);
        Ok(())
    });
}

/// Windows and timers, of which version 2 renames the timers.
fn unchanged(pairs: &DStream<Pair>, tasks: StateSpec, emitted: &Emitted) {
    let (length, slide) = (Duration::from_millis(4 * INTERVAL_MS), Duration::from_millis(INTERVAL_MS));
    let windowed =
        pairs.reduce_by_key_and_window_with_inverse("window", length, slide, |a, b| a + b, |a, b| a - b);
    emit(&windowed, "windowed", emitted);
    let due = pairs.transform_with_state(tasks, |key, values: &[i64]| {
        let before = key.take().unwrap_or(0u32);
        if before == 0 {
            key.set_timer(Timer::ProcessingTime(key.batch_time().0 + 3 * INTERVAL_MS));
        }
        if key.due().is_empty() {
            key.update(before + values.len() as u32);
        } else {
            key.emit((*key.key(), before, values.len()));
        }
    });
    emit(&due, "due", emitted);
}

fn timeout(name: &str) -> StateSpec {
    StateSpec::named(name).timeout(Duration::from_millis(2 * INTERVAL_MS))
}

fn version_1(context: &StreamingContext, run: &Run, emitted: &Emitted) {
    let pairs = pairs(context, run);
    let hits = pairs
        .update_state_by_key("hits", |new, hits: Option<u64>| Some(hits.unwrap_or(0) + new.len() as u64));
    emit(&hits, "hits", emitted);
    let sums = pairs.map_with_state(timeout("sums"), |key, value, sum| {
        if let Some(value) = value {
            sum.update(sum.get().unwrap_or(&0) + value);
        }
        Some((*key, *sum.get()?))
    });
    emit(&sums, "sums", emitted);
    unchanged(&pairs, "orders".into(), emitted);
}

/// `hits` is renamed and migrated at once, `sums` migrated, `orders` renamed.
fn version_2(context: &StreamingContext, run: &Run, emitted: &Emitted) {
    let pairs = pairs(context, run);
    let visits = StateSpec::named("visits").was("hits").migrate_from(|hits: u64| (hits, 0i64));
    let visits = pairs.update_state_by_key(visits, |new, visits: Option<(u64, i64)>| {
        let (hits, sum) = visits.unwrap_or_default();
        Some((hits + new.len() as u64, sum + new.iter().sum::<i64>()))
    });
    emit(&visits, "visits", emitted);
    let sums = timeout("sums").migrate_from(|sum: i64| format!("{sum}"));
    let sums = pairs.map_with_state(sums, |key, value, sum: &mut millpond::State<'_, String>| {
        if let Some(value) = value {
            let before = sum.get().cloned().unwrap_or_default();
            sum.update(format!("{before}+{value}"));
        }
        Some((*key, sum.get()?.clone()))
    });
    emit(&sums, "sums", emitted);
    unchanged(&pairs, StateSpec::named("tasks").was("orders"), emitted);
}

type Version = fn(&StreamingContext, &Run, &Emitted);

/// A store, the time, and what was emitted.
struct World {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    emitted: Emitted,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        World { dir, clock: ManualClock::at(0), emitted: Emitted::default() }
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn start(
        &self,
        version: Version,
        run: &Run,
        faults: &Arc<FaultPlan>,
    ) -> millpond::Result<RunningContext> {
        let describe = |context: &StreamingContext, run: &Run| version(context, run, &self.emitted);
        start_life(&self.store(), &self.clock, &Life::with_faults(run, faults), &describe)
    }

    /// Runs on until a batch is done; `false` when the job ended before.
    fn run_to(&self, job: &RunningContext, until: u64) -> bool {
        loop {
            let batch = job.progress().last_batch.map_or(0, |(batch, _)| batch.0) + 1;
            if batch > until {
                return true;
            }
            self.clock.advance((batch * INTERVAL_MS).saturating_sub(self.clock.now_ms()));
            if !wait_for_batch(job, batch) {
                return false;
            }
        }
    }

    /// One version, through crashes.
    fn live(&self, version: Version, run: &Run, until: u64, end: StopMode, faults: &[Arc<FaultPlan>]) {
        for faults in faults.iter().chain([&FaultPlan::never()]) {
            match self.start(version, run, faults) {
                Ok(job) if self.run_to(&job, until) && job.stop(end).is_ok() => return,
                Ok(_) => assert!(faults.has_crashed(), "the job ended by itself"),
                Err(error) => assert!(faults.has_crashed(), "{error:?}"),
            }
        }
        panic!("the job does not get through");
    }
}

fn state<S: Data + std::fmt::Debug>(job: &RunningContext, name: &str) -> String {
    let mut rows = BTreeMap::new();
    job.state::<u16, S>(name).unwrap().for_each(|key, state| drop(rows.insert(key, state))).unwrap();
    format!("{name}: {rows:?}\n")
}

/// Everything that version 2 has kept.
fn states_of(world: &World, run: &Run) -> String {
    let job = world.start(version_2, run, &FaultPlan::never()).unwrap();
    let all = job.recovery().operators.values().all(|outcome| *outcome == StateMatch::Matched);
    assert!(all, "{:?}", job.recovery().operators);
    state::<(u64, i64)>(&job, "visits") + &state::<String>(&job, "sums") + &state::<u32>(&job, "tasks")
}

/// Version 1 ends in some way, version 2 goes on, run in some way and through some crashes.
fn upgraded(
    end: StopMode,
    run: &Run,
    until: u64,
    faults: &[Arc<FaultPlan>],
) -> (BTreeMap<(String, u64), Vec<String>>, String) {
    let world = World::new();
    world.live(version_1, &Run::default(), BATCHES_BEFORE, end, &[]);
    world.live(version_2, run, until, StopMode::Graceful, faults);
    let states = states_of(&world, run);
    let emitted = world.emitted.lock().unwrap().clone();
    (emitted, states)
}

/// What the two versions do, written once more. Version 2 computes what comes after the batch `from`.
fn visits_model(from: u64) -> BTreeMap<u16, (u64, i64)> {
    let mut visits = BTreeMap::<u16, (u64, i64)>::new();
    for batch in 0..BATCHES as u16 {
        for n in 0..8u16 {
            let (hits, sum) = visits.entry((batch * 5 + n * n) % 13).or_default();
            *hits += 1;
            if u64::from(batch) >= from {
                *sum += i64::from(batch + n);
            }
        }
    }
    visits
}

#[test]
fn state_is_renamed_and_migrated_and_goes_on() {
    // After a crash version 2 computes what came after the checkpoint of batch 3 again.
    for (end, from) in [(StopMode::Graceful, BATCHES_BEFORE), (StopMode::Now, 3)] {
        let (emitted, states) = upgraded(end, &Run::default(), BATCHES, &[]);
        assert!(states.starts_with(&format!("visits: {:?}\n", visits_model(from))), "{states}");
        let never_upgraded = World::new();
        never_upgraded.live(version_1, &Run::default(), BATCHES, StopMode::Graceful, &[]);
        for ((output, time), rows) in never_upgraded.emitted.lock().unwrap().iter() {
            if ["windowed", "due"].contains(&&**output) {
                assert_eq!(rows, &emitted[&(output.clone(), *time)], "`{output}` at {time}");
            }
        }
        let after = emitted.iter().filter(|((output, time), _)| output == "sums" && *time > 5_000);
        let timed_out = after.flat_map(|(_, rows)| rows).filter(|row| !row.contains('+')).count();
        assert!(timed_out > 0 || end == StopMode::Now, "no key times out with state of version 1");
    }
}

#[test]
fn the_upgrade_does_not_depend_on_how_the_job_runs() {
    let expected = upgraded(StopMode::Now, &Run::default(), BATCHES, &[]);
    for (threads, partitions, checkpoint_every) in [(1, 1, 1), (3, 7, 2), (2, 256, 20)] {
        let run = Run { threads, partitions, checkpoint_every, ..Run::default() };
        assert_eq!(upgraded(StopMode::Now, &run, BATCHES, &[]), expected, "{run:?}");
    }
}

#[test]
fn a_crash_at_every_step_of_an_upgrade_changes_nothing() {
    let run = Run { threads: 1, checkpoint_every: 2, ..Run::default() };
    let until = BATCHES_BEFORE + 2;
    for end in [StopMode::Graceful, StopMode::Now] {
        let counting = FaultPlan::never();
        let expected = upgraded(end, &run, until, std::slice::from_ref(&counting));
        let steps = counting.steps();
        assert!(steps > 40, "only {steps} steps: the run does not do what it should");
        for step in 1..=steps {
            let faults = [FaultPlan::crash_at(step), FaultPlan::crash_at(step / 2 + 5)];
            assert_eq!(
                upgraded(end, &run, until, &faults),
                expected,
                "after a crash at step {step} of {steps}"
            );
        }
    }
}

fn newest_segment(store: &Path) -> PathBuf {
    let files = std::fs::read_dir(store.join("state")).unwrap().map(|entry| entry.unwrap().path());
    let number = |path: &PathBuf| path.file_stem()?.to_str()?.parse::<u64>().ok();
    files.max_by_key(number).unwrap()
}

#[test]
fn a_walk_back_to_before_the_upgrade_upgrades_once_more() {
    let (world, run) = (World::new(), Run { checkpoint_every: 100, ..Run::default() });
    world.live(version_1, &run, BATCHES_BEFORE, StopMode::Graceful, &[]);
    world.live(version_2, &run, BATCHES, StopMode::Graceful, &[]);
    let before = states_of(&world, &run);
    let emitted = world.emitted.lock().unwrap().clone();
    let segment = newest_segment(&world.store());
    let mut bytes = std::fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let job = world.start(version_2, &run, &FaultPlan::never()).unwrap();
    let recovery = job.recovery();
    assert_eq!(recovery.walked_back.len(), 1);
    assert!(matches!(recovery.operators["visits"], StateMatch::Upgraded { .. }), "{recovery:?}");
    assert_eq!(recovery.replayed.len() as u64, BATCHES - BATCHES_BEFORE);
    drop(job);
    assert_eq!(states_of(&world, &run), before);
    assert_eq!(*world.emitted.lock().unwrap(), emitted);
}
