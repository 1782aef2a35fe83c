use std::sync::Arc;

use crate::error::Result;
use crate::rdd::ops::keyed::GroupsNode;
use crate::rdd::shuffle::{Grouped, KeyedNode, expand};
use crate::rdd::{Emitter, NodeInfo, Rdd, WideDependency};
use crate::record::{Data, Key};

/// The values of another keyed node, each turned into any number of others. Keys that are left without values
/// are gone.
struct FlatMappedValues<V, F> {
    parent: Arc<dyn KeyedNode<V>>,
    each: Arc<F>,
}

impl<V, W, F> KeyedNode<W> for FlatMappedValues<V, F>
where
    V: Data,
    W: Data,
    F: Fn(V, &mut Emitter<'_, W>) + Send + Sync,
{
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        self.parent.dependencies()
    }

    fn grouped(&self, group: usize) -> Result<Grouped<W>> {
        let (keys, counts, values) = self.parent.grouped(group)?.into_parts();
        let owners = counts.enumerate().flat_map(|(at, count)| std::iter::repeat_n(at, count));
        let mut emitted_of = vec![0; keys.len()];
        let mut emitted = Vec::new();
        expand(owners.zip(values), &*self.each, |&at, values| {
            emitted_of[at] += values.len();
            emitted.append(values);
        })?;
        let mut emitted = emitted.into_iter();
        let mut grouped = Grouped::empty();
        for (at, count) in emitted_of.into_iter().enumerate() {
            grouped
                .push(keys.hash(at), keys.key(at), |values| values.extend(emitted.by_ref().take(count)))?;
        }
        Ok(grouped)
    }
}

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// Each value turned into any number of others, which `each` hands to the [`Emitter`], the key kept with
    /// each of them. Lazy, narrow; pairs that are partitioned by key stay so, and a following keyed operation
    /// needs no shuffle. A replay calls `each` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a b"], |lines| {
    /// let words = lines
    ///     .map(|line| (1u64, line))
    ///     .flat_map_values(|line, out| line.words().for_each(|word| out.emit(word)));
    /// assert_eq!(words.collect()?, [(1, "a".into()), (1, "b".into())]);
    /// # Ok(()) });
    /// ```
    pub fn flat_map_values<W: Data>(
        &self,
        each: impl Fn(V, &mut Emitter<'_, W>) + Send + Sync + 'static,
    ) -> Rdd<(K, W)> {
        let Some(parent) = self.partitioned() else {
            return self.narrow("flat_map_values", move |task, partition, parent, out| {
                parent.compute(task, partition, &mut |chunk| {
                    expand(chunk.drain(..), &each, |key: &K, values| {
                        values.drain(..).for_each(|value| out.emit((key.clone(), value)));
                    })?;
                    out.check()
                })
            });
        };
        let info = NodeInfo::new(&self.executor, "flat_map_values", self.partitions());
        let keyed = FlatMappedValues { parent, each: Arc::new(each) };
        Rdd::new(&self.executor, GroupsNode::of_pairs(info, Arc::new(keyed)))
    }
}
