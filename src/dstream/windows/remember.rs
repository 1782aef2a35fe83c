use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::chunks::Codec;
use crate::dstream::DStream;
use crate::error::Result;
use crate::exec::{Executor, TaskContext};
use crate::id::BatchTime;
use crate::rdd::{Chunks, Lineage, NodeInfo, Parent, Rdd, RddNode, Record};
use crate::record::Data;

/// The batches that a stream had last, for queries while the job runs; made by
/// [`remember`](DStream::remember). A cheap handle that can be sent to other threads and cloned.
pub struct Remembered<T> {
    batches: Arc<Mutex<BTreeMap<u64, Rdd<T>>>>,
    slide_ms: u64,
}

impl<T> Clone for Remembered<T> {
    fn clone(&self) -> Self {
        Remembered { batches: self.batches.clone(), slide_ms: self.slide_ms }
    }
}

impl<T> std::fmt::Debug for Remembered<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        write!(f, "Remembered({} batches)", batches.len())
    }
}

impl<T: Record> Remembered<T> {
    /// The batches with times from `from` to `to`, both included and brought down to multiples of the
    /// stream's slide (the batch interval, if it does not slide), in order. Batches that are not remembered
    /// any more, were before the last start or did not take place are not among them.
    ///
    /// Their RDDs can be used from any thread and keep what they hold in memory for as long as they live;
    /// actions on them share the job's compute threads, and fail once the job was told to stop at once.
    pub fn slice(&self, from: BatchTime, to: BatchTime) -> Vec<(BatchTime, Rdd<T>)> {
        let aligned = |time: BatchTime| time.0 - time.0 % self.slide_ms;
        let (from, to) = (aligned(from), aligned(to));
        let batches = self.batches.lock().unwrap_or_else(PoisonError::into_inner);
        let later = batches.range(from..).take_while(|(time, _)| **time <= to);
        later.map(|(time, rdd)| (BatchTime(*time), rdd.clone())).collect()
    }
}

impl<T: Data> DStream<T> {
    /// Keeps the batches of the last `length` in memory, where other threads of the process can query them
    /// while the job runs.
    ///
    /// An output operation: it makes every batch be computed, and is called after those that were described
    /// before it. Records are held encoded, so that they take little memory and keep no received block
    /// alive. Narrow; no state: after a restart it fills anew, with the batches that are emitted from then
    /// on. The durable one is [`window`](DStream::window).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// use std::time::Duration;
    /// use millpond::BatchTime;
    ///
    /// let recent = lines.remember(Duration::from_secs(60));
    /// // ... and later, on another thread:
    /// for (time, lines) in recent.slice(BatchTime(0), BatchTime(u64::MAX)) {
    ///     println!("{time}: {} lines", lines.count()?);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn remember(&self, length: Duration) -> Remembered<T> {
        let slide_ms = self.slide_or_interval_ms();
        let remembered = Remembered { batches: Arc::default(), slide_ms };
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        if length_ms == 0 {
            self.graph
                .add_problem(format!("remember keeps {length:?} of a stream: use at least a millisecond"));
        }
        let (batches, codec) = (remembered.batches.clone(), Codec::of_data());
        self.add_output("remember", move |rdd, info| {
            let kept = rdd.encoded(&codec)?;
            let mut batches = batches.lock().unwrap_or_else(PoisonError::into_inner);
            batches.insert(info.time.0, kept);
            *batches = batches.split_off(&info.time.0.saturating_sub(length_ms).saturating_add(1));
            Ok(())
        });
        remembered
    }
}

impl<T: Record> Rdd<T> {
    /// The same records, computed now and held as bytes, without what they were made from.
    fn encoded(&self, codec: &Codec<T>) -> Result<Rdd<T>> {
        let partitions = codec.chunks(self, "remember")?;
        let executor: &Arc<Executor> = &self.executor;
        let info = NodeInfo::new(executor, "remember", partitions.len());
        Ok(Rdd::new(executor, EncodedNode { info, codec: codec.clone(), partitions }))
    }
}

struct EncodedNode<T> {
    info: NodeInfo,
    codec: Codec<T>,
    /// The chunks of each partition.
    partitions: Vec<Vec<Vec<u8>>>,
}

impl<T: Record> Lineage for EncodedNode<T> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        Vec::new()
    }
}

impl<T: Record> RddNode<T> for EncodedNode<T> {
    fn compute(&self, _: &TaskContext, partition: usize, out: &mut Chunks<'_, T>) -> Result<()> {
        let mut records = Vec::new();
        for chunk in &self.partitions[partition] {
            self.codec.read(chunk, &mut records)?;
            out(&mut records)?;
            records.clear();
        }
        Ok(())
    }
}
