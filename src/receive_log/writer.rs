//! The thread that writes the log.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use tokio::sync::mpsc;

use crate::error::{Error, ErrorKind, Result};
use crate::receive_log::{AppendRequest, ReceiveLog, ReceivedBlock, lock};
use crate::store::extents::ExtentWriter;
use crate::store::retry::FullDisk;
use crate::time::WakeUp;

/// What is committed with one sync.
const GROUP_BYTES_MAX: usize = 4 << 20;

/// Starts the writer. `progress` is notified when the log has failed, and whenever blocks have become durable once
/// [`tell_progress`](ReceiveLog::tell_progress) was called.
pub(crate) fn start(
    extents: ExtentWriter,
    buffer_bytes: usize,
    full_disk: FullDisk,
    progress: Arc<WakeUp>,
) -> Result<(Arc<ReceiveLog>, JoinHandle<()>)> {
    let (requests, queue) = mpsc::unbounded_channel();
    let log = ReceiveLog::new(requests, buffer_bytes);
    let writer = Writer { log: log.clone(), extents, full_disk, progress };
    let thread = std::thread::Builder::new().name("millpond-log".to_owned());
    let thread = thread.spawn(move || writer.run(queue));
    Ok((log, thread.map_err(|cause| Error::io("start a thread", cause))?))
}

struct Writer {
    log: Arc<ReceiveLog>,
    extents: ExtentWriter,
    full_disk: FullDisk,
    progress: Arc<WakeUp>,
}

impl Writer {
    fn run(mut self, mut queue: mpsc::UnboundedReceiver<AppendRequest>) {
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = first.frame.len();
            let mut group = vec![first];
            while bytes < GROUP_BYTES_MAX
                && let Ok(next) = queue.try_recv()
            {
                bytes += next.frame.len();
                group.push(next);
            }
            let outcome = match self.log.failure() {
                None => self.commit(&mut group),
                Some(failure) => Err(Error::new(ErrorKind::Stopped, failure)),
            };
            let failed = outcome.is_err();
            self.acknowledge(group, outcome);
            if failed || self.log.is_awaited.load(Ordering::SeqCst) {
                self.progress.notify();
            }
        }
    }

    /// Makes a group durable. A full disk is waited out; after any other failure nothing is appended any
    /// more: what a failed sync left on disk is unknown, and only a restart finds out.
    fn commit(&mut self, group: &mut [AppendRequest]) -> Result<Vec<ReceivedBlock>> {
        let extents = &mut self.extents;
        let places = self.full_disk.wait_out("append to the receive log", || {
            let appended = append_group(extents, group);
            if appended.is_err() {
                extents.abandon();
            }
            appended
        });
        let places = places.inspect_err(|error| {
            tracing::error!(error = %error.chain(), "the receive log has failed: nothing more is acknowledged");
            *lock(&self.log.failure) = Some(error.chain());
        })?;
        let blocks = group.iter_mut().zip(places).map(|(request, place)| ReceivedBlock {
            place,
            stream: request.header.stream,
            frame: request.buffered.then(|| Arc::new(std::mem::take(&mut request.frame))),
        });
        Ok(blocks.collect())
    }

    fn acknowledge(&self, group: Vec<AppendRequest>, outcome: Result<Vec<ReceivedBlock>>) {
        let count = group.len() as u64;
        let failure = outcome.as_ref().err().map(|error| (error.kind(), error.chain()));
        if let Ok(blocks) = outcome {
            lock(&self.log.pending).extend(blocks);
        }
        self.log.activity.in_flight.fetch_sub(count, Ordering::SeqCst);
        for done in group.into_iter().filter_map(|request| request.done) {
            let outcome = failure.clone().map_or(Ok(()), |(kind, text)| Err(Error::new(kind, text)));
            // A receiver that no longer waits has been stopped.
            let _ = done.send(outcome);
        }
    }
}

fn append_group(
    extents: &mut ExtentWriter,
    group: &mut [AppendRequest],
) -> Result<Vec<crate::format::records::BlockRef>> {
    let places: Result<Vec<_>> =
        group.iter_mut().map(|request| extents.append(&mut request.frame, request.header)).collect();
    let places = places?;
    extents.sync()?;
    Ok(places)
}
