//! Actions: what makes an RDD be computed.

use crate::error::Result;
use crate::rdd::lineage::prepare;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Runs the shuffles this RDD reads, then `task` on every partition; results by partition.
    pub(crate) fn run<R: Send>(
        &self,
        action: &str,
        task: impl Fn(usize, &mut dyn FnMut(&mut crate::rdd::Chunks<'_, T>) -> Result<()>) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        prepare(&self.executor, &*self.node)?;
        let stage = format!("{action} of {}", self.node.info().operation);
        self.executor.run_stage(&stage, self.partitions(), |context, partition| {
            task(partition, &mut |out| self.node.compute(context, partition, out))
        })
    }

    /// All records, in partition order.
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn collect(&self) -> Result<Vec<T>> {
        let parts = self.run("collect", |_, compute| {
            let mut records = Vec::new();
            compute(&mut |chunk| {
                records.append(chunk);
                Ok(())
            })?;
            Ok(records)
        })?;
        Ok(parts.into_iter().flatten().collect())
    }

    /// The first `n` records in partition order. Computes one partition after the other until it has them.
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn take(&self, n: usize) -> Result<Vec<T>> {
        prepare(&self.executor, &*self.node)?;
        let stage = format!("take of {}", self.node.info().operation);
        let mut taken = Vec::new();
        for partition in 0..self.partitions() {
            if taken.len() >= n {
                break;
            }
            let wanted = n - taken.len();
            let part = self.executor.run_stage(&stage, 1, |context, _| {
                let mut records = Vec::new();
                self.node.compute(context, partition, &mut |chunk| {
                    records.extend(chunk.drain(..).take(wanted - records.len()));
                    Ok(())
                })?;
                Ok(records)
            })?;
            taken.extend(part.into_iter().flatten());
        }
        Ok(taken)
    }

    /// How many records there are.
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn count(&self) -> Result<u64> {
        let parts = self.run("count", |_, compute| {
            let mut records = 0;
            compute(&mut |chunk| {
                records += chunk.len() as u64;
                Ok(())
            })?;
            Ok(records)
        })?;
        Ok(parts.into_iter().sum())
    }

    /// All records merged into one, `None` when there are none. `merge` should be associative; it is
    /// applied in partition order, so that it need not be commutative.
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn reduce(&self, merge: impl Fn(T, T) -> T + Send + Sync) -> Result<Option<T>> {
        let parts = self.run("reduce", |_, compute| {
            let mut merged = None;
            compute(&mut |chunk| {
                merged = merged.take().into_iter().chain(chunk.drain(..)).reduce(&merge);
                Ok(())
            })?;
            Ok(merged)
        })?;
        Ok(parts.into_iter().flatten().reduce(merge))
    }

    /// Calls `each` once per partition with its number and records, on the job's threads.
    ///
    /// A task that fails is tried again, so `each` may see a partition more than once.
    ///
    /// # Errors
    /// When a task failed on every attempt, or what `each` returned.
    pub fn for_each_partition(&self, each: impl Fn(usize, Vec<T>) -> Result<()> + Send + Sync) -> Result<()> {
        self.run("for_each_partition", |partition, compute| {
            let mut records = Vec::new();
            compute(&mut |chunk| {
                records.append(chunk);
                Ok(())
            })?;
            each(partition, records)
        })?;
        Ok(())
    }
}
