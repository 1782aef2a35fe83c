//! The receive log: a block is appended, made durable, then acknowledged, and waits for its batch.
//!
//! One thread writes. Whatever waits is committed together, up to a bound, with one sync. Blocks that wait
//! for their batch or are in it share a budget of memory: when it is used up, receivers wait, and through
//! them the sockets they read.

mod buffers;
mod writer;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, mpsc, oneshot};

pub(crate) use buffers::BlockBuffers;
pub(crate) use writer::start;

use crate::error::{Error, ErrorKind, Result};
use crate::format::block::BlockHeader;
use crate::format::records::BlockRef;
use crate::id::StreamId;
use crate::time::Stopwatch;

/// A durable block on its way to a batch.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedBlock {
    pub(crate) place: BlockRef,
    pub(crate) stream: StreamId,
    /// The whole frame; `None` when it rests in the log only, as after a restart.
    pub(crate) frame: Option<Arc<Vec<u8>>>,
}

/// A block on its way into the log. `frame` has room for the headers in front of the records.
#[derive(Debug)]
struct AppendRequest {
    header: BlockHeader,
    frame: Vec<u8>,
    done: Option<oneshot::Sender<Result<()>>>,
    /// Whether the block stays in memory until its batch, and counts against the budget.
    buffered: bool,
}

/// What receivers, the writer and the driver share.
#[derive(Debug)]
pub(crate) struct ReceiveLog {
    requests: Mutex<Option<mpsc::UnboundedSender<AppendRequest>>>,
    budget: Semaphore,
    budget_bytes: usize,
    pending: Mutex<VecDeque<ReceivedBlock>>,
    /// Blocks that were ever handed over, those that a start found in the log included.
    handed_over: AtomicU64,
    /// Of these, the first ones, in plans.
    planned: AtomicU64,
    /// The driver waits for blocks to become durable: otherwise waking it for each of them is for nothing.
    is_awaited: AtomicBool,
    failure: Mutex<Option<String>>,
    activity: Activity,
    buffers: BlockBuffers,
}

/// How far the blocks up to a certain one have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Drain {
    /// All are in plans.
    Done,
    /// Some are durable and in no plan yet.
    Pending,
    /// The next one is not durable yet.
    InFlight,
}

/// When and how much was received.
#[derive(Debug)]
pub(crate) struct Activity {
    since: Stopwatch,
    /// Microseconds after `since`, plus one; 0 for never.
    first_us: AtomicU64,
    last_us: AtomicU64,
    /// Blocks handed to the log and not yet durable.
    in_flight: AtomicU64,
}

impl Activity {
    pub(crate) fn new() -> Self {
        let zero = AtomicU64::default;
        Activity { since: Stopwatch::start(), first_us: zero(), last_us: zero(), in_flight: zero() }
    }

