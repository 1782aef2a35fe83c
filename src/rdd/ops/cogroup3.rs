use std::sync::Arc;

use crate::rdd::ops::cogroup::Both;
use crate::rdd::ops::joined::Joined;
use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::MappedValues;
use crate::rdd::{NodeInfo, Rdd};
use crate::record::{Data, Key};

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// [`cogroup`](Rdd::cogroup) with two others: one pair per key that any of the three has, with all its values
    /// in each of them.
    ///
    /// Lazy, wide: a shuffle for each of the three that is not partitioned by key already. The result is
    /// partitioned by key.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let [one, two, three] = [1u64, 2, 3].map(|n| lines.map(move |line| (line, n)));
    /// let together = one.cogroup3(&two, &three.filter(|(line, _)| *line == "b"));
    /// assert_eq!(together.lookup(&"a".into())?, [(vec![1], vec![2], vec![])]);
    /// # Ok(()) });
    /// ```
    pub fn cogroup3<W: Data, X: Data>(
        &self,
        second: &Rdd<(K, W)>,
        third: &Rdd<(K, X)>,
    ) -> Rdd<(K, (Vec<V>, Vec<W>, Vec<X>))> {
        let two = Joined::<Both, V, W>::new(self.keyed("cogroup3"), second.keyed("cogroup3"));
        let three = Joined::<Both, (Vec<V>, Vec<W>), X>::new(two, third.keyed("cogroup3"));
        let flat = |(mut pair, third): (Vec<(Vec<V>, Vec<W>)>, Vec<X>)| {
            // One pair for a key that is in the first two, none for one that is in the third only.
            let (first, second) = pair.pop().unwrap_or_default();
            (first, second, third)
        };
        let keyed = Arc::new(MappedValues::new(three, flat));
        let info = NodeInfo::new(&self.executor, "cogroup3", Self::partitions_default());
        Rdd::new(&self.executor, GroupsNode::of_pairs(info, keyed))
    }
}
