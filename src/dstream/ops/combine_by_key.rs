use std::sync::Arc;

use crate::dstream::DStream;
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// One pair per key and batch, with what its values combine to; see
    /// [`Rdd::combine_by_key`](crate::Rdd::combine_by_key).
    ///
    /// Lazy, wide: one shuffle, none where the pairs are partitioned by key already. Only combined values
    /// cross it.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let sizes = lines.map(|line| (line.slice(0, line.len().min(1)), line.len() as u64));
    /// let count_and_sum = sizes.combine_by_key(
    ///     |size| (1u64, size),
    ///     |(count, sum), size| (count + 1, sum + size),
    ///     |a, b| (a.0 + b.0, a.1 + b.1),
    /// );
    /// count_and_sum.print(10);
    /// # Ok(()) }
    /// ```
    pub fn combine_by_key<C: Data>(
        &self,
        create: impl Fn(V) -> C + Send + Sync + 'static,
        merge_value: impl Fn(C, V) -> C + Send + Sync + 'static,
        merge_combiners: impl Fn(C, C) -> C + Send + Sync + 'static,
    ) -> DStream<(K, C)> {
        let (create, merge_value, merge_combiners) =
            (Arc::new(create), Arc::new(merge_value), Arc::new(merge_combiners));
        self.derive_wide("combine_by_key", &[], move |rdd, _, partitions| {
            let (create, merge_value) = (create.clone(), merge_value.clone());
            let merge_combiners = merge_combiners.clone();
            Ok(rdd.combine_by_key_into("combine_by_key", partitions, create, merge_value, merge_combiners))
        })
    }
}
