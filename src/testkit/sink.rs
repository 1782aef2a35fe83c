//! A sink that remembers.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::rdd::Record;
use crate::sink::{BatchInfo, OutputError, Sink, SinkId};

/// What a batch left in a sink.
#[derive(Clone)]
pub(super) struct Emission {
    /// The records as text, in order.
    pub(super) lines: Vec<String>,
    records: Arc<dyn Any + Send + Sync>,
}

/// A batch that came again with other records.
#[derive(Clone)]
pub(super) struct Again {
    pub(super) batch: u64,
    pub(super) before: Vec<String>,
    pub(super) now: Vec<String>,
}

#[derive(Clone, Default)]
pub(super) struct Emitted {
    pub(super) batches: BTreeMap<u64, Emission>,
    pub(super) again: Vec<Again>,
}

#[derive(Default)]
pub(super) struct Shared {
    emitted: Mutex<Emitted>,
    changed: Condvar,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Emitted> {
        self.emitted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sink that collects what it is given by batch, in memory that outlives the job: all of a batch or nothing, and
/// a batch that comes again takes the place of what it was. So what it holds is exactly-once, and a test that
/// compares it sees what the job computed. A batch that comes again with other records is remembered too, as
/// [`changed`](CollectSink::changed). Clones share what they hold.
///
/// ```
/// # fn main() -> millpond::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use millpond::testkit::{CollectSink, ManualClock};
/// use millpond::{StopMode, StreamingContext};
///
/// let words = CollectSink::new();
/// let clock = ManualClock::at(0);
/// let context = StreamingContext::builder("doc").store(dir.path()).clock(clock.clone()).build()?;
/// let (lines, queue) = context.queue_stream::<String>("lines");
/// lines.map(|line| line.to_uppercase()).write_to("words", words.clone());
/// let job = context.start()?;
/// queue.push(["to be".to_owned()])?;
/// clock.advance(1_000);
/// words.wait_for_batch(1);
/// job.stop(StopMode::Graceful)?;
/// assert_eq!(words.batches(), [(1, vec!["TO BE".to_owned()])]);
/// assert!(words.changed().is_empty());
/// # Ok(()) }
/// ```
pub struct CollectSink<T> {
    pub(super) shared: Arc<Shared>,
    records: PhantomData<fn() -> T>,
}

impl<T> Clone for CollectSink<T> {
    fn clone(&self) -> Self {
        Self::on(self.shared.clone())
    }
}

impl<T> Debug for CollectSink<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CollectSink({} batches)", self.shared.lock().batches.len())
    }
}

impl<T> Default for CollectSink<T> {
    fn default() -> Self {
        Self::on(Arc::default())
    }
}

impl<T> CollectSink<T> {
    pub(super) fn on(shared: Arc<Shared>) -> Self {
        CollectSink { shared, records: PhantomData }
    }

    /// The batches that came again with other records than before: they are different although they must not be.
    pub fn changed(&self) -> Vec<u64> {
        self.shared.lock().again.iter().map(|again| again.batch).collect()
    }

    /// Waits until a batch is committed. The job must be running, or it waits for ever.
    pub fn wait_for_batch(&self, batch: u64) {
        let emitted = self.shared.lock();
        let is_missing = |emitted: &mut Emitted| !emitted.batches.contains_key(&batch);
        drop(self.shared.changed.wait_while(emitted, is_missing));
    }
}

impl<T: Record + Debug> CollectSink<T> {
    /// A sink that holds nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// The records of each batch, by its number, in the order of partitions and within them.
    pub fn batches(&self) -> Vec<(u64, Vec<T>)> {
        records_of(&self.shared.lock())
    }
}

/// The batches whose records are of this type.
pub(super) fn records_of<T: Record>(emitted: &Emitted) -> Vec<(u64, Vec<T>)> {
    let batches = emitted.batches.iter();
    batches
        .filter_map(|(batch, emission)| Some((*batch, emission.records.downcast_ref::<Vec<T>>()?.clone())))
        .collect()
}

impl<T: Record + Debug> Sink<T> for CollectSink<T> {
    type Staged = Vec<T>;

    fn write(&self, _: &SinkId, records: Vec<T>) -> Result<Vec<T>, OutputError> {
        Ok(records)
    }

    fn commit(&self, batch: &BatchInfo, staged: Vec<Vec<T>>) -> Result<(), OutputError> {
        let records: Vec<T> = staged.into_iter().flatten().collect();
        let lines: Vec<String> = records.iter().map(|record| format!("{record:?}")).collect();
        let emission = Emission { lines: lines.clone(), records: Arc::new(records) };
        let mut emitted = self.shared.lock();
        let before = emitted.batches.insert(batch.batch.0, emission);
        if let Some(before) = before.filter(|before| before.lines != lines) {
            emitted.again.push(Again { batch: batch.batch.0, before: before.lines, now: lines });
        }
        drop(emitted);
        self.shared.changed.notify_all();
        Ok(())
    }
}
