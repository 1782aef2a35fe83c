use std::sync::Arc;

use crate::dstream::{DStream, Output};
use crate::error::Result;
use crate::rdd::{Rdd, Record};
use crate::sink::{BatchInfo, Begin, Sink, SinkId, from_user_code};

impl<T: Record> DStream<T> {
    /// Writes every batch to a sink: [`FnSink`](crate::FnSink), `SqliteSink` (feature `sqlite`), or one of yours. What
    /// happens to a batch that comes again after a crash is the sink's class; see [`Sink`].
    ///
    /// The sink knows the output by `name`, which must be its own in the job and stay the same from run to run: with
    /// another name it is another output, and a sink's ledger begins anew. Each partition is held in memory while
    /// it is written.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// use millpond::FnSink;
    ///
    /// lines.write_to("lines", FnSink::new(|id, lines| {
    ///     eprintln!("{} {lines:?}", id.idempotency_key());
    ///     Ok(())
    /// }));
    /// # Ok(()) }
    /// ```
    pub fn write_to<S: Sink<T>>(&self, name: &str, sink: S) {
        let parent = self.clone();
        self.graph.add_node::<T>("write_to", name, &[self.id], false);
        let sink = Arc::new(sink);
        let opened = sink.clone();
        let mut output = Output::new(name.to_owned(), move |batch, info| {
            if !parent.is_due(batch) {
                return Ok(());
            }
            let rdd = parent.rdd(batch)?;
            batch.executor.attempt(|| write_batch(&*sink, &rdd, info))
        });
        output.open = Some(Box::new(move |start| opened.open(start).map_err(from_user_code)));
        self.graph.add_output(output);
    }
}

fn write_batch<T: Record, S: Sink<T>>(sink: &S, rdd: &Rdd<T>, info: &BatchInfo) -> Result<()> {
    if sink.begin(info).map_err(from_user_code)? == Begin::Skip {
        tracing::info!(
            output = info.output,
            batch = info.batch.0,
            "the sink has committed this batch before"
        );
        if rdd.executor.tally().is_enabled() {
            // The batch was not done, so that what its records add to accumulators is not recorded.
            rdd.run("write_to", |_, compute| {
                compute(&mut |chunk| {
                    chunk.clear();
                    Ok(())
                })
            })?;
        }
        return Ok(());
    }
    let staged = rdd.run("write_to", |partition, compute| {
        let mut records = Vec::new();
        compute(&mut |chunk| {
            records.append(chunk);
            Ok(())
        })?;
        let id = SinkId { batch: info.clone(), partition };
        sink.write(&id, records).map_err(from_user_code)
    })?;
    sink.commit(info, staged).map_err(from_user_code)
}
