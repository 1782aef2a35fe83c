//! The streaming context: where all parts are put together.

mod rehearsals;
mod shared;
mod sources;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::batch::input::{BlockReader, InputReader, LineBlocks, RecordBlocks};
use crate::config::{Backpressure, Settings};
use crate::driver::{
    self, Asked, Components, JobHandle, Listeners, StopMode, StreamingListener, UpgradePlan,
};
use crate::dstream::{DStream, Graph, InputKind, PollSource};
use crate::error::{Error, Result};
use crate::format::records::POSITIONS_PREFIX;
use crate::id::{BatchTime, StreamId};
use crate::rdd::{Rdd, Record};
use crate::record::{Data, Text};
use crate::source::{BlockStore, Offer, Positions, Queue, Receiver, ReplayableSource, SocketReceiver};
use crate::state::{KnownSchema, OperatorState, StateType};
use crate::store::{Disk, FaultPlan};
use crate::time::{Clock, SystemClock};

/// Describes a [`StreamingContext`]. Each setting is explained at the field of [`Settings`] of its name.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct ContextBuilder {
    settings: Settings,
    clock: Option<Arc<dyn Clock>>,
    faults: Option<Arc<FaultPlan>>,
    listeners: Listeners,
}

impl std::fmt::Debug for ContextBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ContextBuilder({:?})", self.settings)
    }
}

