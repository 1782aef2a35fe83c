use crate::dstream::DStream;
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// Every value with every value of the other stream that has the same key in the same batch, or with `None`
    /// where it has none; see [`Rdd::left_outer_join`](crate::Rdd::left_outer_join).
    ///
    /// Lazy, wide: a shuffle for each side that is not partitioned by key already.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let counts = lines.map(|line| (line, 1u64)).reduce_by_key(|a, b| a + b);
    /// let sizes = lines.filter(|line| line.len() > 9).map(|line| (line.clone(), line.len() as u64));
    /// counts.left_outer_join(&sizes).print(10);
    /// # Ok(()) }
    /// ```
    pub fn left_outer_join<W: Data>(&self, other: &DStream<(K, W)>) -> DStream<(K, (V, Option<W>))> {
        self.derive_joined("left_outer_join", other, |left, right, partitions| {
            left.left_outer_join_into(partitions, &right)
        })
    }
}
