use std::time::Duration;

use crate::dstream::{DStream, OperatorName};
use crate::record::Key;

impl<T: Key> DStream<T> {
    /// One pair per distinct record of a window: how many of it there are. See [`window`](DStream::window)
    /// for `length` and `slide`.
    ///
    /// Costs what enters and leaves, not what is in the window. One shuffle. State under `name` and
    /// `NAME, batches`: counts per batch of a window, and per window; a record that is in no batch of the
    /// window any more leaves nothing behind.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// # use std::time::Duration;
    /// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit(word)));
    /// words.count_by_value_and_window("words a minute", Duration::from_secs(60), Duration::from_secs(1)).print(9);
    /// # Ok(()) }
    /// ```
    pub fn count_by_value_and_window(
        &self,
        name: impl Into<OperatorName>,
        length: Duration,
        slide: Duration,
    ) -> DStream<(T, u64)> {
        let ones = self.map(|value| (value, 1u64));
        ones.reduce_by_key_and_window_with_inverse(name, length, slide, |a, b| a + b, |a, b| a - b)
    }
}
