//! What windows hold: the records of the last batches, as state.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Span;
use super::chunks::{ChunkKey, Codec, pair_of};
use super::pairs::Pairs;
use crate::batch::Batch;
use crate::dstream::batch_rows::{BatchRows, RowsSlot};
use crate::dstream::{DStream, OperatorName, StatefulNode};
use crate::error::{Error, Result};
use crate::format::block::for_each_record;
use crate::id::BatchTime;
use crate::rdd::shuffle::decode_key;
use crate::rdd::{Rdd, Record};
use crate::record::{Data, Key, KeyHash, group_of, hash_of};
use crate::state::{GroupChanges, OperatorState};

/// The key whose value says until when batches are counted in aggregates; no batch has this time.
const COUNTED_KEY: ChunkKey = (u64::MAX, 0, 0);

/// A window's RDD has about this many partitions at most.
const PARTITIONS_MAX: u64 = 256;

/// What is smaller than this is not worth a partition of its own.
const PARTITION_BYTES_MIN: u64 = 256 << 10;

/// For what batches are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Each window reads all of its batches.
    Whole,
    /// Each window reads those that entered and those that left since the one before.
    Changes,
    /// Each window reads those that are not in a partial aggregate of several.
    Merged,
}

/// What one partition of one batch left in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    time: u64,
    partition: u32,
    chunks: u32,
    bytes: u64,
}

/// What there is, known from the chunks' keys alone.
#[derive(Debug, Default)]
struct Index {
    /// By batch time and partition; only those with records.
    parts: BTreeMap<(u64, u32), Part>,
    /// Batches up to this time are part of the aggregates, those after it are not yet.
    counted: u64,
}

impl Index {
    fn add(&mut self, time: u64, partition: u32, bytes: usize) {
        let new = Part { time, partition, chunks: 0, bytes: 0 };
        let part = self.parts.entry((time, partition)).or_insert(new);
        part.chunks += 1;
        part.bytes += bytes as u64;
    }

    /// The time of the newest batch with records.
    fn newest(&self) -> Option<u64> {
        self.parts.last_key_value().map(|((time, _), _)| *time)
    }

    /// The parts of the batches with times after `after` and up to `until`, in order.
    fn between(&self, after: u64, until: u64) -> Vec<Part> {
        let later = self.parts.range((after.saturating_add(1), 0)..);
        later.map(|(_, part)| *part).take_while(|part| part.time <= until).collect()
    }

    /// The time of the first batch with records among those.
    fn first_between(&self, after: u64, until: u64) -> Option<u64> {
        let mut later = self.parts.range((after.saturating_add(1), 0)..);
        later.next().map(|((time, _), _)| *time).filter(|time| *time <= until)
    }

    fn forget_until(&mut self, time: u64) {
        self.parts = self.parts.split_off(&(time.saturating_add(1), 0));
    }
}

/// The chunks in state.
struct ChunkTable<T> {
    state: Arc<OperatorState>,
    codec: Codec<T>,
}

impl<T: Record> ChunkTable<T> {
    fn read(&self, parts: &[Part]) -> Result<Vec<T>> {
        let mut records = Vec::new();
        self.for_each_chunk(parts, |chunk| self.codec.read(chunk, &mut records))?;
        Ok(records)
    }

    fn for_each_chunk(&self, parts: &[Part], mut each: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let (mut key, mut chunk) = (Vec::new(), Vec::new());
        for part in parts {
            for at in 0..part.chunks {
                let hash = key_of((part.time, part.partition, at), &mut key);
                self.copy_chunk(hash, &key, &mut chunk).and_then(|()| each(&chunk)).map_err(|error| {
                    let Part { time, partition, .. } = part;
                    let name = self.state.name();
                    error
                        .within(format!("chunk {at} of batch time {time}, partition {partition} in `{name}`"))
                })?;
            }
        }
        Ok(())
    }

