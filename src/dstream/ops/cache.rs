use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record> DStream<T> {
    /// Keeps each batch's records in memory once computed, for when several operations read them; see
    /// [`Rdd::cache`](crate::Rdd::cache).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let sizes = lines.map(|line| line.len()).cache();
    /// sizes.count().print(1);
    /// sizes.reduce(|a, b| a.max(b)).print(1);
    /// # Ok(()) }
    /// ```
    pub fn cache(&self) -> DStream<T> {
        self.derive("cache", |rdd, _| Ok(rdd.cache()))
    }
}
