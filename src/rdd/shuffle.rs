//! Shuffles: pairs are brought together by key.
//!
//! The map side of each partition writes one **run**: its pairs ordered by key group, keys as bytes in one
//! arena, hashes carried along, values beside them. It holds data only, no pointer into a block. The reduce
//! side takes a key group from every run in partition order, so that what meets there is ordered by (input
//! partition, position) and never by arrival.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::KEY_GROUPS;
use crate::error::{Error, Result};
use crate::exec::{Executor, TaskContext};
use crate::rdd::{Lineage, RddNode, WideDependency};
use crate::record::{Data, Key, KeyHash, KeyTable, group_of, hash_of};

/// The key groups that a partition owns.
pub(crate) fn groups_of_partition(partition: usize, partitions: usize) -> Range<usize> {
    partition * KEY_GROUPS / partitions..(partition + 1) * KEY_GROUPS / partitions
}

/// The output of one map task.
#[derive(Debug)]
pub(crate) struct Run<V> {
    /// Where each key group starts, and the end of the last.
    starts: Vec<u32>,
    hashes: Vec<KeyHash>,
    ends: Vec<u32>,
    bytes: Vec<u8>,
    values: Vec<V>,
}

impl<V: Data> Run<V> {
    /// Orders pairs by key group, keeping their order within each (a counting sort).
    pub(crate) fn by_group<'a>(
        pairs: impl Iterator<Item = (KeyHash, &'a [u8])> + Clone,
        values: &[V],
    ) -> Self {
        let mut starts = vec![0u32; KEY_GROUPS + 1];
        let mut key_bytes = 0;
        for (hash, key) in pairs.clone() {
            starts[group_of(hash) + 1] += 1;
            key_bytes += key.len();
        }
        for group in 0..KEY_GROUPS {
            starts[group + 1] += starts[group];
        }
        let mut next = starts.clone();
        let mut order = vec![0u32; values.len()];
        let mut keys: Vec<(KeyHash, &[u8])> = Vec::with_capacity(values.len());
        for (at, (hash, key)) in pairs.enumerate() {
            let place = &mut next[group_of(hash)];
            order[*place as usize] = at as u32;
            *place += 1;
            keys.push((hash, key));
        }
        let mut run = Run {
            starts,
            hashes: Vec::with_capacity(values.len()),
            ends: Vec::with_capacity(values.len()),
            bytes: Vec::with_capacity(key_bytes),
            values: Vec::with_capacity(values.len()),
        };
        for at in order {
            let (hash, key) = keys[at as usize];
            run.hashes.push(hash);
            run.bytes.extend_from_slice(key);
            run.ends.push(run.bytes.len() as u32);
            run.values.push(values[at as usize].clone());
        }
        run
    }

    /// The pairs of one key group.
    fn group(&self, group: usize) -> impl Iterator<Item = (KeyHash, &[u8], &V)> {
        let places = self.starts[group] as usize..self.starts[group + 1] as usize;
        let mut start = if places.start == 0 { 0 } else { self.ends[places.start - 1] as usize };
        places.map(move |at| {
            let end = self.ends[at] as usize;
            let key = &self.bytes[start..end];
            start = end;
            (self.hashes[at], key, &self.values[at])
        })
    }

    fn len_of(&self, group: usize) -> usize {
        (self.starts[group + 1] - self.starts[group]) as usize
    }
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
        let (mut hashes, mut ends, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        let mut values = Vec::new();
        let mut scratch = Vec::new();
        self.input.compute(task, partition, &mut |chunk| {
            for (key, value) in chunk.drain(..) {
                hashes.push(key.with_key_bytes(&mut scratch, |key| {
                    bytes.extend_from_slice(key);
                    hash_of(key)
                }));
                ends.push(end_of(&bytes)?);
                values.push(value);
            }
            Ok(())
        })?;
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let keys = starts.zip(ends.iter().copied()).map(|(start, end)| &bytes[start as usize..end as usize]);
        Ok(Run::by_group(hashes.iter().copied().zip(keys), &values))
    }
}

fn end_of(bytes: &[u8]) -> Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| {
        let message = "the keys of one partition take more than 4 GiB; use more, smaller partitions";
        Error::new(crate::error::ErrorKind::InvalidGraph, message)
    })
}

/// Combines the values of each key before they travel.
pub(crate) struct Combine<K, V, F> {
    pub(crate) input: Arc<dyn RddNode<(K, V)>>,
    pub(crate) merge: Arc<F>,
}

