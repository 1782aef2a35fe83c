use std::sync::Arc;

use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record> DStream<T> {
    /// Each record turned into another; see [`Rdd::map`](crate::Rdd::map).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.map(|line| line.len()).print(10);
    /// # Ok(()) }
    /// ```
    pub fn map<U: Record>(&self, each: impl Fn(T) -> U + Send + Sync + 'static) -> DStream<U> {
        let each = Arc::new(each);
        self.derive("map", move |rdd, _| {
            let each = each.clone();
            Ok(rdd.map(move |record| each(record)))
        })
    }
}
