use std::any::Any;
use std::marker::PhantomData;
use std::sync::Arc;

use crate::error::Result;
use crate::exec::tally::{self, Scope};
use crate::exec::{Executor, TaskContext};
use crate::rdd::shuffle::{GroupedByKey, Keep, KeyedNode, Shuffle, decode_key, groups_of_partition};
use crate::rdd::{
    Chunks, Emitter, Lineage, NodeInfo, Parent, Predicate, Rdd, RddNode, Record, WideDependency,
};
use crate::record::{Data, Key};

/// Makes the records of one key group.
pub(super) type EachGroup<T> = dyn Fn(usize, &mut Emitter<'_, T>) -> Result<()> + Send + Sync;

/// The reduce side of shuffles: a partition is the key groups it owns, one after the other.
pub(crate) struct GroupsNode<T> {
    info: NodeInfo,
    dependencies: Vec<Arc<dyn WideDependency>>,
    each_group: Arc<EachGroup<T>>,
    /// Where the records are pairs that stay partitioned by key.
    by_key: Option<Box<dyn ByKey<T>>>,
}

/// What is known of records that are pairs partitioned by key.
pub(super) trait ByKey<T>: Send + Sync {
    /// An `Arc<dyn KeyedNode<V>>`.
    fn keyed(&self) -> Box<dyn Any>;

    /// Those that `keep` holds for, of the records that `each_group` makes.
    fn filtered(
        &self,
        info: NodeInfo,
        each_group: &Arc<EachGroup<T>>,
        keep: &Arc<Predicate<T>>,
    ) -> GroupsNode<T>;
}

pub(super) struct PairsByKey<K, V> {
    pub(super) keyed: Arc<dyn KeyedNode<V>>,
    key: PhantomData<fn() -> K>,
}

impl<T: Record> GroupsNode<T> {
    pub(crate) fn new(
        info: NodeInfo,
        dependencies: Vec<Arc<dyn WideDependency>>,
        each_group: impl Fn(usize, &mut Emitter<'_, T>) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        GroupsNode { info, dependencies, each_group: Arc::new(each_group), by_key: None }
    }
}

impl<K: Key, V: Record> GroupsNode<(K, V)> {
    /// Every (key, value) pair of a keyed node.
    pub(crate) fn of_pairs(info: NodeInfo, keyed: Arc<dyn KeyedNode<V>>) -> Self {
        let pairs = keyed.clone();
        let node = GroupsNode::new(info, keyed.dependencies(), move |group, out| {
            let (keys, counts, values) = pairs.grouped(group)?.into_parts();
            let mut values = values.into_iter();
            for (at, count) in counts.enumerate() {
                let key: K = decode_key(keys.key(at))?;
                values.by_ref().take(count).for_each(|value| out.emit((key.clone(), value)));
            }
            out.check()
        });
        node.partitioned_as(keyed)
    }

    /// Says that the same pairs can be had by key group.
    pub(crate) fn partitioned_as(mut self, keyed: Arc<dyn KeyedNode<V>>) -> Self {
        self.by_key = Some(Box::new(PairsByKey::<K, V> { keyed, key: PhantomData }));
        self
    }
}

impl<T: Record> Lineage for GroupsNode<T> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        self.dependencies.iter().map(|shuffle| Parent::Wide(shuffle.clone())).collect()
    }
}

impl<T: Record> RddNode<T> for GroupsNode<T> {
    fn compute(&self, task: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        task.set_origin(self.info.origin(partition));
        let mut forward = |chunk: &mut Vec<T>| out(chunk);
        let mut emitter = Emitter::new(&mut forward);
        tally::collect(Scope::Rdd { node: self.info.id, partition }, || {
            let mut groups = groups_of_partition(partition, self.info.partitions);
            groups.try_for_each(|group| (self.each_group)(group, &mut emitter))
        })?;
        emitter.finish()
    }

    fn keyed(&self) -> Option<Box<dyn Any>> {
        self.by_key.as_ref().map(|by_key| by_key.keyed())
    }

    fn filtered(&self, executor: &Executor, keep: &Arc<Predicate<T>>) -> Option<Arc<dyn RddNode<T>>> {
        let by_key = self.by_key.as_ref()?;
        let info = NodeInfo::new(executor, "filter", self.info.partitions);
        Some(Arc::new(by_key.filtered(info, &self.each_group, keep)))
    }
}

impl<K: Key, V: Record> Rdd<(K, V)> {
    /// The pairs by key group if they are partitioned by key already.
    pub(crate) fn partitioned(&self) -> Option<Arc<dyn KeyedNode<V>>> {
        self.node.keyed()?.downcast::<Arc<dyn KeyedNode<V>>>().ok().map(|keyed| *keyed)
    }
}

impl<K: Key, V: Record> Rdd<(K, V)> {
    /// The pairs of a keyed node, called `operation`.
    pub(crate) fn of_keyed(
        executor: &Arc<Executor>,
        operation: &'static str,
        detail: String,
        partitions: usize,
        keyed: Arc<dyn KeyedNode<V>>,
    ) -> Self {
        let mut info = NodeInfo::new(executor, operation, partitions);
        info.detail = detail;
        Rdd::new(executor, GroupsNode::of_pairs(info, keyed))
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// The pairs by key group: those that are partitioned by key already as they are, others through a
    /// shuffle for `operation`.
    pub(crate) fn keyed(&self, operation: &'static str) -> Arc<dyn KeyedNode<V>> {
        self.partitioned().unwrap_or_else(|| {
            Arc::new(GroupedByKey { shuffle: Shuffle::new(operation, Keep { input: self.node.clone() }) })
        })
    }
}
