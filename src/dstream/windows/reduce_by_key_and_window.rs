use std::sync::Arc;
use std::time::Duration;

use super::chunks::Codec;
use crate::dstream::{DStream, OperatorName};
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// One pair per key and window, its values merged in the order of their records. See
    /// [`window`](DStream::window) for `length` and `slide`.
    ///
    /// `merge` must be associative; it need not be commutative. Each batch is reduced by key first, and a
    /// window is merged from the reduced batches: it costs as much as all of its batches have keys. Where
    /// values can be taken out again,
    /// [`reduce_by_key_and_window_with_inverse`](DStream::reduce_by_key_and_window_with_inverse) costs what
    /// changes.
    ///
    /// Lazy; a shuffle per batch and one per window. State under `name`: the reduced pairs of a window's
    /// batches. A replay calls `merge` again.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// # use std::time::Duration;
    /// let (length, slide) = (Duration::from_secs(30), Duration::from_secs(10));
    /// let longest = lines
    ///     .map(|line| (line.slice(0, 1), line.len() as u64))
    ///     .reduce_by_key_and_window("longest", length, slide, u64::max);
    /// # Ok(()) }
    /// ```
    pub fn reduce_by_key_and_window(
        &self,
        name: impl Into<OperatorName>,
        length: Duration,
        slide: Duration,
        merge: impl Fn(V, V) -> V + Send + Sync + 'static,
    ) -> DStream<(K, V)> {
        let merge = Arc::new(merge);
        let each_batch = merge.clone();
        self.reduce_by_key(move |a, b| each_batch(a, b))
            .window_of("reduce_by_key_and_window", name, length, slide, Codec::of_pairs())
            .reduce_by_key(move |a, b| merge(a, b))
    }
}
