//! Reading an operator's state from outside of a batch.

use std::marker::PhantomData;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, TryLockError};

use crate::dstream::keyed::RowParts;
use crate::error::{Error, ErrorKind, Result};
use crate::rdd::shuffle::decode_key;
use crate::record::{Data, DataBuffer, Key};
use crate::state::{OperatorState, StateType};

/// The state of a stateful operator, as the last completed batch left it.
///
/// Each call sees one batch boundary: the next batch waits with its changes until the call has returned.
/// It can be read while the job runs and after it stopped. A job that failed, or was stopped at once, may have ended
/// within a batch: then a part of that batch's changes shows, which the store does not have.
#[derive(Debug)]
pub struct StateView<K, S> {
    state: Arc<OperatorState>,
    /// Whether the states are kept with timers.
    has_timers: bool,
    boundary: Boundary,
    types: PhantomData<fn() -> (K, S)>,
}

/// The boundary between two batches, for who reads state.
#[derive(Clone)]
pub(crate) struct Boundary {
    /// Held for writing while a batch changes state.
    pub(crate) gate: Arc<RwLock<()>>,
    /// Whether a closure of the job calls.
    pub(crate) is_called_by_the_job: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Boundary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Boundary")
    }
}

impl Boundary {
    /// Holds the next batch off until the result is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::UserCode`] in a closure that runs while its batch changes state: it would wait for itself.
    pub(crate) fn enter(&self) -> Result<RwLockReadGuard<'_, ()>> {
        if !(self.is_called_by_the_job)() {
            return Ok(self.gate.read().unwrap_or_else(PoisonError::into_inner));
        }
        match self.gate.try_read() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Error::new(
                ErrorKind::UserCode,
                "state is read by a closure that runs while it changes: read it in an output, or outside of the job",
            )),
        }
    }
}

/// The state in what is stored of a key, with timers or without.
fn decode<S: Data>(bytes: &[u8], has_timers: bool, buffer: &mut DataBuffer) -> Result<Option<S>> {
    if has_timers { RowParts::of(bytes)?.state(buffer) } else { S::decode(bytes, buffer).map(Some) }
}

/// The same, for who decodes one.
pub(crate) fn stored_value<S: Data>(bytes: &[u8], has_timers: bool) -> Result<Option<S>> {
    decode(bytes, has_timers, &mut DataBuffer::default())
}

impl<K: Key, S: Data> StateView<K, S> {
    pub(crate) fn new(state: Arc<OperatorState>, boundary: Boundary) -> Result<Self> {
        let (kept, asked) = (state.state_type(), StateType::of::<K, S>());
        let has_timers = *kept == StateType::with_timers::<K, S>();
        if *kept != asked && !has_timers {
            let message = format!(
                "the state of `{}` is {} -> {}, not {} -> {}",
                state.name(),
                kept.key,
                kept.value,
                asked.key,
                asked.value
            );
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
        Ok(StateView { state, has_timers, boundary, types: PhantomData })
    }

    fn decode(&self, bytes: &[u8], buffer: &mut DataBuffer) -> Result<Option<S>> {
        decode(bytes, self.has_timers, buffer)
    }

    /// How many keys there are, those that have timers only included.
    ///
    /// # Panics
    /// In a closure of the job that runs while its batch changes state, as one of a `map` before a stateful
    /// operator does. [`get`](Self::get) is an error there. In outputs it is allowed.
    pub fn len(&self) -> u64 {
        match self.boundary.enter() {
            Ok(_boundary) => self.state.live_keys(),
            Err(error) => panic!("{error}"),
        }
    }

    /// Whether there are no keys.
    ///
    /// # Panics
    /// As [`len`](Self::len).
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The state of one key.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Io`] when it has to be read from a segment and cannot be,
    /// [`ErrorKind::UserCode`] in a closure of the job that runs while its batch changes state.
    pub fn get(&self, key: &K) -> Result<Option<S>> {
        let _boundary = self.boundary.enter()?;
        let mut bytes = Vec::new();
        key.encode_key(&mut bytes);
        let Some(value) = self.state.get(&bytes)? else { return Ok(None) };
        self.decode(&value, &mut DataBuffer::default())
    }

    /// Calls `each` with every key and its state, in an order that depends on the keys alone. Brings all
    /// of the state into memory. `each` must not read state itself: it would wait for itself.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Io`] when a segment cannot be read, [`ErrorKind::UserCode`] in a
    /// closure of the job that runs while its batch changes state.
    pub fn for_each(&self, mut each: impl FnMut(K, S)) -> Result<()> {
        let _boundary = self.boundary.enter()?;
        let mut buffer = DataBuffer::default();
        self.state.for_each(|key, value| {
            if let Some(state) = self.decode(value, &mut buffer)? {
                each(decode_key(key)?, state);
            }
            Ok(())
        })
    }
}
