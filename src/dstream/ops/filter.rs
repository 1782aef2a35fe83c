use std::sync::Arc;

use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record> DStream<T> {
    /// The records for which `keep` holds; see [`Rdd::filter`](crate::Rdd::filter).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.filter(|line| line.as_bytes().starts_with(b"ERROR")).print(10);
    /// # Ok(()) }
    /// ```
    pub fn filter(&self, keep: impl Fn(&T) -> bool + Send + Sync + 'static) -> DStream<T> {
        let keep = Arc::new(keep);
        self.derive("filter", move |rdd, _| {
            let keep = keep.clone();
            Ok(rdd.filter(move |record| keep(record)))
        })
    }
}
