//! Event time: streams whose records say when they happened, and what can be done with that.
//!
//! A **watermark** says how far event time has come: no record with an earlier time is expected any more. It is
//! moved once per batch, before the operators that go by it, and it is kept in the store, so that it never goes
//! back. In each batch the watermark of the batches before decides what is late, so that records of one batch
//! never make each other late, and the watermark with the batch counted in decides what is complete.
//!
//! One operation, one file. Those that keep something per key run on the engine of [`keyed`](super::keyed).

mod arrivals;
mod deduplicate;
mod folds;
mod interval_join;
mod panes;
mod sessions;
mod stateless;
mod transform_with_state;
mod union;
mod watermarks;
mod window;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub use deduplicate::Deduplicated;
pub use interval_join::IntervalJoined;
pub use watermarks::Watermarks;
pub use window::{EventWindows, Windowed, WindowedEvents};

use crate::batch::Batch;
use crate::dstream::keyed::{BatchClock, KeyedOperator, KeyedSetup, Timer, TimerDomain, WatermarkCell};
use crate::dstream::state_spec::in_ms;
use crate::dstream::{DStream, OperatorName};
use crate::error::Result;
use crate::rdd::shuffle::Aggregator;
use crate::rdd::{Rdd, Record};
use crate::record::{Data, DataBuffer, Key, Nested};
use crate::state::OperatorState;

/// A stream of records that say when they happened, in milliseconds since the Unix epoch, with a watermark that
/// says how far that time has come.
///
/// Made by [`DStream::with_event_time`]. A cheap handle on a description, as a [`DStream`] is. The operations
/// that turn records into others keep the times.
///
/// ```
/// # fn main() -> millpond::Result<()> {
/// use std::time::Duration;
/// use millpond::{EventWindows, Watermarks};
///
/// # let context = millpond::StreamingContext::builder("doc").build()?;
/// # let (clicks, _queue) = context.queue_stream::<(String, u64)>("clicks");
/// // Clicks come with their time, at most ten seconds out of order.
/// let per_minute = clicks
///     .with_event_time(Watermarks::bounded("clicks", Duration::from_secs(10)), |(_, time_ms)| *time_ms)
///     .window("per-minute", EventWindows::tumbling(Duration::from_secs(60)))
///     .count();
/// per_minute.results().print(10);
/// per_minute.late().count().print(1);
/// # Ok(()) }
/// ```
#[must_use = "an EventStream does nothing until an output operation uses it"]
pub struct EventStream<T> {
    timed: DStream<(u64, T)>,
    clock: Arc<EventClock>,
}

impl<T> Clone for EventStream<T> {
    fn clone(&self) -> Self {
        EventStream { timed: self.timed.clone(), clock: self.clock.clone() }
    }
}

impl<T> std::fmt::Debug for EventStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EventStream({:?})", self.timed)
    }
}

/// The watermark that streams share, and whether anything moves it at present.
#[derive(Debug, Default)]
struct EventClock {
    watermark: Arc<WatermarkCell>,
    is_idle: AtomicBool,
}

impl EventClock {
    fn set(&self, before: u64, now: u64, is_idle: bool) {
        self.watermark.set(before, now);
        self.is_idle.store(is_idle, Ordering::SeqCst);
    }

    fn is_idle(&self) -> bool {
        self.is_idle.load(Ordering::SeqCst)
    }

    /// The watermark with the batch counted in.
    fn watermark(&self, batch: &Batch) -> u64 {
        self.watermark.clock(batch.time).watermark
    }
}

impl<T: Record> EventStream<T> {
    /// The records without their times.
    pub fn records(&self) -> DStream<T> {
        self.timed.map(|(_, record)| record)
    }

    /// The records, each with its time.
    pub fn with_times(&self) -> DStream<(u64, T)> {
        self.timed.clone()
    }

    /// One record per batch: the watermark with the batch counted in. 0 before the first record. It never goes
    /// down, also not over restarts.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # use std::time::Duration;
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let (clicks, _queue) = context.queue_stream::<u64>("clicks");
    /// # let watermarks = millpond::Watermarks::bounded("clicks", Duration::from_secs(10));
    /// let clicks = clicks.with_event_time(watermarks, |time_ms| *time_ms);
    /// clicks.watermarks().print(1);
    /// # Ok(()) }
    /// ```
    pub fn watermarks(&self) -> DStream<u64> {
        let graph = &self.timed.graph;
        let id = graph.add_node::<u64>("watermarks", "", &[self.timed.id], false);
        let clock = self.clock.clone();
        let make = move |batch: &Batch| {
            Ok(Rdd::of_collection(&batch.executor, vec![Arc::new(vec![clock.watermark(batch)])]))
        };
        DStream::new(graph, id, make).sliding(self.timed.slide_ms)
    }

    /// A stream of other records with the same watermark.
    fn with_timed<U: Record>(&self, timed: DStream<(u64, U)>) -> EventStream<U> {
        EventStream { timed, clock: self.clock.clone() }
    }
}

impl<K: Key, V: Data> EventStream<(K, V)> {
    /// The values with their times as what a keyed operator takes.
    fn by_key(&self) -> DStream<(K, (u64, Nested<V>))> {
        self.timed.map(|(time_ms, (key, value))| (key, (time_ms, Nested(value))))
    }

    fn keyed_operator<S: Data, O: Record>(
        &self,
        operation: &'static str,
        name: impl Into<OperatorName>,
        operator: impl KeyedOperator<K, (u64, Nested<V>), S, O>,
    ) -> DStream<O> {
        self.by_key().keyed_operator(self.setup(operation, name), operator).output
    }

    /// The operator is given one value of a key: what `aggregator` makes of the batch's, before they travel.
    fn combining_operator<A: Aggregator<(u64, Nested<V>)>, S: Data, O: Record>(
        &self,
        operation: &'static str,
        name: impl Into<OperatorName>,
        operator: impl KeyedOperator<K, A::Combined, S, O>,
        aggregator: impl Fn(&BatchClock) -> A + Send + Sync + 'static,
    ) -> DStream<O> {
        let by_key = move |pairs: &Rdd<_>, clock: &BatchClock| pairs.combined(operation, aggregator(clock));
        self.by_key().operator_by_key(self.setup(operation, name), operator, by_key).output
    }

    fn setup(&self, operation: &'static str, name: impl Into<OperatorName>) -> KeyedSetup {
        let name = name.into();
        KeyedSetup {
            operation,
            name: name.as_str().to_owned(),
            initial: None,
            upgrades: name.upgrades(),
            watermark: Some(self.clock.watermark.clone()),
        }
    }
}

/// A timer of event time.
fn event_timer(time_ms: u64) -> Timer {
    Timer { domain: TimerDomain::Event, time_ms }
}

/// Whether a record was late when its batch began.
fn is_late(time_ms: u64, clock: &BatchClock) -> bool {
    time_ms < clock.watermark_before
}

/// The only row of an operator that keeps one.
fn read_row<S: Data>(state: &OperatorState) -> Result<Option<S>> {
    let row = state.get(&[])?;
    row.map(|row| S::decode(&row, &mut DataBuffer::default())).transpose()
}

fn write_row<S: Data>(state: &OperatorState, row: &S) -> Result<()> {
    let mut buffer = DataBuffer::default();
    row.encode(&mut buffer)?;
    state.put(&[], Some(buffer.as_bytes()))
}
