use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// The same records in the same order in at most `partitions` partitions (at least 1), each made of
    /// neighbouring ones of before. For more partitions, or more even ones, there is
    /// [`repartition`](Rdd::repartition).
    ///
    /// Lazy, narrow: what comes before it then runs in no more tasks than that.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a"], |lines| {
    /// let joined = lines.union(&lines).coalesce(1);
    /// assert_eq!(joined.collect_partitions()?, [["a", "a"]]);
    /// # Ok(()) });
    /// ```
    pub fn coalesce(&self, partitions: usize) -> Rdd<T> {
        let before = self.partitions();
        let partitions = partitions.max(1).min(before);
        let (input, parents) = (self.node.clone(), vec![self.as_narrow_parent()]);
        Rdd::gathered(&self.executor, "coalesce", partitions, parents, move |task, partition, out| {
            let mut own = partition * before / partitions..(partition + 1) * before / partitions;
            own.try_for_each(|partition| input.compute(task, partition, out))
        })
    }
}
