use std::sync::Arc;

use crate::dstream::DStream;
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// One pair per key and batch, its values merged; see
    /// [`Rdd::reduce_by_key`](crate::Rdd::reduce_by_key).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.map(|line| (line, 1u64)).reduce_by_key(|a, b| a + b).print(10);
    /// # Ok(()) }
    /// ```
    pub fn reduce_by_key(&self, merge: impl Fn(V, V) -> V + Send + Sync + 'static) -> DStream<(K, V)> {
        let merge = Arc::new(merge);
        self.derive_wide("reduce_by_key", &[], move |rdd, _, partitions| {
            Ok(rdd.reduce_by_key_into(partitions, merge.clone()))
        })
    }
}
