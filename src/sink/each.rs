use crate::sink::{BatchInfo, OutputError, Sink, SinkId};

/// A sink that is a closure: it is called once per partition, on the job's threads, and what it has written counts
/// at once.
///
/// At-least-once: a partition that comes again is written again. With [`SinkId::idempotency_key`] the closure can
/// make it idempotent.
///
/// ```
/// # fn main() -> millpond::Result<()> {
/// # let context = millpond::StreamingContext::builder("doc").build()?;
/// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
/// use millpond::FnSink;
///
/// lines.write_to("audit", FnSink::new(|id, lines| {
///     eprintln!("{}: {} lines", id.idempotency_key(), lines.len());
///     Ok(())
/// }));
/// # Ok(()) }
/// ```
pub struct FnSink<F> {
    write: F,
}

impl<F> std::fmt::Debug for FnSink<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FnSink")
    }
}

impl<F> FnSink<F> {
    /// A sink that calls `write`. When it returns, the records must be durable outside.
    pub fn new<T>(write: F) -> Self
    where
        F: Fn(&SinkId, Vec<T>) -> Result<(), OutputError> + Send + Sync + 'static,
    {
        FnSink { write }
    }
}

impl<T, F> Sink<T> for FnSink<F>
where
    F: Fn(&SinkId, Vec<T>) -> Result<(), OutputError> + Send + Sync + 'static,
{
    type Staged = ();

    fn write(&self, id: &SinkId, records: Vec<T>) -> Result<(), OutputError> {
        (self.write)(id, records)
    }

    fn commit(&self, _: &BatchInfo, _: Vec<()>) -> Result<(), OutputError> {
        Ok(())
    }
}
