//! The handle of a running job, and the jobs that run in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::ThreadId;
use std::time::Duration;

use crate::dstream::{Boundary, StateView};
use crate::error::{Error, ErrorKind, Result};
use crate::record::{Data, Key};
use crate::state::OperatorState;

use super::{Progress, RecoveryReport, Shared, StopMode, lock};

/// Where a started job is in its life. Before it, there is a [`StreamingContext`](crate::StreamingContext).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContextState {
    /// It receives and runs batches.
    Active,
    /// It was told to stop and has not stopped yet.
    Stopping,
    /// It has stopped, by itself or because it was told to. It does not start again: describe it anew.
    Stopped,
}

/// A job that runs or ran, for whoever wants to look at it or stop it. Cheap to clone; dropping it stops
/// nothing. While one is held, what the job had in state stays in memory, also after it has stopped.
#[derive(Clone, Debug)]
pub struct JobHandle(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    shared: Arc<Shared>,
    recovery: RecoveryReport,
    driver: OnceLock<ThreadId>,
}

/// The jobs of this process by name; of two with one name, which have two stores, the later one last.
static JOBS: Mutex<Option<HashMap<String, Vec<Weak<Parts>>>>> = Mutex::new(None);

impl JobHandle {
    /// Makes the job known under its name.
    pub(crate) fn register(name: &str, shared: Arc<Shared>, recovery: RecoveryReport) -> Self {
        let handle = JobHandle(Arc::new(Parts { shared, recovery, driver: OnceLock::new() }));
        let mut jobs = lock(&JOBS);
        let jobs = jobs.get_or_insert_default();
        jobs.retain(|_, known| {
            known.retain(|job| job.strong_count() > 0);
            !known.is_empty()
        });
        jobs.entry(name.to_owned()).or_default().push(Arc::downgrade(&handle.0));
        handle
    }

    /// The job of this name that runs in this process; of several, the one that was started last.
    pub(crate) fn active(name: &str) -> Option<Self> {
        let known: Vec<_> = {
            let jobs = lock(&JOBS);
            let known = jobs.as_ref()?.get(name)?;
            known.iter().rev().filter_map(Weak::upgrade).collect()
        };
        known.into_iter().map(JobHandle).find(|job| job.context_state() != ContextState::Stopped)
    }

    /// Says on which thread the job runs.
    pub(crate) fn runs_here(&self) {
        self.0.driver.get_or_init(|| std::thread::current().id());
    }

    /// Whether a closure of the job, an output or a listener calls: what waits for the job there would wait for
    /// itself.
    pub(crate) fn is_called_by_the_job(&self) -> bool {
        self.0.driver.get() == Some(&std::thread::current().id()) || self.0.shared.executor.runs_here()
    }

    pub(crate) fn request_stop(&self, mode: StopMode) {
        self.0.shared.request_stop(mode);
    }

    /// Where the job is in its life.
    pub fn context_state(&self) -> ContextState {
        self.0.shared.context_state()
    }

    /// What the start found in the store and did.
    pub fn recovery(&self) -> &RecoveryReport {
        &self.0.recovery
    }

    /// How far the job has come.
    pub fn progress(&self) -> Progress {
        let shared = &self.0.shared;
        let mut progress = shared.progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        progress.idle = shared.idle();
        progress
    }

    /// The state of the operator called `name`, as the last batch left it. Works while the job runs and
    /// after it stopped.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] when there is none of this name with keys `K` and states `S`.
    pub fn state<K: Key, S: Data>(&self, name: &str) -> Result<StateView<K, S>> {
        StateView::new(self.operator_state(name)?.clone(), self.boundary())
    }

    /// How many keys the operator called `name` keeps something of, as the last batch left it; for operators
    /// whose states are their own affair too, such as windows.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] when there is none of this name, [`ErrorKind::UserCode`] in a closure of the job
    /// that runs while its batch changes state.
    pub fn keys_in_state(&self, name: &str) -> Result<u64> {
        let boundary = self.boundary();
        let _boundary = boundary.enter()?;
        Ok(self.operator_state(name)?.live_keys())
    }

    fn boundary(&self) -> Boundary {
        let job = self.clone();
        let is_called_by_the_job = Arc::new(move || job.is_called_by_the_job());
        Boundary { gate: self.0.shared.gate.clone(), is_called_by_the_job }
    }

    fn operator_state(&self, name: &str) -> Result<&Arc<OperatorState>> {
        self.0.shared.states.get(name).ok_or_else(|| {
            Error::new(ErrorKind::Incompatible, format!("the job has no stateful operator `{name}`"))
        })
    }

    /// Waits until the job has stopped. Not to be called from inside an output or a listener, which the job
    /// waits for.
    ///
    /// # Errors
    /// What stopped it, if it was not asked to.
    pub fn await_termination(&self) -> Result<()> {
        self.0.shared.wait_for_end(None).unwrap_or(Ok(()))
    }

    /// The same for at most `timeout`; `false` when the job still runs.
    ///
    /// # Errors
    /// As [`await_termination`](Self::await_termination).
    pub fn await_termination_or_timeout(&self, timeout: Duration) -> Result<bool> {
        self.0.shared.wait_for_end(Some(timeout)).transpose().map(|ended| ended.is_some())
    }

    /// Stops the job and waits until it has stopped. A job that has stopped already is no error. From inside
    /// a closure of the job, an output or a listener, which the stop has to wait for, it returns at once.
    ///
    /// # Errors
    /// What else stopped it, now or before.
    pub fn stop(&self, mode: StopMode) -> Result<()> {
        self.request_stop(mode);
        if self.is_called_by_the_job() { Ok(()) } else { self.await_termination() }
    }

    /// Stops the job gracefully; after `timeout` of real time, at once. Nothing is lost either way: what was
    /// received is durable, and what was not processed is at the next start. Waits until the job has stopped,
    /// which may take longer than `timeout`: tasks and outputs that have begun are not interrupted. From inside
    /// a closure of the job, an output or a listener it returns at once, and the time runs nevertheless.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// use millpond::{ContextState, StreamingContext};
    ///
    /// let context = StreamingContext::builder("doc").store(dir.path().join("store")).build()?;
    /// let (numbers, _queue) = context.queue_stream::<u64>("numbers");
    /// numbers.print(3);
    /// let job = context.start()?;
    /// job.stop_gracefully_within(Duration::from_secs(10))?;
    /// assert_eq!(job.context_state(), ContextState::Stopped);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What else stopped it, now or before; [`ErrorKind::Io`] when no thread can be started to wait, and the
    /// job then stops gracefully without a limit.
    pub fn stop_gracefully_within(&self, timeout: Duration) -> Result<()> {
        self.request_stop(StopMode::Graceful);
        if !self.is_called_by_the_job() {
            return self.stop_after(timeout);
        }
        let job = self.clone();
        let thread = std::thread::Builder::new().name("millpond-stop".to_owned());
        let waits = thread.spawn(move || {
            // Whoever waits for the job is told how it ended.
            let _ = job.stop_after(timeout);
        });
        waits.map(drop).map_err(|cause| Error::io("start a thread", cause))
    }

    fn stop_after(&self, timeout: Duration) -> Result<()> {
        if let Some(outcome) = self.0.shared.wait_for_end(Some(timeout)) {
            return outcome;
        }
        tracing::warn!(?timeout, "the job has not stopped in time and is stopped at once");
        self.request_stop(StopMode::Now);
        self.await_termination()
    }
}
