use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record> DStream<T> {
    /// Each partition of each batch as one record, a vector; see [`Rdd::glom`](crate::Rdd::glom). No
    /// shuffle.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let lines_per_block = lines.glom().map(|block| block.len());
    /// # Ok(()) }
    /// ```
    pub fn glom(&self) -> DStream<Vec<T>> {
        self.derive("glom", |rdd, _| Ok(rdd.glom()))
    }
}
