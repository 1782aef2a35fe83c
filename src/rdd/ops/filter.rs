use std::sync::Arc;

use crate::error::Result;
use crate::exec::tally::{self, Scope, next_shuffle_id};
use crate::rdd::ops::keyed::{ByKey, EachGroup, GroupsNode, PairsByKey};
use crate::rdd::shuffle::{Grouped, KeyedNode, decode_key};
use crate::rdd::{Emitter, NodeInfo, Predicate, Rdd, Record, WideDependency};
use crate::record::Key;

/// The pairs of another keyed node that a closure keeps. Keys that are left without values are gone.
struct FilteredPairs<K, V> {
    id: u64,
    parent: Arc<dyn KeyedNode<V>>,
    keep: Arc<Predicate<(K, V)>>,
}

impl<K: Key, V: Record> KeyedNode<V> for FilteredPairs<K, V> {
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        self.parent.dependencies()
    }

    fn grouped(&self, group: usize) -> Result<Grouped<V>> {
        let (keys, counts, values) = self.parent.grouped(group)?.into_parts();
        let mut values = values.into_iter();
        let mut kept = Grouped::empty();
        tally::collect(Scope::Reduced { shuffle: self.id, group }, || {
            for (at, count) in counts.enumerate() {
                // The closure takes pairs: the key goes from one to the next.
                let mut key: K = decode_key(keys.key(at))?;
                kept.push(keys.hash(at), keys.key(at), |own| {
                    for value in values.by_ref().take(count) {
                        let pair = (key, value);
                        if (self.keep)(&pair) {
                            own.push(pair.1);
                        }
                        key = pair.0;
                    }
                })?;
            }
            Ok(kept)
        })
    }
}

impl<K: Key, V: Record> ByKey<(K, V)> for PairsByKey<K, V> {
    fn keyed(&self) -> Box<dyn std::any::Any> {
        Box::new(self.keyed.clone())
    }

    fn filtered(
        &self,
        info: NodeInfo,
        each_group: &Arc<EachGroup<(K, V)>>,
        keep: &Arc<Predicate<(K, V)>>,
    ) -> GroupsNode<(K, V)> {
        let id = next_shuffle_id();
        let (each_group, streamed) = (each_group.clone(), keep.clone());
        // Not through `grouped`, which holds the pairs of a group together; what the closure adds to accumulators
        // counts once all the same, for both go by the same scope.
        let node = GroupsNode::new(info, self.keyed.dependencies(), move |group, out| {
            tally::collect(Scope::Reduced { shuffle: id, group }, || {
                let mut forward = |chunk: &mut Vec<(K, V)>| {
                    chunk.drain(..).filter(|pair| streamed(pair)).for_each(|pair| out.emit(pair));
                    out.check()
                };
                let mut pairs = Emitter::new(&mut forward);
                each_group(group, &mut pairs)?;
                pairs.finish()
            })
        });
        let keyed = FilteredPairs { id, parent: self.keyed.clone(), keep: keep.clone() };
        node.partitioned_as(Arc::new(keyed))
    }
}

impl<T: Record> Rdd<T> {
    /// The records for which `keep` holds. Lazy, narrow; pairs that are partitioned by key stay so, and a
    /// following keyed operation needs no shuffle. A replay calls `keep` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["ok", "error: x"], |lines| {
    /// assert_eq!(lines.filter(|line| line.as_bytes().starts_with(b"error")).count()?, 1);
    /// # Ok(()) });
    /// ```
    #[allow(clippy::redundant_closure, reason = "a reference to the closure is called, a closure inlined")]
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> Rdd<T> {
        let keep = Arc::new(keep);
        let by_key: Arc<Predicate<T>> = keep.clone();
        if let Some(node) = self.node.filtered(&self.executor, &by_key) {
            return Rdd { node, executor: self.executor.clone() };
        }
        self.in_place("filter", move |chunk| retain(chunk, |record| keep(record)))
    }
}

/// Records of up to this many bytes are cheaper to move than a branch is that cannot be foretold.
const MOVED_BYTES_MAX: usize = 32;

/// As [`Vec::retain`], which is kept for large records. Small ones are moved whether they are kept or not, so that
/// there is no branch.
#[inline]
fn retain<T>(records: &mut Vec<T>, keep: impl Fn(&T) -> bool) {
    if size_of::<T>() > MOVED_BYTES_MAX {
        return records.retain(keep);
    }
    let mut kept = 0;
    for at in 0..records.len() {
        let keeps = keep(&records[at]);
        records.swap(kept, at);
        kept += usize::from(keeps);
    }
    records.truncate(kept);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::retain;

    proptest! {
        #[test]
        fn what_is_kept_stays_in_order(records in prop::collection::vec(any::<u16>(), 0..100), mask in any::<u16>()) {
            let keep = |record: u16| record & mask & 3 == 0;
            let expected: Vec<u16> = records.iter().copied().filter(|record| keep(*record)).collect();
            let mut small: Vec<Box<u16>> = records.iter().copied().map(Box::new).collect();
            retain(&mut small, |record| keep(**record));
            prop_assert!(small.iter().map(|record| **record).eq(expected.iter().copied()));
            let mut large: Vec<[u16; 20]> = records.iter().map(|record| [*record; 20]).collect();
            retain(&mut large, |record| keep(record[0]));
            prop_assert!(large.iter().map(|record| record[0]).eq(expected.iter().copied()));
        }
    }
}
