use std::iter::Sum;

use crate::error::Result;
use crate::rdd::{Rdd, Record};

impl<T: Record + Sum<T>> Rdd<T> {
    /// The sum of all numbers, zero for none. Added in order within a partition, then in partition order,
    /// so that floating-point sums come out the same each time. Overflow does what `+` does.
    ///
    /// ```
    /// # millpond::doc::run_batch(["to", "be"], |lines| {
    /// assert_eq!(lines.map(|line| line.len()).sum()?, 4);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn sum(&self) -> Result<T> {
        let parts = self.run("sum", |_, compute| {
            let mut total = Some(std::iter::empty::<T>().sum::<T>());
            compute(&mut |chunk| {
                // One by one: where chunks end must not show in the sum.
                let add = |total, next| [total, next].into_iter().sum();
                total = total.take().map(|total| chunk.drain(..).fold(total, add));
                Ok(())
            })?;
            Ok(total)
        })?;
        self.merge_parts("sum", || parts.iter().flatten().cloned().sum())
    }
}
