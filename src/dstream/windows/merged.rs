//! Windows that are merged from partial aggregates, so that one costs as much as a few of its batches.
//!
//! What an [`Interval`] comes to is merged from its halves when a window needs it for the first time, and kept for as long
//! as windows need it. It follows from the batches that the store of the window keeps: after a restart it is merged
//! again, in the same way, so that a function that is not quite associative gives the same bytes too. Where merging
//! saves less than half, what was merged is used instead: all that is kept has no more bytes of keys and values than the
//! batches themselves.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Span;
use super::intervals::{Interval, Panes};
use super::pairs::{Pairs, merged};
use super::store::WindowStore;
use crate::batch::Batch;
use crate::dstream::StatefulNode;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::tally;
use crate::id::BatchTime;
use crate::rdd::Rdd;
use crate::rdd::WideDependency;
use crate::rdd::shuffle::{Grouped, KeyedNode, groups_of_partition};
use crate::record::{Data, Key};
use crate::state::OperatorState;

/// Pairs of all key groups. A key may be among them more than once, in order.
type Piece = Arc<Vec<Pairs>>;

/// What there is of some time.
enum Source {
    Merged(Piece),
    /// The batches with times after `after` and up to `until`, which take so many bytes in the store.
    Batches {
        after: u64,
        until: u64,
        bytes: u64,
    },
}

impl Source {
    fn bytes(&self) -> u64 {
        match self {
            Source::Merged(piece) => piece.iter().map(Pairs::stored_bytes).sum(),
            Source::Batches { bytes, .. } => *bytes,
        }
    }
}

/// Appends what there is of a later time. Batches that follow each other are read together.
fn append(sources: &mut Vec<Source>, later: Vec<Source>) {
    for source in later {
        match (sources.last_mut(), source) {
            (Some(Source::Batches { until, bytes, .. }), Source::Batches { until: to, bytes: more, .. }) => {
                *until = to;
                *bytes += more;
            }
            (_, source) => sources.push(source),
        }
    }
}

