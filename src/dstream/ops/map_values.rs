use std::sync::Arc;

use crate::dstream::DStream;
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// Each value turned into another; see [`Rdd::map_values`](crate::Rdd::map_values).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let pairs = lines.map(|line| (line.clone(), line));
    /// pairs.map_values(|line| line.len() as u64).print(10);
    /// # Ok(()) }
    /// ```
    pub fn map_values<W: Data>(&self, each: impl Fn(V) -> W + Send + Sync + 'static) -> DStream<(K, W)> {
        let each = Arc::new(each);
        self.derive("map_values", move |rdd, _| {
            let each = each.clone();
            Ok(rdd.map_values(move |value| each(value)))
        })
    }
}
