use crate::error::Result;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// All records merged into one, `None` when there are none. `merge` should be associative; it is
    /// applied in partition order, so that it need not be commutative.
    ///
    /// # Errors
    /// When a task failed on every attempt.
    #[allow(clippy::redundant_closure, reason = "a reference to the closure is called, a closure inlined")]
    pub fn reduce(&self, merge: impl Fn(T, T) -> T + Send + Sync) -> Result<Option<T>> {
        let parts = self.run("reduce", |_, compute| {
            let mut merged = None;
            compute(&mut |chunk| {
                merged = merged.take().into_iter().chain(chunk.drain(..)).reduce(|a, b| merge(a, b));
                Ok(())
            })?;
            Ok(merged)
        })?;
        self.merge_parts("reduce", || parts.iter().flatten().cloned().reduce(&merge))
    }
}
