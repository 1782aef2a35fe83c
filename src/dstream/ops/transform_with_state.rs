use std::sync::Arc;

use crate::dstream::keyed::{self, KeyVisit, KeyedOperator, KeyedSetup, TimerDomain, WatermarkCell};
use crate::dstream::state_spec::in_ms;
use crate::dstream::{DStream, StateSpec};
use crate::id::BatchTime;
use crate::rdd::Record;
use crate::record::{Data, Key};

/// A time at which a key asks to be visited: milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// Due once the watermark of the stream has reached this event time.
    EventTime(u64),
    /// Due in the first batch of this time or later.
    ProcessingTime(u64),
}

impl Timer {
    fn to_stored(self) -> keyed::Timer {
        match self {
            Timer::EventTime(time_ms) => keyed::Timer { domain: TimerDomain::Event, time_ms },
            Timer::ProcessingTime(time_ms) => keyed::Timer { domain: TimerDomain::Processing, time_ms },
        }
    }

    fn of_stored(timer: keyed::Timer) -> Option<Self> {
        match timer.domain {
            TimerDomain::Event => Some(Timer::EventTime(timer.time_ms)),
            TimerDomain::Processing => Some(Timer::ProcessingTime(timer.time_ms)),
            TimerDomain::Expiry => None,
        }
    }
}

/// A key while [`transform_with_state`](DStream::transform_with_state) visits it.
pub struct KeyContext<'a, 'b, K, S, U> {
    visit: &'a mut KeyVisit<'b, K, S>,
    due: Vec<Timer>,
    has_event_time: bool,
    out: &'a mut Vec<U>,
}

impl<K, S, U> std::fmt::Debug for KeyContext<'_, '_, K, S, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyContext({:?}, due {:?})", self.visit.clock, self.due)
    }
}

impl<K: Key, S: Data, U> KeyContext<'_, '_, K, S, U> {
    /// The key.
    pub fn key(&self) -> &K {
        self.visit.key
    }

    /// Its state, if it has one.
    pub fn state(&self) -> Option<&S> {
        self.visit.state.as_ref()
    }

    /// Gives the key a state in place of what it has.
    pub fn update(&mut self, state: S) {
        self.visit.state = Some(state);
    }

    /// Takes the state out. Unless another is put in with [`update`](Self::update), the key is left without;
    /// one without state and timers leaves nothing behind.
    pub fn take(&mut self) -> Option<S> {
        self.visit.state.take()
    }

    /// The timers that are due in this batch, in the order of their kind and time. They are gone after the
    /// visit unless they are set again.
    pub fn due(&self) -> &[Timer] {
        &self.due
    }

    /// Asks for a visit at a time. One that has come already is due in the next batch. A timer that is set
    /// twice is one.
    ///
    /// # Panics
    /// For an event time on a stream without event time, whose watermark would never come. The panic fails
    /// the batch.
    pub fn set_timer(&mut self, timer: Timer) {
        let is_event_time = matches!(timer, Timer::EventTime(_));
        assert!(
            self.has_event_time || !is_event_time,
            "a timer in event time needs a stream with event time: see DStream::with_event_time"
        );
        self.visit.set_timer(timer.to_stored());
    }

    /// Takes a timer back; one that is not set is no error.
    pub fn delete_timer(&mut self, timer: Timer) {
        self.visit.delete_timer(timer.to_stored());
    }

    /// The time of the batch.
    pub fn batch_time(&self) -> BatchTime {
        BatchTime(self.visit.clock.time_ms)
    }

    /// The watermark, in milliseconds since the Unix epoch: no record with an earlier event time is expected
    /// any more. 0 on a stream without event time.
    pub fn watermark(&self) -> u64 {
        self.visit.clock.watermark
    }

    /// Whether a record of this event time was late when the batch began: it is before the watermark of the
    /// batches before. Never on a stream without event time.
    pub fn is_late(&self, event_time_ms: u64) -> bool {
        event_time_ms < self.visit.clock.watermark_before
    }

