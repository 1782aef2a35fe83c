use crate::rdd::ops::joined::{JoinKind, cross, or_none};
use crate::rdd::{Rdd, Record};
use crate::record::{Data, Key};

struct LeftOuter;

impl<V: Record, W: Record> JoinKind<V, W> for LeftOuter {
    type Out = (V, Option<W>);

    const LEFT_ALONE: bool = true;
    const RIGHT_ALONE: bool = false;

    fn each(left: &[V], right: &[W], emit: impl FnMut((V, Option<W>))) {
        cross(left.iter().cloned(), or_none(right), emit);
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// Every value of this RDD with every value of the other that has the same key, or with `None` where the
    /// other has none.
    ///
    /// Lazy, wide: a shuffle for each side that is not partitioned by key already. The result is partitioned by
    /// key: a following keyed operation needs no shuffle.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let left = lines.map(|line| (line, 1u64));
    /// let right = lines.filter(|line| *line == "b").map(|line| (line, 2u64));
    /// let joined = left.left_outer_join(&right);
    /// assert_eq!(joined.lookup(&"a".into())?, [(1, None)]);
    /// assert_eq!(joined.lookup(&"b".into())?, [(1, Some(2))]);
    /// # Ok(()) });
    /// ```
    pub fn left_outer_join<W: Data>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, (V, Option<W>))> {
        self.left_outer_join_into(Self::partitions_default(), other)
    }

    pub(crate) fn left_outer_join_into<W: Data>(
        &self,
        partitions: usize,
        other: &Rdd<(K, W)>,
    ) -> Rdd<(K, (V, Option<W>))> {
        self.joined::<LeftOuter, W>("left_outer_join", partitions, other)
    }
}
