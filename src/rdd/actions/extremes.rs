use crate::error::Result;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// The largest record, the first of equal ones, or `None` when there are none.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "ccc", "bb"], |lines| {
    /// assert_eq!(lines.map(|line| line.len()).max()?, Some(3));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn max(&self) -> Result<Option<T>>
    where
        T: Ord,
    {
        self.reduce(|best, next| if next > best { next } else { best })
    }

    /// The smallest record, the first of equal ones, or `None` when there are none.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "ccc", "bb"], |lines| {
    /// assert_eq!(lines.map(|line| line.len()).min()?, Some(1));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn min(&self) -> Result<Option<T>>
    where
        T: Ord,
    {
        self.reduce(|best, next| if next < best { next } else { best })
    }

    /// The record with the largest `key_of`, which is called once per record; the first of equal ones.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "ccc", "bb"], |lines| {
    /// assert_eq!(lines.max_by(|line| line.len())?, Some("ccc".into()));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn max_by<K: Ord + Record>(&self, key_of: impl Fn(&T) -> K + Send + Sync) -> Result<Option<T>> {
        self.extreme("max_by", key_of, |next, best| next > best)
    }

    /// The record with the smallest `key_of`, which is called once per record; the first of equal ones.
    ///
    /// ```
    /// # millpond::doc::run_batch(["bb", "a", "ccc"], |lines| {
    /// assert_eq!(lines.min_by(|line| line.len())?, Some("a".into()));
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn min_by<K: Ord + Record>(&self, key_of: impl Fn(&T) -> K + Send + Sync) -> Result<Option<T>> {
        self.extreme("min_by", key_of, |next, best| next < best)
    }

    fn extreme<K: Record>(
        &self,
        action: &str,
        key_of: impl Fn(&T) -> K + Send + Sync,
        is_better: impl Fn(&K, &K) -> bool + Send + Sync,
    ) -> Result<Option<T>> {
        let better = |best: (K, T), next: (K, T)| if is_better(&next.0, &best.0) { next } else { best };
        let parts = self.run(action, |_, compute| {
            let mut best: Option<(K, T)> = None;
            compute(&mut |chunk| {
                let keyed = chunk.drain(..).map(|record| (key_of(&record), record));
                best = best.take().into_iter().chain(keyed).reduce(better);
                Ok(())
            })?;
            Ok(best)
        })?;
        let best = self.merge_parts(action, || parts.iter().flatten().cloned().reduce(better))?;
        Ok(best.map(|(_, record)| record))
    }
}
