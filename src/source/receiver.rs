//! Received sources: the open [`Receiver`] trait, and the supervisor that restarts one that fails.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::error::Result;
use crate::format::block::{BlockEncoding, BlockHeader};
use crate::id::StreamId;
use crate::receive_log::ReceiveLog;
use crate::record::{Data, DataBuffer, append_record};
use crate::source::admission::Admission;
use crate::time::WakeUp;

/// The first wait before a failed receiver is started again; it doubles with each failure.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);

/// The longest wait.
const BACK_OFF_MAX: Duration = Duration::from_secs(10);

/// What a receiver may fail with.
pub type ReceiverError = Box<dyn std::error::Error + Send + Sync>;

/// Takes records from somewhere that cannot be asked again, on the job's tokio runtime.
///
/// # Contract
/// [`receive`](Receiver::receive) runs until the source ends (`Ok`), fails (`Err`: it is called again after a
/// wait of 100 ms, doubling up to 10 s) or the job stops (the future is dropped at an await). What was
/// [`store`](BlockStore::store)d counts; acknowledge to the sender only after `store` has returned, and the
/// sender's records are received at least once, exactly once if it never repeats what was acknowledged.
///
/// ```
/// use millpond::{BlockStore, Receiver, ReceiverError};
///
/// struct Countdown(u64);
///
/// impl Receiver for Countdown {
///     type Item = u64;
///
///     async fn receive(&mut self, blocks: BlockStore<u64>) -> Result<(), ReceiverError> {
///         while self.0 > 0 {
///             blocks.store(vec![self.0]).await?;
///             self.0 -= 1; // only now may the sender be told
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Receiver: Send + 'static {
    /// The records.
    type Item: Data;

    /// Receives until the source ends, fails, or the future is dropped.
    fn receive(
        &mut self,
        blocks: BlockStore<Self::Item>,
    ) -> impl Future<Output = Result<(), ReceiverError>> + Send;
}

/// What became of a receiver.
#[derive(Debug)]
pub(crate) enum ReceiverChange {
    Started,
    /// It failed, and is started again after this.
    Failed {
        error: String,
        restart_after: Duration,
    },
    /// It will not be started again: it has ended (no error), or the job has.
    Stopped {
        error: Option<String>,
    },
}

/// Where receivers report what became of them.
#[derive(Clone, Debug)]
pub(crate) struct ReceiverChanges {
    pub(crate) sender: std::sync::mpsc::Sender<(Arc<str>, ReceiverChange)>,
    /// Notified after every report.
    pub(crate) wake: Arc<WakeUp>,
}

impl ReceiverChanges {
    fn report(&self, stream: &Arc<str>, change: ReceiverChange) {
        if self.sender.send((stream.clone(), change)).is_err() {
            tracing::debug!(stream = &**stream, "the job has ended before its receiver");
        }
        self.wake.notify();
    }
}

/// Where one received stream enters the job.
#[derive(Clone, Debug)]
pub(crate) struct Inlet {
    pub(crate) name: Arc<str>,
    pub(crate) stream: StreamId,
    /// The hash of the schema of its records.
    pub(crate) schema: u64,
    pub(crate) log: Arc<ReceiveLog>,
    pub(crate) stop: watch::Receiver<bool>,
    pub(crate) block_bytes: usize,
    pub(crate) block_interval: Duration,
    /// Blocks stored: a receiver that got anything stored starts its back-off anew.
    pub(crate) stored: Arc<AtomicU64>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) changes: ReceiverChanges,
}

impl Inlet {
    pub(crate) fn header(&self, encoding: BlockEncoding, records: usize) -> BlockHeader {
        let schema = if encoding == BlockEncoding::Lines { 0 } else { self.schema };
        BlockHeader { stream: self.stream, encoding, records: records as u32, schema }
    }

    pub(crate) fn note_stored(&self) {
        self.stored.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until the stream's rate lets `records` in.
    pub(super) async fn admit(&self, records: usize) {
        let mut stop = self.stop.clone();
        // Who waits to be let in is not idle.
        self.admission.admit(records, &mut stop, || self.log.activity().note()).await;
    }
}

/// Hands a receiver's records to the job.
#[derive(Clone, Debug)]
pub struct BlockStore<T> {
    inlet: Inlet,
    /// Memory that the next call encodes with, and the bytes of the last block: the next one will have about as many.
    encoder: Arc<Mutex<(DataBuffer, usize)>>,
    records: PhantomData<fn(T)>,
}

impl<T: Data> BlockStore<T> {
    pub(crate) fn new(inlet: Inlet) -> Self {
        BlockStore { inlet, encoder: Arc::default(), records: PhantomData }
    }

