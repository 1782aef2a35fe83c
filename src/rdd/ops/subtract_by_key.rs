use crate::rdd::ops::joined::JoinKind;
use crate::rdd::{Rdd, Record};
use crate::record::{Data, Key};

struct LeftOnly;

impl<V: Record, W: Record> JoinKind<V, W> for LeftOnly {
    type Out = V;

    const LEFT_ALONE: bool = true;
    const RIGHT_ALONE: bool = false;

    fn each(left: &[V], right: &[W], emit: impl FnMut(V)) {
        if right.is_empty() {
            left.iter().cloned().for_each(emit);
        }
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// The pairs whose key the other RDD does not have; duplicates stay.
    ///
    /// Lazy, wide: a shuffle for each side that is not partitioned by key already. The result is partitioned by
    /// key: a following keyed operation needs no shuffle.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let known = lines.filter(|line| *line == "b").map(|line| (line, ()));
    /// let unknown = lines.map(|line| (line, 1u64)).subtract_by_key(&known);
    /// assert_eq!(unknown.collect()?, [("a".into(), 1)]);
    /// # Ok(()) });
    /// ```
    pub fn subtract_by_key<W: Data>(&self, other: &Rdd<(K, W)>) -> Rdd<(K, V)> {
        self.joined::<LeftOnly, W>("subtract_by_key", Self::partitions_default(), other)
    }
}