    /// Copies a chunk out, so that its group is not held while records are read.
    fn copy_chunk(&self, hash: KeyHash, key: &[u8], chunk: &mut Vec<u8>) -> Result<()> {
        let mut group = self.state.group(group_of(hash));
        let Some(bytes) = group.value(hash, key)? else {
            return Err(Error::corrupt("it is not there any more"));
        };
        chunk.clear();
        chunk.extend_from_slice(&bytes);
        Ok(())
    }
}

fn key_of(key: ChunkKey, bytes: &mut Vec<u8>) -> KeyHash {
    bytes.clear();
    key.encode_key(bytes);
    hash_of(bytes)
}

/// Consecutive parts brought into partitions of some size. Follows from what there is alone, so that a
/// restart makes the same.
fn partitions_of(parts: Vec<Part>) -> Vec<Vec<Part>> {
    let all: u64 = parts.iter().map(|part| part.bytes).sum();
    let enough = PARTITION_BYTES_MIN.max(all / PARTITIONS_MAX);
    let mut partitions: Vec<Vec<Part>> = Vec::new();
    let mut last_bytes = enough;
    for part in parts {
        match partitions.last_mut() {
            Some(last) if last_bytes < enough => last.push(part),
            _ => {
                partitions.push(vec![part]);
                last_bytes = 0;
            }
        }
        last_bytes += part.bytes;
    }
    partitions
}

/// Changes of the state that are decided and not applied yet.
pub(super) struct Staged(Vec<(usize, GroupChanges)>);

/// What a window's end changes, for an aggregate over all of the window.
pub(super) struct Turnover<T> {
    /// Batches that entered the window since the one before, and are still in it.
    pub(super) entered: Rdd<T>,
    /// Batches that were part of the aggregates and are not in the window any more.
    pub(super) left: Rdd<T>,
    removal: Staged,
    end: u64,
}

/// The records of a stream's last batches, for windows over them.
///
/// Each batch's records are laid out in chunks and become state under (batch time, partition, place) when the
/// batch runs, and are removed when no window needs them any more, so that a checkpoint holds what is new.
/// In memory the table's bytes are what windows are read from, as Spark persists windowed streams serialised.
pub(super) struct WindowStore<T> {
    parent: DStream<T>,
    span: Span,
    kept_for: Use,
    table: Arc<ChunkTable<T>>,
    index: Mutex<Index>,
    rows: RowsSlot<T>,
}

