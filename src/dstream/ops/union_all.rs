use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record> DStream<T> {
    /// The records of this and all other streams, batch by batch and in this order; see
    /// [`Rdd::union_all`](crate::Rdd::union_all). No shuffle.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let [north, east, south] = ["n", "e", "s"].map(|name| context.socket_text_stream(name, "127.0.0.1:9999"));
    /// let all = north.union_all(&[east, south]);
    /// # Ok(()) }
    /// ```
    pub fn union_all(&self, others: &[DStream<T>]) -> DStream<T> {
        DStream::union_of(&self.graph, &[std::slice::from_ref(self), others].concat())
    }
}
