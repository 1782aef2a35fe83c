//! The sweep: what a start did not check of the state is read and checked behind it, at low priority.
//!
//! Until it has found everything sound no checkpoint is taken, and so nothing is pruned: whatever a walk back needs that was
//! there at the start is still there when damage comes to light, and no checkpoint refers to what nobody has looked at.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::store::Disk;
use crate::store::segments::{GroupSource, Segment};
use crate::time::{Stopwatch, WakeUp};

/// How nice the sweep is to other threads.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// A sweep that a test holds looks again after this.
const HELD: Duration = Duration::from_millis(1);

/// Checks what is left of the state while batches run.
#[derive(Debug)]
pub(crate) struct Sweep {
    work: Arc<Work>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Work {
    /// Last first, each with its operator.
    parts: Mutex<Vec<(String, GroupSource)>>,
    /// How many were not found sound yet.
    left: AtomicUsize,
    is_told_to_stop: AtomicBool,
    /// What it ended with, but for damage: the segments tell of that themselves.
    failure: OnceLock<(ErrorKind, String)>,
}

impl Work {
    fn parts(&self) -> MutexGuard<'_, Vec<(String, GroupSource)>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(&self, (operator, part): &(String, GroupSource)) -> Result<()> {
        part.verify(operator, || self.is_told_to_stop.load(Ordering::Relaxed))?;
        self.left.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }

    fn run(&self, disk: &Disk) -> Result<()> {
        let pause = WakeUp::new();
        loop {
            if disk.holds_sweep() && !self.is_told_to_stop.load(Ordering::Relaxed) && !self.parts().is_empty()
            {
                pause.wait_for(pause.seen(), HELD);
                continue;
            }
            let next = self.parts().pop();
            let Some(part) = next else { return Ok(()) };
            self.verify(&part)?;
        }
    }
}

impl Sweep {
    /// The sweep of these segments, which is not begun.
    pub(crate) fn of(segments: &[Arc<Segment>]) -> Self {
        let mut parts: Vec<_> = segments.iter().flat_map(Segment::parts).collect();
        parts.reverse();
        let left = AtomicUsize::new(parts.len());
        let work = Work {
            parts: Mutex::new(parts),
            left,
            is_told_to_stop: AtomicBool::new(false),
            failure: OnceLock::new(),
        };
        Sweep { work: Arc::new(work), thread: None }
    }

    /// Begins in a thread of its own, which wakes the driver at its end, unless it has begun.
    pub(crate) fn begin(&mut self, disk: &Disk, wake: &Arc<WakeUp>) -> Result<()> {
        if self.is_over() || self.thread.is_some() {
            return Ok(());
        }
        let (work, disk, wake) = (self.work.clone(), disk.clone(), wake.clone());
        let thread = std::thread::Builder::new().name("millpond-sweep".to_owned());
        let thread = thread.spawn(move || {
            be_nice();
            let watch = Stopwatch::start();
            match work.run(&disk) {
                Ok(()) => tracing::info!(took = ?watch.elapsed(), "all of the state was read and is sound"),
                Err(error) if error.kind() == ErrorKind::Stopped => {}
                Err(error) => drop(work.failure.set((error.kind(), error.chain()))),
            }
            wake.notify();
        });
        self.thread = Some(thread.map_err(|cause| Error::io("start a thread", cause))?);
        Ok(())
    }

    /// Whether everything was found sound.
    pub(crate) fn is_over(&self) -> bool {
        self.work.left.load(Ordering::SeqCst) == 0
    }

    /// What it failed with.
    pub(crate) fn check(&self) -> Result<()> {
        let Some((kind, what)) = self.work.failure.get() else { return Ok(()) };
        Err(Error::new(*kind, format!("the state cannot be checked: {what}")))
    }

    /// Does what is left at once, on all cores.
    pub(crate) fn finish(&mut self, executor: &Executor) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        let rest = std::mem::take(&mut *self.work.parts());
        executor
            .run_stage("check the state", rest.len(), |_, at| self.work.verify(&rest[rest.len() - 1 - at]))?;
        self.join();
        self.check()?;
        match self.is_over() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Stopped, "the check of the state did not come to its end")),
        }
    }

    /// Ends the thread; what it did not get to stays unchecked.
    pub(crate) fn stop(&mut self) {
        self.work.is_told_to_stop.store(true, Ordering::Relaxed);
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            let panicked = "the thread that checks it panicked".to_owned();
            drop(self.work.failure.set((ErrorKind::Io, panicked)));
        }
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lets other threads go first. Where that is refused the sweep takes its share.
#[cfg(target_os = "linux")]
fn be_nice() {
    // Linux counts niceness by thread.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the sweep runs at the usual priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn be_nice() {}
