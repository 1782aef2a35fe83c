use std::sync::Arc;

use crate::dstream::DStream;
use crate::rdd::Emitter;
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// Each value turned into any number of others, the key kept; see
    /// [`Rdd::flat_map_values`](crate::Rdd::flat_map_values). Lazy, narrow.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let by_size = lines.map(|line| (line.len() as u64, line));
    /// by_size.flat_map_values(|line, out| line.words().for_each(|word| out.emit(word))).print(10);
    /// # Ok(()) }
    /// ```
    pub fn flat_map_values<W: Data>(
        &self,
        each: impl Fn(V, &mut Emitter<'_, W>) + Send + Sync + 'static,
    ) -> DStream<(K, W)> {
        let each = Arc::new(each);
        self.derive("flat_map_values", move |rdd, _| {
            let each = each.clone();
            Ok(rdd.flat_map_values(move |value, out: &mut Emitter<'_, W>| each(value, out)))
        })
    }
}
