use crate::rdd::ops::joined::{JoinKind, cross};
use crate::rdd::{Rdd, Record};
use crate::record::{Data, Key};

struct Inner;

impl<V: Record, W: Record> JoinKind<V, W> for Inner {
    type Out = (V, W);

    const LEFT_ALONE: bool = false;
    const RIGHT_ALONE: bool = false;

    fn each(left: &[V], right: &[W], emit: impl FnMut((V, W))) {
        cross(left.iter().cloned(), right.iter().cloned(), emit);
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// Every value of this RDD with every value of the other that has the same key.
    ///
    /// Lazy, wide: a shuffle for each side that is not partitioned by key already. The result is partitioned by
    /// key: a following keyed operation needs no shuffle.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let left = lines.map(|line| (line, 1u64));
    /// let right = lines.filter(|line| *line == "b").map(|line| (line, 2u64));
    /// assert_eq!(left.join(&right).collect()?, [("b".into(), (1, 2))]);
    /// # Ok(()) });
    /// ```
    pub fn join<W: Data>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, (V, W))> {
        self.join_into(Self::partitions_default(), other)
    }

    pub(crate) fn join_into<W: Data>(&self, partitions: usize, other: &Rdd<(K, W)>) -> Rdd<(K, (V, W))> {
        self.joined::<Inner, W>("join", partitions, other)
    }
}
