use crate::rdd::ops::gather::{emit_into, records_of};
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Every record with every record of the other RDD.
    ///
    /// Lazy, narrow: one partition for each partition of this RDD with each of the other, in that order. A
    /// partition of the other is held in memory, and each is computed as often as the counterpart has
    /// partitions: [`persist`](Rdd::persist) what is costly to make.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let pairs = lines.cartesian(&lines.map(|line| line.len()));
    /// assert_eq!(pairs.count()?, 4);
    /// assert_eq!(pairs.first()?, Some(("a".into(), 1)));
    /// # Ok(()) });
    /// ```
    pub fn cartesian<U: Record>(&self, other: &Rdd<U>) -> Rdd<(T, U)> {
        let (left, right) = (self.node.clone(), other.node.clone());
        let parents = vec![self.as_narrow_parent(), other.as_narrow_parent()];
        let right_partitions = other.partitions();
        let partitions = self.partitions() * right_partitions;
        Rdd::gathered(&self.executor, "cartesian", partitions, parents, move |task, partition, out| {
            let rights = records_of(&*right, task, partition % right_partitions)?;
            emit_into(out, |out| {
                left.compute(task, partition / right_partitions, &mut |chunk| {
                    for record in chunk.drain(..) {
                        rights.iter().for_each(|right| out.emit((record.clone(), right.clone())));
                        out.check()?;
                    }
                    Ok(())
                })
            })
        })
    }
}
