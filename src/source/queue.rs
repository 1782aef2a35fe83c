//! A queue that a test fills by hand.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::record::Data;
use crate::source::receiver::{BlockStore, Inlet};

/// The other end of a queue stream: what is pushed becomes part of the next batch.
///
/// Unlike Spark's, its records are logged like any received block, so that a job with a queue can be stopped
/// and started.
#[derive(Clone, Debug)]
pub struct Queue<T> {
    store: Arc<Mutex<Option<Connected<T>>>>,
}

/// Set once the job is started.
type Connected<T> = (tokio::runtime::Handle, BlockStore<T>);

impl<T: Data> Queue<T> {
    pub(crate) fn new() -> Self {
        Queue { store: Arc::default() }
    }

    pub(crate) fn connect(&self, runtime: tokio::runtime::Handle, inlet: Inlet) {
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some((runtime, BlockStore::new(inlet)));
    }

    /// Stores records and returns when they are durable: the next batch has them. While the buffer of received
    /// blocks is full it waits for batches; from an output, which they wait for, it then waits until the job is
    /// stopped at once. What is pushed while a job drains before it stops is for its next start. Not to be
    /// called from asynchronous code.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] before the job was started and after it stopped, [`ErrorKind::Io`] when the
    /// log has failed.
    pub fn push(&self, records: impl IntoIterator<Item = T>) -> Result<()> {
        let store = self.store.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some((runtime, store)) = store else {
            return Err(Error::new(ErrorKind::Stopped, "the job of this queue is not started"));
        };
        runtime.block_on(store.store(records.into_iter().collect()))
    }
}
