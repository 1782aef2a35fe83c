use std::marker::PhantomData;
use std::sync::Arc;

use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::{Aggregator, Combine, CombinedByKey, CombinedInPlace, KeyedNode, Shuffle};
use crate::rdd::{NodeInfo, Rdd};
use crate::record::{Data, Key};

/// The three functions of `combine_by_key`.
struct Combiners<F, G, H> {
    create: Arc<F>,
    merge_value: Arc<G>,
    merge_combiners: Arc<H>,
}

impl<V: Data, C: Data, F, G, H> Aggregator<V> for Combiners<F, G, H>
where
    F: Fn(V) -> C + Send + Sync + 'static,
    G: Fn(C, V) -> C + Send + Sync + 'static,
    H: Fn(C, C) -> C + Send + Sync + 'static,
{
    type Combined = C;

    #[inline]
    fn create(&self, value: V) -> C {
        (self.create)(value)
    }

    #[inline]
    fn merge_value(&self, combined: C, value: V) -> C {
        (self.merge_value)(combined, value)
    }

    #[inline]
    fn merge_combined(&self, lower: C, higher: C) -> C {
        (self.merge_combiners)(lower, higher)
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// One pair per key, with what its values combine to: `create` begins with a value, `merge_value` adds
    /// the next one of the same partition, and `merge_combiners` joins what two partitions have, in the order
    /// of the partitions.
    ///
    /// How the values of a key are spread over partitions must not matter for the result: merging should be
    /// associative, but need not be commutative. Only combined values cross the shuffle.
    ///
    /// Lazy, wide: one shuffle, none where the pairs are partitioned by key already. A replay calls the
    /// functions again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a 1", "a 2"], |lines| {
    /// let pairs = lines.map(|line| (line.slice(0, 1), line.slice(2, 3).to_string()));
    /// let together = pairs.combine_by_key(
    ///     |value| vec![value],
    ///     |mut all, value| {
    ///         all.push(value);
    ///         all
    ///     },
    ///     |all, more| [all, more].concat(),
    /// );
    /// assert_eq!(together.collect()?, [("a".into(), vec!["1".to_string(), "2".to_string()])]);
    /// # Ok(()) });
    /// ```
    pub fn combine_by_key<C: Data>(
        &self,
        create: impl Fn(V) -> C + Send + Sync + 'static,
        merge_value: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge_combiners: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> Rdd<(K, C)> {
        let partitions = Self::partitions_default();
        let (create, merge_value, merge_combiners) =
            (Arc::new(create), Arc::new(merge_value), Arc::new(merge_combiners));
        self.combine_by_key_into("combine_by_key", partitions, create, merge_value, merge_combiners)
    }

    pub(crate) fn combine_by_key_into<C: Data, F, G, H>(
        &self,
        operation: &'static str,
        partitions: usize,
        create: Arc<F>,
        merge_value: Arc<G>,
        merge_combiners: Arc<H>,
    ) -> Rdd<(K, C)>
    where
        F: Fn(V) -> C + Send + Sync + 'static,
        G: Fn(C, V) -> C + Send + Sync + 'static,
        H: Fn(C, C) -> C + Send + Sync + 'static,
    {
        self.combined_into(operation, partitions, Combiners { create, merge_value, merge_combiners })
    }

    /// One pair per key, combined within each partition before the shuffle.
    pub(super) fn combined_into<A: Aggregator<V>>(
        &self,
        operation: &'static str,
        partitions: usize,
        aggregator: A,
    ) -> Rdd<(K, A::Combined)> {
        let keyed = self.combined(operation, aggregator);
        let info = NodeInfo::new(&self.executor, operation, partitions);
        Rdd::new(&self.executor, GroupsNode::of_pairs(info, keyed))
    }

    /// The same by key group.
    pub(crate) fn combined<A: Aggregator<V>>(
        &self,
        operation: &'static str,
        aggregator: A,
    ) -> Arc<dyn KeyedNode<A::Combined>> {
        match self.partitioned() {
            Some(parent) => Arc::new(CombinedInPlace::new(parent, aggregator)),
            None => {
                let aggregator = Arc::new(aggregator);
                let map_side = Combine::new(self.node.clone(), aggregator.clone());
                let shuffle = Shuffle::new(operation, map_side);
                Arc::new(CombinedByKey { shuffle, aggregator, value: PhantomData })
            }
        }
    }
}