macro_rules! settings {
    ($($(#[$doc:meta])* $field:ident: $type:ty,)*) => { $(
        $(#[$doc])*
        pub fn $field(mut self, $field: $type) -> Self {
            self.settings.$field = $field;
            self
        }
    )* };
}

impl ContextBuilder {
    settings! {
        /// The time between batches. Default 1 s.
        batch_interval: Duration,
        /// A checkpoint is taken after this many batches. Default 10.
        checkpoint_every_batches: u64,
        /// How many checkpoints are kept at least. Default 2.
        checkpoints_retained: usize,
        /// Compute threads. Default: the cores of the machine.
        threads: usize,
        /// Partitions of shuffles and state. Default 16.
        partitions: usize,
        /// The size at which a received block is cut. Default 1 MiB.
        block_bytes_max: usize,
        /// The memory that received blocks may take. Default 256 MiB.
        receive_buffer_bytes_max: usize,
        /// What is planned from each replayable source in one batch at most. Default 128 MiB.
        source_bytes_per_batch_max: u64,
        /// How often a task is tried. Default 4.
        task_attempts_max: u32,
        /// Whether a start may drop the state of operators that are gone. Default false.
        allow_dropping_state: bool,
        /// Whether a start fails when a replayed batch changes the state otherwise than it did before. Default false.
        refuse_replay_differences: bool,
        /// How large a state is checked entirely before the job starts. Default 4 MiB; `u64::MAX` checks any.
        verify_at_start_bytes: u64,
        /// Whether SIGINT and SIGTERM stop the job. Default true.
        stop_on_signals: bool,
    }

    /// The store directory. Default `millpond-store`.
    pub fn store(mut self, directory: impl Into<PathBuf>) -> Self {
        self.settings.store = directory.into();
        self
    }

    /// The time after which a received block is cut although it is not full.
    pub fn block_interval(mut self, interval: Duration) -> Self {
        self.settings.block_interval = Some(interval);
        self
    }

    /// The most records that each received stream takes in a second. Default: no limit.
    pub fn receiver_records_per_second_max(mut self, records: u64) -> Self {
        self.settings.receiver_records_per_second_max = Some(records);
        self
    }

    /// Slows input down to what the job gets through. Default: it is not.
    pub fn backpressure(mut self, backpressure: Backpressure) -> Self {
        self.settings.backpressure = Some(backpressure);
        self
    }

    /// The memory, in bytes, that the tables of all keyed state may take together. Default: no limit, all state is
    /// in memory once it was used. May be set, changed and left out between runs; results do not depend on it.
    ///
    /// Beyond it, the key groups that were used least recently stay in the store: a batch reads the pages that its keys
    /// are on, each page once, and what covers all keys (a snapshot, the rewriting of a group, the start of a window)
    /// reads group by group. When what has changed since the last checkpoint alone takes more, a checkpoint is taken
    /// early, and the next batch waits for it. So the job gets slower with the share of state that is read for each
    /// batch. [`Progress::state_memory_bytes`](crate::Progress::state_memory_bytes) says what is taken.
    ///
    /// On top come what one batch touches, the delta that is being written, the records of the window that an output
    /// reads, what [merged windows](crate::DStream::reduce_by_key_and_window) share, and the times of the timers of groups
    /// that are in memory. A state that visits every key in each batch, as
    /// [`update_state_by_key`](crate::DStream::update_state_by_key) does with
    /// [`Visit::All`](crate::Visit::All), is in memory while a batch runs, and so is a state that is migrated,
    /// until the first checkpoint. Every segment that is needed is kept open, as it is at a start.
    ///
    /// A job without a limit has the allocator of glibc keep what a batch frees for the next one, instead of giving it back to
    /// the system; `MALLOC_MMAP_THRESHOLD_` in the environment decides that otherwise (`mallopt(3)`).
    ///
    /// ```
    /// use millpond::StreamingContext;
    ///
    /// let builder = StreamingContext::builder("totals").state_memory_bytes_max(512 << 20);
    /// ```
    pub fn state_memory_bytes_max(mut self, bytes: u64) -> Self {
        self.settings.state_memory_bytes_max = Some(bytes);
        self
    }

    /// Tells `listener` what becomes of the job. Several are called in the order in which they were added;
    /// one that is added twice is called twice.
    pub fn listener(mut self, listener: Arc<dyn StreamingListener>) -> Self {
        self.listeners.add(listener);
        self
    }

    /// The clock that says when batches are due. Default: the system's.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Makes the disk fail as planned, for tests of recovery.
    #[cfg(any(test, feature = "testkit"))]
    pub fn faults(mut self, faults: Arc<FaultPlan>) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Checks the settings. Nothing is opened yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) naming the setting, its value and its limit.
    pub fn build(self) -> Result<StreamingContext> {
        self.settings.validate()?;
        let graph = Graph::new(self.settings.partitions, self.settings.batch_interval_ms());
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let disk = Disk::with_faults(self.faults);
        let components = Components { settings: self.settings, clock, disk, listeners: self.listeners };
        Ok(StreamingContext { components, graph })
    }
}

/// A job while it is being described: its input streams, and what the operations on them add.
///
/// [`start`](StreamingContext::start) consumes it, so that nothing can be added to a running job.
///
/// ```no_run
/// # fn main() -> millpond::Result<()> {
/// use std::time::Duration;
/// use millpond::StreamingContext;
///
/// let context = StreamingContext::builder("word-count")
///     .store("word-count-store")
///     .batch_interval(Duration::from_millis(500))
///     .build()?;
/// let totals = context
///     .socket_text_stream("lines", "127.0.0.1:9999")
///     .flat_map(|line, out| line.words().for_each(|word| out.emit((word, 1u64))))
///     .reduce_by_key(|a, b| a + b)
///     .update_state_by_key("totals", |new, total: Option<u64>| {
///         Some(total.unwrap_or(0) + new.iter().sum::<u64>())
///     });
/// totals.print(10);
/// context.start()?.await_termination()
/// # }
/// ```
#[must_use = "a context does nothing until it is started"]
pub struct StreamingContext {
    components: Components,
    graph: Arc<Graph>,
}

impl std::fmt::Debug for StreamingContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamingContext({:?})", self.components.settings)
    }
}

impl StreamingContext {
    /// Begins to describe the job called `name`. A store belongs to the job of one name.
    pub fn builder(name: &str) -> ContextBuilder {
        let listeners = Listeners::default();
        ContextBuilder { settings: Settings::named(name), clock: None, faults: None, listeners }
    }

    /// The job called `name` that runs in this process. Of several, which have stores of their own, the one
    /// that was started last.
    ///
    /// ```
    /// assert!(millpond::StreamingContext::get_active("nothing of this name runs").is_none());
    /// ```
    pub fn get_active(name: &str) -> Option<JobHandle> {
        JobHandle::active(name)
    }

