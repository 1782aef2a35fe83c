use crate::rdd::Rdd;
use crate::record::{Data, Key};

impl<K: Key + Ord, V: Data> Rdd<(K, V)>
where
    (K, V): Data,
{
    /// The pairs in ascending order of their keys over all partitions; pairs of one key keep their order. It is
    /// [`sort_by`](Rdd::sort_by) with the key; for the other direction there is
    /// [`sort_by_descending`](Rdd::sort_by_descending).
    ///
    /// ```
    /// # millpond::doc::run_batch(["b", "a"], |lines| {
    /// let pairs = lines.map(|line| (line, 1u64));
    /// assert_eq!(pairs.sort_by_key().keys().collect()?, ["a", "b"]);
    /// # Ok(()) });
    /// ```
    pub fn sort_by_key(&self) -> Rdd<(K, V)> {
        self.sort_by(|(key, _)| key.clone())
    }
}
