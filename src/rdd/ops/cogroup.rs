use crate::rdd::ops::joined::JoinKind;
use crate::rdd::{Rdd, Record};
use crate::record::{Data, Key};

pub(super) struct Both;

impl<V: Record, W: Record> JoinKind<V, W> for Both {
    type Out = (Vec<V>, Vec<W>);

    const LEFT_ALONE: bool = true;
    const RIGHT_ALONE: bool = true;

    fn each(left: &[V], right: &[W], mut emit: impl FnMut((Vec<V>, Vec<W>))) {
        emit((left.to_vec(), right.to_vec()));
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// One pair per key that either RDD has, with all its values in this RDD and all in the other, each in the
    /// order of their records. A key's values must fit in memory.
    ///
    /// Lazy, wide: a shuffle for each side that is not partitioned by key already. The result is partitioned by
    /// key: a following keyed operation needs no shuffle.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let left = lines.map(|line| (line, 1u64));
    /// let right = lines.filter(|line| *line == "b").map(|line| (line, 2u64));
    /// let both = left.cogroup(&right);
    /// assert_eq!(both.lookup(&"a".into())?, [(vec![1], vec![])]);
    /// assert_eq!(both.lookup(&"b".into())?, [(vec![1], vec![2])]);
    /// # Ok(()) });
    /// ```
    pub fn cogroup<W: Data>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, (Vec<V>, Vec<W>))> {
        self.cogroup_into(Self::partitions_default(), other)
    }

    pub(crate) fn cogroup_into<W: Data>(
        &self,
        partitions: usize,
        other: &Rdd<(K, W)>,
    ) -> Rdd<(K, (Vec<V>, Vec<W>))> {
        self.joined::<Both, W>("cogroup", partitions, other)
    }
}
