//! A keyed operator as a node of the job.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::batch::Batch;
use crate::config::KEY_GROUPS;
use crate::dstream::keyed::snapshots::{Snapshots, snapshot};
use crate::dstream::keyed::timers::GroupTimers;
use crate::dstream::keyed::{BatchClock, KeyVisit, KeyedOperator, Timer, WatermarkCell, row};
use crate::dstream::touching::values_for;
use crate::dstream::{DStream, InitialState, StatefulNode, Upgrades};
use crate::error::{Error, ErrorKind, Result};
use crate::rdd::shuffle::{Grouped, KeyedNode as KeyedInput, decode_key, groups_of_partition};
use crate::rdd::{Parent, Rdd, Record, prepare_all};
use crate::record::{Data, DataBuffer, Key};
use crate::state::{GroupChanges, KeyGroup, OperatorState, Origins, StateType};

/// What a keyed operator makes, and what it keeps.
pub(crate) struct KeyedStream<K, S, O> {
    pub(crate) output: DStream<O>,
    pub(crate) snapshots: Arc<Snapshots<K, S>>,
}

/// What a keyed operator is called, and how it begins.
pub(crate) struct KeyedSetup {
    pub(crate) operation: &'static str,
    pub(crate) name: String,
    pub(crate) initial: Option<InitialState>,
    pub(crate) upgrades: Upgrades,
    pub(crate) watermark: Option<Arc<WatermarkCell>>,
}

/// The outcome of one partition: its groups' changes, and what goes out.
type Visited<O> = (Vec<GroupChanges>, Vec<O>);

/// Brings the pairs of a batch together by key; an operator is given what there is of each.
type ByKey<K, P, V> = dyn Fn(&Rdd<(K, P)>, &BatchClock) -> Arc<dyn KeyedInput<V>> + Send + Sync;

/// An operator over pairs with values of type `P`, which is given values of type `V`.
struct KeyedNode<K, P, V, S, O, L> {
    operation: &'static str,
    parent: DStream<(K, P)>,
    by_key: Box<ByKey<K, P, V>>,
    partitions: usize,
    state: Arc<OperatorState>,
    operator: Arc<L>,
    initial: Mutex<Option<InitialState>>,
    /// Whether the store had nothing of this operator.
    begins: Mutex<bool>,
    watermark: Option<Arc<WatermarkCell>>,
    timers: Vec<Mutex<GroupTimers>>,
    /// What the batch in progress put out, by partition.
    output: Mutex<Option<Vec<Arc<Vec<O>>>>>,
    snapshots: Arc<Snapshots<K, S>>,
    types: PhantomData<fn() -> S>,
}

impl<K: Key, P: Data> DStream<(K, P)> {
    /// Adds an operator that keeps state with timers and is given every value of a key.
    pub(crate) fn keyed_operator<S: Data, O: Record>(
        &self,
        setup: KeyedSetup,
        operator: impl KeyedOperator<K, P, S, O>,
    ) -> KeyedStream<K, S, O> {
        let operation = setup.operation;
        self.operator_by_key(setup, operator, move |pairs, _| pairs.keyed(operation))
    }