    /// The active job of the builder's name, else a new one: built, described by `describe`, and started,
    /// which recovers what its store holds.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use millpond::{ActiveOrStarted, StreamingContext};
    ///
    /// let get = || {
    ///     let builder = StreamingContext::builder("doc-get-or-create").store(dir.path().join("store"));
    ///     StreamingContext::get_or_create(builder, |context| {
    ///         let (numbers, _queue) = context.queue_stream::<u64>("numbers");
    ///         numbers.print(3);
    ///         Ok(())
    ///     })
    /// };
    /// let first = get()?;
    /// assert!(matches!(first, ActiveOrStarted::Started(_)));
    /// assert!(matches!(get()?, ActiveOrStarted::Active(_)));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`build`](ContextBuilder::build), of `describe` and of [`start`](StreamingContext::start); when
    /// two threads create the job at once, [`ErrorKind::Locked`](crate::ErrorKind::Locked) for one of them.
    pub fn get_or_create(
        builder: ContextBuilder,
        describe: impl FnOnce(&StreamingContext) -> Result<()>,
    ) -> Result<ActiveOrStarted> {
        if let Some(job) = JobHandle::active(&builder.settings.name) {
            return Ok(ActiveOrStarted::Active(job));
        }
        let context = builder.build()?;
        describe(&context)?;
        context.start().map(ActiveOrStarted::Started)
    }

    /// The lines that a TCP server sends, without their ends.
    ///
    /// Received: lines are logged in blocks before they count. When the server closes the connection (a
    /// last line without an end then counts) or it breaks (such a line is dropped), it is connected to
    /// again after 100 ms, doubling up to 10 s. Lines are bytes, UTF-8 or not; one longer than a block
    /// (1 MiB) is handed on in pieces. While the job is behind, nothing is read from the socket.
    ///
    /// A plain socket cannot be asked again: bytes that were not durable when the job was killed are lost.
    pub fn socket_text_stream(&self, name: &str, address: &str) -> DStream<Text> {
        let address = address.to_owned();
        let task = Box::new(move |inlet| {
            let receiver = SocketReceiver { address: address.clone(), inlet };
            Box::pin(receiver.receive()) as _
        });
        let kind = InputKind::Receiver { task, ends_by_itself: true };
        self.received(name, "socket_text_stream", kind, Arc::new(LineBlocks))
    }

    /// The records of a source that can be read again.
    pub fn replayable_stream<S: ReplayableSource>(&self, name: &str, source: S) -> DStream<S::Item> {
        let reader = source.reader();
        let schema = KnownSchema::of_text("position");
        let state_type = StateType { key: "utf8".into(), value: "position".into(), value_width: 24, schema };
        let state = OperatorState::new(&format!("{POSITIONS_PREFIX}{name}"), state_type);
        let kind =
            InputKind::Replayable { source: Box::new(Poll { source }), positions: Positions::new(state) };
        self.input(name, "replayable_stream", kind, InputReader::Ranges(reader))
    }

    /// The records that a [`Receiver`] of yours stores.
    pub fn receiver_stream<R: Receiver>(&self, name: &str, receiver: R) -> DStream<R::Item> {
        let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
        let task = Box::new(move |inlet| {
            let receiver = receiver.clone();
            Box::pin(async move { receiver.lock().await.receive(BlockStore::new(inlet)).await }) as _
        });
        let kind = InputKind::Receiver { task, ends_by_itself: false };
        self.received(name, "receiver_stream", kind, RecordBlocks::of::<R::Item>())
    }

