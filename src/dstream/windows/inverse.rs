use std::sync::Arc;
use std::time::Duration;

use super::Span;
use super::chunks::Codec;
use super::store::{Turnover, Use, WindowStore};
use crate::batch::Batch;
use crate::dstream::batch_rows::{BatchRows, RowsSlot, live_rows};
use crate::dstream::{DStream, OperatorName, StatefulNode};
use crate::error::{Error, Result};
use crate::rdd::shuffle::{Grouped, KeyedNode, groups_of_partition};
use crate::rdd::{Parent, prepare_all};
use crate::record::{Data, DataBuffer, Key, KeyHash, Nested};
use crate::state::{GroupChanges, OperatorState, StateType};

const OPERATION: &str = "reduce_by_key_and_window_with_inverse";

/// The state of a key: in how many batches of the window it is, and all its values merged.
type Aggregate<V> = (u64, Nested<V>);

impl<K: Key, V: Data> DStream<(K, V)> {
    /// The same as [`reduce_by_key_and_window`](DStream::reduce_by_key_and_window) at a cost that does not
    /// grow with the window: what enters is merged to what the window before had, what leaves is taken out
    /// with `inverse`, and only the keys of these batches are touched.
    ///
    /// `merge` must be associative, and `inverse(merge(a, b), a)` must be `b`, exactly: batches leave in the
    /// order in which they came. Floating-point numbers do not keep to that; their sums drift from those of
    /// the plain form for as long as a key is in the window.
    ///
    /// The stream has all keys of the window, ordered by key group and then by (hash, key). A key counts as
    /// long as a batch of the window has it, and then leaves nothing behind: unlike in Spark there are no
    /// keys whose values came to zero because all left, and no function is needed to filter them. Pairs of a
    /// value that you do not want, such as a zero of values that cancel out, are removed with
    /// [`filter`](DStream::filter), which loses nothing when they change again.
    ///
    /// Lazy; a shuffle per batch, and one of what entered and left per window; reading the stream costs as
    /// much as there are keys. State under `name`: one value per key; under `NAME, batches`: the reduced
    /// pairs of a window's batches, until they left. A replay calls `merge` and `inverse` again.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// # use std::time::Duration;
    /// let (length, slide) = (Duration::from_secs(3600), Duration::from_secs(1));
    /// let bytes = lines
    ///     .map(|line| (line.slice(0, 1), line.len() as u64))
    ///     .reduce_by_key_and_window_with_inverse("bytes", length, slide, |a, b| a + b, |all, old| all - old);
    /// # Ok(()) }
    /// ```
    pub fn reduce_by_key_and_window_with_inverse(
        &self,
        name: impl Into<OperatorName>,
        length: Duration,
        slide: Duration,
        merge: impl Fn(V, V) -> V + Send + Sync + 'static,
        inverse: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> DStream<(K, V)> {
        let name = name.into();
        let merge = Arc::new(merge);
        let each_batch = merge.clone();
        let reduced = self.reduce_by_key(move |a, b| each_batch(a, b));
        let span = reduced.span(OPERATION, name.as_str(), length, slide);
        let id = self.graph.add_node::<(K, V)>(OPERATION, name.as_str(), &[reduced.id], true);
        let batches_name = name.part(", batches");
        let batches = WindowStore::new(&batches_name, &reduced, span, Use::Changes, Codec::of_pairs());
        let node = Arc::new(InverseNode {
            batches: batches.clone(),
            span,
            partitions: self.graph.partitions(),
            state: name.state(StateType::of::<K, Aggregate<V>>()),
            merge,
            inverse,
            rows: RowsSlot::default(),
        });
        self.graph.add_stateful(batches_name.as_str(), batches);
        self.graph.add_stateful(name.as_str(), node.clone());
        let make = move |batch: &Batch| node.rows.rdd(batch, OPERATION, node.state.name());
        DStream::new(&self.graph, id, make).sliding(span.slide_ms)
    }
}

struct InverseNode<K, V, F, I> {
    batches: Arc<WindowStore<(K, V)>>,
    span: Span,
    partitions: usize,
    state: Arc<OperatorState>,
    merge: Arc<F>,
    inverse: I,
    rows: RowsSlot<(K, V)>,
}

impl<K, V, F, I> InverseNode<K, V, F, I>
where
    K: Key,
    V: Data,
    F: Fn(V, V) -> V + Send + Sync,
    I: Fn(V, V) -> V + Send + Sync,
{
    /// Brings the aggregates to the end of a window.
    fn turn_over(&self, batch: &Batch, turnover: &Turnover<(K, V)>) -> Result<Vec<Vec<GroupChanges>>> {
        let (entered, left) = (turnover.entered.keyed(OPERATION), turnover.left.keyed(OPERATION));
        let dependencies = entered.dependencies().into_iter().chain(left.dependencies());
        prepare_all(&batch.executor, dependencies.map(Parent::Wide).collect())?;
        let stage = format!("{OPERATION} `{}`", self.state.name());
        batch.executor.run_stage(&stage, self.partitions, |_, partition| {
            let groups = groups_of_partition(partition, self.partitions);
            groups.map(|group| self.group_changes(&*entered, &*left, group)).collect()
        })
    }

    /// Decides what happens to one key group.
    fn group_changes(
        &self,
        entered: &dyn KeyedNode<V>,
        left: &dyn KeyedNode<V>,
        group: usize,
    ) -> Result<GroupChanges> {
        let (entered, left) = (entered.grouped(group)?, left.grouped(group)?);
        let mut changes = GroupChanges::default();
        let mut buffer = DataBuffer::default();
        let mut state = self.state.group(group);
        let leaving = left.keys.iter();
        let only_entering = entered.keys.iter().filter(|(hash, key)| left.keys.find(*hash, key).is_none());
        let visited = leaving.chain(only_entering);
        let mut numbers = Vec::with_capacity(left.keys.len().max(entered.keys.len()));
        state.touch_all(visited.clone(), &mut numbers)?;
        for ((hash, key), number) in visited.zip(numbers) {
            let number = number as usize;
            let before = state.table().value(number);
            let before = before.map(|bytes| Aggregate::decode(bytes, &mut buffer)).transpose()?;
            match self.aggregate(before, values_of(&left, hash, key), values_of(&entered, hash, key))? {
                None => changes.push(number, None),
                Some(after) => {
                    after.encode(&mut buffer)?;
                    changes.push(number, Some(buffer.as_bytes()));
                }
            }
        }
        Ok(changes)
    }

    /// A key's aggregate after some of its values, one for each batch, left and others entered.
    fn aggregate(
        &self,
        before: Option<Aggregate<V>>,
        left: &[V],
        entered: &[V],
    ) -> Result<Option<Aggregate<V>>> {
        let merged = |values: &[V]| values.iter().cloned().reduce(&*self.merge);
        let (batches, mut value) =
            before.map_or((0, None), |(batches, Nested(value))| (batches, Some(value)));
        let Some(staying) = batches.checked_sub(left.len() as u64) else {
            let message = format!(
                "the aggregates of `{}` do not fit the batches they were made from: {} leave, {batches} are in",
                self.state.name(),
                left.len()
            );
            return Err(Error::corrupt(message));
        };
        if staying == 0 {
            // Nothing is left of it, whatever the inverse says.
            value = None;
        } else if let Some(left) = merged(left) {
            value = value.map(|value| (self.inverse)(value, left));
        }
        let value = value.into_iter().chain(merged(entered)).reduce(&*self.merge);
        Ok(value.map(|value| (staying + entered.len() as u64, Nested(value))))
    }
}

fn values_of<'a, V>(grouped: &'a Grouped<V>, hash: KeyHash, key: &[u8]) -> &'a [V] {
    grouped.keys.find(hash, key).map_or(&[], |at| grouped.values(at))
}

