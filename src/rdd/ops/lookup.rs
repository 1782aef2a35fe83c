use crate::error::Result;
use crate::rdd::{Parent, Rdd, prepare_all};
use crate::record::{Data, Key, group_of, hash_of};

impl<K: Key, V: Data> Rdd<(K, V)> {
    /// The values of one key, in partition order. An action: where the pairs are partitioned by key it computes
    /// only the key's group, otherwise every partition.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a 1", "b 2", "a 3"], |lines| {
    /// let pairs = lines.map(|line| (line.slice(0, 1), line.slice(2, 3)));
    /// assert_eq!(pairs.lookup(&"a".into())?, ["1", "3"]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn lookup(&self, key: &K) -> Result<Vec<V>> {
        let mut wanted = Vec::new();
        key.encode_key(&mut wanted);
        let Some(keyed) = self.partitioned() else {
            return self.scan_for(&wanted);
        };
        prepare_all(&self.executor, keyed.dependencies().into_iter().map(Parent::Wide).collect())?;
        let hash = hash_of(&wanted);
        let stage = format!("lookup of {}", self.node.info().operation);
        let found = self.executor.run_stage(&stage, 1, |_, _| {
            let grouped = keyed.grouped(group_of(hash))?;
            let at = grouped.keys.find(hash, &wanted);
            Ok(at.map_or_else(Vec::new, |at| grouped.values(at).to_vec()))
        })?;
        Ok(found.concat())
    }

    fn scan_for(&self, wanted: &[u8]) -> Result<Vec<V>> {
        let parts = self.run("lookup", |_, compute| {
            let (mut found, mut scratch) = (Vec::new(), Vec::new());
            compute(&mut |chunk| {
                for (key, value) in chunk.drain(..) {
                    if key.with_key_bytes(&mut scratch, |key| key == wanted) {
                        found.push(value);
                    }
                }
                Ok(())
            })?;
            Ok(found)
        })?;
        Ok(parts.concat())
    }
}
