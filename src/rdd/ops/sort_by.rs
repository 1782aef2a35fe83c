use std::cmp::Reverse;
use std::ops::Range;

use crate::rdd::ops::gather::{emit_into, records_of};
use crate::rdd::ops::stage_output::{Made, StageOutput};
use crate::rdd::{Parent, Rdd, Record};
use crate::record::Data;

/// How many samples of its sorted runs a sort takes per partition: more make partitions more even.
const SAMPLES_PER_PARTITION: usize = 32;

/// A partition's records in order, each with its key.
type SortedRun<K, T> = Vec<(K, T)>;

impl<T: Data> Rdd<T> {
    /// The records in ascending order of `key_of` over all partitions: those of a partition are sorted and
    /// none is larger than any of the next. Records of equal keys keep their order. `key_of` is called once
    /// per record.
    ///
    /// Lazy, wide: partitions are sorted side by side, the keys that divide the result are chosen from the
    /// sorted runs, and each new partition merges its range of every run. Records of equal keys end up in
    /// one partition. As many partitions as before. A replay calls `key_of` again.
    ///
    /// ```
    /// # millpond::doc::run_batch(["ccc", "a", "bb"], |lines| {
    /// assert_eq!(lines.sort_by(|line| line.len()).collect()?, ["a", "bb", "ccc"]);
    /// # Ok(()) });
    /// ```
    pub fn sort_by<K: Ord + Record>(&self, key_of: impl Fn(&T) -> K + Send + Sync + 'static) -> Rdd<T> {
        self.sorted("sort_by", key_of)
    }

    /// The same in descending order. Records of equal keys keep their order here, too.
    ///
    /// ```
    /// # millpond::doc::run_batch(["ccc", "a", "bb"], |lines| {
    /// assert_eq!(lines.sort_by_descending(|line| line.len()).collect()?, ["ccc", "bb", "a"]);
    /// # Ok(()) });
    /// ```
    pub fn sort_by_descending<K: Ord + Record>(
        &self,
        key_of: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> Rdd<T> {
        self.sorted("sort_by_descending", move |record| Reverse(key_of(record)))
    }

    fn sorted<K: Ord + Record>(
        &self,
        operation: &'static str,
        key_of: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> Rdd<T> {
        let partitions = self.partitions();
        let runs = StageOutput::new(
            "sorted runs by range",
            &self.node,
            partitions,
            move |task, partition, input| {
                let records = records_of(input, task, partition)?.into_iter();
                let mut run: SortedRun<K, T> = records.map(|record| (key_of(&record), record)).collect();
                run.sort_by(|a, b| a.0.cmp(&b.0));
                Ok(run)
            },
            move |runs: &[SortedRun<K, T>]| bounds(runs, partitions),
        );
        let parents = vec![Parent::Wide(runs.clone())];
        Rdd::gathered(&self.executor, operation, partitions, parents, move |_, partition, out| {
            let made = runs.made()?;
            // Sorting stably what is sorted piece by piece is merging: the standard sort takes up runs.
            let mut range: Vec<&(K, T)> = Vec::new();
            made.parts.iter().for_each(|run| range.extend(&run[range_of(&made, run, partition)]));
            range.sort_by(|a, b| a.0.cmp(&b.0));
            emit_into(out, |out| {
                range.into_iter().for_each(|(_, record)| out.emit(record.clone()));
                out.check()
            })
        })
    }
}

/// The keys at which each partition but the first begins, evenly spread over regular samples of all runs.
fn bounds<K: Ord + Record, T>(runs: &[SortedRun<K, T>], partitions: usize) -> Vec<K> {
    let records: usize = runs.iter().map(Vec::len).sum();
    let step = (records / (partitions * SAMPLES_PER_PARTITION).max(1)).max(1);
    let sampled = runs.iter().flat_map(|run| run.iter().skip(step / 2).step_by(step));
    let mut samples: Vec<&K> = sampled.map(|(key, _)| key).collect();
    samples.sort();
    let at = |partition: usize| samples.get(samples.len() * partition / partitions);
    (1..partitions).filter_map(at).map(|key| (*key).clone()).collect()
}

/// Where a partition's records are in a run: from its own bound on, up to the next one.
fn range_of<K: Ord, T>(
    made: &Made<SortedRun<K, T>, Vec<K>>,
    run: &SortedRun<K, T>,
    partition: usize,
) -> Range<usize> {
    let place = |bound: &K| run.partition_point(|(key, _)| key < bound);
    let start = partition.checked_sub(1).map_or(0, |bound| made.summary.get(bound).map_or(run.len(), place));
    let end = made.summary.get(partition).map_or(run.len(), place);
    start..end
}
