//! What is outside of a job and so survives its crashes.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::context::StreamingContext;
use crate::dstream::DStream;
use crate::rdd::Record;
use crate::testkit::CollectSink;
use crate::testkit::sink::{Emitted, Shared};

type Read = dyn Fn() -> Vec<String> + Send;

#[derive(Default)]
struct Parts {
    sinks: BTreeMap<String, Arc<Shared>>,
    outside: BTreeMap<String, Arc<dyn Any + Send + Sync>>,
    compared: BTreeMap<String, Box<Read>>,
}

/// The outside of one run through all its lives.
#[derive(Clone, Default)]
pub(super) struct World(Arc<Mutex<Parts>>);

impl World {
    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outputs(&self) -> BTreeMap<String, Emitted> {
        self.lock().sinks.iter().map(|(name, sink)| (name.clone(), sink.lock().clone())).collect()
    }

    pub(super) fn outside(&self) -> BTreeMap<String, Vec<String>> {
        self.lock().compared.iter().map(|(name, read)| (name.clone(), read())).collect()
    }
}

/// The context that a job under test is described in: a [`StreamingContext`], which it derefs to, and a way to what
/// is outside of the job and outlives its crashes.
///
/// ```
/// use millpond::testkit::{self, TestContext};
/// use millpond::{DStream, StreamingContext};
///
/// // As the program calls it, with its real streams and sinks.
/// fn totals(_context: &StreamingContext, orders: &DStream<(String, u64)>) -> DStream<(String, u64)> {
///     orders.update_state_by_key("totals", |new, total: Option<u64>| {
///         Some(total.unwrap_or(0) + new.iter().sum::<u64>())
///     })
/// }
///
/// let job = |context: &TestContext, orders| {
///     totals(context, &orders).write_to("totals", context.sink("totals"));
/// };
/// let input = vec![vec![("ada".to_owned(), 20)], vec![("ada".to_owned(), 1)]];
/// let outcome = testkit::run(job, &input);
/// assert_eq!(outcome.output::<(String, u64)>("totals")[1], (2, vec![("ada".to_owned(), 21)]));
/// ```
pub struct TestContext {
    context: StreamingContext,
    world: World,
    dir: PathBuf,
}

impl Debug for TestContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TestContext({:?})", self.context)
    }
}

impl Deref for TestContext {
    type Target = StreamingContext;

    fn deref(&self) -> &StreamingContext {
        &self.context
    }
}

impl TestContext {
    pub(super) fn new(context: StreamingContext, world: &World, dir: &Path) -> Self {
        TestContext { context, world: world.clone(), dir: dir.to_owned() }
    }

    pub(super) fn into_context(self) -> StreamingContext {
        self.context
    }

    /// A sink that collects batches, under a name that the checks compare and report it by. The same in every life of
    /// the job.
    pub fn sink<T: Record + Debug>(&self, name: &str) -> CollectSink<T> {
        CollectSink::on(self.world.lock().sinks.entry(name.to_owned()).or_default().clone())
    }

    /// Writes a stream to the [`sink`](TestContext::sink) of this name.
    pub fn collect<T: Record + Debug>(&self, name: &str, stream: &DStream<T>) {
        stream.write_to(name, self.sink(name));
    }

    /// Something outside of the job that its outputs change: a table, a mailbox. It is the same in every life of the
    /// job, and the checks compare it, as `Debug` shows it, when all is over.
    ///
    /// ```
    /// use millpond::testkit::{self, TestContext};
    /// use millpond::{DStream, FnSink};
    ///
    /// // An output of your own that is idempotent: a partition that comes again takes its old place.
    /// testkit::assert_recovers(
    ///     |context: &TestContext, numbers: DStream<u64>| {
    ///         let table = context.outside::<std::collections::BTreeMap<String, Vec<u64>>>("table");
    ///         numbers.write_to("table", FnSink::new(move |id, rows| {
    ///             table.lock().unwrap().insert(id.idempotency_key(), rows);
    ///             Ok(())
    ///         }));
    ///     },
    ///     &vec![vec![1, 2], vec![3]],
    /// );
    /// ```
    ///
    /// # Panics
    /// When the name is in use with another type.
    pub fn outside<V: Default + Debug + Send + 'static>(&self, name: &str) -> Arc<Mutex<V>> {
        let made = || Arc::new(Mutex::new(V::default())) as Arc<dyn Any + Send + Sync>;
        let found = self.world.lock().outside.entry(name.to_owned()).or_insert_with(made).clone();
        let Ok(value) = found.downcast::<Mutex<V>>() else {
            panic!("`{name}` is outside of the job already, with another type");
        };
        let shown = value.clone();
        self.compare(name, move || {
            vec![format!("{:?}", shown.lock().unwrap_or_else(PoisonError::into_inner))]
        });
        value
    }

    /// A directory that outlives crashes, for outputs that are files or databases. It is not compared by itself: say
    /// what of it is by [`compare`](TestContext::compare).
    pub fn directory(&self) -> PathBuf {
        self.dir.clone()
    }

    /// Has `read` called when all is over; the checks compare its lines with those of the undisturbed run, and report
    /// them under this name.
    pub fn compare(&self, name: &str, read: impl Fn() -> Vec<String> + Send + 'static) {
        self.world.lock().compared.insert(name.to_owned(), Box::new(read));
    }
}