impl<K, V, F, I> StatefulNode for InverseNode<K, V, F, I>
where
    K: Key,
    V: Data,
    F: Fn(V, V) -> V + Send + Sync,
    I: Fn(V, V) -> V + Send + Sync,
{
    fn state(&self) -> &Arc<OperatorState> {
        &self.state
    }

    fn advance(&self, batch: &Batch) -> Result<()> {
        if !self.span.is_end(batch.time.0) {
            return Ok(());
        }
        let turnover = self.batches.turnover(batch)?;
        let changes = self.turn_over(batch, &turnover)?;
        let stage = format!("{OPERATION} `{}`", self.state.name());
        batch.executor.run_stage(&stage, self.partitions, |_, partition| {
            let groups = groups_of_partition(partition, self.partitions);
            groups
                .zip(&changes[partition])
                .for_each(|(group, changes)| self.state.group(group).apply(changes));
            Ok(())
        })?;
        self.batches.counted(batch, &turnover)?;
        let (state, partitions) = (self.state.clone(), self.partitions);
        self.rows.begin(BatchRows::new(partitions, move |partition| {
            live_rows(&state, groups_of_partition(partition, partitions), |value, buffer| {
                let (_, Nested(value)) = Aggregate::<V>::decode(value, buffer)?;
                Ok(Some(value))
            })
        }));
        Ok(())
    }

    fn finish_batch(&self) -> Result<()> {
        self.rows.finish()
    }
}
