use std::ops::Deref;
use std::sync::Arc;

use crate::batch::Batch;
use crate::dstream::keyed::{BatchClock, KeyVisit, KeyedOperator, KeyedSetup, Snapshots, Timer, TimerDomain};
use crate::dstream::state_spec::in_ms;
use crate::dstream::{DStream, StateSpec};
use crate::id::BatchTime;
use crate::rdd::Record;
use crate::record::{Data, Key};

/// The state of a key, as [`map_with_state`](DStream::map_with_state) hands it to its function.
#[derive(Debug)]
pub struct State<'a, S> {
    state: &'a mut Option<S>,
    time: BatchTime,
    is_timing_out: bool,
}

impl<S> State<'_, S> {
    /// Whether the key has a state.
    pub fn exists(&self) -> bool {
        self.state.is_some()
    }

    /// The state, if the key has one.
    pub fn get(&self) -> Option<&S> {
        self.state.as_ref()
    }

    /// Gives the key a state in place of what it has.
    ///
    /// # Panics
    /// While the key is timing out: it is removed after the call. The panic fails the batch.
    pub fn update(&mut self, state: S) {
        assert!(!self.is_timing_out, "the state of a key that is timing out cannot be updated");
        *self.state = Some(state);
    }

    /// Removes the key. It leaves nothing behind.
    pub fn remove(&mut self) {
        *self.state = None;
    }

    /// Whether the key is about to be removed because it had no values for the time set with
    /// [`StateSpec::timeout`]. The function is then called once without a value.
    pub fn is_timing_out(&self) -> bool {
        self.is_timing_out
    }

    /// The time of the batch.
    pub fn batch_time(&self) -> BatchTime {
        self.time
    }
}

/// What [`map_with_state`](DStream::map_with_state) makes: the mapped records as a stream, and snapshots of
/// the state as another.
pub struct MapWithState<K, S, U> {
    mapped: DStream<U>,
    name: String,
    snapshots: Arc<Snapshots<K, S>>,
}

impl<K, S, U> std::fmt::Debug for MapWithState<K, S, U> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MapWithState({:?})", self.mapped)
    }
}

impl<K, S, U> Deref for MapWithState<K, S, U> {
    type Target = DStream<U>;

    fn deref(&self) -> &DStream<U> {
        &self.mapped
    }
}

impl<K: Key, S: Data, U: Record> MapWithState<K, S, U> {
    /// Every key with its state in every batch, in an order that depends on the keys alone. Costs as much as
    /// the state is large, in batches in which it is read.
    pub fn state_snapshots(&self) -> DStream<(K, S)> {
        let graph = &self.mapped.graph;
        let id = graph.add_node::<(K, S)>("state_snapshots", "", &[self.mapped.id], false);
        let (snapshots, name) = (self.snapshots.clone(), self.name.clone());
        let make = move |batch: &Batch| snapshots.rdd(batch, "state_snapshots", &name);
        DStream::new(graph, id, make).sliding(self.mapped.slide_ms)
    }
}

impl<K: Key, V: Data> DStream<(K, V)> {
    /// Maps each value with the state of its key, which the function reads, updates or removes. The function
    /// is called per record, in the order of the records of a key: with the key, the value, and its
    /// [`State`]; what it returns, if anything, is a record of the resulting stream.
    ///
    /// With [`StateSpec::timeout`], a key without values for that long is removed: exactly in the first batch
    /// whose time is the time of the last batch with values plus the timeout, or later; the function is
    /// called once more, without a value and with [`is_timing_out`](State::is_timing_out). A key that has
    /// values in that batch does not time out. A batch costs what it touches and what times out.
    ///
    /// Lazy; one shuffle, none where pairs are partitioned by key already. The state is checkpointed under
    /// the given name; a replay calls the function again and gives the same states. When the function panics
    /// on every attempt, nothing of the batch is applied and the job stops.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// use std::time::Duration;
    /// use millpond::StateSpec;
    ///
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let visits = lines.map(|user| (user, 1u64)).map_with_state(
    ///     StateSpec::named("visits").timeout(Duration::from_secs(1800)),
    ///     |user, visit, visits| match visit {
    ///         Some(visit) => {
    ///             visits.update(visits.get().unwrap_or(&0) + visit);
    ///             None
    ///         }
    ///         None => Some(format!("{user:?} left after {:?} visits", visits.get())),
    ///     },
    /// );
    /// visits.print(10);
    /// visits.state_snapshots().count().print(1);
    /// # Ok(()) }
    /// ```
    pub fn map_with_state<S: Data, U: Record>(
        &self,
        spec: impl Into<StateSpec>,
        each: impl Fn(&K, Option<V>, &mut State<'_, S>) -> Option<U> + Send + Sync + 'static,
    ) -> MapWithState<K, S, U> {
        let spec = spec.into();
        spec.allow_only(&self.graph, "map_with_state", false, true);
        let operator = MapOperator {
            each,
            timeout_ms: spec.timeout.map(in_ms),
            time_to_live_ms: spec.time_to_live.map(in_ms),
        };
        let setup = KeyedSetup {
            operation: "map_with_state",
            name: spec.name.clone(),
            initial: spec.initial,
            upgrades: spec.upgrades,
            watermark: None,
        };
        let keyed = self.keyed_operator(setup, operator);
        MapWithState { mapped: keyed.output, name: spec.name, snapshots: keyed.snapshots }
    }
}

struct MapOperator<F> {
    each: F,
    timeout_ms: Option<u64>,
    time_to_live_ms: Option<u64>,
}

impl<F> MapOperator<F> {
    fn timeout_at(&self, clock: &BatchClock) -> Option<Timer> {
        let time_ms = clock.time_ms.saturating_add(self.timeout_ms?);
        Some(Timer { domain: TimerDomain::Processing, time_ms })
    }
}

impl<K: Key, V: Data, S: Data, U: Record, F> KeyedOperator<K, V, S, U> for MapOperator<F>
where
    F: Fn(&K, Option<V>, &mut State<'_, S>) -> Option<U> + Send + Sync + 'static,
{
    fn visit(&self, visit: &mut KeyVisit<'_, K, S>, values: &[V], out: &mut Vec<U>) {
        let time = BatchTime(visit.clock.time_ms);
        if values.is_empty() {
            let mut state = State { state: &mut visit.state, time, is_timing_out: true };
            out.extend((self.each)(visit.key, None, &mut state));
            visit.state = None;
            return;
        }
        for value in values {
            let mut state = State { state: &mut visit.state, time, is_timing_out: false };
            out.extend((self.each)(visit.key, Some(value.clone()), &mut state));
        }
        visit.clear_timers(TimerDomain::Processing);
        if let Some(timer) = self.timeout_at(&visit.clock)
            && visit.state.is_some()
        {
            visit.set_timer(timer);
        }
    }

    fn has_timers(&self) -> bool {
        self.timeout_ms.is_some() || self.time_to_live_ms.is_some()
    }

    fn time_to_live_ms(&self) -> Option<u64> {
        self.time_to_live_ms
    }

    fn first_timers(&self, clock: &BatchClock) -> Vec<Timer> {
        self.timeout_at(clock).into_iter().collect()
    }
}
