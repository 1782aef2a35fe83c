//! The shared variables of a job.

use crate::batch::input::RecordBlocks;
use crate::context::StreamingContext;
use crate::dstream::{Accumulator, Broadcast, DStream, Dataset, InputKind, LoadError, Reload};
use crate::record::{Data, Key};
use crate::source::Feed;

impl StreamingContext {
    /// A value that all closures of the job read, and that can be replaced while the job runs.
    ///
    /// It survives a crash, which a broadcast variable of Spark does not: an update is logged like a received
    /// record, takes effect with the next batch that is planned, and a replayed batch sees the value that it
    /// saw the first time. The value is kept as state under `broadcast NAME`. The initial one counts only
    /// until the first batch has run; after that a start goes on with the stored value, and a new one is set
    /// with [`update`](Broadcast::update).
    ///
    /// An RDD that is kept and computed after its batch reads the value of that time.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use millpond::{ManualClock, StopMode, StreamingContext};
    /// # let clock = ManualClock::at(0);
    /// # let context = StreamingContext::builder("doc").store(dir.path().join("store")).clock(clock.clone()).build()?;
    /// let limit = context.broadcast("limit", 10u64);
    /// let (numbers, queue) = context.queue_stream::<u64>("numbers");
    /// let below = limit.clone();
    /// let small = numbers.filter(move |n| *n < *below.value()).map(|n| (n, 1u64));
    /// let _seen = small.update_state_by_key("seen", |new, _: Option<u64>| Some(new.len() as u64));
    /// let job = context.start()?;
    /// limit.update(3)?;
    /// queue.push([1, 5])?;
    /// clock.advance(1_000);
    /// job.stop(StopMode::Graceful)?;
    /// assert_eq!(*limit.value(), 3);
    /// assert_eq!(job.state::<u64, u64>("seen")?.len(), 1);
    /// # Ok(()) }
    /// ```
    pub fn broadcast<T: Data>(&self, name: &str, initial: T) -> Broadcast<T> {
        let name = format!("broadcast {name}");
        let (feed, updates) = self.fed(&name, "broadcast");
        Broadcast::new(&self.graph, &name, initial, feed, updates)
    }

    /// A stream that the job fills itself.
    fn fed<T: Data>(&self, name: &str, operation: &str) -> (Feed, DStream<T>) {
        let feed = Feed::default();
        let end = feed.clone();
        let kind = InputKind::Queue(Box::new(move |_, inlet| end.connect(inlet)));
        (feed, self.received(name, operation, kind, RecordBlocks::of::<T>()))
    }

    /// A value that all closures of the job add to, and that counts every batch exactly once, which an
    /// accumulator of Spark does not: a task that is tried again, a partition that is computed for several
    /// actions or outputs, an output that is emitted again and a batch that is replayed add what they add
    /// once. Added is what was computed: a closure of an RDD counts for the partitions that some action
    /// asked for, the closure of an action for each time the action was called, and the body of an output
    /// for the attempt that succeeded.
    ///
    /// `merge` should be associative: contributions are merged by partition first and then in a fixed order,
    /// by stream and partition, so that results do not depend on threads. `initial` is what
    /// [`value`](Accumulator::value) begins with; the total is kept as state under `accumulator NAME`, and
    /// what a batch added is committed with the batch. A contribution belongs to the thread that runs the
    /// closure: threads that a closure starts itself add nothing.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use millpond::{ManualClock, StopMode, StreamingContext};
    /// # let clock = ManualClock::at(0);
    /// # let context = StreamingContext::builder("doc").store(dir.path().join("store")).clock(clock.clone()).build()?;
    /// let odd = context.accumulator("odd", 0u64, |a, b| a + b);
    /// let (numbers, queue) = context.queue_stream::<u64>("numbers");
    /// let count = odd.clone();
    /// let halves = numbers.map(move |n| {
    ///     count.add(n % 2);
    ///     n / 2
    /// });
    /// halves.for_each_rdd(|rdd, _| {
    ///     rdd.take(1)?;
    ///     rdd.collect()?; // computed a second time, counted once
    ///     Ok(())
    /// });
    /// let job = context.start()?;
    /// queue.push([1, 2, 3])?;
    /// clock.advance(1_000);
    /// job.stop(StopMode::Graceful)?;
    /// assert_eq!(odd.value(), 2);
    /// # Ok(()) }
    /// ```
    pub fn accumulator<A: Data>(
        &self,
        name: &str,
        initial: A,
        merge: impl Fn(A, A) -> A + Send + Sync + 'static,
    ) -> Accumulator<A> {
        Accumulator::new(&self.graph, &format!("accumulator {name}"), initial, merge)
    }

    /// Rows by key that streams are joined with, by [`join_dataset`](DStream::join_dataset) and
    /// [`left_join_dataset`](DStream::left_join_dataset): one row per key, and of rows with the same key the
    /// last. They must fit in memory.
    ///
    /// `load` is called on the driver's thread by the start if there is no data yet, and then, as `reload`
    /// says, just before a batch is planned; the batch waits for it. What it returns is logged like received
    /// records, becomes part of that batch, and takes effect before anything else in it, whole or not at all;
    /// a replayed batch sees the rows that it saw the first time, and `load` is not called for it. The rows are
    /// kept as state under `dataset NAME`, and a load costs what has changed. A batch that cannot take all
    /// blocks that wait (2,000) may leave a load to the batches after it.
    ///
    /// When `load` fails or panics, the data stays as it is, a warning is logged, and the next batch tries
    /// again. Without any data yet the start fails.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use millpond::{ManualClock, StopMode, StreamingContext};
    /// # let clock = ManualClock::at(0);
    /// # let context = StreamingContext::builder("doc").store(dir.path().join("store")).clock(clock.clone()).build()?;
    /// use std::time::Duration;
    /// use millpond::Reload;
    ///
    /// let (orders, queue) = context.queue_stream::<(String, u64)>("orders");
    /// let hourly = Reload::every(Duration::from_secs(3600));
    /// let prices = context.dataset("prices", hourly, || Ok(vec![("tea".to_owned(), 3u64)]));
    /// let costs = orders.join_dataset(&prices).map_values(|(pieces, price)| pieces * price);
    /// let _total = costs.update_state_by_key("cost", |new, _: Option<u64>| new.last().copied());
    /// let job = context.start()?;
    /// queue.push([("tea".to_owned(), 5)])?;
    /// clock.advance(1_000);
    /// job.stop(StopMode::Graceful)?;
    /// assert_eq!(job.state::<String, u64>("cost")?.get(&"tea".to_owned())?, Some(15));
    /// # Ok(()) }
    /// ```
    pub fn dataset<K: Key, W: Data>(
        &self,
        name: &str,
        reload: Reload,
        load: impl Fn() -> Result<Vec<(K, W)>, LoadError> + Send + Sync + 'static,
    ) -> Dataset<K, W> {
        let name = format!("dataset {name}");
        let (feed, loads) = self.fed(&name, "dataset");
        Dataset::new(&self.graph, &name, reload, load, feed, loads)
    }
}
