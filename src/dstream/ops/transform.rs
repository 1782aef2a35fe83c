use std::sync::Arc;

use crate::dstream::{DStream, Graph};
use crate::error::Result;
use crate::id::BatchTime;
use crate::rdd::{Rdd, Record};

impl<T: Record> DStream<T> {
    /// Any RDD code, once per batch. `make` is called on the job's driver thread and again when a batch is
    /// replayed; it should only describe, and leave actions to outputs.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let twice = lines.transform(|rdd, _time| Ok(rdd.union(&rdd)));
    /// # Ok(()) }
    /// ```
    pub fn transform<U: Record>(
        &self,
        make: impl Fn(Rdd<T>, BatchTime) -> Result<Rdd<U>> + Send + Sync + 'static,
    ) -> DStream<U> {
        self.derive("transform", move |rdd, batch| make(rdd, batch.time))
    }

    pub(crate) fn transform_all<U: Record>(
        graph: &Arc<Graph>,
        streams: &[DStream<T>],
        make: impl Fn(Vec<Rdd<T>>, BatchTime) -> Result<Rdd<U>> + Send + Sync + 'static,
    ) -> DStream<U> {
        DStream::of_streams(graph, "transform", streams, move |rdds, batch| make(rdds, batch.time))
    }
}