    /// A stream that is filled by hand, for tests: what was pushed before a batch is in it.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// use millpond::{ManualClock, StopMode, StreamingContext};
    ///
    /// let clock = ManualClock::at(0);
    /// let context = StreamingContext::builder("doc").store(dir.path().join("store")).clock(clock.clone()).build()?;
    /// let (numbers, queue) = context.queue_stream::<u64>("numbers");
    /// let sums = numbers.map(|n| ((), n)).update_state_by_key("sum", |new, sum: Option<u64>| {
    ///     Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
    /// });
    /// let job = context.start()?;
    /// queue.push([1, 2, 3])?;
    /// clock.advance(1_000);
    /// job.stop(StopMode::Graceful)?;
    /// assert_eq!(job.state::<(), u64>("sum")?.get(&())?, Some(6));
    /// # Ok(()) }
    /// ```
    pub fn queue_stream<T: Data>(&self, name: &str) -> (DStream<T>, Queue<T>) {
        let queue = Queue::new();
        let end = queue.clone();
        let kind = InputKind::Queue(Box::new(move |runtime, inlet| end.connect(runtime, inlet)));
        (self.received(name, "queue_stream", kind, RecordBlocks::of::<T>()), queue)
    }

    /// The records of all these streams, batch by batch, in the order in which they are given; duplicates
    /// stay. One node, however many there are. Lazy, narrow. No stream at all, or one of another context, makes
    /// [`start`](StreamingContext::start) fail.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// let shards: Vec<_> = ["a", "b", "c"]
    ///     .map(|host| context.socket_text_stream(host, &format!("{host}.example:9999")))
    ///     .into();
    /// context.union(&shards).count().print(1);
    /// # Ok(()) }
    /// ```
    pub fn union<T: Record>(&self, streams: &[DStream<T>]) -> DStream<T> {
        DStream::union_of(&self.graph, streams)
    }

    /// Any RDD code on the batches of several streams of one type, once per batch: `make` gets their RDDs in
    /// the order in which the streams are given. It is called on the job's driver thread and again when a batch
    /// is replayed; it should only describe, and leave actions to outputs. No stream at all, or one of another
    /// context, makes [`start`](StreamingContext::start) fail.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let (one, two) = (context.queue_stream::<u64>("one").0, context.queue_stream::<u64>("two").0);
    /// let both = context.transform(&[one, two], |rdds, _time| Ok(rdds[0].union(&rdds[1])));
    /// both.print(10);
    /// # Ok(()) }
    /// ```
    pub fn transform<T: Record, U: Record>(
        &self,
        streams: &[DStream<T>],
        make: impl Fn(Vec<Rdd<T>>, BatchTime) -> Result<Rdd<U>> + Send + Sync + 'static,
    ) -> DStream<U> {
        DStream::transform_all(&self.graph, streams, make)
    }

    fn received<T: Record>(
        &self,
        name: &str,
        operation: &str,
        kind: InputKind,
        blocks: Arc<dyn BlockReader<T>>,
    ) -> DStream<T> {
        self.input(name, operation, kind, InputReader::Blocks(blocks))
    }

    fn input<T: Record>(
        &self,
        name: &str,
        operation: &str,
        kind: InputKind,
        reader: InputReader<T>,
    ) -> DStream<T> {
        let name: Arc<str> = name.into();
        let stream = StreamId::of(&name);
        let id = self.graph.add_node::<T>(operation, &name, &[], false);
        self.graph.add_input(&name, kind, reader.schema().to_owned());
        DStream::new(&self.graph, id, move |batch| {
            Ok(batch.input_rdd(&name, batch.input(stream), reader.clone()))
        })
    }

