use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::Result;
use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::{Grouped, KeyedNode, decode_key};
use crate::rdd::{NodeInfo, Rdd, Record, WideDependency};
use crate::record::{Data, Key, KeyHash};

/// What an operation on two sides makes of one key.
pub(super) trait JoinKind<V, W>: 'static {
    type Out: Record;

    /// Whether keys that are on one side only count; they are passed over otherwise.
    const LEFT_ALONE: bool;
    const RIGHT_ALONE: bool;

    /// Emits what becomes of a key.
    fn each(left: &[V], right: &[W], emit: impl FnMut(Self::Out));
}

/// The values, or `None` once where there are none.
pub(super) fn or_none<V: Clone>(values: &[V]) -> impl Iterator<Item = Option<V>> + Clone {
    values.iter().cloned().map(Some).chain(values.is_empty().then_some(None))
}

/// Each on the left with each on the right.
pub(super) fn cross<A: Clone, B>(
    left: impl Iterator<Item = A>,
    right: impl Iterator<Item = B> + Clone,
    mut emit: impl FnMut((A, B)),
) {
    for value in left {
        right.clone().for_each(|with| emit((value.clone(), with)));
    }
}

/// Two keyed nodes brought together.
pub(super) struct Joined<J, V, W> {
    left: Arc<dyn KeyedNode<V>>,
    right: Arc<dyn KeyedNode<W>>,
    kind: PhantomData<fn(J)>,
}

impl<J: JoinKind<V, W>, V: Record, W: Record> Joined<J, V, W> {
    pub(super) fn new(left: Arc<dyn KeyedNode<V>>, right: Arc<dyn KeyedNode<W>>) -> Arc<Self> {
        Arc::new(Joined { left, right, kind: PhantomData })
    }

    /// Visits the keys of a group that count with their values left and right: those on the left in order of
    /// first appearance, then those that are on the right only.
    fn for_each_key(
        &self,
        group: usize,
        mut visit: impl FnMut(KeyHash, &[u8], &[V], &[W]) -> Result<()>,
    ) -> Result<()> {
        let (left, right) = (self.left.grouped(group)?, self.right.grouped(group)?);
        for (at, (hash, key)) in left.keys.iter().enumerate() {
            match right.keys.find(hash, key) {
                Some(with) => visit(hash, key, left.values(at), right.values(with))?,
                None if J::LEFT_ALONE => visit(hash, key, left.values(at), &[])?,
                None => {}
            }
        }
        if !J::RIGHT_ALONE {
            return Ok(());
        }
        for (at, (hash, key)) in right.keys.iter().enumerate() {
            if left.keys.find(hash, key).is_none() {
                visit(hash, key, &[], right.values(at))?;
            }
        }
        Ok(())
    }
}

impl<J: JoinKind<V, W>, V: Record, W: Record> KeyedNode<J::Out> for Joined<J, V, W> {
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        [self.left.dependencies(), self.right.dependencies()].concat()
    }

    fn grouped(&self, group: usize) -> Result<Grouped<J::Out>> {
        let mut grouped = Grouped::empty();
        self.for_each_key(group, |hash, key, left, right| {
            grouped.push(hash, key, |values| J::each(left, right, |value| values.push(value)))
        })?;
        Ok(grouped)
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// The pairs that an operation makes of this RDD and another, key by key. They stay partitioned by key.
    pub(super) fn joined<J: JoinKind<V, W>, W: Data>(
        &self,
        operation: &'static str,
        partitions: usize,
        other: &Rdd<(K, W)>,
    ) -> Rdd<(K, J::Out)> {
        let joined = Joined::<J, V, W>::new(self.keyed(operation), other.keyed(operation));
        let info = NodeInfo::new(&self.executor, operation, partitions);
        let streamed = joined.clone();
        // Not through `grouped`: the pairs of a hot key need not be in memory together.
        let node = GroupsNode::new(info, joined.dependencies(), move |group, out| {
            streamed.for_each_key(group, |_, key, left, right| {
                let key: K = decode_key(key)?;
                J::each(left, right, |value| out.emit((key.clone(), value)));
                out.check()
            })
        });
        Rdd::new(&self.executor, node.partitioned_as(joined))
    }
}
