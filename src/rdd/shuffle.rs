//! Shuffles: pairs are brought together by key.
//!
//! The map side of each partition writes one **run**: its pairs ordered by key group, keys as bytes in one
//! arena, hashes carried along, values beside them. It holds data only, no pointer into a block. The reduce
//! side takes a key group from every run in partition order, so that what meets there is ordered by (input
//! partition, position) and never by arrival.

mod combining_table;
mod numbered;
mod run;

use std::cell::RefCell;
use std::marker::PhantomData;
use std::mem::needs_drop;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::KEY_GROUPS;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::tally::{self, Scope, next_shuffle_id};
use crate::exec::{Executor, TaskContext};
use crate::rdd::{Emitter, Lineage, RddNode, Record, WideDependency};
use crate::record::{Data, Key, KeyHash, KeyTable, hash_of};
use combining_table::CombiningTable;
pub(crate) use numbered::{NumberKeys, Numbered};
use run::KEY_ROOM;
pub(crate) use run::Run;

/// The key groups that a partition owns.
pub(crate) fn groups_of_partition(partition: usize, partitions: usize) -> Range<usize> {
    partition * KEY_GROUPS / partitions..(partition + 1) * KEY_GROUPS / partitions
}

/// How a map task makes its run.
pub(crate) trait MapSide<V>: Send + Sync {
    fn input(&self) -> Arc<dyn Lineage>;

    fn run(&self, task: &TaskContext, partition: usize) -> Result<Run<V>>;
}

/// Keeps every pair.
pub(crate) struct Keep<K, V> {
    pub(crate) input: Arc<dyn RddNode<(K, V)>>,
}

impl<K: Key, V: Data> MapSide<V> for Keep<K, V> {
    fn input(&self) -> Arc<dyn Lineage> {
        self.input.clone()
    }

    fn run(&self, task: &TaskContext, partition: usize) -> Result<Run<V>> {
        let (mut hashes, mut starts, mut lengths) = (Vec::new(), Vec::new(), Vec::new());
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        let mut scratch = Vec::new();
        self.input.compute(task, partition, &mut |chunk| {
            for (key, value) in chunk.drain(..) {
                starts.push(check_key_bytes(bytes.len())?);
                hashes.push(key.with_key_bytes(&mut scratch, |key| {
                    bytes.extend_from_slice(key);
                    hash_of(key)
                }));
                lengths.push(check_key_bytes(bytes.len())? - starts[starts.len() - 1]);
                values.push(value);
            }
            Ok(())
        })?;
        let run = Run::by_group(&hashes, &lengths, |at, room| {
            let (key, length) = (&bytes[starts[at] as usize..], lengths[at] as usize);
            match (room.first_chunk_mut::<KEY_ROOM>(), key.first_chunk::<KEY_ROOM>()) {
                (Some(room), Some(key)) if length <= KEY_ROOM => *room = *key,
                _ => room[..length].copy_from_slice(&key[..length]),
            }
        })?;
        Ok(run.with_values(values))
    }
}

fn too_much(message: &str) -> Error {
    Error::new(ErrorKind::InvalidGraph, message)
}

#[inline]
fn check_records(records: usize) -> Result<u32> {
    let message = "a partition of a shuffle has more than 2^32 records; use more, smaller partitions";
    u32::try_from(records).map_err(|_| too_much(message))
}

#[inline]
fn check_key_bytes(bytes: usize) -> Result<u32> {
    let message = "the keys of one partition take more than 4 GiB; use more, smaller partitions";
    u32::try_from(bytes).map_err(|_| too_much(message))
}

/// The number of a key, and whether it is new.
#[inline]
fn number_of(keys: &mut KeyTable, hash: KeyHash, key: &[u8]) -> Result<(usize, bool)> {
    let message = "a partition has more than 2^32 keys or 4 GiB of them; use more, smaller partitions";
    keys.try_find_or_insert(hash, key).ok_or_else(|| too_much(message))
}

/// How the values of a key become one.
pub(crate) trait Aggregator<V>: Send + Sync + 'static {
    type Combined: Data;

    fn create(&self, value: V) -> Self::Combined;

    fn merge_value(&self, combined: Self::Combined, value: V) -> Self::Combined;

    /// Merges what two partitions have of a key, that of the lower partition first.
    fn merge_combined(&self, lower: Self::Combined, higher: Self::Combined) -> Self::Combined;
}

/// Combines the values of each key before they travel.
pub(crate) struct Combine<K, V, A: Aggregator<V>> {
    input: Arc<dyn RddNode<(K, V)>>,
    aggregator: Arc<A>,
    /// What tasks that are done have left for those to come.
    unused_tables: Mutex<Vec<CombiningTable<A::Combined>>>,
}