impl<T: Record> WindowStore<T> {
    pub(super) fn new(
        name: &OperatorName,
        parent: &DStream<T>,
        span: Span,
        kept_for: Use,
        codec: Codec<T>,
    ) -> Arc<Self> {
        let state = name.state(codec.state_type.clone());
        Arc::new(WindowStore {
            parent: parent.clone(),
            span,
            kept_for,
            table: Arc::new(ChunkTable { state, codec }),
            index: Mutex::default(),
            rows: RowsSlot::default(),
        })
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn name(&self) -> &str {
        self.table.state.name()
    }

    /// The window that ends with this batch.
    pub(super) fn window(&self, batch: &Batch, operation: &'static str) -> Result<Rdd<T>> {
        self.rows.rdd(batch, operation, self.name())
    }

    fn rows_of(&self, parts: Vec<Part>) -> Arc<BatchRows<T>> {
        let (table, partitions) = (self.table.clone(), partitions_of(parts));
        BatchRows::new(partitions.len(), move |partition| table.read(&partitions[partition]))
    }

    /// What the window that ends with this batch changes.
    pub(super) fn turnover(&self, batch: &Batch) -> Result<Turnover<T>> {
        let end = batch.time.0;
        let before = self.span.before(end);
        let (entered, left, rows) = {
            let index = self.index();
            let mut rows = removals(&index.between(0, before));
            if index.newest().is_some_and(|newest| newest > before) {
                rows.push((COUNTED_KEY, Some(end.to_le_bytes().to_vec())));
            } else if index.counted > 0 {
                rows.push((COUNTED_KEY, None));
            }
            (index.between(index.counted.max(before), end), index.between(0, before.min(index.counted)), rows)
        };
        Ok(Turnover {
            entered: self.rows_of(entered).rdd(batch, "entered", self.name()),
            left: self.rows_of(left).rdd(batch, "left", self.name()),
            removal: self.stage(batch, rows)?,
            end,
        })
    }

    /// The aggregates are those of the window that ends here: what left is not needed any more.
    pub(super) fn counted(&self, batch: &Batch, turnover: &Turnover<T>) -> Result<()> {
        self.apply(batch, &turnover.removal)?;
        let mut index = self.index();
        index.forget_until(self.span.before(turnover.end));
        index.counted = if index.parts.is_empty() { 0 } else { turnover.end };
        Ok(())
    }

    /// Decides what happens to each key group; nothing changes yet.
    fn stage(&self, batch: &Batch, rows: Vec<Row>) -> Result<Staged> {
        let mut by_group: BTreeMap<usize, Vec<_>> = BTreeMap::new();
        let mut key = Vec::new();
        for (chunk, value) in rows {
            let hash = key_of(chunk, &mut key);
            by_group.entry(group_of(hash)).or_default().push((hash, key.clone(), value));
        }
        let groups: Vec<_> = by_group.into_iter().collect();
        let stage = format!("window `{}`", self.name());
        let changes = batch.executor.run_stage(&stage, groups.len(), |_, at| {
            let (group, rows) = &groups[at];
            let mut state = self.table.state.group(*group);
            let mut changes = GroupChanges::default();
            for (hash, key, value) in rows {
                changes.push(state.touch(*hash, key)?, value.as_deref());
            }
            Ok((*group, changes))
        })?;
        Ok(Staged(changes))
    }

    fn apply(&self, batch: &Batch, staged: &Staged) -> Result<()> {
        let stage = format!("window `{}`", self.name());
        batch.executor.run_stage(&stage, staged.0.len(), |_, at| {
            let (group, changes) = &staged.0[at];
            self.table.state.group(*group).apply(changes);
            Ok(())
        })?;
        Ok(())
    }

    /// Takes up what the batch has, and removes what no window needs from here on.
    fn take_up(&self, batch: &Batch) -> Result<()> {
        let time = batch.time.0;
        let needed_after = self.span.before(self.span.end_from(time));
        let mut chunks = Vec::new();
        if self.parent.is_due(batch) && time > needed_after {
            chunks = self.table.codec.chunks(&self.parent.rdd(batch)?, "window")?;
        }
        let removed = match self.kept_for {
            Use::Whole | Use::Merged => self.index().between(0, needed_after),
            Use::Changes => Vec::new(),
        };
        let mut rows = removals(&removed);
        let mut sizes = Vec::new();
        for (partition, chunks) in (0u32..).zip(chunks) {
            for (at, chunk) in (0u32..).zip(chunks) {
                sizes.push((partition, chunk.len()));
                rows.push(((time, partition, at), Some(chunk)));
            }
        }
        let staged = self.stage(batch, rows)?;
        self.apply(batch, &staged)?;
        let mut index = self.index();
        if self.kept_for != Use::Changes {
            index.forget_until(needed_after);
        }
        sizes.into_iter().for_each(|(partition, bytes)| index.add(time, partition, bytes));
        Ok(())
    }

    /// Notes a chunk that a checkpoint held.
    fn note_restored(&self, index: &mut Index, key: &[u8], value: &[u8]) -> Result<()> {
        let (time, partition, at) = decode_key::<ChunkKey>(key)?;
        if (time, partition, at) == COUNTED_KEY {
            let counted =
                value.try_into().map_err(|_| Error::corrupt("the time until which is counted is no time"))?;
            index.counted = u64::from_le_bytes(counted);
            return Ok(());
        }
        index.add(time, partition, value.len());
        Ok(())
    }
}

impl<K: Key, V: Data> WindowStore<(K, V)> {
    /// Whether batches with times after `after` and up to `until` have records.
    pub(super) fn has_between(&self, after: u64, until: u64) -> bool {
        self.index().first_between(after, until).is_some()
    }

