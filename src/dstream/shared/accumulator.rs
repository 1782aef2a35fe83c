use std::any::Any;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::dstream::Graph;
use crate::dstream::shared::Tallied;
use crate::error::Result;
use crate::exec::tally;
use crate::record::{Data, DataBuffer};
use crate::state::{OperatorState, StateType};

/// Tells the accumulators of a process apart.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

/// A value that the closures of the job add to, exactly once for each batch; see
/// [`StreamingContext::accumulator`](crate::StreamingContext::accumulator).
///
/// A cheap handle: clone it into the closures that need it.
pub struct Accumulator<A> {
    inner: Arc<Inner<A>>,
}

struct Inner<A> {
    id: u64,
    name: String,
    merge: Box<dyn Fn(A, A) -> A + Send + Sync>,
    /// As of the last batch that is done.
    total: RwLock<A>,
    /// The total under the key `()`; nothing as long as nothing was added.
    state: Arc<OperatorState>,
    warned: AtomicBool,
}

impl<A> Clone for Accumulator<A> {
    fn clone(&self) -> Self {
        Accumulator { inner: self.inner.clone() }
    }
}

impl<A> fmt::Debug for Accumulator<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Accumulator({})", self.inner.name)
    }
}

impl<A: Data> Accumulator<A> {
    pub(crate) fn new(
        graph: &Graph,
        name: &str,
        initial: A,
        merge: impl Fn(A, A) -> A + Send + Sync + 'static,
    ) -> Self {
        let inner = Arc::new(Inner {
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            name: name.to_owned(),
            merge: Box::new(merge),
            total: RwLock::new(initial),
            state: OperatorState::new(name, StateType::of::<(), A>()),
            warned: AtomicBool::new(false),
        });
        graph.add_accumulator(inner.clone());
        Accumulator { inner }
    }

    /// Adds to the batch in progress. For closures of the job and for outputs: what is added on a thread that
    /// runs neither belongs to no batch, and is dropped with a warning in the log. What a sink adds itself while it
    /// writes or commits a batch does not count when a crash falls between its commit and the end of the batch:
    /// the sink is not called again for a batch that it has.
    pub fn add(&self, amount: A) {
        let inner = &*self.inner;
        let counted = tally::contribute(inner.id, |before| match before {
            None => amount,
            Some(before) => (inner.merge)(before, amount),
        });
        if !counted && !inner.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(accumulator = inner.name, "what is added outside of a batch is dropped");
        }
    }

    /// The value as of the last batch that is done; the initial one before anything was added.
    pub fn value(&self) -> A {
        self.inner.total.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<A: Data> Tallied for Inner<A> {
    fn id(&self) -> u64 {
        self.id
    }

    fn state(&self) -> &Arc<OperatorState> {
        &self.state
    }

    fn restored(&self) -> Result<()> {
        if let Some(stored) = self.state.get(&[])? {
            let total = A::decode(&stored, &mut DataBuffer::default())?;
            *self.total.write().unwrap_or_else(PoisonError::into_inner) = total;
        }
        Ok(())
    }

    fn merge(&self, contributions: Vec<Box<dyn Any + Send>>) -> Result<Option<Vec<u8>>> {
        let amounts = contributions.into_iter().filter_map(|amount| amount.downcast::<A>().ok());
        let Some(merged) = amounts.map(|amount| *amount).reduce(|a, b| (self.merge)(a, b)) else {
            return Ok(None);
        };
        let mut buffer = DataBuffer::default();
        merged.encode(&mut buffer)?;
        Ok(Some(buffer.as_bytes().to_vec()))
    }

    fn apply(&self, archive: &[u8]) -> Result<()> {
        let mut buffer = DataBuffer::default();
        let before = self.total.read().unwrap_or_else(PoisonError::into_inner).clone();
        let after = (self.merge)(before, A::decode(archive, &mut buffer)?);
        after.encode(&mut buffer)?;
        self.state.put(&[], Some(buffer.as_bytes()))?;
        *self.total.write().unwrap_or_else(PoisonError::into_inner) = after;
        Ok(())
    }
}
