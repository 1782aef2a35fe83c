use std::ops::Range;
use std::sync::Arc;

use crate::batch::Batch;
use crate::dstream::batch_rows::{BatchRows, RowsSlot};
use crate::dstream::keyed::{KeyVisit, KeyedOperator, KeyedSetup};
use crate::dstream::state_spec::in_ms;
use crate::dstream::touching::values_for;
use crate::dstream::{DStream, InitialState, StateSpec, StatefulNode, Visit};
use crate::error::Result;
use crate::rdd::shuffle::{Grouped, KeyedNode, decode_key, groups_of_partition};
use crate::rdd::{Parent, prepare_all};
use crate::record::{Data, DataBuffer, Key};
use crate::state::{GroupChanges, OperatorState, StateType};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// State per key, kept over the whole life of the store: `update` gets the key's new values, in the
    /// order of their records, and its state if it has one, and returns the new state; `None` removes the
    /// key and leaves nothing behind.
    ///
    /// The resulting stream has, in each batch, the visited keys that have a state, with it. By default
    /// only keys with new values are visited; with [`Visit::All`] every key is, as in Spark. After a window
    /// that slides over several batches, keys are visited once per slide.
    ///
    /// Lazy; one shuffle, none after [`reduce_by_key`](DStream::reduce_by_key), which also moves less. The
    /// state is checkpointed under the given name; a replay calls `update` again and gives the same
    /// states. When `update` panics on every attempt, nothing of the batch is applied and the job stops.
    /// With [`StateSpec::time_to_live`], keys that got no values for that long are forgotten.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit((word, 1u64))));
    /// let totals = words
    ///     .reduce_by_key(|a, b| a + b)
    ///     .update_state_by_key("totals", |new, total: Option<u64>| {
    ///         Some(total.unwrap_or(0) + new.iter().sum::<u64>())
    ///     });
    /// totals.print(10);
    /// # Ok(()) }
    /// ```
    pub fn update_state_by_key<S: Data>(
        &self,
        spec: impl Into<StateSpec>,
        update: impl Fn(&[V], Option<S>) -> Option<S> + Send + Sync + 'static,
    ) -> DStream<(K, S)> {
        let spec = spec.into();
        spec.allow_only(&self.graph, OPERATION, true, false);
        if let Some(time_to_live) = spec.time_to_live {
            let StateSpec { name, initial, upgrades, .. } = spec;
            let setup = KeyedSetup { operation: OPERATION, name, initial, upgrades, watermark: None };
            let operator = ExpiringUpdate { update, time_to_live_ms: in_ms(time_to_live) };
            return self.keyed_operator(setup, operator).output;
        }
        let state_type = StateType::of::<K, S>();
        if let Some(initial) = &spec.initial {
            initial.check(&self.graph, &spec.name, &state_type);
        }
        let id = self.graph.add_node::<(K, S)>(OPERATION, &spec.name, &[self.id], true);
        let origins = spec.upgrades.origins(&self.graph, &spec.name, &state_type, None);
        let node = Arc::new(UpdateNode {
            parent: self.clone(),
            partitions: self.graph.partitions(),
            state: OperatorState::with_origins(&spec.name, state_type, origins),
            visit: spec.visit,
            initial: spec.initial,
            update,
            rows: RowsSlot::default(),
        });
        self.graph.add_stateful(&spec.name, node.clone());
        let make = move |batch: &Batch| node.rows.rdd(batch, OPERATION, node.state.name());
        DStream::new(&self.graph, id, make).sliding(self.slide_ms)
    }
}

const OPERATION: &str = "update_state_by_key";

/// The same where keys are forgotten after a while.
struct ExpiringUpdate<F> {
    update: F,
    time_to_live_ms: u64,
}

impl<K: Key, V: Data, S: Data, F> KeyedOperator<K, V, S, (K, S)> for ExpiringUpdate<F>
where
    F: Fn(&[V], Option<S>) -> Option<S> + Send + Sync + 'static,
{
    fn visit(&self, visit: &mut KeyVisit<'_, K, S>, values: &[V], out: &mut Vec<(K, S)>) {
        visit.state = (self.update)(values, visit.state.take());
        out.extend(visit.state.clone().map(|state| (visit.key.clone(), state)));
    }

    fn has_timers(&self) -> bool {
        true
    }

    fn time_to_live_ms(&self) -> Option<u64> {
        Some(self.time_to_live_ms)
    }
}

struct UpdateNode<K, V, S, F> {
    parent: DStream<(K, V)>,
    partitions: usize,
    state: Arc<OperatorState>,
    visit: Visit,
    initial: Option<InitialState>,
    update: F,
    /// The visited keys of the batch in progress.
    rows: RowsSlot<(K, S)>,
}