    /// Stores records as one or more blocks of about 1 MiB and returns when they are durable. Waits while
    /// the job is behind and its buffer is full, or the stream's rate is reached.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) when the job stops;
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the log has failed: nothing more is stored, and what was not
    /// acknowledged is not counted on.
    pub async fn store(&self, records: Vec<T>) -> Result<()> {
        let encoder = || self.encoder.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut buffer, mut expected) = std::mem::take(&mut *encoder());
        let buffers = self.inlet.log.buffers();
        let mut frame = buffers.take(expected);
        let mut count = 0;
        let records_max = self.inlet.admission.block_records_max();
        for record in records {
            let end = frame.len();
            append_record(&record, &mut frame, &mut buffer)?;
            if count > 0 && (count >= records_max || frame.len() > self.inlet.block_bytes) {
                let next = split_block(&mut frame, end, buffers.take(end));
                expected = end;
                self.append(std::mem::replace(&mut frame, next), count).await?;
                count = 0;
            }
            count += 1;
        }
        *encoder() = (buffer, if count > 0 { frame.len() } else { expected });
        if count == 0 { Ok(()) } else { self.append(frame, count).await }
    }

    async fn append(&self, frame: Vec<u8>, records: usize) -> Result<()> {
        self.inlet.admit(records).await;
        self.inlet.log.append(self.inlet.header(BlockEncoding::Records, records), frame).await?;
        self.inlet.note_stored();
        Ok(())
    }
}

/// Moves what a block has from `end` on to a new one, whose buffer is `next`.
pub(super) fn split_block(frame: &mut Vec<u8>, end: usize, mut next: Vec<u8>) -> Vec<u8> {
    next.extend_from_slice(&frame[end..]);
    frame.truncate(end);
    next
}

/// Waits until the job stops.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error means that the job is gone, which is as good.
    let _ = stop.wait_for(|stopped| *stopped).await;
}

/// One attempt of a receiver, whatever its kind.
pub(crate) type ReceiverTask =
    Box<dyn FnMut(Inlet) -> Pin<Box<dyn Future<Output = Result<(), ReceiverError>> + Send>> + Send>;

/// A task of its own, so that a panic of user code is a failure like any other. It ends with its handle.
struct Attempt(tokio::task::JoinHandle<Result<(), ReceiverError>>);

impl Attempt {
    async fn outcome(&mut self) -> Result<(), ReceiverError> {
        (&mut self.0).await.unwrap_or_else(|error| Err(error.into()))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Says that the receiver has stopped, however its task ends.
struct Stopping<'a> {
    inlet: &'a Inlet,
    error: Option<String>,
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.inlet.changes.report(&self.inlet.name, ReceiverChange::Stopped { error: self.error.take() });
    }
}

/// Runs a receiver until it ends or the job stops, starting it again when it fails. One that ends by itself
/// when told to is given the chance.
pub(crate) async fn run_receiver(mut task: ReceiverTask, inlet: Inlet, ends_by_itself: bool) {
    let mut stopping = Stopping { inlet: &inlet, error: None };
    let mut stop = inlet.stop.clone();
    let mut wait = BACK_OFF_MIN;
    loop {
        let before = inlet.stored.load(Ordering::Relaxed);
        inlet.changes.report(&inlet.name, ReceiverChange::Started);
        let mut attempt = Attempt(tokio::spawn(task(inlet.clone())));
        let outcome = if ends_by_itself {
            attempt.outcome().await
        } else {
            tokio::select! {
                outcome = attempt.outcome() => outcome,
                () = stopped(&mut stop) => return,
            }
        };
        let Err(error) = outcome else {
            tracing::info!(stream = &*inlet.name, "the receiver has ended");
            return;
        };
        if *stop.borrow() || inlet.log.failure().is_some() {
            stopping.error = Some(error.to_string());
            return;
        }
        if inlet.stored.load(Ordering::Relaxed) > before {
            wait = BACK_OFF_MIN;
        }
        tracing::debug!(
            stream = &*inlet.name,
            %error,
            wait_ms = wait.as_millis() as u64,
            "the receiver failed and is started again"
        );
        let failed = ReceiverChange::Failed { error: error.to_string(), restart_after: wait };
        inlet.changes.report(&inlet.name, failed);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stopped(&mut stop) => return,
        }
        wait = (wait * 2).min(BACK_OFF_MAX);
    }
}
