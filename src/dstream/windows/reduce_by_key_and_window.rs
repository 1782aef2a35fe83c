use std::sync::Arc;
use std::time::Duration;

use super::chunks::Codec;
use super::merged::MergedNode;
use super::store::{Use, WindowStore};
use crate::dstream::{DStream, OperatorName};
use crate::record::{Data, Key};

const OPERATION: &str = "reduce_by_key_and_window";

impl<K: Key, V: Data> DStream<(K, V)> {
    /// One pair per key and window, its values merged in the order of their records. See
    /// [`window`](DStream::window) for `length` and `slide`.
    ///
    /// `merge` must be associative; it need not be commutative. Each batch is reduced by key first. Where windows
    /// overlap, runs of 2, 4, 8, ... of them are merged for themselves when a window first has them whole, and used by
    /// all that do: of `n` batches with the same keys a window costs as much as at most `2 log2(n)`. Where batches
    /// have few keys in common it costs as much as all of them. Where values can be taken out again,
    /// [`reduce_by_key_and_window_with_inverse`](DStream::reduce_by_key_and_window_with_inverse) costs what
    /// changes.
    ///
    /// Lazy; a shuffle per batch, and none per window: the stream is partitioned by key. State under `name`: the
    /// reduced pairs of a window's batches. What runs of them come to is only in memory, takes about as much of it
    /// as the batches at most, and is merged again after a restart, in the same way. A replay calls `merge` again.
    /// What `merge` adds to accumulators counts where a batch is reduced and a window put together, not in the
    /// runs.
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
        let name = name.into();
        let merge = Arc::new(merge);
        let each_batch = merge.clone();
        let reduced = self.reduce_by_key(move |a, b| each_batch(a, b));
        let span = reduced.span(OPERATION, name.as_str(), length, slide);
        let id = self.graph.add_node::<(K, V)>(OPERATION, name.as_str(), &[reduced.id], true);
        let batches = WindowStore::new(&name, &reduced, span, Use::Merged, Codec::of_pairs());
        let node =
            MergedNode::new(OPERATION, batches, span, self.graph.partitions(), move |a, b| merge(a, b));
        self.graph.add_stateful(name.as_str(), node.clone());
        DStream::new(&self.graph, id, move |batch| node.rdd(batch)).sliding(span.slide_ms)
    }
}
