use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record> DStream<T> {
    /// One record per batch: how many there are in it, 0 for an empty batch. One shuffle of one number per
    /// partition.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.count().print(1);
    /// # Ok(()) }
    /// ```
    pub fn count(&self) -> DStream<u64> {
        self.derive("count", |rdd, _| Ok(rdd.counted()))
    }
}