    /// How many bytes of records the batches with times after `after` and up to `until` have.
    pub(super) fn bytes_between(&self, after: u64, until: u64) -> u64 {
        self.index().between(after, until).iter().map(|part| part.bytes).sum()
    }

    /// Whether only one batch of these has records.
    pub(super) fn is_one_batch(&self, after: u64, until: u64) -> bool {
        let index = self.index();
        let first = index.first_between(after, until);
        first.is_some_and(|time| index.first_between(time, until).is_none())
    }

    /// The pairs of these batches in order, as bytes.
    pub(super) fn pairs_between(&self, batch: &Batch, after: u64, until: u64) -> Result<Vec<Pairs>> {
        let partitions = partitions_of(self.index().between(after, until));
        let stage = format!("window `{}`", self.name());
        batch.executor.run_stage(&stage, partitions.len(), |_, at| self.table.pairs(&partitions[at]))
    }
}

impl<K: Key, V: Data> ChunkTable<(K, V)> {
    fn pairs(&self, parts: &[Part]) -> Result<Pairs> {
        let (mut hashes, mut bytes, mut places) = (Vec::new(), Vec::new(), Vec::new());
        self.for_each_chunk(parts, |chunk| {
            for_each_record(chunk, |record| {
                let (key, value) = pair_of(record)?;
                hashes.push(hash_of(key));
                places.push((bytes.len(), key.len(), value.len()));
                bytes.extend_from_slice(key);
                bytes.extend_from_slice(value);
                Ok(())
            })
        })?;
        Pairs::by_group(&hashes, |at, out| {
            let (start, key, value) = places[at];
            out.extend_from_slice(&bytes[start..start + key + value]);
            Ok((out.len() - value) as u32)
        })
    }
}

/// A chunk's new bytes, or that it goes.
type Row = (ChunkKey, Option<Vec<u8>>);

fn removals(parts: &[Part]) -> Vec<Row> {
    let chunks = |part: Part| (0..part.chunks).map(move |at| ((part.time, part.partition, at), None));
    parts.iter().flat_map(|part| chunks(*part)).collect()
}

impl<T: Record> StatefulNode for WindowStore<T> {
    fn state(&self) -> &Arc<OperatorState> {
        &self.table.state
    }

    fn advance(&self, batch: &Batch) -> Result<()> {
        self.take_up(batch)?;
        if self.kept_for == Use::Whole && self.span.is_end(batch.time.0) {
            let parts = self.index().between(self.span.before(batch.time.0), batch.time.0);
            self.rows.begin(self.rows_of(parts));
        }
        Ok(())
    }

    fn finish_batch(&self) -> Result<()> {
        self.rows.finish()
    }

    fn restored(&self) -> Result<()> {
        let mut index = Index::default();
        self.table.state.for_each(|key, value| self.note_restored(&mut index, key, value))?;
        *self.index() = index;
        Ok(())
    }

    /// The end of the window of the newest records, when none has had them. At most one for each pause:
    /// windows that would only repeat records are not made up for, as no batch is.
    fn due_between(&self, last: BatchTime, latest: BatchTime) -> Option<BatchTime> {
        let newest = self.index().newest()?;
        let ended = self.span.end_until(last.0);
        let end = ended.saturating_add(self.span.slide_ms);
        let unseen = newest > ended && newest > self.span.before(end);
        (unseen && end < latest.0).then_some(BatchTime(end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn partitions_keep_order_and_are_bounded(sizes in prop::collection::vec(1u64..2_000_000, 0..600)) {
            let part = |(time, bytes): (usize, &u64)| Part { time: time as u64, partition: 0, chunks: 1, bytes: *bytes };
            let parts: Vec<Part> = sizes.iter().enumerate().map(part).collect();
            let partitions = partitions_of(parts.clone());
            prop_assert!(partitions.len() as u64 <= PARTITIONS_MAX + 1);
            prop_assert!(partitions.iter().all(|partition| !partition.is_empty()));
            prop_assert_eq!(partitions.concat(), parts);
        }
    }
}
