//! A job that puts and removes keys, through batches, checkpoints, stops, crashes at any step on the disk, full disks and a
//! damaged segment, against a plain map.
//!
//! What was pushed and acknowledged counts once and in order. What was being pushed when the job crashed counts wholly or
//! not at all, so that after a crash there may be two answers, until the next look at the state.
#![no_main]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use millpond::testkit::FaultPlan;
use millpond::{ErrorKind, ManualClock, Queue, Result, RunningContext, StopMode, StreamingContext};

/// More are not looked at.
const OPERATIONS_MAX: usize = 40;
const INTERVAL_MS: u64 = 1_000;

/// Adds to a key, or removes it.
type Change = (u8, Option<u16>);
type Model = BTreeMap<u8, u64>;

#[derive(Arbitrary, Debug)]
enum Operation {
    Push(Vec<Change>),
    Batch,
    Stop {
        graceful: bool,
        next: Life,
    },
    /// Flips a bit of the newest segment once the job is stopped.
    Damage {
        at: u16,
        bit: u8,
        next: Life,
    },
}

/// What the disk of a life does.
#[derive(Arbitrary, Debug)]
struct Life {
    checkpoint_every: u8,
    fault: Fault,
}

#[derive(Arbitrary, Debug)]
enum Fault {
    Never,
    CrashAt(u8),
    FullDuring(u8, u8),
}

impl Life {
    const SOUND: Life = Life { checkpoint_every: 2, fault: Fault::Never };

    fn plan(&self) -> Arc<FaultPlan> {
        match self.fault {
            Fault::Never => FaultPlan::never(),
            Fault::CrashAt(step) => FaultPlan::crash_at(u64::from(step) + 1),
            // The first steps belong to the start, which reports a full disk instead of waiting.
            Fault::FullDuring(from, count) => {
                let from = 60 + u64::from(from);
                FaultPlan::full_during(from..from + u64::from(count % 4))
            }
        }
    }
}

struct Job {
    running: RunningContext,
    queue: Queue<Change>,
    plan: Arc<FaultPlan>,
}

struct World {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    job: Option<Job>,
    /// What the state may be once everything pushed is processed.
    models: Vec<Model>,
    /// Checkpoints may have been damaged, so that none is left.
    damaged: bool,
}

fn change(total: Option<u64>, change: Option<u16>) -> Option<u64> {
    change.map(|n| total.unwrap_or(0).wrapping_mul(3).wrapping_add(n.into()))
}

fn apply(model: &Model, changes: &[Change]) -> Model {
    let mut model = model.clone();
    for (key, n) in changes {
        match change(model.get(key).copied(), *n) {
            Some(total) => drop(model.insert(*key, total)),
            None => drop(model.remove(key)),
        }
    }
    model
}

impl World {
    fn store(&self) -> std::path::PathBuf {
        self.dir.path().join("store")
    }

    fn try_start(&self, life: &Life, plan: &Arc<FaultPlan>) -> Result<(RunningContext, Queue<Change>)> {
        let context = StreamingContext::builder("fuzz")
            .store(self.store())
            .clock(self.clock.clone())
            .batch_interval(Duration::from_millis(INTERVAL_MS))
            .checkpoint_every_batches(u64::from(life.checkpoint_every % 4) + 1)
            .threads(1)
            .partitions(2)
            .stop_on_signals(false)
            .faults(plan.clone())
            .build()?;
        let (changes, queue) = context.queue_stream::<Change>("changes");
        // The keys of a push are in one block and so in one partition: changes of a key stay in their order.
        let _ = changes.update_state_by_key("totals", |new, total: Option<u64>| {
            new.iter().fold(total, |total, n| change(total, *n))
        });
        Ok((context.start()?, queue))
    }