    /// Adds a record to the resulting stream.
    pub fn emit(&mut self, record: U) {
        self.out.push(record);
    }
}

impl<K: Key, V: Data> DStream<(K, V)> {
    /// State per key with timers: `each` is called, once per batch, for every key that has new values or a
    /// timer that is due, with its values in the order of their records, and with a [`KeyContext`] to read
    /// and change the key's state and timers and to emit records. After Spark's transformWithState and Flink's
    /// KeyedProcessFunction.
    ///
    /// Keys with values come first, in order of their first value, then those that are only due, by time and
    /// key. A batch costs what it visits. A timer comes once, also after a restart: in the first batch in
    /// which it is due.
    ///
    /// Lazy; one shuffle, none where pairs are partitioned by key already. State and timers are checkpointed
    /// under the given name; a replay calls `each` again and gives the same. When it panics on every attempt,
    /// nothing of the batch is applied and the job stops.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// use millpond::Timer;
    ///
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// // A reminder one minute after the first order of a customer, unless a second one came.
    /// let reminders = lines.map(|customer| (customer, 1u32)).transform_with_state(
    ///     "orders",
    ///     |key, orders: &[u32]| {
    ///         let before = key.take().unwrap_or(0);
    ///         let now = before + orders.len() as u32;
    ///         if before == 0 && now == 1 {
    ///             key.set_timer(Timer::ProcessingTime(key.batch_time().0 + 60_000));
    ///         }
    ///         if !key.due().is_empty() && now == 1 {
    ///             key.emit(key.key().clone());
    ///         }
    ///         key.update(now);
    ///     },
    /// );
    /// reminders.print(10);
    /// # Ok(()) }
    /// ```
    pub fn transform_with_state<S: Data, U: Record>(
        &self,
        spec: impl Into<StateSpec>,
        each: impl Fn(&mut KeyContext<'_, '_, K, S, U>, &[V]) + Send + Sync + 'static,
    ) -> DStream<U> {
        self.transform_with_state_at(spec.into(), None, each)
    }

    /// The same by a watermark.
    pub(crate) fn transform_with_state_at<S: Data, U: Record>(
        &self,
        spec: StateSpec,
        watermark: Option<Arc<WatermarkCell>>,
        each: impl Fn(&mut KeyContext<'_, '_, K, S, U>, &[V]) + Send + Sync + 'static,
    ) -> DStream<U> {
        spec.allow_only(&self.graph, "transform_with_state", false, false);
        let operator = TransformOperator {
            each,
            has_event_time: watermark.is_some(),
            time_to_live_ms: spec.time_to_live.map(in_ms),
        };
        let setup = KeyedSetup {
            operation: "transform_with_state",
            name: spec.name,
            initial: spec.initial,
            upgrades: spec.upgrades,
            watermark,
        };
        self.keyed_operator(setup, operator).output
    }
}

struct TransformOperator<F> {
    each: F,
    has_event_time: bool,
    time_to_live_ms: Option<u64>,
}

impl<K: Key, V: Data, S: Data, U: Record, F> KeyedOperator<K, V, S, U> for TransformOperator<F>
where
    F: Fn(&mut KeyContext<'_, '_, K, S, U>, &[V]) + Send + Sync + 'static,
{
    fn visit(&self, visit: &mut KeyVisit<'_, K, S>, values: &[V], out: &mut Vec<U>) {
        let due = visit.due.iter().filter_map(|timer| Timer::of_stored(*timer)).collect();
        let mut context = KeyContext { visit, due, has_event_time: self.has_event_time, out };
        (self.each)(&mut context, values);
    }

    fn has_timers(&self) -> bool {
        true
    }

    fn time_to_live_ms(&self) -> Option<u64> {
        self.time_to_live_ms
    }
}