pub(super) struct MergedNode<K, V, F> {
    operation: &'static str,
    store: Arc<WindowStore<(K, V)>>,
    span: Span,
    panes: Panes,
    partitions: usize,
    merge: F,
    /// What intervals come to; `None` where what they were merged from is used instead.
    kept: Mutex<BTreeMap<Interval, Option<Piece>>>,
    /// The window that ends with the batch in progress, by partition.
    window: Mutex<Option<Piece>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Key, V: Data, F: Fn(V, V) -> V + Send + Sync> MergedNode<K, V, F> {
    pub(super) fn new(
        operation: &'static str,
        store: Arc<WindowStore<(K, V)>>,
        span: Span,
        partitions: usize,
        merge: F,
    ) -> Arc<Self> {
        let (kept, window) = (Mutex::default(), Mutex::default());
        let panes = Panes::of(span);
        Arc::new(MergedNode { operation, store, span, panes, partitions, merge, kept, window })
    }

    /// The window that ends with this batch, by key group.
    pub(super) fn rdd(&self, batch: &Batch) -> Result<Rdd<(K, V)>> {
        let window = lock(&self.window).clone().ok_or_else(|| {
            let message = format!("`{}` was read before its batch ran", self.state().name());
            Error::new(ErrorKind::InvalidGraph, message)
        })?;
        let keyed = Arc::new(MergedWindow { partitions: self.partitions, pairs: window });
        let detail = format!(" `{}` after {}", self.state().name(), batch.id);
        Ok(Rdd::of_keyed(&batch.executor, self.operation, detail, self.partitions, keyed))
    }

    /// What there is of an interval, in order.
    fn sources(&self, batch: &Batch, interval: Interval) -> Result<Vec<Source>> {
        let (after, until) = self.panes.times(interval);
        let known = lock(&self.kept).get(&interval).cloned();
        if let Some(Some(piece)) = known {
            return Ok(vec![Source::Merged(piece)]);
        }
        if !self.store.has_between(after, until) {
            return Ok(Vec::new());
        }
        let mut sources = Vec::new();
        match interval.halves() {
            None => {
                let bytes = self.store.bytes_between(after, until);
                sources.push(Source::Batches { after, until, bytes });
            }
            Some(halves) => {
                for half in halves {
                    append(&mut sources, self.sources(batch, half)?);
                }
            }
        }
        let is_one = match &sources[..] {
            [Source::Batches { after, until, .. }] => self.store.is_one_batch(*after, *until),
            sources => sources.len() == 1,
        };
        if is_one || known.is_some() || !self.panes.is_shared(interval) {
            return Ok(sources);
        }
        let pieces = self.read(batch, &sources)?;
        // What accumulators are given must not depend on where a job was started anew.
        let merged = self.by_partition(batch, |groups| tally::uncounted(|| self.merged(&pieces, groups)))?;
        let merged = Arc::new(merged);
        let together: u64 = sources.iter().map(Source::bytes).sum();
        let is_worth_it = 2 * Source::Merged(merged.clone()).bytes() <= together;
        lock(&self.kept).insert(interval, is_worth_it.then(|| merged.clone()));
        Ok(if is_worth_it { vec![Source::Merged(merged)] } else { sources })
    }

    fn read(&self, batch: &Batch, sources: &[Source]) -> Result<Vec<Piece>> {
        let piece = |source: &Source| match source {
            Source::Merged(piece) => Ok(piece.clone()),
            Source::Batches { after, until, .. } => {
                self.store.pairs_between(batch, *after, *until).map(Arc::new)
            }
        };
        sources.iter().map(piece).collect()
    }

    /// One pair for each key of some groups.
    fn merged(&self, pieces: &[Piece], groups: &Range<usize>) -> Result<Pairs> {
        merged(pieces.iter().flat_map(|piece| piece.iter()), groups, &self.merge)
    }

    fn by_partition(
        &self,
        batch: &Batch,
        of_groups: impl Fn(&Range<usize>) -> Result<Pairs> + Sync,
    ) -> Result<Vec<Pairs>> {
        let stage = format!("{} `{}`", self.operation, self.state().name());
        let task = |partition| of_groups(&groups_of_partition(partition, self.partitions));
        batch.executor.run_stage(&stage, self.partitions, |_, partition| task(partition))
    }
}

impl<K: Key, V: Data, F: Fn(V, V) -> V + Send + Sync> StatefulNode for MergedNode<K, V, F> {
    fn state(&self) -> &Arc<OperatorState> {
        self.store.state()
    }

    fn advance(&self, batch: &Batch) -> Result<()> {
        self.store.advance(batch)?;
        let end_ms = batch.time.0;
        if !self.span.is_end(end_ms) {
            return Ok(());
        }
        let mut sources = Vec::new();
        for interval in self.panes.cover(end_ms) {
            append(&mut sources, self.sources(batch, interval)?);
        }
        let pieces = self.read(batch, &sources)?;
        let window = self.by_partition(batch, |groups| self.merged(&pieces, groups))?;
        *lock(&self.window) = Some(Arc::new(window));
        lock(&self.kept).retain(|interval, _| self.panes.is_needed_after(end_ms, *interval));
        Ok(())
    }

    fn finish_batch(&self) -> Result<()> {
        *lock(&self.window) = None;
        self.store.finish_batch()
    }

    fn restored(&self) -> Result<()> {
        lock(&self.kept).clear();
        self.store.restored()
    }

    fn due_between(&self, last: BatchTime, latest: BatchTime) -> Option<BatchTime> {
        self.store.due_between(last, latest)
    }
}

/// One window, partitioned by key.
struct MergedWindow {
    partitions: usize,
    pairs: Piece,
}

impl<V: Data> KeyedNode<V> for MergedWindow {
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        Vec::new()
    }

    fn grouped(&self, group: usize) -> Result<Grouped<V>> {
        let of_group = |partition: &usize| groups_of_partition(*partition, self.partitions).contains(&group);
        let partition = (0..self.partitions).find(of_group);
        partition.map_or_else(|| Ok(Grouped::empty()), |partition| self.pairs[partition].grouped(group))
    }
}
