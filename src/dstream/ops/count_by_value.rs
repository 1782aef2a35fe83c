use crate::dstream::DStream;
use crate::record::Key;

impl<T: Key> DStream<T> {
    /// The distinct records of each batch, paired with how often each one comes in it. One shuffle of the
    /// distinct records of each partition; the pairs are partitioned by value, so that a keyed operation
    /// on them needs no other. Keeps no state.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit(word)));
    /// words.count_by_value().print(10);
    /// # Ok(()) }
    /// ```
    pub fn count_by_value(&self) -> DStream<(T, u64)> {
        self.derive_wide("count_by_value", &[], |rdd, _, partitions| Ok(rdd.counted_by_value(partitions)))
    }
}