impl<K, V, A: Aggregator<V>> Combine<K, V, A> {
    pub(crate) fn new(input: Arc<dyn RddNode<(K, V)>>, aggregator: Arc<A>) -> Self {
        Combine { input, aggregator, unused_tables: Mutex::default() }
    }
}

impl<K: Key, V: Data, A: Aggregator<V>> MapSide<A::Combined> for Combine<K, V, A> {
    fn input(&self) -> Arc<dyn Lineage> {
        self.input.clone()
    }

    fn run(&self, task: &TaskContext, partition: usize) -> Result<Run<A::Combined>> {
        let unused = self.unused_tables.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut table = unused.unwrap_or_default();
        let (mut scratch, how) = (Vec::new(), &*self.aggregator);
        let mut add = |key: &K, value| match key.head() {
            Some(head) => table.add_short(head, value, how),
            None => key.with_key_bytes(&mut scratch, |key| table.add(key, value, how)),
        };
        self.input.compute(task, partition, &mut |chunk| {
            if needs_drop::<V>() {
                chunk.drain(..).try_for_each(|(key, value)| add(&key, value))
            } else {
                // Keys are read where they are: moved out of a chunk, they would go through memory once more.
                chunk.iter().try_for_each(|(key, value)| add(key, value.clone()))
            }
        })?;
        let run = table.take_run()?;
        self.unused_tables.lock().unwrap_or_else(PoisonError::into_inner).push(table);
        Ok(run)
    }
}

/// Replaces what is at `at`, without a default or a clone of it.
#[inline]
fn replace_at<C>(all: &mut Vec<C>, at: usize, with: impl FnOnce(C) -> C) {
    let before = all.swap_remove(at);
    all.push(with(before));
    let last = all.len() - 1;
    all.swap(at, last);
}

/// One shuffle of one batch. Its runs are kept until the batch is over and made again when asked for later.
pub(crate) struct Shuffle<V> {
    id: u64,
    map_side: Box<dyn MapSide<V>>,
    operation: &'static str,
    runs: Mutex<Option<Arc<Vec<Run<V>>>>>,
}

impl<V: Data> Shuffle<V> {
    pub(crate) fn new(operation: &'static str, map_side: impl MapSide<V> + 'static) -> Arc<Self> {
        let (id, map_side) = (next_shuffle_id(), Box::new(map_side));
        Arc::new(Shuffle { id, map_side, operation, runs: Mutex::new(None) })
    }

    fn runs(&self) -> Result<Arc<Vec<Run<V>>>> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.clone().ok_or_else(|| Error::corrupt("a shuffle was read before its map side ran"))
    }
}

impl<V: Data> WideDependency for Shuffle<V> {
    fn prepare(&self, executor: &Executor) -> Result<()> {
        if self.runs().is_ok() {
            return Ok(());
        }
        let input = self.map_side.input();
        let stage = format!("map side of {}", self.operation);
        let partitions = input.info().partitions;
        let runs = executor.run_stage(&stage, partitions, |task, partition| {
            let scope = Scope::MapSide { shuffle: self.id, partition };
            tally::collect(scope, || self.map_side.run(task, partition))
        })?;
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(runs));
        Ok(())
    }

    fn parent(&self) -> Arc<dyn Lineage> {
        self.map_side.input()
    }

    fn describe(&self) -> String {
        format!("shuffle by key for {}", self.operation)
    }
}

/// The distinct keys of one key group with their values, in order of first appearance.
#[derive(Debug)]
pub(crate) struct Grouped<V> {
    pub(crate) keys: KeyTable,
    /// Where each key's values start, and the end of the last. Every key has a value.
    starts: Vec<u32>,
    values: Vec<V>,
}

impl<V> Grouped<V> {
    /// The values of the key numbered `at`, in the order of their records.
    pub(crate) fn values(&self, at: usize) -> &[V] {
        &self.values[self.starts[at] as usize..self.starts[at + 1] as usize]
    }

    pub(crate) fn map_values<W>(self, each: impl Fn(V) -> W) -> Grouped<W> {
        let Grouped { keys, starts, values } = self;
        Grouped { keys, starts, values: values.into_iter().map(each).collect() }
    }

    /// No keys yet, for [`push`](Grouped::push).
    pub(crate) fn empty() -> Self {
        Grouped { keys: KeyTable::default(), starts: vec![0], values: Vec::new() }
    }

    /// Adds a key that is not there with the values that `fill` appends, and nothing when it appends none.
    pub(crate) fn push(&mut self, hash: KeyHash, key: &[u8], fill: impl FnOnce(&mut Vec<V>)) -> Result<()> {
        let before = self.values.len();
        fill(&mut self.values);
        if self.values.len() > before {
            number_of(&mut self.keys, hash, key)?;
            self.starts.push(check_records(self.values.len())?);
        }
        Ok(())
    }

