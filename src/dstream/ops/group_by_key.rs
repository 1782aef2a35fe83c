use crate::dstream::DStream;
use crate::record::{Data, Key};

impl<K: Key, V: Data> DStream<(K, V)> {
    /// One pair per key and batch with all its values; see
    /// [`Rdd::group_by_key`](crate::Rdd::group_by_key).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.map(|line| (line.len() as u64, line)).group_by_key().print(10);
    /// # Ok(()) }
    /// ```
    pub fn group_by_key(&self) -> DStream<(K, Vec<V>)> {
        self.derive_wide("group_by_key", &[], |rdd, _, partitions| Ok(rdd.group_by_key_into(partitions)))
    }
}
