//! The driver: one thread that plans batches, runs them one at a time and in order, and takes checkpoints.

mod changes;
mod handle;
mod listener;
mod plan;
mod progress;
pub(crate) mod question;
mod rate;
mod rehearsal;
mod report;
mod residency;
mod run;
mod shares;
mod start;
mod upgrade;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;

pub use changes::ReplayDifference;
pub use handle::{ContextState, JobHandle};
pub(crate) use listener::Listeners;
pub use listener::{
    BatchCompleted, BatchStarted, BatchSubmitted, CheckpointFailed, CheckpointWritten, Failure,
    OutputOperationCompleted, OutputOperationStarted, ReceiverFailed, ReceiverStarted, ReceiverStopped,
    StatsListener, StreamInput, StreamingListener, StreamingStarted, StreamingStopped,
};
pub use progress::{Progress, RecoveryReport};
pub(crate) use question::Asked;
pub use rehearsal::{AuditReport, Fork, KeyDifference, OperatorDifference, RetainedCheckpoint};
pub use rehearsal::{CausePlace, KeyCause, KeyHistory, KeyTouch};
pub(crate) use rehearsal::{audit, fork, retained_checkpoints, why};
pub(crate) use start::{Components, start};
pub(crate) use upgrade::plan as plan_upgrade;
pub use upgrade::{ChangedSetting, PlannedState, PlannedStream, StreamMatch, UpgradePlan};

use crate::batch::tick::{Tick, following, next};
use crate::checkpoint::sweep::Sweep;
use crate::checkpoint::writer::CheckpointWriter;
use crate::config::Settings;
use crate::dstream::{Input, SharedVariables, StatefulNode};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::id::{BatchId, BatchTime, CheckpointId, SegmentId, StreamId};
use crate::receive_log::{Drain, ReceiveLog};
use crate::state::OperatorState;
use crate::store::Store;
use crate::store::catalog::Catalog;
use crate::store::late_damage::LateDamage;
use crate::store::retry::FullDisk;
use crate::time::{Clock, WakeUp};
use changes::Watched;
use plan::{PlannedBatch, Take};

use rate::Rates;
use report::ReceiverReports;
use residency::Residency;

/// How long receivers may take, all together, to hand over what they hold when the job stops.
const RECEIVERS_STOP: Duration = Duration::from_secs(10);

/// While a stop waits for the log, it looks again after this at the latest.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How a job stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StopMode {
    /// Receivers stop, everything received is processed, a last checkpoint is taken.
    Graceful,
    /// Nothing more is begun; what is in progress is given up, and replayed at the next start.
    Now,
}

/// What the driver shares with whoever holds the running job.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) wake: Arc<WakeUp>,
    stop: Mutex<Option<StopMode>>,
    outcome: Mutex<Option<Result<(), (ErrorKind, String)>>>,
    ended: Condvar,
    pub(crate) progress: Mutex<Progress>,
    /// Held for writing while a batch changes state.
    pub(crate) gate: Arc<RwLock<()>>,
    pub(crate) states: HashMap<String, Arc<OperatorState>>,
    pub(crate) log: Arc<ReceiveLog>,
    executor: Arc<Executor>,
    full_disk: FullDisk,
}

impl Shared {
    /// Asks the job to stop; a second, stronger request overrides the first.
    pub(crate) fn request_stop(&self, mode: StopMode) {
        let before = {
            let mut stop = lock(&self.stop);
            let asked = stop.map_or(mode, |asked| asked.max(mode));
            stop.replace(asked)
        };
        if mode == StopMode::Now && before != Some(StopMode::Now) {
            // An output that fills a queue of its own job waits for memory that its batch holds.
            self.log.lift_budget();
        }
        // Who wants to stop does not want to wait for space.
        self.full_disk.give_up();
        if mode == StopMode::Now {
            self.executor.cancel();
        }
        self.wake.notify();
    }

    fn stop_requested(&self) -> Option<StopMode> {
        *lock(&self.stop)
    }

    pub(crate) fn context_state(&self) -> ContextState {
        if lock(&self.outcome).is_some() {
            return ContextState::Stopped;
        }
        self.stop_requested().map_or(ContextState::Active, |_| ContextState::Stopping)
    }

    fn end(&self, outcome: Result<()>) {
        *lock(&self.outcome) = Some(outcome.map_err(|error| (error.kind(), error.chain())));
        self.ended.notify_all();
    }

