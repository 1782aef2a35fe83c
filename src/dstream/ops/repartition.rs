use crate::dstream::DStream;
use crate::record::Data;

impl<T: Data> DStream<T> {
    /// Each batch's records dealt out to this many partitions; see
    /// [`Rdd::repartition`](crate::Rdd::repartition).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.repartition(32).map(|line| line.len()).print(10);
    /// # Ok(()) }
    /// ```
    pub fn repartition(&self, partitions: usize) -> DStream<T> {
        self.derive_wide("repartition", &[], move |rdd, _, _| Ok(rdd.repartition(partitions)))
    }
}
