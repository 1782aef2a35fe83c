use crate::rdd::ops::joined::{JoinKind, cross, or_none};
use crate::rdd::{Rdd, Record};
use crate::record::{Data, Key};

struct RightOuter;

impl<V: Record, W: Record> JoinKind<V, W> for RightOuter {
    type Out = (Option<V>, W);

    const LEFT_ALONE: bool = false;
    const RIGHT_ALONE: bool = true;

    fn each(left: &[V], right: &[W], emit: impl FnMut((Option<V>, W))) {
        cross(or_none(left), right.iter().cloned(), emit);
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// Every value of the other RDD with every value of this one that has the same key, or with `None` where
    /// this one has none. The pairs of a key are ordered by this RDD's values first.
    ///
    /// Lazy, wide: a shuffle for each side that is not partitioned by key already. The result is partitioned by
    /// key: a following keyed operation needs no shuffle.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let left = lines.filter(|line| *line == "b").map(|line| (line, 1u64));
    /// let right = lines.map(|line| (line, 2u64));
    /// let joined = left.right_outer_join(&right);
    /// assert_eq!(joined.lookup(&"a".into())?, [(None, 2)]);
    /// assert_eq!(joined.lookup(&"b".into())?, [(Some(1), 2)]);
    /// # Ok(()) });
    /// ```
    pub fn right_outer_join<W: Data>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, (Option<V>, W))> {
        self.right_outer_join_into(Self::partitions_default(), other)
    }

    pub(crate) fn right_outer_join_into<W: Data>(
        &self,
        partitions: usize,
        other: &Rdd<(K, W)>,
    ) -> Rdd<(K, (Option<V>, W))> {
        self.joined::<RightOuter, W>("right_outer_join", partitions, other)
    }
}
