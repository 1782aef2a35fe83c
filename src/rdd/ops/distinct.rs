use std::sync::Arc;

use crate::rdd::ops::gather::emit_into;
use crate::rdd::shuffle::{decode_key, groups_of_partition};
use crate::rdd::{Parent, Rdd};
use crate::record::Key;

impl<T: Key> Rdd<T> {
    /// One of each record: records are the same when their [`Key`] bytes are. Each partition of the result
    /// has its records in the order in which they first came, by (partition, position).
    ///
    /// Lazy, wide: one shuffle of the distinct records of each partition.
    ///
    /// ```
    /// # millpond::doc::run_batch(["b", "a", "b"], |lines| {
    /// assert_eq!(lines.distinct().count()?, 2);
    /// # Ok(()) });
    /// ```
    pub fn distinct(&self) -> Rdd<T> {
        self.distinct_into(Rdd::<(T, u64)>::partitions_default())
    }

    pub(crate) fn distinct_into(&self, partitions: usize) -> Rdd<T> {
        let placed = self.narrow("positions", |task, partition, parent, out| {
            let mut position = 0u64;
            parent.compute(task, partition, &mut |chunk| {
                for record in chunk.drain(..) {
                    out.emit((record, (partition as u64, position)));
                    position += 1;
                }
                out.check()
            })
        });
        let first = Arc::new(|first: (u64, u64), _: (u64, u64)| first);
        let places = placed.reduce_by_key_into(partitions, first).keyed("distinct");
        let parents = places.dependencies().into_iter().map(Parent::Wide).collect();
        Rdd::gathered(&self.executor, "distinct", partitions, parents, move |_, partition, out| {
            let mut found: Vec<((u64, u64), T)> = Vec::new();
            for group in groups_of_partition(partition, partitions) {
                let grouped = places.grouped(group)?;
                for at in 0..grouped.keys.len() {
                    let record: T = decode_key(grouped.keys.key(at))?;
                    found.extend(grouped.values(at).iter().map(|place| (*place, record.clone())));
                }
            }
            found.sort_by_key(|(place, _)| *place);
            emit_into(out, |out| {
                found.into_iter().for_each(|(_, record)| out.emit(record));
                out.check()
            })
        })
    }
}
