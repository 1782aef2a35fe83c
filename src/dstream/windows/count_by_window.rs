use std::sync::Arc;
use std::time::Duration;

use crate::dstream::{DStream, OperatorName};
use crate::rdd::{Rdd, Record};

impl<T: Record> DStream<T> {
    /// One record per window: how many records there are in it, 0 for none. See
    /// [`window`](DStream::window) for `length` and `slide`.
    ///
    /// Costs what enters and leaves, not what is in the window: one shuffle of one number per partition.
    /// State under `name` and `NAME, batches`: one number per batch of a window, and their sum.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// # use std::time::Duration;
    /// lines.count_by_window("lines a minute", Duration::from_secs(60), Duration::from_secs(1)).print(1);
    /// # Ok(()) }
    /// ```
    pub fn count_by_window(
        &self,
        name: impl Into<OperatorName>,
        length: Duration,
        slide: Duration,
    ) -> DStream<u64> {
        let ones = self.map(|_| ((), 1u64));
        let counts =
            ones.reduce_by_key_and_window_with_inverse(name, length, slide, |a, b| a + b, |a, b| a - b);
        counts.derive("count", |counts, batch| {
            let none = Rdd::of_collection(&batch.executor, vec![Arc::new(vec![((), 0u64)])]);
            let with_none = counts.union(&none).reduce_by_key_into(1, Arc::new(|a, b| a + b));
            Ok(with_none.map(|((), count)| count))
        })
    }
}