    /// Waits until the job has ended, at most for `timeout`; `None` when it has not.
    pub(crate) fn wait_for_end(&self, timeout: Option<Duration>) -> Option<Result<()>> {
        let outcome = lock(&self.outcome);
        let running = |outcome: &mut Option<_>| outcome.is_none();
        let outcome = match timeout {
            None => self.ended.wait_while(outcome, running).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                self.ended
                    .wait_timeout_while(outcome, timeout, running)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0
            }
        };
        let outcome = outcome.clone()?;
        Some(outcome.map_err(|(kind, text)| Error::new(kind, text)))
    }

    /// How long there has been nothing to do and nothing new; zero while there is.
    pub(crate) fn idle(&self) -> Duration {
        let busy = lock(&self.progress).busy;
        if busy || !self.log.is_drained() { Duration::ZERO } else { self.log.activity().idle() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The tasks that receive.
struct Receivers {
    runtime: Runtime,
    stop: watch::Sender<bool>,
    /// By the name of their stream.
    tasks: Vec<(Arc<str>, tokio::task::JoinHandle<()>)>,
}

impl Receivers {
    /// Tells all to stop and waits until they have handed over what they hold.
    fn stop(&mut self) {
        self.stop.send_replace(true);
        let tasks = std::mem::take(&mut self.tasks);
        // A receiver that blocks its thread holds up the timers of its runtime: time is kept by another one.
        let waiting = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let waiting = match waiting {
            Ok(waiting) => waiting,
            Err(error) => {
                tracing::error!(%error, "cannot wait for the receivers: they are given up");
                return tasks.iter().for_each(|(_, task)| task.abort());
            }
        };
        waiting.block_on(async {
            let deadline = tokio::time::Instant::now() + RECEIVERS_STOP;
            for (stream, mut task) in tasks {
                match tokio::time::timeout_at(deadline, &mut task).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(stream = &*stream, %error, "a receiver panicked"),
                    Err(_) => {
                        tracing::warn!(stream = &*stream, "a receiver did not stop in time and is given up");
                        task.abort();
                    }
                }
            }
        });
    }
}

/// The running job.
pub(crate) struct Driver {
    settings: Settings,
    clock: Arc<dyn Clock>,
    /// Added to the clock when it is behind the last batch of an earlier run.
    clock_ahead_ms: u64,
    store: Store,
    catalog: Arc<Mutex<Catalog>>,
    executor: Arc<Executor>,
    shared: Arc<Shared>,
    full_disk: FullDisk,
    log: Arc<ReceiveLog>,
    log_thread: Option<JoinHandle<()>>,
    receivers: Option<Receivers>,
    checkpoints: CheckpointWriter,
    inputs: Vec<Input>,
    stateful: Vec<Arc<dyn StatefulNode>>,
    variables: SharedVariables,
    outputs: Vec<Arc<crate::dstream::Output>>,
    states: Vec<Arc<OperatorState>>,
    /// Of a job whose state's memory is limited.
    residency: Option<Residency>,
    watched: Watched,
    streams: HashMap<StreamId, Arc<str>>,
    fingerprint: u64,
    next_batch: BatchId,
    last_time: BatchTime,
    next_block: u64,
    /// The next batch, planned when the last one was recorded; or why that failed.
    ahead: Option<Result<PlannedBatch>>,
    next_checkpoint: CheckpointId,
    next_segment: SegmentId,
    batches_since_checkpoint: u64,
    /// A checkpoint is due, however many batches there were.
    owes_checkpoint: bool,
    /// What was not checked of the state at the start.
    sweep: Sweep,
    damage: Arc<LateDamage>,
    /// A source holds something back: a file that is still being written.
    sources_wait: bool,
    listeners: Listeners,
    receiver_reports: ReceiverReports,
    rates: Rates,
    /// When this run could have taken its first batch.
    ready_ms: u64,
}

impl Driver {
    /// Runs until told to stop or until something fails, then reports.
    pub(crate) fn run(mut self, job: &JobHandle) {
        job.runs_here();
        self.listeners.tell(|listener| {
            listener.streaming_started(&StreamingStarted { recovery: job.recovery().clone() });
        });
        // User code in an output runs on this thread; a panic that is not its own is ours to report too.
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run_until_stopped()));
        let outcome = caught.unwrap_or_else(|payload| {
            let text = crate::exec::panic_text(&*payload);
            Err(Error::new(ErrorKind::UserCode, format!("the driver panicked: {text}")))
        });
        let stopped_now = self.shared.stop_requested() == Some(StopMode::Now);
        let outcome = match outcome {
            Err(error) if stopped_now && error.kind() == ErrorKind::Stopped => Ok(()),
            // Damage that is found late is one end, whoever came upon it and whatever it looks like.
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible) => {
                self.damage.check().and(Err(error))
            }
            other => other,
        };
        if let Err(error) = &outcome {
            tracing::error!(error = %error.chain(), "the job has stopped");
        }
        let (shared, listeners) = (self.shared.clone(), self.listeners.clone());
        self.close();
        self.report_last();
        // Who waits for the end may start anew at once: the store is let go before it is told. What user code
        // holds is let go with it, and a panic there must not keep them waiting.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(self))).is_err() {
            tracing::error!("a value that the job's closures hold panicked when it was dropped");
        }
        let stopped = StreamingStopped { error: outcome.as_ref().err().map(Failure::of) };
        listeners.tell(|listener| listener.streaming_stopped(&stopped));
        shared.end(outcome);
    }

    fn run_until_stopped(&mut self) -> Result<()> {
        loop {
            let seen = self.shared.wake.seen();
            self.check_writers()?;
            match self.shared.stop_requested() {
                Some(StopMode::Now) => return Ok(()),
                Some(StopMode::Graceful) => return self.drain(),
                None => {}
            }
            if let Some(planned) = self.ahead.take() {
                self.run_planned(planned?)?;
                continue;
            }
            self.checkpoint_if_due()?;
            match self.due() {
                Tick::Due(time) => {
                    let (time, take) = self.within_boundaries(time);
                    self.run_next(time, take)?;
                    self.begin_sweep()?;
                }
                Tick::Wait(until) => {
                    self.begin_sweep()?;
                    let until = until.saturating_sub(self.clock_ahead_ms);
                    self.clock.wait_until(until, &self.shared.wake, seen);
                }
            }
        }
    }

    /// Begins to check what the start left unchecked of the state, once: a first batch that is due at once goes before it.
    fn begin_sweep(&mut self) -> Result<()> {
        self.sweep.begin(&self.store.disk, &self.shared.wake)
    }

    /// When the next batch is due.
    fn due(&self) -> Tick {
        next(self.last_time, self.settings.batch_interval_ms(), self.now_ms())
    }

    /// The time of the next batch when `time` is due, and what it takes in: a time that passed before and that an operator
    /// must not miss comes first.
    fn within_boundaries(&self, time: BatchTime) -> (BatchTime, Take) {
        match self.missed_boundary(time) {
            Some(boundary) => (boundary, Take::Nothing),
            None => (time, Take::All),
        }
    }

    /// The first time that passed before `time` and that an operator must not miss.
    fn missed_boundary(&self, time: BatchTime) -> Option<BatchTime> {
        self.stateful.iter().filter_map(|node| node.due_between(self.last_time, time)).min()
    }

    fn now_ms(&self) -> u64 {
        self.clock.now_ms() + self.clock_ahead_ms
    }

    /// Whether the state, the log and the checkpoint writer are well.
    fn check_writers(&mut self) -> Result<()> {
        self.damage.check()?;
        self.sweep.check()?;
        if let Some(failure) = self.log.failure() {
            return Err(Error::new(ErrorKind::Io, format!("the receive log has failed: {failure}")));
        }
        self.report_receivers();
        let outcome = self.checkpoints.poll()?;
        self.note_checkpoint(outcome)
    }

    /// Stops receiving, processes what was received, takes a last checkpoint. What outputs store meanwhile is
    /// for the next start.
    fn drain(&mut self) -> Result<()> {
        self.log.tell_progress();
        self.stop_receivers();
        let received = self.log.handed_over();
        if let Some(planned) = self.ahead.take() {
            self.run_planned(planned?)?;
        }
        loop {
            let seen = self.shared.wake.seen();
            self.check_writers()?;
            if self.shared.stop_requested() == Some(StopMode::Now) {
                return Ok(());
            }
            match self.log.drain(received) {
                Drain::Done => break,
                Drain::InFlight => self.shared.wake.wait_for(seen, LOOK_AGAIN),
                Drain::Pending => self.run_drained()?,
            }
        }
        if self.batches_since_checkpoint > 0 {
            return self.checkpoint_and_wait();
        }
        self.finish_checkpoint()
    }

    /// Runs a batch of what was received, whatever the time.
    fn run_drained(&mut self) -> Result<()> {
        let time = following(self.last_time, self.settings.batch_interval_ms(), self.now_ms());
        match self.missed_boundary(time) {
            Some(boundary) => self.run_next(boundary, Take::Nothing),
            None => self.run_next(time, Take::Received),
        }
    }

    fn stop_receivers(&mut self) {
        if let Some(receivers) = &mut self.receivers {
            self.log.lift_budget();
            receivers.stop();
        }
    }

    fn stop_receiving(&mut self) {
        self.stop_receivers();
        self.log.close();
        if let Some(thread) = self.log_thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the log writer panicked");
        }
    }

    fn close(&mut self) {
        // The job has ended: neither the log nor a checkpoint waits for space any more.
        self.full_disk.give_up();
        self.sweep.stop();
        self.stop_receiving();
        // Before the store's lock is let go: who opens it next must find nobody writing to it.
        self.checkpoints.close();
        if let Err(error) = self.damage.leave_note(&self.store.disk, &self.store.paths) {
            tracing::error!(error = %error.chain(), "the next start will not know at once that the state is damaged");
        }
        lock(&self.catalog).end();
        if let Some(receivers) = self.receivers.take() {
            receivers.runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

impl Drop for Driver {
    /// A start that fails half-way leaves no thread behind.
    fn drop(&mut self) {
        self.close();
    }
}
