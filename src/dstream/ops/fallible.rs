//! Operations whose closure may fail for a record.

use std::fmt::{self, Display};
use std::sync::Arc;

use crate::batch::Batch;
use crate::dstream::{DStream, StatefulNode};
use crate::error::Result;
use crate::rdd::{Attempt, Emitter, OnFailure, Outcome, Record};
use crate::record::{Data, DataBuffer, DeadLetter, Key};
use crate::state::{OperatorState, StateType};

/// A fallible operation that still has to be told what becomes of the records that fail.
///
/// A record fails when the closure returns an error for it or panics. Panics are caught record by record; the
/// panic hook of the process still runs, which by default prints a message to standard error. (In a program
/// built with `panic = "abort"` a panic ends the process.) The same records fail in the same order whenever a
/// batch is computed.
///
/// ```
/// # fn main() -> millpond::Result<()> {
/// # let context = millpond::StreamingContext::builder("doc").build()?;
/// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
/// let parsed = lines.try_map(|line| line.to_string().parse::<f64>());
/// let (numbers, dead) = parsed.or_dead_letters();
/// numbers.count().print(1);
/// dead.print(10);
/// # Ok(()) }
/// ```
#[must_use = "say what becomes of the records that fail: `or_fail`, `or_skip` or `or_dead_letters`"]
pub struct Fallible<T, U> {
    stream: DStream<T>,
    attempt: Attempt<T, U>,
}

impl<T, U> fmt::Debug for Fallible<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fallible({} of {:?})", self.attempt.operation, self.stream)
    }
}

impl<T: Record, U: Record> Fallible<T, U> {
    /// A record that fails fails the batch: its task is tried again, and when it fails on every attempt the
    /// job stops with an error that names batch, stage, partition, block and record. The store stays good: a
    /// start with a closure that takes the record computes the same batch.
    ///
    /// Lazy, narrow; nothing is kept. A replay calls the closure again.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.try_map(|line| line.to_string().parse::<f64>()).or_fail().print(10);
    /// # Ok(()) }
    /// ```
    pub fn or_fail(&self) -> DStream<U> {
        let attempt = self.attempt.clone();
        self.stream.derive(attempt.operation, move |rdd, _| Ok(rdd.attempt(attempt.clone()).or_fail()))
    }

    /// Records that fail are left out, and counted exactly once over the whole life of the store: the count
    /// is the state of an operator of this name, checkpointed and replayed like any other, and read as
    /// `job.state::<(), u64>(name)`. It has no value before the first failure.
    ///
    /// Lazy. Every batch runs the closure in a stage of its own, also when no output reads the stream, and
    /// the records that went through stay in memory until the batch is over: count and records come from
    /// one run. No shuffle. A replay calls the closure again and gives the same count.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use millpond::{ManualClock, StopMode, StreamingContext};
    /// # let context = StreamingContext::builder("doc").store(dir.path().join("store"))
    /// #     .clock(ManualClock::at(0)).build()?;
    /// let (words, queue) = context.queue_stream::<String>("words");
    /// words.try_map(|word| word.parse::<f64>()).or_skip("unreadable").print(10);
    /// let job = context.start()?;
    /// queue.push(["1.5", "x", "y"].map(str::to_owned))?;
    /// job.stop(StopMode::Graceful)?;
    /// assert_eq!(job.state::<(), u64>("unreadable")?.get(&())?, Some(2));
    /// # Ok(()) }
    /// ```
    pub fn or_skip(&self, name: &str) -> DStream<U> {
        let outcomes = self.outcomes(name, OnFailure::Skip);
        let state = OperatorState::new(name, StateType::of::<(), u64>());
        self.stream.graph.add_stateful(name, Arc::new(SkipCount { outcomes: outcomes.clone(), state }));
        outcomes.derive("or_skip", |outcomes, _| Ok(outcomes.good()))
    }

    fn outcomes(&self, name: &str, on_failure: OnFailure) -> DStream<Arc<Outcome<T, U>>> {
        let (parent, attempt) = (self.stream.clone(), self.attempt.clone());
        let graph = &self.stream.graph;
        let id = graph.add_node::<U>(attempt.operation, name, &[parent.id], false);
        DStream::new(graph, id, move |batch| {
            Ok(parent.rdd(batch)?.attempt(attempt.clone()).outcomes(on_failure))
        })
        .sliding(self.stream.slide_ms)
    }
}

