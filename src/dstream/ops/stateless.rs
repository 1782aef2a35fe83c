use std::sync::Arc;

use crate::dstream::DStream;
use crate::rdd::{Emitter, Record};
use crate::record::Data;

impl<T: Record> DStream<T> {
    /// Each record turned into another; see [`Rdd::map`](crate::Rdd::map).
    pub fn map<U: Record>(&self, each: impl Fn(T) -> U + Send + Sync + 'static) -> DStream<U> {
        let each = Arc::new(each);
        self.derive("map", move |rdd, _| {
            let each = each.clone();
            Ok(rdd.map(move |record| each(record)))
        })
    }

    /// The records for which `keep` holds; see [`Rdd::filter`](crate::Rdd::filter).
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> DStream<T> {
        let keep = Arc::new(keep);
        self.derive("filter", move |rdd, _| {
            let keep = keep.clone();
            Ok(rdd.filter(move |record| keep(record)))
        })
    }

    /// Each record turned into any number of others without an allocation for each; see
    /// [`Rdd::flat_map`](crate::Rdd::flat_map).
    pub fn flat_map<U: Record>(
        &self,
        each: impl Fn(T, &mut Emitter<'_, U>) + Send + Sync + 'static,
    ) -> DStream<U> {
        let each = Arc::new(each);
        self.derive("flat_map", move |rdd, _| {
            let each = each.clone();
            Ok(rdd.flat_map(move |record, out: &mut Emitter<'_, U>| each(record, out)))
        })
    }

    /// Each partition turned as a whole; see [`Rdd::map_partitions`](crate::Rdd::map_partitions).
    pub fn map_partitions<U: Record, I: IntoIterator<Item = U>>(
        &self,
        each: impl Fn(Vec<T>) -> I + Send + Sync + 'static,
    ) -> DStream<U> {
        let each = Arc::new(each);
        self.derive("map_partitions", move |rdd, _| {
            let each = each.clone();
            Ok(rdd.map_partitions(move |records| each(records)))
        })
    }

    /// The records of both streams, batch by batch; see [`Rdd::union`](crate::Rdd::union).
    pub fn union(&self, other: &DStream<T>) -> DStream<T> {
        let (first, second) = (self.clone(), other.clone());
        let id = self.graph.add_node::<T>("union", "", &[self.id, other.id], false);
        DStream::new(&self.graph, id, move |batch| Ok(first.rdd(batch)?.union(&second.rdd(batch)?)))
    }

    /// Keeps each batch's records in memory once computed, for when several operations read them; see
    /// [`Rdd::cache`](crate::Rdd::cache).
    pub fn cache(&self) -> DStream<T> {
        self.derive("cache", |rdd, _| Ok(rdd.cache()))
    }

    /// One record per batch: how many there are in it, 0 for an empty batch. One shuffle of one number per
    /// partition.
    pub fn count(&self) -> DStream<u64> {
        self.derive("count", |rdd, _| Ok(rdd.counted()))
    }
}

impl<T: Data> DStream<T> {
    /// One record per batch, merged from all of it in order; none for an empty batch. One shuffle of one
    /// record per partition. `merge` should be associative.
    pub fn reduce(&self, merge: impl Fn(T, T) -> T + Send + Sync + 'static) -> DStream<T> {
        let merge = Arc::new(merge);
        self.derive("reduce", move |rdd, _| Ok(rdd.reduced(merge.clone())))
    }

    /// Each batch's records dealt out to this many partitions; see
    /// [`Rdd::repartition`](crate::Rdd::repartition).
    pub fn repartition(&self, partitions: usize) -> DStream<T> {
        self.derive_wide("repartition", &[], move |rdd, _, _| Ok(rdd.repartition(partitions)))
    }
}
