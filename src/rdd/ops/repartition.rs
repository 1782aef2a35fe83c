use std::sync::Arc;

use crate::config::KEY_GROUPS;
use crate::error::Result;
use crate::exec::TaskContext;
use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::{GroupedByKey, KeyedNode, MapSide, Run, Shuffle, groups_of_partition};
use crate::rdd::{Lineage, NodeInfo, Rdd, RddNode};
use crate::record::Data;

/// Deals records out to the partitions in turn.
struct Deal<T> {
    input: Arc<dyn RddNode<T>>,
    partitions: usize,
}

impl<T: Data> MapSide<T> for Deal<T> {
    fn input(&self) -> Arc<dyn Lineage> {
        self.input.clone()
    }

    fn run(&self, task: &TaskContext, partition: usize) -> Result<Run<T>> {
        let mut values = Vec::new();
        self.input.compute(task, partition, &mut |chunk| {
            values.append(chunk);
            Ok(())
        })?;
        // A record's key is its partition's first key group, written where a hash has its group.
        let group_of_turn = |turn: usize| groups_of_partition(turn % self.partitions, self.partitions).start;
        let hash_of_turn = |turn: usize| (group_of_turn(turn) as u64) << 48;
        let places: Vec<_> = (0..values.len()).map(|at| hash_of_turn(partition + at)).collect();
        let keys = Run::by_group(&places, &vec![0; values.len()], |_, _| ())?;
        Ok(keys.with_values(values))
    }
}

impl<T: Data> Rdd<T> {
    /// The same records in `partitions` partitions (brought into 1 to 256), dealt out in turn.
    ///
    /// Lazy, wide: one shuffle.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b", "c"], |lines| {
    /// let spread = lines.repartition(3);
    /// assert_eq!(spread.partitions(), 3);
    /// assert_eq!(spread.count()?, 3);
    /// # Ok(()) });
    /// ```
    pub fn repartition(&self, partitions: usize) -> Rdd<T> {
        let partitions = partitions.clamp(1, KEY_GROUPS);
        let shuffle = Shuffle::new("repartition", Deal { input: self.node.clone(), partitions });
        let dealt = GroupedByKey { shuffle };
        let info = NodeInfo::new(&self.executor, "repartition", partitions);
        let node = GroupsNode::new(info, dealt.dependencies(), move |group, out| {
            let grouped = dealt.grouped(group)?;
            for at in 0..grouped.keys.len() {
                grouped.values(at).iter().for_each(|record| out.emit(record.clone()));
            }
            out.check()
        });
        Rdd::new(&self.executor, node)
    }
}
