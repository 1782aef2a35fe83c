use std::sync::Arc;

use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record> DStream<T> {
    /// Each partition turned as a whole; see [`Rdd::map_partitions`](crate::Rdd::map_partitions).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.map_partitions(|lines| [lines.len()]).print(10);
    /// # Ok(()) }
    /// ```
    pub fn map_partitions<U: Record, I: IntoIterator<Item = U>>(
        &self,
        each: impl Fn(Vec<T>) -> I + Send + Sync + 'static,
    ) -> DStream<U> {
        let each = Arc::new(each);
        self.derive("map_partitions", move |rdd, _| {
            let each = each.clone();
            Ok(rdd.map_partitions(move |records| each(records)))
        })
    }
}
