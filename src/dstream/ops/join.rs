use crate::dstream::DStream;
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// Every value with every value of the other stream that has the same key in the same batch; see
    /// [`Rdd::join`](crate::Rdd::join).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let counts = lines.map(|line| (line, 1u64)).reduce_by_key(|a, b| a + b);
    /// let sizes = lines.map(|line| (line.clone(), line.len() as u64));
    /// counts.join(&sizes).print(10);
    /// # Ok(()) }
    /// ```
    pub fn join<W: Data>(&self, other: &DStream<(K, W)>) -> DStream<(K, (V, W))> {
        let right = other.clone();
        self.derive_wide("join", &[other.id], move |rdd, batch, partitions| {
            Ok(rdd.join_into(partitions, &right.rdd(batch)?))
        })
    }
}
