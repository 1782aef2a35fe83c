use std::cmp::Ordering;

use crate::error::Result;
use crate::rdd::{CHUNK_RECORDS, Rdd, Record};

impl<T: Record> Rdd<T> {
    /// The `n` smallest records, smallest first; equal ones in their order. Each task holds about `2 n`
    /// records: for a few out of many, where [`sort_by`](Rdd::sort_by) would move them all.
    ///
    /// ```
    /// # millpond::doc::run_batch(["b", "c", "a"], |lines| {
    /// assert_eq!(lines.map(|line| line.to_string()).take_ordered(2)?, ["a", "b"]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn take_ordered(&self, n: usize) -> Result<Vec<T>>
    where
        T: Ord,
    {
        self.least("take_ordered", n, |_, _, record| record, T::cmp)
    }

    /// The `n` records with the smallest `key_of`, which is called once per record; equal ones in their
    /// order. Otherwise as [`take_ordered`](Rdd::take_ordered).
    ///
    /// ```
    /// # millpond::doc::run_batch(["ccc", "a", "bb"], |lines| {
    /// assert_eq!(lines.take_ordered_by(2, |line| line.len())?, ["a", "bb"]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn take_ordered_by<K: Ord + Record>(
        &self,
        n: usize,
        key_of: impl Fn(&T) -> K + Send + Sync,
    ) -> Result<Vec<T>> {
        let keyed = |_, _, record| (key_of(&record), record);
        let least = self.least("take_ordered_by", n, keyed, |a: &(K, T), b| a.0.cmp(&b.0))?;
        Ok(least.into_iter().map(|(_, record)| record).collect())
    }

    /// The `n` largest records, largest first; equal ones in their order. Otherwise as
    /// [`take_ordered`](Rdd::take_ordered).
    ///
    /// ```
    /// # millpond::doc::run_batch(["b", "c", "a"], |lines| {
    /// assert_eq!(lines.map(|line| line.to_string()).top(2)?, ["c", "b"]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn top(&self, n: usize) -> Result<Vec<T>>
    where
        T: Ord,
    {
        self.least("top", n, |_, _, record| record, |a: &T, b| b.cmp(a))
    }

    /// The `n` records with the largest `key_of`, which is called once per record; equal ones in their
    /// order. Otherwise as [`take_ordered`](Rdd::take_ordered).
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "ccc", "bb"], |lines| {
    /// assert_eq!(lines.top_by(2, |line| line.len())?, ["ccc", "bb"]);
    /// # Ok(()) });
    /// ```
    ///
    /// # Errors
    /// When a task failed on every attempt.
    pub fn top_by<K: Ord + Record>(
        &self,
        n: usize,
        key_of: impl Fn(&T) -> K + Send + Sync,
    ) -> Result<Vec<T>> {
        let keyed = |_, _, record| (key_of(&record), record);
        let least = self.least("top_by", n, keyed, |a: &(K, T), b| b.0.cmp(&a.0))?;
        Ok(least.into_iter().map(|(_, record)| record).collect())
    }

    /// The `n` least of what `project` makes of (partition, position, record), equal ones in their order.
    pub(super) fn least<S: Clone + Send + Sync>(
        &self,
        action: &str,
        n: usize,
        project: impl Fn(usize, u64, T) -> S + Send + Sync,
        compare: impl Fn(&S, &S) -> Ordering + Send + Sync,
    ) -> Result<Vec<S>> {
        if n == 0 {
            return Ok(Vec::new());
        }
        let held_max = n.saturating_mul(2).max(CHUNK_RECORDS);
        let parts = self.run(action, |partition, compute| {
            let mut position = 0;
            let mut least = Vec::new();
            compute(&mut |chunk| {
                for record in chunk.drain(..) {
                    least.push(project(partition, position, record));
                    position += 1;
                    if least.len() >= held_max {
                        least.sort_by(&compare);
                        least.truncate(n);
                    }
                }
                Ok(())
            })?;
            least.sort_by(&compare);
            least.truncate(n);
            Ok(least)
        })?;
        self.merge_parts(action, || {
            let mut all: Vec<&S> = parts.iter().flatten().collect();
            all.sort_by(|a, b| compare(a, b));
            all.into_iter().take(n).cloned().collect()
        })
    }
}
