//! Actions: what makes an RDD be computed. One action, or a few of one kind, in one file.

mod aggregate;
mod collect;
mod count;
mod count_by_value;
mod extremes;
mod for_each;
mod reduce;
mod sum;
mod take;
mod take_ordered;
mod take_sample;

use crate::error::Result;
use crate::rdd::lineage::prepare;
use crate::rdd::{Chunks, Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Runs the shuffles this RDD reads, then `task` on every partition; results by partition.
    pub(crate) fn run<R: Send>(
        &self,
        action: &str,
        task: impl Fn(usize, &mut dyn FnMut(&mut Chunks<'_, T>) -> Result<()>) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        prepare(&self.executor, &*self.node)?;
        self.executor.run_stage(&self.stage(action), self.partitions(), |context, partition| {
            task(partition, &mut |out| self.node.compute(context, partition, out))
        })
    }

    /// Runs what merges the results of the partitions as a task of its own: user code that panics in it
    /// fails the action as it would anywhere else.
    fn merge_parts<R: Send>(&self, action: &str, merge: impl Fn() -> R + Sync) -> Result<R> {
        self.executor.run_one(&format!("merging for {}", self.stage(action)), 0, |_| Ok(merge()))
    }

    fn stage(&self, action: &str) -> String {
        format!("{action} of {}", self.node.info().operation)
    }
}
