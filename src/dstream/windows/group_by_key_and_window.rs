use std::time::Duration;

use super::chunks::Codec;
use crate::dstream::{DStream, OperatorName};
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// One pair per key and window with all its values, in the order of their records. See
    /// [`window`](DStream::window) for `length` and `slide`; a key's values must fit in memory.
    ///
    /// Lazy; one shuffle of the whole window. State under `name`: the pairs of a window's batches.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// # use std::time::Duration;
    /// let by_first = lines
    ///     .map(|line| (line.slice(0, 1), line.len() as u64))
    ///     .group_by_key_and_window("by first byte", Duration::from_secs(30), Duration::from_secs(10));
    /// # Ok(()) }
    /// ```
    pub fn group_by_key_and_window(
        &self,
        name: impl Into<OperatorName>,
        length: Duration,
        slide: Duration,
    ) -> DStream<(K, Vec<V>)> {
        self.window_of("group_by_key_and_window", name, length, slide, Codec::of_pairs()).group_by_key()
    }
}
