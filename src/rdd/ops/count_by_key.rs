use std::collections::BTreeMap;

use crate::error::Result;
use crate::rdd::Rdd;
use crate::record::{Data, Key};

impl<K: Key + Ord, V: Data> Rdd<(K, V)> {
    /// How many pairs each key has. An action: one shuffle of one number per key and partition, none where the
    /// pairs are partitioned by key already. The keys must fit in memory.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b", "a"], |lines| {
    /// let counts = lines.map(|line| (line.to_string(), ())).count_by_key()?;
    /// assert_eq!(counts, [("a".to_string(), 2), ("b".to_string(), 1)].into());
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn count_by_key(&self) -> Result<BTreeMap<K, u64>> {
        self.map_values_of("count_by_key", |_| 1u64).reduce_by_key(|a, b| a + b).collect_as_map()
    }
}
