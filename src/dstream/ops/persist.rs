use crate::dstream::DStream;
use crate::rdd::StorageLevel;
use crate::record::Data;

impl<T: Data> DStream<T> {
    /// Keeps each batch's records at this level once computed, until the batch is over, for when several
    /// operations read them; see [`Rdd::persist`](crate::Rdd::persist). No shuffle, no state: a replay
    /// computes them again.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// use millpond::StorageLevel;
    /// let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit(word)));
    /// let words = words.persist(StorageLevel::MemorySerialized);
    /// words.count().print(1);
    /// words.print(10);
    /// # Ok(()) }
    /// ```
    pub fn persist(&self, level: StorageLevel) -> DStream<T> {
        self.derive("persist", move |rdd, _| Ok(rdd.persist(level)))
    }
}