    /// The keys, and for each of them in turn how many of the values are its own.
    pub(crate) fn into_parts(self) -> (KeyTable, impl Iterator<Item = usize>, Vec<V>) {
        let Grouped { keys, starts, values } = self;
        let counts = (1..starts.len()).map(move |at| (starts[at] - starts[at - 1]) as usize);
        (keys, counts, values)
    }

    /// One value for each key, made from the first it has and the others.
    pub(crate) fn fold_values<W>(self, each: impl Fn(V, Others<'_, V>) -> W) -> Grouped<W> {
        let (keys, counts, values) = self.into_parts();
        let mut values = values.into_iter();
        let mut folded = Vec::with_capacity(keys.len());
        for count in counts {
            let mut own = values.by_ref().take(count);
            folded.extend(own.next().map(|first| each(first, own)));
        }
        Grouped { keys, starts: (0..=folded.len() as u32).collect(), values: folded }
    }
}

/// The values of a key but for the first.
pub(crate) type Others<'a, V> = std::iter::Take<&'a mut std::vec::IntoIter<V>>;

/// Calls `each` with the values and hands on what it emits for each of them, together with the value's tag.
pub(crate) fn expand<Tag, V, W>(
    values: impl Iterator<Item = (Tag, V)>,
    each: &impl Fn(V, &mut Emitter<'_, W>),
    mut take: impl FnMut(&Tag, &mut Vec<W>),
) -> Result<()> {
    let current: RefCell<Option<Tag>> = RefCell::new(None);
    let mut with_tag = |emitted: &mut Vec<W>| {
        if let Some(tag) = &*current.borrow() {
            take(tag, emitted);
        }
        Ok(())
    };
    let mut emitter = Emitter::new(&mut with_tag);
    for (tag, value) in values {
        current.replace(Some(tag));
        each(value, &mut emitter);
        emitter.flush();
    }
    emitter.finish()
}

/// Pairs that are partitioned by key: read one key group at a time.
pub(crate) trait KeyedNode<V>: Send + Sync {
    /// What must have run before a group is read.
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>>;

    fn grouped(&self, group: usize) -> Result<Grouped<V>>;

    /// The same, with the keys numbered by who asks for it.
    fn numbered(&self, group: usize, number: &mut NumberKeys<'_>) -> Result<Numbered<V>> {
        Numbered::of(self.grouped(group)?, number)
    }
}

/// Every value of every key.
pub(crate) struct GroupedByKey<V> {
    pub(crate) shuffle: Arc<Shuffle<V>>,
}

impl<V: Data> KeyedNode<V> for GroupedByKey<V> {
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        vec![self.shuffle.clone()]
    }

    fn grouped(&self, group: usize) -> Result<Grouped<V>> {
        let runs = self.shuffle.runs()?;
        // A small batch leaves most groups empty.
        if check_records(runs.iter().map(|run| run.len_of(group)).sum())? == 0 {
            return Ok(Grouped::empty());
        }
        let mut keys = KeyTable::default();
        let mut places = Vec::new();
        let mut starts = vec![0u32];
        for run in runs.iter() {
            for (hash, key, _) in run.group(group) {
                let (at, new) = number_of(&mut keys, hash, key)?;
                if new {
                    starts.push(0);
                }
                starts[at + 1] += 1;
                places.push(at as u32);
            }
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        // A stable counting sort of references: each key's values in the order of their records.
        let mut next = starts.clone();
        let mut order = vec![0u32; places.len()];
        for (record, place) in places.iter().enumerate() {
            let slot = &mut next[*place as usize];
            order[*slot as usize] = record as u32;
            *slot += 1;
        }
        let records: Vec<&V> =
            runs.iter().flat_map(|run| run.group(group).map(|(_, _, value)| value)).collect();
        let values = order.iter().map(|record| records[*record as usize].clone()).collect();
        Ok(Grouped { keys, starts, values })
    }
}

/// One value for each key, merged from what the map side combined.
pub(crate) struct CombinedByKey<C, V, A> {
    pub(crate) shuffle: Arc<Shuffle<C>>,
    pub(crate) aggregator: Arc<A>,
    pub(crate) value: PhantomData<fn(V)>,
}

impl<V: Data, A: Aggregator<V>> KeyedNode<A::Combined> for CombinedByKey<A::Combined, V, A> {
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        vec![self.shuffle.clone()]
    }

    fn grouped(&self, group: usize) -> Result<Grouped<A::Combined>> {
        let scope = Scope::Reduced { shuffle: self.shuffle.id, group };
        tally::collect(scope, || self.merged(group))
    }

    fn numbered(&self, group: usize, number: &mut NumberKeys<'_>) -> Result<Numbered<A::Combined>> {
        let (scope, runs) = (Scope::Reduced { shuffle: self.shuffle.id, group }, self.shuffle.runs()?);
        tally::collect(scope, || Numbered::merged(&runs, group, &*self.aggregator, number))
    }
}

impl<V: Data, A: Aggregator<V>> CombinedByKey<A::Combined, V, A> {
    fn merged(&self, group: usize) -> Result<Grouped<A::Combined>> {
        let runs = self.shuffle.runs()?;
        let most = runs.iter().map(|run| run.len_of(group)).max().unwrap_or(0);
        if most == 0 {
            return Ok(Grouped::empty());
        }
        let mut keys = KeyTable::with_capacity(most);
        let mut values = Vec::with_capacity(most);
        for run in runs.iter() {
            for (hash, key, value) in run.group(group) {
                let (at, new) = number_of(&mut keys, hash, key)?;
                if new {
                    values.push(value.clone());
                } else {
                    replace_at(&mut values, at, |before| {
                        self.aggregator.merge_combined(before, value.clone())
                    });
                }
            }
        }
        let starts = (0..=values.len() as u32).collect();
        Ok(Grouped { keys, starts, values })
    }
}

/// One value for each key of another keyed node, where all its values are together already.
pub(crate) struct CombinedInPlace<V, A> {
    id: u64,
    parent: Arc<dyn KeyedNode<V>>,
    aggregator: A,
}

impl<V, A> CombinedInPlace<V, A> {
    pub(crate) fn new(parent: Arc<dyn KeyedNode<V>>, aggregator: A) -> Self {
        CombinedInPlace { id: next_shuffle_id(), parent, aggregator }
    }
}

impl<V: Data, A: Aggregator<V>> KeyedNode<A::Combined> for CombinedInPlace<V, A> {
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        self.parent.dependencies()
    }

