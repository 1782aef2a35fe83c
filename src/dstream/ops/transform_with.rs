use crate::batch::Batch;
use crate::dstream::DStream;
use crate::error::Result;
use crate::id::BatchTime;
use crate::rdd::{Rdd, Record};

impl<T: Record> DStream<T> {
    /// Any RDD code over this and another stream, once per batch with the RDDs of both. Called like that of
    /// [`transform`](DStream::transform): on the job's driver thread, and again when a batch is replayed; it
    /// should only describe.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// # let noise = context.socket_text_stream("noise", "127.0.0.1:9998");
    /// let clean = lines.transform_with(&noise, |lines, noise, _time| Ok(lines.subtract(&noise)));
    /// # Ok(()) }
    /// ```
    pub fn transform_with<U: Record, V: Record>(
        &self,
        other: &DStream<U>,
        make: impl Fn(Rdd<T>, Rdd<U>, BatchTime) -> Result<Rdd<V>> + Send + Sync + 'static,
    ) -> DStream<V> {
        let (first, second) = (self.clone(), other.clone());
        let id = self.graph.add_operation::<V>("transform_with", &[self.upstream(), other.upstream()], false);
        let make = move |batch: &Batch| make(first.rdd(batch)?, second.rdd(batch)?, batch.time);
        DStream::new(&self.graph, id, make).sliding(self.slide_ms)
    }
}
