use std::collections::BTreeMap;

use crate::error::Result;
use crate::rdd::{Rdd, Record};

impl<K: Record + Ord, V: Record> Rdd<(K, V)> {
    /// All pairs as a map; of several values of a key the last in partition order stays. An action: everything
    /// must fit in memory.
    ///
    /// ```
    /// # millpond::doc::run_batch(["b", "a"], |lines| {
    /// let sizes = lines.map(|line| (line.to_string(), line.len())).collect_as_map()?;
    /// assert_eq!(sizes.keys().collect::<Vec<_>>(), ["a", "b"]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn collect_as_map(&self) -> Result<BTreeMap<K, V>> {
        Ok(self.collect()?.into_iter().collect())
    }
}
