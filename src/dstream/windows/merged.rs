//! Windows that are merged from partial aggregates, so that one costs as much as a few of its batches.
//!
//! What an [`Interval`] comes to is merged from its halves when a window needs it for the first time, and kept for as long
//! as windows need it. It follows from the batches that the store of the window keeps: after a restart it is merged
//! again, in the same way, so that a function that is not quite associative gives the same bytes too. Where merging
//! saves less than half, the pieces are used instead of it: all that is kept is never more than the batches themselves.

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

fn bytes_of(pieces: &[Piece]) -> usize {
    pieces.iter().flat_map(|piece| piece.iter()).map(Pairs::memory_bytes).sum()
}

pub(super) struct MergedNode<K, V, F> {
    operation: &'static str,
    store: Arc<WindowStore<(K, V)>>,
    span: Span,
    panes: Panes,
    partitions: usize,
    merge: F,
    /// What intervals come to; `None` where their pieces are used instead.
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

    /// Appends what there is of an interval, in order.
    fn append_pieces(&self, batch: &Batch, interval: Interval, pieces: &mut Vec<Piece>) -> Result<()> {
        let (after, until) = self.panes.times(interval);
        if !self.store.has_between(after, until) {
            return Ok(());
        }
        let is_shared = self.panes.is_shared(interval);
        let known = lock(&self.kept).get(&interval).cloned();
        if let Some(Some(piece)) = known {
            pieces.push(piece);
            return Ok(());
        }
        let first = pieces.len();
        match interval.halves() {
            None => pieces.push(Arc::new(self.store.pairs_between(batch, after, until)?)),
            Some(halves) => {
                halves.into_iter().try_for_each(|half| self.append_pieces(batch, half, pieces))?
            }
        }
        // There is nothing to merge in one half alone, or in one batch.
        let is_one =
            pieces.len() == first + 1 && (interval.level > 0 || self.store.is_one_batch(after, until));
        if !is_shared || known.is_some() || is_one {
            return Ok(());
        }
        let own = &pieces[first..];
        // What accumulators are given must not depend on where a job was started anew.
        let merged = self.by_partition(batch, |groups| tally::uncounted(|| self.merged(own, groups)))?;
        let merged = Arc::new(merged);
        let is_worth_it = 2 * bytes_of(std::slice::from_ref(&merged)) <= bytes_of(own);
        lock(&self.kept).insert(interval, is_worth_it.then(|| merged.clone()));
        if is_worth_it {
            pieces.truncate(first);
            pieces.push(merged);
        }
        Ok(())
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
        let mut pieces = Vec::new();
        for interval in self.panes.cover(end_ms) {
            self.append_pieces(batch, interval, &mut pieces)?;
        }
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
