use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record> DStream<T> {
    /// The records of both streams, batch by batch; see [`Rdd::union`](crate::Rdd::union).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let more = context.socket_text_stream("more", "127.0.0.1:9998");
    /// lines.union(&more).print(10);
    /// # Ok(()) }
    /// ```
    pub fn union(&self, other: &DStream<T>) -> DStream<T> {
        let (first, second) = (self.clone(), other.clone());
        let id = self.graph.add_node::<T>("union", "", &[self.id, other.id], false);
        DStream::new(&self.graph, id, move |batch| Ok(first.rdd(batch)?.union(&second.rdd(batch)?)))
    }
}
