use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::batch::Batch;
use crate::config::KEY_GROUPS;
use crate::dstream::shared::loads::{Piece, Versions, pieces_of};
use crate::dstream::shared::{SharedVariable, guarded};
use crate::dstream::{DStream, Graph, Upstream};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::id::BatchTime;
use crate::record::{Data, DataBuffer, Key, KeyTable, group_of, hash_of};
use crate::source::Feed;
use crate::state::{GroupChanges, OperatorState, StateType};

/// What loading a [`Dataset`] may fail with.
pub type LoadError = Box<dyn std::error::Error + Send + Sync>;

type Load<K, W> = dyn Fn() -> Result<Vec<(K, W)>, LoadError> + Send + Sync;

/// When a [`Dataset`] is loaded again. It is loaded a first time in any case.
pub struct Reload(Rule);

enum Rule {
    Once,
    Every(Duration),
    When(Box<dyn Fn(BatchTime) -> bool + Send + Sync>),
}

impl Reload {
    /// Never again in the life of the store.
    pub fn once() -> Self {
        Reload(Rule::Once)
    }

    /// For the first batch whose time is this much or more after that of the batch for which it was last
    /// loaded, in an earlier run too.
    pub fn every(interval: Duration) -> Self {
        Reload(Rule::Every(interval))
    }

    /// For the batches whose time the rule says, which is asked once for each batch that takes new input, on the
    /// driver's thread: not for one that only ends a window, nor while the job drains before it stops.
    pub fn when(rule: impl Fn(BatchTime) -> bool + Send + Sync + 'static) -> Self {
        Reload(Rule::When(Box::new(rule)))
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Rule::Once => f.write_str("Reload::once"),
            Rule::Every(interval) => write!(f, "Reload::every({interval:?})"),
            Rule::When(_) => f.write_str("Reload::when"),
        }
    }
}

/// Rows by key that streams are joined with and that are loaded anew by a rule; see
/// [`StreamingContext::dataset`](crate::StreamingContext::dataset).
///
/// A cheap handle.
pub struct Dataset<K, W> {
    /// The stream of its loads in the description of the job.
    loads: DStream<Piece>,
    pub(super) rows: Arc<OperatorState>,
    types: PhantomData<fn() -> (K, W)>,
}

impl<K, W> Clone for Dataset<K, W> {
    fn clone(&self) -> Self {
        Dataset { loads: self.loads.clone(), rows: self.rows.clone(), types: PhantomData }
    }
}

impl<K, W> fmt::Debug for Dataset<K, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dataset({})", self.rows.name())
    }
}

impl<K: Key, W: Data> Dataset<K, W> {
    /// As what a stream of any slide reads.
    pub(super) fn upstream(&self, slide_ms: u64) -> Upstream<'_> {
        Upstream { slide_ms, ..self.loads.upstream() }
    }

    /// `loads` is the stream that `feed` fills.
    pub(crate) fn new(
        graph: &Graph,
        name: &str,
        reload: Reload,
        load: impl Fn() -> Result<Vec<(K, W)>, LoadError> + Send + Sync + 'static,
        feed: Feed,
        loads: DStream<Piece>,
    ) -> Self {
        let dataset = Dataset {
            loads: loads.clone(),
            rows: OperatorState::new(name, StateType::of::<K, W>()),
            types: PhantomData,
        };
        graph.add_variable(Arc::new(DatasetNode {
            reload,
            load: Box::new(load),
            feed,
            loads,
            rows: dataset.rows.clone(),
            versions: Versions::new(&format!("versions of {name}")),
            logged_for: Mutex::new(None),
            failed: AtomicBool::new(false),
        }));
        dataset
    }
}

struct DatasetNode<K, W> {
    reload: Reload,
    load: Box<Load<K, W>>,
    feed: Feed,
    loads: DStream<Piece>,
    rows: Arc<OperatorState>,
    versions: Versions,
    /// The batch time of the newest load that is logged.
    logged_for: Mutex<Option<BatchTime>>,
    /// The last load failed.
    failed: AtomicBool,
}