    /// Something was received just now.
    pub(crate) fn note(&self) {
        let now = self.now_us();
        self.last_us.store(now, Ordering::Relaxed);
        // Only the first one stays.
        let _ = self.first_us.compare_exchange(0, now, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// The job is ready to receive: how long it took to come here is not counted as idle.
    pub(crate) fn note_ready(&self) {
        self.last_us.store(self.now_us(), Ordering::Relaxed);
    }

    fn now_us(&self) -> u64 {
        self.since.elapsed().as_micros() as u64 + 1
    }

    /// How long ago the first thing was received.
    pub(crate) fn since_first(&self) -> Option<std::time::Duration> {
        let first = self.first_us.load(Ordering::Relaxed);
        (first > 0).then(|| std::time::Duration::from_micros(self.now_us().saturating_sub(first)))
    }

    /// How long nothing was received.
    pub(crate) fn idle(&self) -> std::time::Duration {
        std::time::Duration::from_micros(
            self.now_us().saturating_sub(self.last_us.load(Ordering::Relaxed).max(1)),
        )
    }
}

impl ReceiveLog {
    fn new(requests: mpsc::UnboundedSender<AppendRequest>, buffer_bytes: usize) -> Arc<Self> {
        Arc::new(ReceiveLog {
            requests: Mutex::new(Some(requests)),
            budget: Semaphore::new(buffer_bytes.min(Semaphore::MAX_PERMITS)),
            budget_bytes: buffer_bytes,
            pending: Mutex::default(),
            handed_over: AtomicU64::new(0),
            planned: AtomicU64::new(0),
            is_awaited: AtomicBool::new(false),
            failure: Mutex::default(),
            activity: Activity::new(),
            buffers: BlockBuffers::default(),
        })
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Buffers for its blocks.
    pub(crate) fn buffers(&self) -> &BlockBuffers {
        &self.buffers
    }

    /// Hands a block to the log; waits while the budget is used up, not until the block is durable.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] when the log is closed or has failed.
    pub(crate) async fn submit(&self, header: BlockHeader, frame: Vec<u8>) -> Result<()> {
        self.send(header, frame, None).await
    }

    /// Appends a block and returns when it is durable.
    ///
    /// # Errors
    /// What made the log fail, or [`ErrorKind::Stopped`] when it is closed.
    pub(crate) async fn append(&self, header: BlockHeader, frame: Vec<u8>) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        self.send(header, frame, Some(done)).await?;
        outcome.await.unwrap_or_else(|_| Err(self.closed()))
    }

    async fn send(
        &self,
        header: BlockHeader,
        frame: Vec<u8>,
        done: Option<oneshot::Sender<Result<()>>>,
    ) -> Result<()> {
        self.activity.note();
        let fits = u32::try_from(frame.len()).ok().filter(|_| frame.len() <= self.budget_bytes);
        let bytes = fits.ok_or_else(|| {
            let most = self.budget_bytes.min(u32::MAX as usize);
            let message = format!("a block of {} bytes is over the {most} that may be buffered", frame.len());
            Error::new(ErrorKind::Source, message)
        })?;
        let permit = self.budget.acquire_many(bytes).await.map_err(|_| self.closed())?;
        permit.forget();
        self.request(AppendRequest { header, frame, done, buffered: true })
    }

    /// Hands a block of the job itself to the log, and with `wait` returns when it and those before it are
    /// durable. It is read back from the log when its batch runs, and counts against no budget: who calls may
    /// be the driver, which alone gives memory back. Not to be called from asynchronous code.
    ///
    /// # Errors
    /// As [`append`](ReceiveLog::append).
    pub(crate) fn append_unbuffered(&self, header: BlockHeader, frame: Vec<u8>, wait: bool) -> Result<()> {
        self.activity.note();
        let (done, outcome) = oneshot::channel();
        self.request(AppendRequest { header, frame, done: wait.then_some(done), buffered: false })?;
        if wait { outcome.blocking_recv().unwrap_or_else(|_| Err(self.closed())) } else { Ok(()) }
    }

    fn request(&self, request: AppendRequest) -> Result<()> {
        let requests = lock(&self.requests).clone().ok_or_else(|| self.closed())?;
        self.activity.in_flight.fetch_add(1, Ordering::SeqCst);
        self.handed_over.fetch_add(1, Ordering::SeqCst);
        requests.send(request).map_err(|_| self.closed())
    }

    fn closed(&self) -> Error {
        match &*lock(&self.failure) {
            Some(failure) => Error::new(ErrorKind::Stopped, format!("the receive log has failed: {failure}")),
            None => Error::new(ErrorKind::Stopped, "the receive log is closed"),
        }
    }

    /// Why nothing more is acknowledged, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    /// The first `most` durable blocks that no plan has yet, in the order of the log.
    pub(crate) fn take_pending(&self, most: usize) -> Vec<ReceivedBlock> {
        let mut pending = lock(&self.pending);
        let count = pending.len().min(most);
        self.planned.fetch_add(count as u64, Ordering::SeqCst);
        pending.drain(..count).collect()
    }

    /// Whether a durable block of the stream has no plan yet.
    pub(crate) fn has_pending(&self, stream: StreamId) -> bool {
        lock(&self.pending).iter().any(|block| block.stream == stream)
    }

    /// Blocks found in the log at a start. They count against no budget: their bytes are not in memory.
    pub(crate) fn restore_pending(&self, blocks: Vec<ReceivedBlock>) {
        self.handed_over.fetch_add(blocks.len() as u64, Ordering::SeqCst);
        lock(&self.pending).extend(blocks);
    }

    /// How many blocks were handed over so far.
    pub(crate) fn handed_over(&self) -> u64 {
        self.handed_over.load(Ordering::SeqCst)
    }

    /// From now on who waits is told whenever blocks have become durable.
    pub(crate) fn tell_progress(&self) {
        self.is_awaited.store(true, Ordering::SeqCst);
    }

    /// How far the first `blocks` that were handed over have come.
    pub(crate) fn drain(&self, blocks: u64) -> Drain {
        let pending = lock(&self.pending);
        if self.planned.load(Ordering::SeqCst) >= blocks {
            return Drain::Done;
        }
        if pending.is_empty() { Drain::InFlight } else { Drain::Pending }
    }

    /// Whether everything that was handed over is in a plan.
    pub(crate) fn is_drained(&self) -> bool {
        self.activity.in_flight.load(Ordering::SeqCst) == 0 && lock(&self.pending).is_empty()
    }

    /// Gives a batch's memory back.
    pub(crate) fn release(&self, bytes: usize) {
        self.budget.add_permits(bytes);
    }

    /// Lets whoever waits for the budget go on: when the job stops, no batch gives memory back any more, and what
    /// receivers hold is little.
    pub(crate) fn lift_budget(&self) {
        self.budget.add_permits(Semaphore::MAX_PERMITS / 4);
    }

    /// Takes nothing more; what was handed over is still made durable.
    pub(crate) fn close(&self) {
        *lock(&self.requests) = None;
        self.budget.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::block::BlockEncoding;

    #[test]
    fn who_waits_for_the_budget_goes_on_when_it_is_lifted() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let (requests, mut queue) = mpsc::unbounded_channel();
            let log = ReceiveLog::new(requests, 100);
            let header =
                BlockHeader { stream: StreamId(1), encoding: BlockEncoding::Lines, records: 0, schema: 0 };
            log.submit(header, vec![0; 60]).await.unwrap();
            let mut waiting = Box::pin(log.submit(header, vec![0; 60]));
            tokio::select! {
                biased;
                _ = &mut waiting => panic!("it is over the budget"),
                () = std::future::ready(()) => {}
            }
            log.lift_budget();
            waiting.await.unwrap();
            assert!(queue.try_recv().is_ok() && queue.try_recv().is_ok());
        });
    }
}
