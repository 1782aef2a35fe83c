use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::decode_key;
use crate::rdd::{NodeInfo, Rdd};
use crate::record::Key;

impl<T: Key> Rdd<T> {
    /// The records that are not in the other RDD, each as often as it is in this one; records are the same
    /// when their [`Key`] bytes are. Copies of a record stand next to each other.
    ///
    /// Lazy, wide: a shuffle of each side's distinct records by partition.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b", "b"], |lines| {
    /// let left = lines.subtract(&lines.filter(|line| *line == "a"));
    /// assert_eq!(left.collect()?, ["b", "b"]);
    /// # Ok(()) });
    /// ```
    pub fn subtract(&self, other: &Rdd<T>) -> Rdd<T> {
        self.by_presence("subtract", other, |copies, in_other| if in_other { 0 } else { copies })
    }

    /// One of each record as often as `copies` says, given how often it is in this RDD and whether it is in
    /// the other.
    pub(super) fn by_presence(
        &self,
        operation: &'static str,
        other: &Rdd<T>,
        copies: impl Fn(u64, bool) -> u64 + Send + Sync + 'static,
    ) -> Rdd<T> {
        let partitions = Rdd::<(T, u64)>::partitions_default();
        let left = self.counted_by_value(partitions).keyed(operation);
        let right = other.counted_by_value(partitions).keyed(operation);
        let dependencies = [left.dependencies(), right.dependencies()].concat();
        let info = NodeInfo::new(&self.executor, operation, partitions);
        let node = GroupsNode::new(info, dependencies, move |group, out| {
            let (left, right) = (left.grouped(group)?, right.grouped(group)?);
            for at in 0..left.keys.len() {
                let in_other = right.keys.find(left.keys.hash(at), left.keys.key(at)).is_some();
                let copies = copies(left.values(at).iter().sum(), in_other);
                let record: T = decode_key(left.keys.key(at))?;
                (0..copies).for_each(|_| out.emit(record.clone()));
            }
            out.check()
        });
        Rdd::new(&self.executor, node)
    }
}
