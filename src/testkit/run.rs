//! Running a job through its lives.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::context::{RunningContext, StreamingContext};
use crate::driver::{BatchCompleted, StopMode, StreamingListener, StreamingStarted, StreamingStopped};
use crate::error::{Error, ErrorKind, Result};
use crate::state::OperatorState;
use crate::store::{FaultPlan, private_tempdir};
use crate::testkit::world::World;
use crate::testkit::{CrashPlan, FaultKind, Input, Outcome, Setup, StoreSnapshot, TestContext};
use crate::time::{Clock, ManualClock};

/// A batch that takes longer than this has hung. Real time, so that a test ends.
const HANGS: Duration = Duration::from_secs(120);

/// A job as a check sees it.
pub(super) type Describe<'a, I> = &'a (dyn Fn(&TestContext, <I as Input>::Streams) + Sync);

/// Where a run lives: what its lives have in common.
pub(super) struct Home {
    dir: TempDir,
    pub(super) clock: Arc<ManualClock>,
    pub(super) world: World,
}

impl Home {
    pub(super) fn new() -> Result<Self> {
        let dir = private_tempdir("millpond-")?;
        let made = std::fs::create_dir(dir.path().join("outside"));
        made.map_err(|cause| Error::io("make a directory for a store", cause))?;
        Ok(Home { dir, clock: ManualClock::at(0), world: World::default() })
    }

    /// A place of its own with a copy of a store, at a time.
    pub(super) fn with(store: &StoreSnapshot, now_ms: u64) -> Result<Self> {
        let home = Home { clock: ManualClock::at(now_ms), ..Home::new()? };
        store.restore(&home.store())?;
        Ok(home)
    }

    pub(super) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }
}

/// How a life ended.
pub(super) enum Ended {
    /// It came as far as it should, and was stopped.
    Through(Box<Lived>),
    /// By itself.
    Failed(Error),
}

/// A life that was stopped as planned.
pub(super) struct Lived {
    job: RunningContext,
    states: Vec<Arc<OperatorState>>,
}

/// A job, its input and how it runs.
pub(super) struct Case<'a, I: Input> {
    pub(super) job: Describe<'a, I>,
    pub(super) input: &'a I,
    pub(super) setup: &'a Setup,
}

impl<I: Input> Case<'_, I> {
    /// How many batches the job runs.
    pub(super) fn batches(&self) -> u64 {
        (self.input.batches() + self.setup.batches_after_input) as u64
    }

    fn start(&self, home: &Home, faults: &Arc<FaultPlan>, watch: &Arc<Watch>) -> Result<Lived> {
        let setup = self.setup;
        let mut builder = StreamingContext::builder("testkit")
            .store(home.store())
            .clock(home.clock.clone())
            .batch_interval(setup.batch_interval)
            .checkpoint_every_batches(setup.checkpoint_every_batches)
            .threads(setup.threads)
            .partitions(setup.partitions)
            .stop_on_signals(false)
            .faults(faults.clone())
            .listener(watch.clone());
        if let Some(bytes) = setup.state_memory_bytes_max {
            builder = builder.state_memory_bytes_max(bytes);
        }
        let context = builder.build()?;
        let streams = self.input.attach(&context, setup.ranges);
        let context = TestContext::new(context, &home.world, &home.dir.path().join("outside"));
        (self.job)(&context, streams);
        let context = context.into_context();
        let states = context.states()?;
        Ok(Lived { job: context.start()?, states })
    }

    /// One life: up to and with batch `until`, then stopped.
    pub(super) fn live(&self, home: &Home, faults: &Arc<FaultPlan>, until: u64, mode: StopMode) -> Ended {
        let watch = Arc::new(Watch { faults: faults.clone(), ..Watch::default() });
        let lived = match self.start(home, faults, &watch) {
            Ok(lived) => lived,
            Err(error) => return Ended::Failed(error),
        };
        let mut done = lived.job.progress().last_batch.map_or(0, |(batch, _)| batch.0);
        while done < until {
            let due = (done + 1) * self.setup.batch_interval.as_millis() as u64;
            home.clock.advance(due.saturating_sub(home.clock.now_ms()));
            match watch.wait_beyond(done) {
                Seen::Batch(batch) => done = batch,
                Seen::End => break,
                Seen::Nothing => {
                    let message = format!("batch {} is not done after {HANGS:?}: the job hangs", done + 1);
                    return Ended::Failed(Error::new(ErrorKind::UserCode, message));
                }
            }
        }
        let stopped = lived.job.stop(mode);
        faults.note_end();
        if done < until && stopped.is_ok() {
            return Ended::Failed(Error::new(ErrorKind::Stopped, "the job stopped before its input ended"));
        }
        stopped.map_or_else(Ended::Failed, |()| Ended::Through(Box::new(lived)))
    }

    /// Runs the job through one life per plan, and then an undisturbed one. Each plan must end its life or let it
    /// through.
    ///
    /// # Errors
    /// What a life ended with although its plan did nothing.
    pub(super) fn run(&self, plans: &[Arc<FaultPlan>]) -> Result<Outcome> {
        let home = Home::new()?;
        self.run_in(&home, plans)
    }

    /// The same in a place that may have a store.
    pub(super) fn run_in(&self, home: &Home, plans: &[Arc<FaultPlan>]) -> Result<Outcome> {
        let last = FaultPlan::in_order([]);
        let mut starts = 0;
        for faults in plans.iter().chain([&last]) {
            starts += 1;
            match self.live(home, faults, self.batches(), StopMode::Graceful) {
                Ended::Through(lived) => return self.outcome(home, *lived, starts),
                Ended::Failed(error) if !faults.has_failed() => return Err(error),
                Ended::Failed(_) => {}
            }
        }
        Err(Error::new(ErrorKind::Stopped, "the job has no life that is not disturbed"))
    }

    fn outcome(&self, home: &Home, lived: Lived, starts: usize) -> Result<Outcome> {
        let Lived { job, states } = lived;
        Outcome::read(job.handle(), &states, home.world.outputs(), home.world.outside(), starts)
    }
}