impl<T: Data, U: Record> Fallible<T, U> {
    /// Records that fail go to the second stream, each as it was given to the closure, with the error and its
    /// origin, in the order of the records. The two streams together have every record.
    ///
    /// Lazy. Each batch runs the closure in a stage of its own and keeps what becomes of its records in
    /// memory until it is over, so that the closure runs once per record whichever of the streams are read,
    /// and however often. No shuffle. Every record is cloned once. A replay calls the closure again and gives
    /// the same dead letters.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let (numbers, dead) = lines.try_map(|line| line.to_string().parse::<f64>()).or_dead_letters();
    /// numbers.print(10);
    /// dead.save_as_text_files("dead-letters", "txt");
    /// # Ok(()) }
    /// ```
    pub fn or_dead_letters(&self) -> (DStream<U>, DStream<DeadLetter<T>>) {
        let outcomes = self.outcomes("", OnFailure::DeadLetter);
        let good = outcomes.derive("or_dead_letters", |outcomes, _| Ok(outcomes.good()));
        (good, outcomes.derive("dead_letters", |outcomes, _| Ok(outcomes.dead_letters())))
    }
}

/// Counts what was skipped, once per batch.
struct SkipCount<T, U> {
    outcomes: DStream<Arc<Outcome<T, U>>>,
    state: Arc<OperatorState>,
}

impl<T: Record, U: Record> StatefulNode for SkipCount<T, U> {
    fn state(&self) -> &Arc<OperatorState> {
        &self.state
    }

    fn advance(&self, batch: &Batch) -> Result<()> {
        let outcomes = self.outcomes.rdd(batch)?.collect()?;
        let skipped: u64 = outcomes.iter().map(|outcome| outcome.failed).sum();
        if skipped == 0 {
            return Ok(());
        }
        let (mut key, mut buffer) = (Vec::new(), DataBuffer::default());
        ().encode_key(&mut key);
        let before = self.state.get(&key)?.map(|count| u64::decode(&count, &mut buffer)).transpose()?;
        before.unwrap_or(0).saturating_add(skipped).encode(&mut buffer)?;
        self.state.put(&key, Some(buffer.as_bytes()))
    }

    fn finish_batch(&self) -> Result<()> {
        Ok(())
    }
}

impl<T: Record> DStream<T> {
    /// Each record turned into another by a closure that may fail; see
    /// [`Rdd::try_map`](crate::Rdd::try_map).
    pub fn try_map<U: Record, E: Display>(
        &self,
        each: impl Fn(T) -> Result<U, E> + Send + Sync + 'static,
    ) -> Fallible<T, U> {
        Fallible { stream: self.clone(), attempt: Attempt::map(each) }
    }

    /// Each record turned into any number of others by a closure that may fail, all of them or none; see
    /// [`Rdd::try_flat_map`](crate::Rdd::try_flat_map).
    pub fn try_flat_map<U: Record, E: Display>(
        &self,
        each: impl Fn(T, &mut Emitter<'_, U>) -> Result<(), E> + Send + Sync + 'static,
    ) -> Fallible<T, U> {
        Fallible { stream: self.clone(), attempt: Attempt::flat_map(each) }
    }

    /// The records for which `keep`, which may fail, returns true; see
    /// [`Rdd::try_filter`](crate::Rdd::try_filter).
    pub fn try_filter<E: Display>(
        &self,
        keep: impl Fn(&T) -> Result<bool, E> + Send + Sync + 'static,
    ) -> Fallible<T, T> {
        Fallible { stream: self.clone(), attempt: Attempt::filter(keep) }
    }
}

impl<K: Key, V: Data> DStream<(K, V)> {
    /// Each value turned into another by a closure that may fail, the key kept; see
    /// [`Rdd::try_map_values`](crate::Rdd::try_map_values).
    pub fn try_map_values<W: Data, E: Display>(
        &self,
        each: impl Fn(V) -> Result<W, E> + Send + Sync + 'static,
    ) -> Fallible<(K, V), (K, W)> {
        Fallible { stream: self.clone(), attempt: Attempt::map_values(each) }
    }
}