    fn grouped(&self, group: usize) -> Result<Grouped<A::Combined>> {
        let (how, grouped) = (&self.aggregator, self.parent.grouped(group)?);
        tally::collect(Scope::Reduced { shuffle: self.id, group }, || {
            Ok(grouped.fold_values(|first, others| {
                others.fold(how.create(first), |combined, value| how.merge_value(combined, value))
            }))
        })
    }
}

/// The values of another keyed node, each mapped; the keys stay where they are.
pub(crate) struct MappedValues<V, F> {
    id: u64,
    parent: Arc<dyn KeyedNode<V>>,
    each: F,
}

impl<V, F> MappedValues<V, F> {
    pub(crate) fn new(parent: Arc<dyn KeyedNode<V>>, each: F) -> Self {
        MappedValues { id: next_shuffle_id(), parent, each }
    }
}

impl<V: Record, W: Record, F: Fn(V) -> W + Send + Sync> KeyedNode<W> for MappedValues<V, F> {
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        self.parent.dependencies()
    }

    fn grouped(&self, group: usize) -> Result<Grouped<W>> {
        let grouped = self.parent.grouped(group)?;
        tally::collect(Scope::Reduced { shuffle: self.id, group }, || Ok(grouped.map_values(&self.each)))
    }
}

/// Reads a key's bytes back as the key they were made from.
pub(crate) fn decode_key<K: Key>(bytes: &[u8]) -> Result<K> {
    K::decode_key(bytes)
        .ok_or_else(|| Error::corrupt(format!("{} bytes are no key of type {}", bytes.len(), K::key_type())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values without a size, so that more than 2^32 of them take no memory.
    const TOO_MANY: usize = u32::MAX as usize + 1;

    #[test]
    fn more_records_than_a_run_can_number_are_refused() {
        let error = check_records(TOO_MANY).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidGraph);
        assert!(error.to_string().contains("2^32 records"), "{error}");
    }

    /// Each run can number its own records; all of a key group together cannot be.
    #[test]
    fn more_records_than_a_key_group_can_number_are_refused() {
        let run = |records: u32| {
            let starts = std::iter::once(0).chain(std::iter::repeat_n(records, KEY_GROUPS)).collect();
            let (key_starts, bytes) = (vec![0; KEY_GROUPS], Vec::new());
            Run::<()> { starts, key_starts, hashes: Vec::new(), ends: Vec::new(), bytes, values: Vec::new() }
        };
        struct None;
        impl MapSide<()> for None {
            fn input(&self) -> Arc<dyn Lineage> {
                unreachable!("the runs are there")
            }

            fn run(&self, _: &TaskContext, _: usize) -> Result<Run<()>> {
                unreachable!("the runs are there")
            }
        }
        let shuffle = Shuffle::new("test", None);
        *shuffle.runs.lock().unwrap() = Some(Arc::new(vec![run(u32::MAX), run(1)]));
        let error = GroupedByKey { shuffle }.grouped(0).unwrap_err();
        assert!(error.to_string().contains("2^32 records"), "{error}");
    }
}