    /// The same with the values as `by_key` brings them together.
    pub(crate) fn operator_by_key<V: Data, S: Data, O: Record>(
        &self,
        setup: KeyedSetup,
        operator: impl KeyedOperator<K, V, S, O>,
        by_key: impl Fn(&Rdd<(K, P)>, &BatchClock) -> Arc<dyn KeyedInput<V>> + Send + Sync + 'static,
    ) -> KeyedStream<K, S, O> {
        let KeyedSetup { operation, name, initial, upgrades, watermark } = setup;
        let operator = Arc::new(operator);
        let id = self.graph.add_node::<O>(operation, &name, &[self.id], true);
        let values = StateType::of::<K, S>();
        let (state_type, origins) = match operator.kept() {
            Some(value) => {
                let origins = Origins { names: upgrades.names, upgrade: None };
                (StateType { value, ..values.clone() }, origins)
            }
            None => {
                let operator = operator.clone();
                let first_timers = move |time_ms| {
                    let clock = BatchClock { time_ms, watermark_before: 0, watermark: 0 };
                    first_timers::<K, V, S, O>(&*operator, &clock)
                };
                let origins = upgrades.origins(&self.graph, &name, &values, Some(Arc::new(first_timers)));
                (StateType::with_timers::<K, S>(), origins)
            }
        };
        if let Some(initial) = &initial {
            initial.check(&self.graph, &name, &values);
        }
        let state = OperatorState::with_origins(&name, state_type, origins);
        let partitions = self.graph.partitions();
        let snapshots = Arc::new(Snapshots::default());
        let node = Arc::new(KeyedNode {
            operation,
            parent: self.clone(),
            by_key: Box::new(by_key),
            partitions,
            state,
            operator,
            initial: Mutex::new(initial),
            begins: Mutex::new(false),
            watermark,
            timers: (0..KEY_GROUPS).map(|_| Mutex::default()).collect(),
            output: Mutex::new(None),
            snapshots: snapshots.clone(),
            types: PhantomData,
        });
        self.graph.add_stateful(&name, node.clone());
        let output = DStream::new(&self.graph, id, move |batch| node.rdd(batch)).sliding(self.slide_ms);
        KeyedStream { output, snapshots }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Key, P, V: Data, S: Data, O: Record, L: KeyedOperator<K, V, S, O>> KeyedNode<K, P, V, S, O, L> {
    fn rdd(&self, batch: &Batch) -> Result<Rdd<O>> {
        let output = lock(&self.output).clone().ok_or_else(|| {
            let message = format!("`{}` was read before its batch ran", self.state.name());
            Error::new(ErrorKind::InvalidGraph, message)
        })?;
        Ok(Rdd::of_collection(&batch.executor, output))
    }

    fn clock(&self, batch: &Batch) -> BatchClock {
        match &self.watermark {
            Some(watermark) => watermark.clock(batch.time),
            None => BatchClock { time_ms: batch.time.0, watermark_before: 0, watermark: 0 },
        }
    }

    /// Decides what happens to one key group.
    fn visit_group(
        &self,
        clock: &BatchClock,
        input: &dyn KeyedInput<V>,
        group: usize,
        out: &mut Vec<O>,
    ) -> Result<GroupChanges> {
        let grouped = input.grouped(group)?;
        let mut visitor = Visitor::new(&*self.operator, clock);
        let mut state = self.state.group(group);
        let mut numbers = Vec::with_capacity(grouped.keys.len());
        state.touch_all(grouped.keys.iter(), &mut numbers)?;
        for (at, number) in numbers.into_iter().enumerate() {
            visitor.visit(&state, number as usize, grouped.values(at), out)?;
        }
        if self.operator.has_timers() {
            let mut timers = lock(&self.timers[group]);
            timers.follow(&mut state, clock)?;
            for number in due_without_values(&timers, &state, clock, &grouped)? {
                visitor.visit(&state, number, &[], out)?;
            }
        }
        Ok(visitor.changes)
    }

    fn apply(&self, clock: &BatchClock, group: usize, changes: &GroupChanges) -> Result<()> {
        let mut state = self.state.group(group);
        state.apply(changes);
        if !self.operator.has_timers() {
            return Ok(());
        }
        lock(&self.timers[group]).advance(&state, clock, changes.touched().iter().copied())
    }

    /// Gives the rows that a new operator begins with the timers that count from its first batch.
    fn begin(&self, clock: &BatchClock) -> Result<()> {
        if !std::mem::take(&mut *lock(&self.begins)) {
            return Ok(());
        }
        let Some(initial) = lock(&self.initial).take() else { return Ok(()) };
        let timers = first_timers::<K, V, S, O>(&*self.operator, clock);
        self.put_initial(&initial, &timers)
    }

    fn put_initial(&self, initial: &InitialState, timers: &[Timer]) -> Result<()> {
        let (mut buffer, mut bytes) = (DataBuffer::default(), Vec::new());
        for (key, value) in initial.rows() {
            let state = S::decode(value, &mut buffer)?;
            let row = row::encode(timers, Some(&state), &mut buffer, &mut bytes)?;
            self.state.put(key, row)?;
        }
        Ok(())
    }
}

/// The timers of a key that the operator comes by without values.
fn first_timers<K: Key, V: Data, S: Data, O: Record>(
    operator: &impl KeyedOperator<K, V, S, O>,
    clock: &BatchClock,
) -> Vec<Timer> {
    let mut timers = operator.first_timers(clock);
    timers.extend(operator.time_to_live_ms().map(|time_to_live| clock.expiry(time_to_live)));
    timers
}

/// The keys that are due and have no values in this batch, by the time they are due, then by key.
fn due_without_values<V>(
    timers: &GroupTimers,
    state: &KeyGroup,
    clock: &BatchClock,
    grouped: &Grouped<V>,
) -> Result<Vec<usize>> {
    let table = state.table();
    let mut due = Vec::new();
    for number in timers.due(clock) {
        let (hash, key) = (table.hash(number as usize), table.key(number as usize));
        let Some(row) = table.value(number as usize) else { continue };
        let first =
            row::RowParts::of(row)?.timers().filter(|timer| clock.is_due(*timer)).min_by_key(|t| t.time_ms);
        if let Some(first) = first
            && grouped.keys.find(hash, key).is_none()
        {
            due.push((first.time_ms, hash, key, number as usize));
        }
    }
    due.sort_unstable();
    due.dedup();
    Ok(due.into_iter().map(|(.., number)| number).collect())
}

/// Visits the keys of one group.
struct Visitor<'a, L> {
    operator: &'a L,
    clock: &'a BatchClock,
    changes: GroupChanges,
    buffer: DataBuffer,
    row: Vec<u8>,
}

impl<'a, L> Visitor<'a, L> {
    fn new(operator: &'a L, clock: &'a BatchClock) -> Self {
        let (buffer, row) = (DataBuffer::default(), Vec::new());
        Visitor { operator, clock, changes: GroupChanges::default(), buffer, row }
    }

