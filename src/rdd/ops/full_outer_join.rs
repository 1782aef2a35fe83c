use crate::rdd::ops::joined::{JoinKind, cross, or_none};
use crate::rdd::{Rdd, Record};
use crate::record::{Data, Key};

struct FullOuter;

impl<V: Record, W: Record> JoinKind<V, W> for FullOuter {
    type Out = (Option<V>, Option<W>);

    const LEFT_ALONE: bool = true;
    const RIGHT_ALONE: bool = true;

    fn each(left: &[V], right: &[W], emit: impl FnMut((Option<V>, Option<W>))) {
        cross(or_none(left), or_none(right), emit);
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// Every value of this RDD with every value of the other that has the same key, and the values of keys that
    /// one side lacks with `None`.
    ///
    /// Lazy, wide: a shuffle for each side that is not partitioned by key already. The result is partitioned by
    /// key: a following keyed operation needs no shuffle.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let left = lines.filter(|line| *line == "a").map(|line| (line, 1u64));
    /// let right = lines.filter(|line| *line == "b").map(|line| (line, 2u64));
    /// let joined = left.full_outer_join(&right);
    /// assert_eq!(joined.lookup(&"a".into())?, [(Some(1), None)]);
    /// assert_eq!(joined.lookup(&"b".into())?, [(None, Some(2))]);
    /// # Ok(()) });
    /// ```
    pub fn full_outer_join<W: Data>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, (Option<V>, Option<W>))> {
        self.full_outer_join_into(Self::partitions_default(), other)
    }

    pub(crate) fn full_outer_join_into<W: Data>(
        &self,
        partitions: usize,
        other: &Rdd<(K, W)>,
    ) -> Rdd<(K, (Option<V>, Option<W>))> {
        self.joined::<FullOuter, W>("full_outer_join", partitions, other)
    }
}
