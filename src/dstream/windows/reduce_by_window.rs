use std::sync::Arc;
use std::time::Duration;

use super::chunks::Codec;
use crate::dstream::{DStream, OperatorName};
use crate::record::Data;

impl<T: Data> DStream<T> {
    /// One record per window, merged from all of it in order; none for a window without records. See
    /// [`window`](DStream::window) for `length` and `slide`.
    ///
    /// `merge` must be associative; it need not be commutative. Each batch is merged first, and the
    /// windows are merged from one record per batch. Lazy; two shuffles of one record per partition. State
    /// under `name`: one record per batch of a window. A replay calls `merge` again.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// # use std::time::Duration;
    /// let longest = lines
    ///     .map(|line| line.len() as u64)
    ///     .reduce_by_window("longest", Duration::from_secs(60), Duration::from_secs(10), u64::max);
    /// # Ok(()) }
    /// ```
    pub fn reduce_by_window(
        &self,
        name: impl Into<OperatorName>,
        length: Duration,
        slide: Duration,
        merge: impl Fn(T, T) -> T + Send + Sync + 'static,
    ) -> DStream<T> {
        let merge = Arc::new(merge);
        let each_batch = merge.clone();
        self.reduce(move |a, b| each_batch(a, b))
            .window_of("reduce_by_window", name, length, slide, Codec::of_data())
            .reduce(move |a, b| merge(a, b))
    }

    /// The same as [`reduce_by_window`](DStream::reduce_by_window), at a cost that does not grow with the
    /// window: what enters is merged to the window before, what leaves is taken out with `inverse`. See
    /// [`reduce_by_key_and_window_with_inverse`](DStream::reduce_by_key_and_window_with_inverse) for what
    /// `merge` and `inverse` must keep to.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// # use std::time::Duration;
    /// let (length, slide) = (Duration::from_secs(3600), Duration::from_secs(1));
    /// let bytes = lines
    ///     .map(|line| line.len() as u64)
    ///     .reduce_by_window_with_inverse("bytes per hour", length, slide, |a, b| a + b, |all, old| all - old);
    /// # Ok(()) }
    /// ```
    pub fn reduce_by_window_with_inverse(
        &self,
        name: impl Into<OperatorName>,
        length: Duration,
        slide: Duration,
        merge: impl Fn(T, T) -> T + Send + Sync + 'static,
        inverse: impl Fn(T, T) -> T + Send + Sync + 'static,
    ) -> DStream<T> {
        self.map(|record| ((), record))
            .reduce_by_key_and_window_with_inverse(name, length, slide, merge, inverse)
            .map(|((), record)| record)
    }
}
