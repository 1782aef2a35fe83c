use std::sync::Arc;

use crate::dstream::DStream;
use crate::record::Data;

impl<T: Data> DStream<T> {
    /// One record per batch, merged from all of it in order; none for an empty batch. One shuffle of one
    /// record per partition. `merge` should be associative.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.map(|line| line.len() as u64).reduce(|a, b| a + b).print(1);
    /// # Ok(()) }
    /// ```
    pub fn reduce(&self, merge: impl Fn(T, T) -> T + Send + Sync + 'static) -> DStream<T> {
        let merge = Arc::new(merge);
        self.derive("reduce", move |rdd, _| Ok(rdd.reduced(merge.clone())))
    }
}