impl<K: Key, W: Data> DatasetNode<K, W> {
    fn logged_for(&self) -> MutexGuard<'_, Option<BatchTime>> {
        self.logged_for.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_due(&self, time: BatchTime) -> Result<bool> {
        let Some(last) = *self.logged_for() else { return Ok(true) };
        let by_rule = match &self.reload.0 {
            Rule::Once => false,
            Rule::Every(interval) => u128::from(time.0.saturating_sub(last.0)) >= interval.as_millis(),
            Rule::When(rule) => guarded(self.rows.name(), || Ok(rule(time)))?,
        };
        Ok(by_rule || self.failed.load(Ordering::Relaxed))
    }

    /// Calls the loader and archives its rows.
    fn load(&self) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let failed = |cause| Error::new(ErrorKind::UserCode, "the loader failed").caused_by(cause);
        let rows = guarded(self.rows.name(), || (self.load)().map_err(failed))?;
        let mut buffer = DataBuffer::default();
        let archived = |(key, value): (K, W)| {
            let mut bytes = Vec::new();
            key.encode_key(&mut bytes);
            value.encode(&mut buffer)?;
            Ok((bytes, buffer.as_bytes().to_vec()))
        };
        rows.into_iter().map(archived).collect()
    }

    /// Makes the state hold these rows and no others. What stays as it is is not written again.
    fn replace(&self, executor: &Executor, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<()> {
        let mut by_group: Vec<Vec<_>> = (0..KEY_GROUPS).map(|_| Vec::new()).collect();
        for (key, value) in rows {
            let hash = hash_of(&key);
            by_group[group_of(hash)].push((hash, key, value));
        }
        let stage = format!("load of `{}`", self.rows.name());
        let changes = executor.run_stage(&stage, KEY_GROUPS, |_, group| {
            let mut wanted = KeyTable::default();
            let mut values: Vec<&[u8]> = Vec::new();
            for (hash, key, value) in &by_group[group] {
                match wanted.find_or_insert(*hash, key) {
                    (_, true) => values.push(value),
                    (at, false) => values[at] = value,
                }
            }
            let mut state = self.rows.group(group);
            let mut gone = KeyTable::default();
            state.for_each(|entry| {
                if wanted.find(entry.hash, entry.key).is_none() {
                    gone.find_or_insert(entry.hash, entry.key);
                }
                Ok(())
            })?;
            let (mut changes, mut numbers) = (GroupChanges::default(), Vec::new());
            state.touch_all(gone.iter(), &mut numbers)?;
            numbers.drain(..).for_each(|at| changes.push(at as usize, None));
            state.touch_all(wanted.iter(), &mut numbers)?;
            for (at, value) in numbers.into_iter().zip(values) {
                let at = at as usize;
                if state.table().value(at) != Some(value) {
                    changes.push(at, Some(value));
                }
            }
            Ok(changes)
        })?;
        changes.iter().enumerate().for_each(|(group, changes)| self.rows.group(group).apply(changes));
        Ok(())
    }
}

impl<K: Key, W: Data> SharedVariable for DatasetNode<K, W> {
    fn states(&self) -> Vec<Arc<OperatorState>> {
        vec![self.rows.clone(), self.versions.state().clone()]
    }

    fn restored(&self) -> Result<()> {
        *self.logged_for() = self.versions.loaded_for()?;
        Ok(())
    }

    fn before_plan(&self, time: BatchTime) -> Result<()> {
        if !self.is_due(time)? {
            return Ok(());
        }
        match self.load() {
            Ok(rows) => {
                self.feed.store(pieces_of(time, rows))?;
                self.failed.store(false, Ordering::Relaxed);
                *self.logged_for() = Some(time);
                Ok(())
            }
            Err(error) if self.logged_for().is_none() => Err(error.within("there is no data to begin with")),
            Err(error) => {
                tracing::warn!(error = %error.chain(), "a load failed: the data stays as it is until the next batch");
                self.failed.store(true, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn before_start(&self, time: BatchTime) -> Result<()> {
        // Without any data there is nothing that closures could read.
        let is_empty = self.logged_for().is_none();
        if is_empty { self.before_plan(time) } else { Ok(()) }
    }

    fn advance(&self, batch: &Batch) -> Result<()> {
        let pieces = self.loads.rdd(batch)?.collect()?;
        if pieces.is_empty() {
            return Ok(());
        }
        if let Some((time, rows)) = self.versions.advance(pieces)? {
            self.replace(&batch.executor, rows)?;
            let newest = self.logged_for().max(Some(time));
            *self.logged_for() = newest;
        }
        Ok(())
    }
}