    /// What [`start`](StreamingContext::start) would do with the store as it is: which state goes on, is renamed, migrated,
    /// begins or is lost, which batches are computed again, and what would be refused. Print it before a new version
    /// of a job takes the place of the old one.
    ///
    /// Nothing is written and the lock is not taken: the old version may still run, and then the plan is for a
    /// moment shortly before. No closure of the job is called.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let context = millpond::StreamingContext::builder("doc").store(dir.path().join("store")).build()?;
    /// context.queue_stream::<String>("names").0.print(1);
    /// let plan = context.plan()?;
    /// assert!(plan.fresh && plan.problems.is_empty());
    /// assert!(plan.to_string().ends_with("the job can start"));
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`start`](StreamingContext::start) that come from the description, and from a store that cannot be
    /// read or is another job's.
    pub fn plan(&self) -> Result<UpgradePlan> {
        driver::plan_upgrade(&self.components.settings, &self.graph.outline()?)
    }

    /// Everything that checkpoints hold, in the order in which the job describes it.
    #[cfg(feature = "testkit")]
    pub(crate) fn states(&self) -> Result<Vec<Arc<OperatorState>>> {
        Ok(self.graph.outline()?.states)
    }

    /// Opens the store, restores the newest sound checkpoint, replays the batches after it, and then
    /// starts to receive and to run new batches. Returns when the job is ready.
    ///
    /// # Errors
    /// * [`ErrorKind::InvalidGraph`]: two streams or operators of one name, a stream of another context, no
    ///   input, nothing to do.
    /// * [`ErrorKind::Locked`]: another process runs on the store.
    /// * [`ErrorKind::Incompatible`]: the directory is no store, another job's, or of a newer version; or the
    ///   job cannot go on with the state in it, or would lose some: the message ends with the
    ///   [plan](StreamingContext::plan).
    /// * [`ErrorKind::Corrupt`]: no sound way back into the job.
    /// * [`ErrorKind::Stopped`]: the `millpond` command runs this binary to ask what a start would do
    ///   (`millpond plan`): the job has answered and was not started. A `main` that returns the error ends as it should.
    /// * What a replayed batch failed with.
    ///
    /// [`ErrorKind::InvalidGraph`]: crate::ErrorKind::InvalidGraph
    /// [`ErrorKind::Locked`]: crate::ErrorKind::Locked
    /// [`ErrorKind::Incompatible`]: crate::ErrorKind::Incompatible
    /// [`ErrorKind::Corrupt`]: crate::ErrorKind::Corrupt
    /// [`ErrorKind::Stopped`]: crate::ErrorKind::Stopped
    pub fn start(self) -> Result<RunningContext> {
        let job = self.graph.into_job();
        if let Some(asked) = Asked::in_environment()? {
            return Err(asked.answer(&self.components, job));
        }
        let job = job?;
        let name = self.components.settings.name.clone();
        let started = driver::start(self.components, job)?;
        let handle = JobHandle::register(&name, started.shared, started.report);
        let (driver, job) = (started.driver, handle.clone());
        let thread = std::thread::Builder::new().name("millpond-driver".to_owned());
        let thread =
            thread.spawn(move || driver.run(&job)).map_err(|cause| Error::io("start a thread", cause))?;
        Ok(RunningContext { handle, thread: Some(thread) })
    }
}

/// Erases the record type of a source.
struct Poll<S> {
    source: S,
}

impl<S: ReplayableSource> PollSource for Poll<S> {
    fn poll(&mut self, positions: &Positions, limit: u64, now_ms: u64) -> Result<Offer> {
        self.source.poll(positions, limit, now_ms)
    }
}

/// A job that runs. Dropping it stops the job at once; its [`handle`](RunningContext::handle) can be kept
/// anywhere, and has all methods.
#[derive(Debug)]
pub struct RunningContext {
    handle: JobHandle,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl RunningContext {
    /// The job's handle, which does not stop it when it is dropped.
    pub fn handle(&self) -> JobHandle {
        self.handle.clone()
    }
}

impl std::ops::Deref for RunningContext {
    type Target = JobHandle;

    fn deref(&self) -> &JobHandle {
        &self.handle
    }
}

impl Drop for RunningContext {
    fn drop(&mut self) {
        self.handle.request_stop(StopMode::Now);
        if !self.handle.is_called_by_the_job()
            && let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the driver panicked");
        }
    }
}

/// What [`StreamingContext::get_or_create`] found or made. Either way it has the methods of the [`JobHandle`].
#[derive(Debug)]
#[must_use = "dropping a job that was started stops it"]
pub enum ActiveOrStarted {
    /// The job ran already: whoever started it keeps it.
    Active(JobHandle),
    /// The job was started: it stops when this is dropped.
    Started(RunningContext),
}

impl std::ops::Deref for ActiveOrStarted {
    type Target = JobHandle;

    fn deref(&self) -> &JobHandle {
        match self {
            ActiveOrStarted::Active(job) => job,
            ActiveOrStarted::Started(job) => job,
        }
    }
}