impl<K: Key, V: Data, S: Data, F: Fn(&[V], Option<S>) -> Option<S> + Send + Sync> UpdateNode<K, V, S, F> {
    /// Decides what happens to one key group.
    fn group_changes(&self, input: &dyn KeyedNode<V>, group: usize) -> Result<GroupChanges> {
        let mut buffer = DataBuffer::default();
        let mut changes = GroupChanges::default();
        if self.visit == Visit::Touched {
            let mut state = self.state.group(group);
            let numbered =
                input.numbered(group, &mut |keys, numbers| state.touch_all(keys.iter(), numbers))?;
            for (number, values) in numbered.iter() {
                self.update_key(number, state.table().value(number), values, &mut changes, &mut buffer)?;
            }
            return Ok(changes);
        }
        let grouped = input.grouped(group)?;
        let mut state = self.state.group(group);
        state.load()?;
        for (hash, key) in grouped.keys.iter() {
            state.touch(hash, key)?;
        }
        let table = state.table();
        let mut visited: Vec<u32> = table.live();
        visited.extend(grouped.keys.iter().filter_map(|(hash, key)| {
            let number = table.find(hash, key)?;
            table.value(number).is_none().then_some(number as u32)
        }));
        visited.sort_unstable_by(|&a, &b| {
            let place = |at: u32| (table.hash(at as usize), table.key(at as usize));
            place(a).cmp(&place(b))
        });
        for number in visited {
            let number = number as usize;
            let values = values_of(&grouped, table.hash(number), table.key(number));
            self.update_key(number, table.value(number), values, &mut changes, &mut buffer)?;
        }
        Ok(changes)
    }

    #[inline]
    fn update_key(
        &self,
        number: usize,
        before: Option<&[u8]>,
        values: &[V],
        changes: &mut GroupChanges,
        buffer: &mut DataBuffer,
    ) -> Result<()> {
        let before = before.map(|bytes| S::decode(bytes, buffer)).transpose()?;
        match (self.update)(values, before) {
            None => changes.push(number, None),
            Some(after) => {
                after.encode(buffer)?;
                changes.push(number, Some(buffer.as_bytes()));
            }
        }
        Ok(())
    }
}

fn values_of<'a, V>(grouped: &'a Grouped<V>, hash: u64, key: &[u8]) -> &'a [V] {
    grouped.keys.find(hash, key).map_or(&[], |at| grouped.values(at))
}

impl<K: Key, V: Data, S: Data, F> StatefulNode for UpdateNode<K, V, S, F>
where
    F: Fn(&[V], Option<S>) -> Option<S> + Send + Sync,
{
    fn state(&self) -> &Arc<OperatorState> {
        &self.state
    }

    fn values_for(&self, batch: &Batch, key: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        values_for(&self.parent, batch, key).map(Some)
    }

    fn initialize(&self) -> Result<()> {
        let rows = self.initial.iter().flat_map(InitialState::rows);
        rows.into_iter().try_for_each(|(key, state)| self.state.put(key, Some(state)))
    }

    fn advance(&self, batch: &Batch) -> Result<()> {
        if !self.parent.is_due(batch) {
            return Ok(());
        }
        let input = self.parent.rdd(batch)?.keyed("update_state_by_key");
        let dependencies = input.dependencies().into_iter().map(Parent::Wide).collect();
        prepare_all(&batch.executor, dependencies)?;
        let stage = format!("update_state_by_key `{}`", self.state.name());
        let groups_of = |partition| groups_of_partition(partition, self.partitions);
        let changes = batch.executor.run_stage(&stage, self.partitions, |_, partition| {
            groups_of(partition).map(|group| self.group_changes(&*input, group)).collect::<Result<Vec<_>>>()
        })?;
        batch.executor.run_stage(&stage, self.partitions, |_, partition| {
            for (group, changes) in groups_of(partition).zip(&changes[partition]) {
                self.state.group(group).apply(changes);
            }
            Ok(())
        })?;
        let (state, partitions) = (self.state.clone(), self.partitions);
        let changes: Vec<GroupChanges> = changes.into_iter().flatten().collect();
        self.rows.begin(BatchRows::new(partitions, move |partition| {
            visited_rows(&state, &changes, groups_of_partition(partition, partitions))
        }));
        Ok(())
    }

    fn finish_batch(&self) -> Result<()> {
        self.rows.finish()
    }
}

/// The visited keys of some groups that have a state, with it.
fn visited_rows<K: Key, S: Data>(
    state: &OperatorState,
    changes: &[GroupChanges],
    groups: Range<usize>,
) -> Result<Vec<(K, S)>> {
    let mut rows = Vec::new();
    let mut buffer = DataBuffer::default();
    for group in groups {
        let state = state.group(group);
        for &at in changes[group].touched() {
            if let Some(value) = state.table().value(at as usize) {
                rows.push((decode_key(state.table().key(at as usize))?, S::decode(value, &mut buffer)?));
            }
        }
    }
    Ok(rows)
}
