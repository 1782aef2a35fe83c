use std::time::Duration;

use super::chunks::Codec;
use super::store::{Use, WindowStore};
use crate::dstream::{DStream, OperatorName};
use crate::rdd::Record;
use crate::record::Data;

impl<T: Data> DStream<T> {
    /// The records of the last batches: in every batch whose time is a multiple of `slide` (since the Unix
    /// epoch), those of all batches with times in `(time - length, time]`, in their order. In the batches
    /// between, the stream and whatever is derived from it take no part, and outputs are not called.
    ///
    /// `length` and `slide` are multiples of the batch interval or of this stream's own slide. With a
    /// `slide` below the `length` a record is in several windows, with the same in one, with a longer one in
    /// one or none.
    ///
    /// Lazy, narrow: no shuffle; one task per 256 KiB of records or more, read from memory. What windows
    /// hold is state under `name`: each batch's records are encoded once when the batch runs, checkpointed
    /// once, and removed when no window needs them. A replay takes the batches after the checkpoint up
    /// again and gives the same windows. `length` and `slide` may change from run to run; records that
    /// are still held are in the windows they belong to.
    ///
    /// Batch times that pass while the job is down or busy are made up for only where records would
    /// otherwise be in no window: tumbling windows lose nothing, windows that repeat records are skipped.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// use std::time::Duration;
    ///
    /// let minute = lines.window("last minute", Duration::from_secs(60), Duration::from_secs(10));
    /// minute.count().print(1);
    /// # Ok(()) }
    /// ```
    pub fn window(&self, name: impl Into<OperatorName>, length: Duration, slide: Duration) -> DStream<T> {
        self.window_of("window", name, length, slide, Codec::of_data())
    }
}

impl<T: Record> DStream<T> {
    /// The same for any records that `codec` can lay out.
    pub(super) fn window_of(
        &self,
        operation: &'static str,
        name: impl Into<OperatorName>,
        length: Duration,
        slide: Duration,
        codec: Codec<T>,
    ) -> DStream<T> {
        let name = name.into();
        let span = self.span(operation, name.as_str(), length, slide);
        let id = self.graph.add_node::<T>(operation, name.as_str(), &[self.id], false);
        let store = WindowStore::new(&name, self, span, Use::Whole, codec);
        self.graph.add_stateful(name.as_str(), store.clone());
        DStream::new(&self.graph, id, move |batch| store.window(batch, operation)).sliding(span.slide_ms)
    }
}