    fn visit<K: Key, V, S: Data, O>(
        &mut self,
        state: &KeyGroup,
        number: usize,
        values: &[V],
        out: &mut Vec<O>,
    ) -> Result<()>
    where
        L: KeyedOperator<K, V, S, O>,
    {
        let before = state.table().value(number);
        let key: K = decode_key(state.table().key(number))?;
        let mut visit = KeyVisit::of(&key, *self.clock, before, &mut self.buffer)?;
        let is_over =
            before.is_some() && visit.state.is_none() && visit.due.is_empty() && visit.timers.is_empty();
        if !(is_over && values.is_empty()) {
            self.operator.visit(&mut visit, values, out);
        }
        if let Some(time_to_live) = self.operator.time_to_live_ms() {
            visit.live_on(time_to_live, !values.is_empty());
        }
        let after = row::encode(&visit.timers, visit.state.as_ref(), &mut self.buffer, &mut self.row)?;
        if after != before {
            self.changes.push(number, after);
        }
        Ok(())
    }
}

impl<K: Key, P: Data, V: Data, S: Data, O: Record, L: KeyedOperator<K, V, S, O>> StatefulNode
    for KeyedNode<K, P, V, S, O, L>
{
    fn state(&self) -> &Arc<OperatorState> {
        &self.state
    }

    fn values_for(&self, batch: &Batch, key: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        values_for(&self.parent, batch, key).map(Some)
    }

    fn advance(&self, batch: &Batch) -> Result<()> {
        let clock = self.clock(batch);
        // In the first batch of all, due or not: a checkpoint that follows it must hold what there is.
        self.begin(&clock)?;
        if !self.parent.is_due(batch) {
            return Ok(());
        }
        let input = (self.by_key)(&self.parent.rdd(batch)?, &clock);
        prepare_all(&batch.executor, input.dependencies().into_iter().map(Parent::Wide).collect())?;
        let stage = format!("{} `{}`", self.operation, self.state.name());
        let groups_of = |partition| groups_of_partition(partition, self.partitions);
        let visited: Vec<Visited<O>> =
            batch.executor.run_stage(&stage, self.partitions, |_, partition| {
                let mut out = Vec::new();
                let changes =
                    groups_of(partition).map(|group| self.visit_group(&clock, &*input, group, &mut out));
                Ok((changes.collect::<Result<_>>()?, out))
            })?;
        batch.executor.run_stage(&stage, self.partitions, |_, partition| {
            let (changes, _) = &visited[partition];
            groups_of(partition)
                .zip(changes)
                .try_for_each(|(group, changes)| self.apply(&clock, group, changes))
        })?;
        *lock(&self.output) = Some(visited.into_iter().map(|(_, out)| Arc::new(out)).collect());
        self.snapshots.begin(snapshot(&self.state, self.partitions));
        Ok(())
    }

    fn finish_batch(&self) -> Result<()> {
        *lock(&self.output) = None;
        self.snapshots.finish()
    }

    /// A checkpoint before the first batch must not take the rows for those of an operator without any.
    fn initialize(&self) -> Result<()> {
        *lock(&self.begins) = true;
        lock(&self.initial).iter().try_for_each(|initial| self.put_initial(initial, &[]))
    }
}
