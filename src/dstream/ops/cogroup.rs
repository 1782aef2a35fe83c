use crate::dstream::DStream;
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// One pair per key and batch with all its values in both streams; see
    /// [`Rdd::cogroup`](crate::Rdd::cogroup).
    ///
    /// Lazy, wide: a shuffle for each side that is not partitioned by key already.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let counts = lines.map(|line| (line, 1u64)).reduce_by_key(|a, b| a + b);
    /// let sizes = lines.filter(|line| line.len() > 9).map(|line| (line.clone(), line.len() as u64));
    /// counts.cogroup(&sizes).print(10);
    /// # Ok(()) }
    /// ```
    pub fn cogroup<W: Data>(&self, other: &DStream<(K, W)>) -> DStream<(K, (Vec<V>, Vec<W>))> {
        self.derive_joined("cogroup", other, |left, right, partitions| left.cogroup_into(partitions, &right))
    }
}
