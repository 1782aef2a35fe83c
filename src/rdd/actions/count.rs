use crate::error::Result;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
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
}