impl<K: Key, V: Data, F: Fn(V, V) -> V + Send + Sync> MapSide<V> for Combine<K, V, F> {
    fn input(&self) -> Arc<dyn Lineage> {
        self.input.clone()
    }

    fn run(&self, task: &TaskContext, partition: usize) -> Result<Run<V>> {
        let mut keys = KeyTable::with_capacity(4096);
        let mut values: Vec<V> = Vec::with_capacity(4096);
        let mut scratch = Vec::new();
        self.input.compute(task, partition, &mut |chunk| {
            for (key, value) in chunk.drain(..) {
                let (at, new) =
                    key.with_key_bytes(&mut scratch, |key| keys.find_or_insert(hash_of(key), key));
                merge_at(&mut values, at, new, value, &*self.merge);
            }
            Ok(())
        })?;
        Ok(Run::by_group((0..keys.len()).map(|at| (keys.hash(at), keys.key(at))), &values))
    }
}

/// Merges `value` into the accumulator at `at`, without a default or a clone of what is there.
#[inline]
fn merge_at<V>(values: &mut Vec<V>, at: usize, new: bool, value: V, merge: &impl Fn(V, V) -> V) {
    if new {
        values.push(value);
        return;
    }
    let before = values.swap_remove(at);
    values.push(merge(before, value));
    let last = values.len() - 1;
    values.swap(at, last);
}

/// One shuffle of one batch. Its runs are kept until the batch is over and made again when asked for later.
pub(crate) struct Shuffle<V> {
    map_side: Box<dyn MapSide<V>>,
    operation: &'static str,
    runs: Mutex<Option<Arc<Vec<Run<V>>>>>,
}

impl<V: Data> Shuffle<V> {
    pub(crate) fn new(operation: &'static str, map_side: impl MapSide<V> + 'static) -> Arc<Self> {
        Arc::new(Shuffle { map_side: Box::new(map_side), operation, runs: Mutex::new(None) })
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
        let runs =
            executor.run_stage(&stage, partitions, |task, partition| self.map_side.run(task, partition))?;
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
    /// Where each key's values start, and the end of the last.
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
}

/// Pairs that are partitioned by key: read one key group at a time.
pub(crate) trait KeyedNode<V>: Send + Sync {
    /// What must have run before a group is read.
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>>;

    fn grouped(&self, group: usize) -> Result<Grouped<V>>;
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
        let mut keys = KeyTable::default();
        let mut places = Vec::new();
        let mut starts = vec![0u32];
        for run in runs.iter() {
            for (hash, key, _) in run.group(group) {
                let (at, new) = keys.find_or_insert(hash, key);
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

/// One value for each key, merged from all.
pub(crate) struct ReducedByKey<V, F> {
    pub(crate) shuffle: Arc<Shuffle<V>>,
    pub(crate) merge: Arc<F>,
}

impl<V: Data, F: Fn(V, V) -> V + Send + Sync> KeyedNode<V> for ReducedByKey<V, F> {
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        vec![self.shuffle.clone()]
    }

    fn grouped(&self, group: usize) -> Result<Grouped<V>> {
        let runs = self.shuffle.runs()?;
        let most = runs.iter().map(|run| run.len_of(group)).max().unwrap_or(0);
        let mut keys = KeyTable::with_capacity(most);
        let mut values = Vec::with_capacity(most);
        for run in runs.iter() {
            for (hash, key, value) in run.group(group) {
                let (at, new) = keys.find_or_insert(hash, key);
                merge_at(&mut values, at, new, value.clone(), &*self.merge);
            }
        }
        let starts = (0..=values.len() as u32).collect();
        Ok(Grouped { keys, starts, values })
    }
}

/// The values of another keyed node, each mapped; the keys stay where they are.
pub(crate) struct MappedValues<V, F> {
    pub(crate) parent: Arc<dyn KeyedNode<V>>,
    pub(crate) each: Arc<F>,
}

impl<V: Data, W: Data, F: Fn(V) -> W + Send + Sync> KeyedNode<W> for MappedValues<V, F> {
    fn dependencies(&self) -> Vec<Arc<dyn WideDependency>> {
        self.parent.dependencies()
    }

    fn grouped(&self, group: usize) -> Result<Grouped<W>> {
        Ok(self.parent.grouped(group)?.map_values(&*self.each))
    }
}

/// Reads a key's bytes back as the key they were made from.
pub(crate) fn decode_key<K: Key>(bytes: &[u8]) -> Result<K> {
    K::decode_key(bytes)
        .ok_or_else(|| Error::corrupt(format!("{} bytes are no key of type {}", bytes.len(), K::key_type())))
}
