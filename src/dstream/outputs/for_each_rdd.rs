use crate::dstream::DStream;
use crate::rdd::{Rdd, Record};
use crate::sink::{BatchInfo, OutputError};

impl<T: Record> DStream<T> {
    /// Calls `emit` once per batch, on the job's driver thread, with the batch's RDD and what it is. The
    /// way to any sink that millpond does not ship.
    ///
    /// A batch is done when all its outputs have returned, and that is recorded; a batch that was not
    /// recorded is emitted again after a restart, with the same records and the same
    /// [`idempotency_key`](BatchInfo::idempotency_key). An `emit` that fails or panics is tried again, then
    /// the job stops.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.for_each_rdd(|rdd, info| {
    ///     eprintln!("{}: {} lines", info.idempotency_key(), rdd.count()?);
    ///     Ok(())
    /// });
    /// # Ok(()) }
    /// ```
    pub fn for_each_rdd(
        &self,
        emit: impl Fn(Rdd<T>, &BatchInfo) -> Result<(), OutputError> + Send + Sync + 'static,
    ) {
        self.add_output("for_each_rdd", emit);
    }
}
