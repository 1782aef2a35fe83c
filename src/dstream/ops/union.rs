use std::sync::Arc;

use crate::dstream::{DStream, Graph};
use crate::rdd::{Rdd, Record};

impl<T: Record> DStream<T> {
    /// The records of this stream, then those of the other, batch by batch; see
    /// [`Rdd::union`](crate::Rdd::union). For more than two there is
    /// [`StreamingContext::union`](crate::StreamingContext::union). Lazy, narrow.
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
        DStream::union_of(&self.graph, &[self.clone(), other.clone()])
    }

    /// One node, however many streams there are.
    pub(crate) fn union_of(graph: &Arc<Graph>, streams: &[DStream<T>]) -> DStream<T> {
        DStream::of_streams(graph, "union", streams, |rdds, batch| Ok(Rdd::union_of(&batch.executor, &rdds)))
    }
}
