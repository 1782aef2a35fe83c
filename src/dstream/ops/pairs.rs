use std::sync::Arc;

use crate::dstream::DStream;
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// Each value turned into another; see [`Rdd::map_values`](crate::Rdd::map_values).
    pub fn map_values<W: Data>(&self, each: impl Fn(V) -> W + Send + Sync + 'static) -> DStream<(K, W)> {
        let each = Arc::new(each);
        self.derive("map_values", move |rdd, _| {
            let each = each.clone();
            Ok(rdd.map_values(move |value| each(value)))
        })
    }

    /// One pair per key and batch, its values merged; see
    /// [`Rdd::reduce_by_key`](crate::Rdd::reduce_by_key).
    pub fn reduce_by_key(&self, merge: impl Fn(V, V) -> V + Send + Sync + 'static) -> DStream<(K, V)> {
        let merge = Arc::new(merge);
        self.derive_wide("reduce_by_key", &[], move |rdd, _, partitions| {
            Ok(rdd.reduce_by_key_into(partitions, merge.clone()))
        })
    }

    /// One pair per key and batch with all its values; see
    /// [`Rdd::group_by_key`](crate::Rdd::group_by_key).
    pub fn group_by_key(&self) -> DStream<(K, Vec<V>)> {
        self.derive_wide("group_by_key", &[], |rdd, _, partitions| Ok(rdd.group_by_key_into(partitions)))
    }

    /// Every value with every value of the other stream that has the same key in the same batch; see
    /// [`Rdd::join`](crate::Rdd::join).
    pub fn join<W: Data>(&self, other: &DStream<(K, W)>) -> DStream<(K, (V, W))> {
        let right = other.clone();
        self.derive_wide("join", &[other.id], move |rdd, batch, partitions| {
            Ok(rdd.join_into(partitions, &right.rdd(batch)?))
        })
    }
}