/// One plan for each crash.
pub(super) fn crashes(plan: &CrashPlan) -> Vec<Arc<FaultPlan>> {
    plan.0.iter().map(|step| FaultPlan::in_order([(*step..*step + 1, FaultKind::Crash)])).collect()
}

/// Looks for the first of `cases` that fails, on all cores. Which one is found does not depend on them.
pub(super) fn first_failure<F: Send>(cases: usize, check: impl Fn(usize) -> Option<F> + Sync) -> Option<F> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(None::<(usize, F)>));
    let lock = || found.lock().unwrap_or_else(PoisonError::into_inner);
    let work = || {
        loop {
            let case = next.fetch_add(1, Ordering::SeqCst);
            if case >= cases || lock().as_ref().is_some_and(|(first, _)| *first < case) {
                return;
            }
            if let Some(failure) = check(case) {
                let mut found = lock();
                if found.as_ref().is_none_or(|(first, _)| case < *first) {
                    *found = Some((case, failure));
                }
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, |cores| cores.get()).min(cases);
    std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    found.into_inner().unwrap_or_else(PoisonError::into_inner).map(|(_, failure)| failure)
}

/// Hears how far the job is.
#[derive(Default)]
struct Watch {
    faults: Arc<FaultPlan>,
    heard: Mutex<Heard>,
    changed: Condvar,
}

#[derive(Default)]
struct Heard {
    done: u64,
    ended: bool,
}

enum Seen {
    Batch(u64),
    End,
    Nothing,
}

impl Watch {
    fn hear(&self, note: impl FnOnce(&mut Heard)) {
        note(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until a batch after `batch` is done or the job has ended.
    fn wait_beyond(&self, batch: u64) -> Seen {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_nothing = |heard: &mut Heard| heard.done <= batch && !heard.ended;
        let waited = self.changed.wait_timeout_while(heard, HANGS, is_nothing);
        let (heard, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match *heard {
            Heard { done, .. } if done > batch => Seen::Batch(done),
            Heard { ended: true, .. } => Seen::End,
            _ => Seen::Nothing,
        }
    }
}

impl StreamingListener for Watch {
    /// On the driver's thread, before it takes its first batch.
    fn streaming_started(&self, _: &StreamingStarted) {
        self.faults.note_start();
    }

    fn batch_completed(&self, event: &BatchCompleted) {
        if event.error.is_none() {
            self.hear(|heard| heard.done = event.batch.0);
        }
    }

    fn streaming_stopped(&self, _: &StreamingStopped) {
        self.hear(|heard| heard.ended = true);
    }
}
