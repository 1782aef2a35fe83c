use crate::error::{Error, ErrorKind, Result};
use crate::rdd::ops::gather::{emit_into, records_of};
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Each record paired with the one at the same place of the other RDD. Both must have equally many
    /// partitions with equally many records each, as when one was made from the other with
    /// [`map`](Rdd::map); where they have not, the action that computes it fails with
    /// [`ErrorKind::InvalidGraph`], naming the partition.
    ///
    /// Lazy, narrow; the other's partition is held in memory.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "bc"], |lines| {
    /// let lengths = lines.map(|line| line.len());
    /// assert_eq!(lines.zip(&lengths).collect()?, [("a".into(), 1), ("bc".into(), 2)]);
    /// # Ok(()) });
    /// ```
    pub fn zip<U: Record>(&self, other: &Rdd<U>) -> Rdd<(T, U)> {
        let counts = (self.partitions(), other.partitions());
        let (left, right) = (self.node.clone(), other.node.clone());
        let parents = vec![self.as_narrow_parent(), other.as_narrow_parent()];
        // The larger number, so that there is always a task to find that they differ.
        let partitions = counts.0.max(counts.1);
        Rdd::gathered(&self.executor, "zip", partitions, parents, move |task, partition, out| {
            same("the RDDs of a zip have", counts.0, counts.1, "partitions")?;
            let mut right = records_of(&*right, task, partition)?.into_iter();
            let (right_records, mut left_records) = (right.len(), 0);
            emit_into(out, |out| {
                left.compute(task, partition, &mut |chunk| {
                    left_records += chunk.len();
                    chunk.drain(..).zip(&mut right).for_each(|pair| out.emit(pair));
                    out.check()
                })
            })?;
            same(&format!("partition {partition} of a zip has"), left_records, right_records, "records")
        })
    }
}

fn same(what: &str, left: usize, right: usize, unit: &str) -> Result<()> {
    if left == right {
        return Ok(());
    }
    let message = format!("{what} {left} {unit} on the left and {right} on the right");
    Err(Error::new(ErrorKind::InvalidGraph, message))
}
