use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use crate::batch::Batch;
use crate::dstream::shared::SharedVariable;
use crate::dstream::{DStream, Graph};
use crate::error::Result;
use crate::id::BatchTime;
use crate::record::{Data, DataBuffer};
use crate::source::Feed;
use crate::state::{OperatorState, StateType};

/// A value that every closure of the job reads and that can be replaced while the job runs; see
/// [`StreamingContext::broadcast`](crate::StreamingContext::broadcast).
///
/// A cheap handle: clone it into the closures that need it.
pub struct Broadcast<T> {
    name: Arc<str>,
    published: Arc<RwLock<Arc<T>>>,
    feed: Feed,
}

impl<T> Clone for Broadcast<T> {
    fn clone(&self) -> Self {
        Broadcast { name: self.name.clone(), published: self.published.clone(), feed: self.feed.clone() }
    }
}

impl<T> fmt::Debug for Broadcast<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Broadcast({})", self.name)
    }
}

impl<T: Data> Broadcast<T> {
    /// `updates` is the stream that `feed` fills.
    pub(crate) fn new(graph: &Graph, name: &str, initial: T, feed: Feed, updates: DStream<T>) -> Self {
        let published = Arc::new(RwLock::new(Arc::new(initial)));
        let state = OperatorState::new(name, StateType::of::<(), T>());
        let node = BroadcastNode { published: published.clone(), feed: feed.clone(), updates, state };
        graph.add_variable(Arc::new(node));
        Broadcast { name: name.into(), published, feed }
    }

    /// The value. In a closure of the job: that of the batch in progress, the same for all of it and again
    /// when the batch is replayed. Elsewhere: that of the newest batch, and before the job was started the
    /// initial one.
    pub fn value(&self) -> Arc<T> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value. When this returns the new one is durable; batches that are planned from then on
    /// have it. Of several updates before one batch the last counts. May be called from any thread, closures
    /// of the job included, but not from asynchronous code.
    ///
    /// An update from inside a closure or an output is no part of its batch: it is made again when the
    /// closure runs again.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) before the job was started and after it stopped,
    /// [`ErrorKind::Io`](crate::ErrorKind::Io) when the log has failed.
    ///
    /// # Panics
    /// When called from asynchronous code.
    pub fn update(&self, value: T) -> Result<()> {
        self.feed.store([value])
    }
}

struct BroadcastNode<T> {
    published: Arc<RwLock<Arc<T>>>,
    feed: Feed,
    updates: DStream<T>,
    /// The value under the key `()`.
    state: Arc<OperatorState>,
}

impl<T: Data> BroadcastNode<T> {
    fn published(&self) -> Arc<T> {
        self.published.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, value: T) {
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
    }

    fn keep(&self, value: &T) -> Result<()> {
        let mut buffer = DataBuffer::default();
        value.encode(&mut buffer)?;
        self.state.put(&[], Some(buffer.as_bytes()))
    }
}

impl<T: Data> SharedVariable for BroadcastNode<T> {
    fn states(&self) -> Vec<Arc<OperatorState>> {
        vec![self.state.clone()]
    }

    fn restored(&self) -> Result<()> {
        if let Some(stored) = self.state.get(&[])? {
            self.publish(T::decode(&stored, &mut DataBuffer::default())?);
        }
        Ok(())
    }

    /// Logs the initial value before the first batch: one that is replayed must see it whatever the code says then.
    fn before_start(&self, _: BatchTime) -> Result<()> {
        if self.state.get(&[])?.is_some() || self.feed.is_waiting() {
            return Ok(());
        }
        self.feed.store([T::clone(&self.published())])
    }

    fn advance(&self, batch: &Batch) -> Result<()> {
        match self.updates.rdd(batch)?.collect()?.pop() {
            Some(value) => {
                self.keep(&value)?;
                self.publish(value);
                Ok(())
            }
            // The first batch of all keeps the initial value: from here on the stored one counts.
            None if self.state.get(&[])?.is_none() => self.keep(&self.published()),
            None => Ok(()),
        }
    }
}