    /// Starts the job; one that crashes is started again on a sound disk. `false` when the store is lost, which only
    /// damage may lead to.
    fn start(&mut self, life: &Life) -> bool {
        for life in [life, &Life::SOUND] {
            let plan = life.plan();
            match self.try_start(life, &plan) {
                Ok((running, queue)) => {
                    self.job = Some(Job { running, queue, plan });
                    return true;
                }
                Err(error) if plan.has_crashed() || error.kind() == ErrorKind::DiskFull => {}
                Err(error) => {
                    assert!(
                        self.damaged && error.kind() == ErrorKind::Corrupt,
                        "a start is refused: {error:?}"
                    );
                    return false;
                }
            }
        }
        panic!("a job does not start on a sound disk");
    }

    /// After a crash.
    fn restart(&mut self) -> bool {
        let crashed = self.job.take().is_none_or(|job| job.plan.has_crashed());
        assert!(crashed, "the job stopped by itself");
        self.start(&Life::SOUND)
    }

    fn push(&mut self, changes: &[Change]) -> bool {
        let Some(job) = &self.job else { return false };
        let after: Vec<Model> = self.models.iter().map(|model| apply(model, changes)).collect();
        if job.queue.push(changes.iter().copied()).is_ok() {
            self.models = after;
            return true;
        }
        self.models.extend(after);
        self.models.dedup();
        self.restart()
    }

    fn batch(&mut self) -> bool {
        let Some(job) = &self.job else { return false };
        let last = || job.running.progress().last_batch.map_or(0, |(batch, _)| batch.0);
        let before = last();
        self.clock.advance(INTERVAL_MS);
        while last() <= before {
            if !matches!(job.running.await_termination_or_timeout(Duration::from_millis(1)), Ok(false)) {
                return self.restart();
            }
        }
        true
    }

    fn stop(&mut self, graceful: bool) {
        if let Some(job) = self.job.take() {
            let stopped = job.running.stop(if graceful { StopMode::Graceful } else { StopMode::Now });
            assert!(stopped.is_ok() || job.plan.has_crashed(), "{stopped:?}");
        }
    }

    fn damage(&mut self, at: u16, bit: u8) {
        let number = |path: &Path| path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        let files = std::fs::read_dir(self.store().join("state")).into_iter().flatten().flatten();
        let Some(newest) = files.map(|file| file.path()).max_by_key(|path| number(path)) else { return };
        let mut bytes = std::fs::read(&newest).expect("a segment");
        if self.damaged || bytes.is_empty() {
            return;
        }
        self.damaged = true;
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= 1 << (bit % 8);
        std::fs::write(&newest, bytes).expect("a segment");
    }

    /// Processes what was pushed and compares.
    fn check(&mut self) {
        self.stop(false);
        if !self.start(&Life::SOUND) || !self.batch() {
            return;
        }
        let Some(job) = &self.job else { return };
        let state = job.running.state::<u8, u64>("totals").expect("the operator");
        let mut found = Model::new();
        state
            .for_each(|key, total| assert_eq!(found.insert(key, total), None))
            .expect("the state is readable");
        assert!(self.models.contains(&found), "found {found:?}, expected one of {:?}", self.models);
        self.stop(true);
    }
}

fuzz_target!(|life: (Life, Vec<Operation>)| {
    let (first, operations) = life;
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clock = ManualClock::at(0);
    let mut world = World { dir, clock, job: None, models: vec![Model::new()], damaged: false };
    let mut goes_on = world.start(&first);
    for operation in operations.iter().take(OPERATIONS_MAX) {
        goes_on = goes_on
            && match operation {
                Operation::Push(changes) => world.push(changes),
                Operation::Batch => world.batch(),
                Operation::Stop { graceful, next } => {
                    world.stop(*graceful);
                    world.start(next)
                }
                Operation::Damage { at, bit, next } => {
                    world.stop(false);
                    world.damage(*at, *bit);
                    world.start(next)
                }
            };
    }
    if goes_on {
        world.check();
    }
});
