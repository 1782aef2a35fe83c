use crate::rdd::ops::gather::emit_into;
use crate::rdd::ops::stage_output::StageOutput;
use crate::rdd::{Parent, Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Each record with its place among all, counted from 0 in partition order.
    ///
    /// Lazy. With more than one partition a stage first counts the records of all but the last, so that
    /// these are computed twice: [`persist`](Rdd::persist) what is costly to make. No record is moved.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// assert_eq!(lines.zip_with_index().collect()?, [("a".into(), 0), ("b".into(), 1)]);
    /// # Ok(()) });
    /// ```
    pub fn zip_with_index(&self) -> Rdd<(T, u64)> {
        let partitions = self.partitions();
        let counts = StageOutput::new(
            "counts for zip_with_index",
            &self.node,
            partitions.saturating_sub(1),
            |task, partition, input| {
                let mut records = 0u64;
                input.compute(task, partition, &mut |chunk| {
                    records += chunk.len() as u64;
                    Ok(())
                })?;
                Ok(records)
            },
            |_| (),
        );
        let mut parents = vec![self.as_narrow_parent()];
        if partitions > 1 {
            parents.push(Parent::Wide(counts.clone()));
        }
        let input = self.node.clone();
        Rdd::gathered(&self.executor, "zip_with_index", partitions, parents, move |task, partition, out| {
            let mut index = match partition {
                0 => 0,
                _ => counts.made()?.parts[..partition].iter().sum(),
            };
            emit_into(out, |out| {
                input.compute(task, partition, &mut |chunk| {
                    for record in chunk.drain(..) {
                        out.emit((record, index));
                        index += 1;
                    }
                    out.check()
                })
            })
        })
    }
}
