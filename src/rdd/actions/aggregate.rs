use crate::error::Result;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// Each partition's records added to a clone of `zero` with `add`, then these results merged into
    /// another clone of it with `merge`, in partition order. `zero` should change nothing: how often it is
    /// taken follows the number of partitions.
    ///
    /// ```
    /// # millpond::doc::run_batch(["to", "be"], |lines| {
    /// let (lines, bytes) = lines.aggregate(
    ///     (0, 0),
    ///     |(lines, bytes), line| (lines + 1, bytes + line.len()),
    ///     |a, b| (a.0 + b.0, a.1 + b.1),
    /// )?;
    /// assert_eq!((lines, bytes), (2, 4));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    #[allow(clippy::redundant_closure, reason = "a reference to the closure is called, a closure inlined")]
    pub fn aggregate<A: Clone + Send + Sync>(
        &self,
        zero: A,
        add: impl Fn(A, T) -> A + Send + Sync,
        merge: impl Fn(A, A) -> A + Send + Sync,
    ) -> Result<A> {
        let parts = self.run("aggregate", |_, compute| {
            let mut total = Some(zero.clone());
            compute(&mut |chunk| {
                total =
                    total.take().map(|total| chunk.drain(..).fold(total, |total, record| add(total, record)));
                Ok(())
            })?;
            Ok(total)
        })?;
        self.merge_parts("aggregate", || parts.iter().flatten().cloned().fold(zero.clone(), &merge))
    }

    /// All records merged with `merge`, starting from `zero`: an [`aggregate`](Rdd::aggregate) of one type.
    ///
    /// ```
    /// # millpond::doc::run_batch(["to", "be"], |lines| {
    /// assert_eq!(lines.map(|line| line.len()).fold(0, |a, b| a + b)?, 4);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    #[allow(clippy::redundant_closure, reason = "a reference to the closure is called, a closure inlined")]
    pub fn fold(&self, zero: T, merge: impl Fn(T, T) -> T + Send + Sync) -> Result<T> {
        self.aggregate(zero, |a, b| merge(a, b), |a, b| merge(a, b))
    }
}
