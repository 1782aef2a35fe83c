//! Recovery and retention as pure decisions over observed facts: every crash point is a row of a test.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::checkpoint::tallies::Tallies;
use crate::error::{Error, ErrorKind, Result};
use crate::format::features::Features;
use crate::format::records::{
    CatalogRecord, CheckpointRecord, DoneRecord, JobRecord, PlanRecord, RollbackRecord, RunRecord, TallyDelta,
};
use crate::id::EpochId;
use crate::store::catalog::{EpochContents, EpochStart};

/// The catalog as one history: what all readable epochs say together.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// By batch.
    pub(crate) plans: BTreeMap<u64, PlanRecord>,
    /// The epoch of each plan, by batch.
    pub(crate) planned_in: BTreeMap<u64, EpochId>,
    /// The batch interval of the run that planned a batch, by batch.
    planned_every_ms: BTreeMap<u64, u64>,
    /// By batch.
    pub(crate) done: BTreeMap<u64, DoneRecord>,
    /// By batch, of those that are done: what it added to accumulators.
    pub(crate) tallies: BTreeMap<u64, Vec<TallyDelta>>,
    /// Oldest first, each with the epoch it is in.
    pub(crate) checkpoints: Vec<(EpochId, CheckpointRecord)>,
    /// Those that no longer count since the job was put back, oldest first.
    pub(crate) dropped: Vec<(EpochId, CheckpointRecord)>,
    /// Oldest first.
    pub(crate) runs: Vec<RunRecord>,
    /// What the job was when the newest epoch began.
    pub(crate) job: Option<JobRecord>,
    /// What readers and writers of the store have to know.
    pub(crate) features: Features,
    /// Whether the very first record of the store is readable, so that nothing before it can be missing.
    pub(crate) from_start: bool,
    /// The newest sound record.
    pub(crate) last_seq: u64,
    /// The newest record that is known to have been committed, sound or not.
    pub(crate) committed_seq: u64,
    /// The newest batch that any record speaks of.
    pub(crate) newest_batch: u64,
    /// Records that were committed after that one was and that cannot be read.
    pub(crate) unreadable: u64,
    /// What is wrong, one line each.
    pub(crate) damage: Vec<String>,
}

impl History {
    /// What the epoch after all others begins with, of which `newest` is the last.
    pub(crate) fn next_epoch(&self, store: [u8; 16], newest: EpochId, job: Option<JobRecord>) -> EpochStart {
        EpochStart {
            store,
            epoch: newest.next(),
            continues_after: self.last_seq,
            first_seq: self.committed_seq.max(self.last_seq) + 1,
            features: self.features,
            job,
        }
    }
}

/// From which of the epochs, oldest first, on there are only starts that came to nothing: a batch that fails
/// each time it is replayed must not leave an epoch for every try. The first epoch of a store always counts.
pub(crate) fn idle_from(epochs: &[EpochContents]) -> usize {
    let counts = |epoch: &EpochContents| {
        let is_first = epoch.records.first().is_none_or(|(seq, _)| *seq == 1);
        is_first || !epoch.damage.is_empty() || !epoch.holds_only_starts()
    };
    epochs.iter().rposition(counts).map_or(0, |last| last + 1)
}

/// Folds the epochs, oldest first, into one history.
pub(crate) fn fold(epochs: &[EpochContents]) -> History {
    let mut records: BTreeMap<u64, (EpochId, CatalogRecord)> = BTreeMap::new();
    let mut history = History::default();
    for epoch in epochs {
        history.damage.extend(epoch.damage.iter().cloned());
        if let Some((_, CatalogRecord::Epoch(first))) = epoch.records.first() {
            // What the writer of this epoch did not know of was never committed.
            records.retain(|seq, _| *seq <= first.continues_after);
        }
        records.extend(epoch.records.iter().map(|(seq, record)| (*seq, (epoch.epoch, record.clone()))));
        let reach = epoch.witness.max(epoch.last_seq()).unwrap_or(0);
        history.committed_seq = history.committed_seq.max(reach);
    }
    history.from_start = records.contains_key(&1);
    history.last_seq = records.last_key_value().map_or(0, |(seq, _)| *seq);
    count_unreadable(&mut history, &records);
    let mut tallies = Tallies::default();
    for (epoch, record) in records.into_values() {
        match record {
            CatalogRecord::Epoch(start) => history.features.join(&start),
            CatalogRecord::Job(job) => history.job = Some(job),
            CatalogRecord::Run(run) => {
                // A run emits anew what the one before did not finish, and may add less, or nothing.
                tallies = Tallies::default();
                history.runs.push(run);
            }
            CatalogRecord::Plan(plan) => {
                history.planned_in.insert(plan.batch, epoch);
                let interval_ms = history.job.as_ref().map_or(0, |job| job.batch_interval_ms);
                history.planned_every_ms.insert(plan.batch, interval_ms);
                history.plans.insert(plan.batch, plan);
            }
            CatalogRecord::Tallies(record) => tallies.add(record),
            CatalogRecord::Done(done) => {
                match tallies.of_done(done.batch) {
                    Ok(deltas) if deltas.is_empty() => {}
                    Ok(deltas) => drop(history.tallies.insert(done.batch, deltas)),
                    Err(damage) => history.damage.push(damage),
                }
                history.done.insert(done.batch, done);
            }
            CatalogRecord::Checkpoint(checkpoint) => history.add_checkpoint(epoch, checkpoint),
            CatalogRecord::Rollback(rollback) => history.roll_back(epoch, rollback),
        }
    }
    history
}

impl History {
    /// The batch interval of the run that planned this batch; 0 where that is not known any more.
    pub(crate) fn interval_ms(&self, batch: u64) -> u64 {
        self.planned_every_ms.get(&batch).copied().unwrap_or(0)
    }

    fn add_checkpoint(&mut self, epoch: EpochId, checkpoint: CheckpointRecord) {
        // A repair says again what it keeps.
        self.checkpoints.retain(|(_, known)| known.checkpoint != checkpoint.checkpoint);
        let at = self.checkpoints.partition_point(|(_, known)| known.checkpoint < checkpoint.checkpoint);
        self.checkpoints.insert(at, (epoch, checkpoint));
    }

    /// Newer checkpoints no longer count. Plans, completions and what batches added stay: the next start computes
    /// the batches after the target again.
    fn roll_back(&mut self, epoch: EpochId, rollback: RollbackRecord) {
        let RollbackRecord { target, target_batch, checkpoint, .. } = rollback;
        let before = self.all_checkpoints().find(|known| known.checkpoint == target);
        if before.is_some_and(|before| before.segments != checkpoint.segments) {
            // Its state is another one: batches after it need not change what they changed before.
            self.done.range_mut(target_batch + 1..).for_each(|(_, done)| done.changes.clear());
        }
        let is_newer = |record: &CheckpointRecord| record.checkpoint > target || record.batch > target_batch;
        let dropped = self.checkpoints.extract_if(.., |(_, record)| is_newer(record));
        self.dropped.extend(dropped);
        if checkpoint.batch > target_batch {
            // What comes after lost batches is computed again from another state, and changes it otherwise.
            let later = self.done.range_mut(checkpoint.batch + 1..);
            later.for_each(|(_, done)| done.changes.clear());
        }
        self.add_checkpoint(epoch, checkpoint);
    }

    /// The checkpoints that are `sound`, as retention sees them.
    pub(crate) fn retained(&self, sound: impl Fn(&CheckpointRecord) -> bool) -> Vec<Retained> {
        let plans_from = |batch: u64| self.planned_in.get(&(batch + 1)).copied();
        let checkpoints = self.checkpoints.iter().filter(|(_, record)| sound(record));
        checkpoints
            .map(|(epoch, record)| Retained::of(*epoch, plans_from(record.batch).unwrap_or(*epoch), record))
            .collect()
    }

    /// The newest number of a checkpoint, whether it still counts or not.
    pub(crate) fn newest_checkpoint(&self) -> u64 {
        self.all_checkpoints().map(|record| record.checkpoint).max().unwrap_or(0)
    }

    /// The newest number of a segment that any checkpoint refers to.
    pub(crate) fn newest_segment(&self) -> u64 {
        let segments = self.all_checkpoints().flat_map(|record| &record.segments);
        segments.map(|segment| segment.segment).max().unwrap_or(0)
    }

    fn all_checkpoints(&self) -> impl Iterator<Item = &CheckpointRecord> {
        self.checkpoints.iter().chain(&self.dropped).map(|(_, record)| record)
    }
}

/// Finds the newest batch and how much is missing after it. A checkpoint speaks for what is missing before it
/// only when its batch is newer than every plan: a slow one is committed after the plans of later batches.
fn count_unreadable(history: &mut History, records: &BTreeMap<u64, (EpochId, CatalogRecord)>) {
    let mut settled = records.first_key_value().map_or(0, |(first, _)| first.saturating_sub(1));
    let mut readable = 0;
    for (seq, (_, record)) in records {
        let known = match record {
            CatalogRecord::Plan(plan) => Some(plan.batch),
            CatalogRecord::Done(done) => Some(done.batch),
            CatalogRecord::Tallies(tallies) => Some(tallies.batch),
            CatalogRecord::Checkpoint(checkpoint) => {
                Some(checkpoint.batch).filter(|batch| *batch > history.newest_batch)
            }
            CatalogRecord::Rollback(rollback) => Some(rollback.next_batch.saturating_sub(1)),
            CatalogRecord::Epoch(_) | CatalogRecord::Job(_) | CatalogRecord::Run(_) => None,
        };
        readable += 1;
        if let Some(batch) = known {
            history.newest_batch = history.newest_batch.max(batch);
            (settled, readable) = (*seq, 0);
        }
    }
    history.unreadable = history.committed_seq.saturating_sub(settled).saturating_sub(readable);
}

/// Where a start begins.
#[derive(Debug, PartialEq)]
pub(crate) struct Recovery {
    /// The newest sound checkpoint; `None` begins with empty state.
    pub(crate) checkpoint: Option<CheckpointRecord>,
    /// The batches to compute again, in order.
    pub(crate) replay: Vec<PlanRecord>,
    /// Blocks from this number on wait for a plan.
    pub(crate) next_block: u64,
    /// The number of the next new batch.
    pub(crate) next_batch: u64,
    /// Newer checkpoints that are damaged, with what is wrong.
    pub(crate) walked_back: Vec<(u64, String)>,
    /// Batches whose plans are lost: what they read is planned anew, and what they emitted may be emitted
    /// again under other batch numbers.
    pub(crate) lost_plans: Range<u64>,
}

/// Chooses the newest sound checkpoint, walking back over damaged ones, and the plans after it.
/// `check` says what is wrong with a checkpoint.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when there were checkpoints or batches and no sound way to any of them.
pub(crate) fn choose(
    history: &History,
    mut check: impl FnMut(&CheckpointRecord) -> Result<()>,
) -> Result<Recovery> {
    let mut walked_back = Vec::new();
    let mut chosen = None;
    for (_, checkpoint) in history.checkpoints.iter().rev() {
        match check(checkpoint) {
            Ok(()) => {
                chosen = Some(checkpoint.clone());
                break;
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                walked_back.push((checkpoint.checkpoint, error.chain()));
            }
            Err(error) => return Err(error),
        }
    }
    let from = chosen.as_ref().map_or(0, |checkpoint| checkpoint.batch);
    let used = history.committed_seq > 0 || !history.damage.is_empty();
    if chosen.is_none() && (!walked_back.is_empty() || (used && !history.from_start)) {
        let (id, cause) = walked_back.first().cloned().unwrap_or((0, "no checkpoint is readable".to_owned()));
        let message = format!(
            "no sound checkpoint is left (checkpoint {id}: {cause}): put the damaged file back from a copy, \
             or move the store away to begin anew"
        );
        return Err(Error::corrupt(message));
    }
    let replay: Vec<PlanRecord> =
        (from + 1..).map_while(|batch| history.plans.get(&batch)).cloned().collect();
    let replayed_to = from + replay.len() as u64;
    // Records that were committed and cannot be read may have been plans, one per record at most.
    let next_batch = history.newest_batch.saturating_add(history.unreadable).saturating_add(1);
    let next_block = replay.last().map(|plan| plan.next_block);
    Ok(Recovery {
        next_block: next_block.or(chosen.as_ref().map(|checkpoint| checkpoint.next_block)).unwrap_or(1),
        next_batch,
        checkpoint: chosen,
        replay,
        walked_back,
        lost_plans: replayed_to + 1..next_batch,
    })
}

/// A committed checkpoint, as retention sees it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Retained {
    pub(crate) epoch: EpochId,
    /// Where the plans of the batches after it begin: an earlier epoch when it took long to write.
    pub(crate) plans_from: EpochId,
    pub(crate) checkpoint: u64,
    pub(crate) next_block: u64,
    pub(crate) segments: BTreeSet<u64>,
}

impl Retained {
    pub(crate) fn of(epoch: EpochId, plans_from: EpochId, record: &CheckpointRecord) -> Self {
        Retained {
            epoch,
            plans_from,
            checkpoint: record.checkpoint,
            next_block: record.next_block,
            segments: record.segments.iter().map(|segment| segment.segment).collect(),
        }
    }
}

/// At least so many checkpoints are kept, whatever the job's settings.
pub(crate) const RETAINED_MIN: usize = 2;

/// Which of `checkpoints`, oldest first, to keep: the newest `count`, and one in an epoch before the newest's
/// if there is any, so that damage to one database does not take every checkpoint.
pub(crate) fn retain(checkpoints: &mut Vec<Retained>, count: usize) {
    let Some(newest) = checkpoints.last() else { return };
    let newest_epoch = newest.epoch;
    let elsewhere = checkpoints.iter().rposition(|checkpoint| checkpoint.epoch < newest_epoch);
    let by_count = checkpoints.len().saturating_sub(count.max(RETAINED_MIN));
    let keep_from = elsewhere.map_or(by_count, |elsewhere| elsewhere.min(by_count));
    checkpoints.drain(..keep_from);
}

/// What the retained checkpoints need: everything else goes.
#[derive(Debug, PartialEq)]
pub(crate) struct Needed {
    pub(crate) segments: BTreeSet<u64>,
    /// Blocks from this number on.
    pub(crate) block: u64,
    /// Epochs from this number on.
    pub(crate) epoch: EpochId,
}

/// What is needed by `checkpoints`, of which there is at least one.
pub(crate) fn needed(checkpoints: &[Retained]) -> Option<Needed> {
    Some(Needed {
        segments: checkpoints.iter().flat_map(|checkpoint| checkpoint.segments.iter().copied()).collect(),
        block: checkpoints.iter().map(|checkpoint| checkpoint.next_block).min()?,
        epoch: checkpoints.iter().map(|checkpoint| checkpoint.epoch.min(checkpoint.plans_from)).min()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::records::{EpochRecord, SegmentRef, TalliesRecord};

    fn plan(batch: u64) -> CatalogRecord {
        CatalogRecord::Plan(PlanRecord {
            batch,
            time_ms: batch * 1_000,
            next_block: batch * 10 + 1,
            inputs: vec![],
        })
    }

    fn done(batch: u64) -> CatalogRecord {
        CatalogRecord::Done(DoneRecord {
            batch,
            records: 0,
            bytes: 0,
            processing_us: 0,
            outputs: vec![],
            changes: vec![],
        })
    }

    fn checkpoint(checkpoint: u64, batch: u64) -> CatalogRecord {
        let segments = vec![SegmentRef { segment: checkpoint, length: 1, directory_crc: 1 }];
        CatalogRecord::Checkpoint(CheckpointRecord {
            checkpoint,
            batch,
            time_ms: batch * 1_000,
            next_block: batch * 10 + 1,
            fingerprint: 0,
            segments,
            operators: vec![],
        })
    }

    fn epoch(epoch: u64, continues_after: u64, first: u64, records: Vec<CatalogRecord>) -> EpochContents {
        let start = CatalogRecord::Epoch(EpochRecord {
            store: [0; 16],
            continues_after,
            compatible: 0,
            incompatible: 0,
        });
        let records: Vec<_> = (first..).zip(std::iter::once(start).chain(records)).collect();
        let witness = records.last().map(|(seq, _)| *seq);
        let (epoch, damage) = (EpochId(epoch), vec![]);
        EpochContents { epoch, witness, records, damage, without_witness: None, unfinished: false }
    }

    fn replayed(recovery: &Recovery) -> Vec<u64> {
        recovery.replay.iter().map(|plan| plan.batch).collect()
    }

    fn corrupt(_: &CheckpointRecord) -> Result<()> {
        Err(Error::corrupt("bad"))
    }

    #[test]
    fn an_empty_store_begins_at_the_beginning() {
        let recovery = choose(&fold(&[]), |_| Ok(())).unwrap();
        assert_eq!((recovery.checkpoint, recovery.next_batch, recovery.next_block), (None, 1, 1));
    }

    #[test]
    fn a_start_replays_what_was_planned_after_the_newest_checkpoint() {
        let history =
            fold(&[epoch(1, 0, 1, vec![plan(1), done(1), checkpoint(1, 1), plan(2), done(2), plan(3)])]);
        let recovery = choose(&history, |_| Ok(())).unwrap();
        assert_eq!(recovery.checkpoint.as_ref().unwrap().checkpoint, 1);
        assert_eq!((replayed(&recovery), recovery.next_batch, recovery.next_block), (vec![2, 3], 4, 31));
        assert!(history.done.contains_key(&2) && !history.done.contains_key(&3));
    }

    #[test]
    fn what_a_batch_added_counts_only_if_it_is_done_and_complete() {
        let tallies = |batch: u64, part: u32, parts: u32| {
            let delta = TallyDelta { name: "count".into(), schema: "u64".into(), archive: vec![part as u8] };
            CatalogRecord::Tallies(TalliesRecord { batch, part, parts, deltas: vec![delta] })
        };
        let history = fold(&[
            epoch(
                1,
                0,
                1,
                vec![plan(1), tallies(1, 0, 2), tallies(1, 1, 2), done(1), plan(2), tallies(2, 0, 2)],
            ),
            epoch(
                2,
                7,
                8,
                vec![tallies(2, 0, 1), done(2), plan(3), tallies(3, 1, 2), done(3), tallies(4, 0, 1)],
            ),
        ]);
        let archives: Vec<_> =
            history.tallies.iter().map(|(batch, all)| (*batch, all[0].archive.clone())).collect();
        assert_eq!(archives, [(1, vec![0, 1]), (2, vec![0])]);
        assert_eq!(history.damage.len(), 1, "{:?}", history.damage);
        assert_eq!(history.newest_batch, 4);
    }

    #[test]
    fn what_a_run_that_ended_added_to_a_batch_that_was_not_done_never_counts() {
        let tallies = |parts: u32| {
            let delta = TallyDelta { name: "count".into(), schema: "u64".into(), archive: vec![1] };
            CatalogRecord::Tallies(TalliesRecord { batch: 1, part: 0, parts, deltas: vec![delta] })
        };
        let run = CatalogRecord::Run(RunRecord { started_ms: 0 });
        // Whole or cut off: the next run, which emitted the batch, added nothing.
        for parts in [1, 2] {
            let first = epoch(1, 0, 1, vec![run.clone(), plan(1), tallies(parts)]);
            let history = fold(&[first, epoch(2, 4, 5, vec![run.clone(), done(1)])]);
            assert!(history.tallies.is_empty() && history.damage.is_empty(), "{history:?}");
        }
    }

    #[test]
    fn it_walks_back_over_a_damaged_checkpoint_and_refuses_without_a_sound_one() {
        let history = fold(&[
            epoch(1, 0, 1, vec![plan(1), checkpoint(1, 1), plan(2)]),
            epoch(2, 4, 5, vec![checkpoint(2, 2), plan(3)]),
        ]);
        let only_first = |c: &CheckpointRecord| if c.checkpoint == 1 { Ok(()) } else { corrupt(c) };
        let recovery = choose(&history, only_first).unwrap();
        assert_eq!(recovery.walked_back, [(2, "bad".to_owned())]);
        assert_eq!((replayed(&recovery), recovery.next_batch), (vec![2, 3], 4));
        assert_eq!(choose(&history, corrupt).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn without_a_checkpoint_everything_is_replayed_from_the_first_batch_or_nothing() {
        let recovery = choose(&fold(&[epoch(1, 0, 1, vec![plan(1), done(1), plan(2)])]), |_| Ok(())).unwrap();
        assert_eq!((replayed(&recovery), recovery.next_batch), (vec![1, 2], 3));
        let mut lost = epoch(1, 0, 1, vec![]);
        lost.records.clear();
        assert_eq!(choose(&fold(&[lost]), |_| Ok(())).unwrap_err().kind(), ErrorKind::Corrupt);
        let pruned = fold(&[epoch(4, 90, 91, vec![plan(7), plan(8)])]);
        assert_eq!(choose(&pruned, |_| Ok(())).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn records_that_the_next_epoch_did_not_know_of_do_not_count() {
        // Record 3 was being committed when the disk was full; the next epoch has it again.
        let first = epoch(1, 0, 1, vec![plan(1), plan(2)]);
        let second = epoch(2, 2, 3, vec![plan(2), done(2)]);
        let history = fold(&[first, second]);
        assert_eq!(history.plans.len(), 2);
        assert_eq!(history.last_seq, 5);
    }

    #[test]
    fn a_lost_tail_leaves_room_for_the_batches_it_may_have_held() {
        let mut cut = epoch(1, 0, 1, vec![plan(1), checkpoint(1, 1), plan(2)]);
        cut.witness = Some(7);
        cut.damage = vec!["cut".into()];
        let history = fold(&[cut]);
        assert_eq!((history.damage.len(), history.committed_seq), (1, 7));
        let recovery = choose(&history, |_| Ok(())).unwrap();
        assert_eq!((replayed(&recovery), recovery.next_batch), (vec![2], 6));
        assert_eq!(recovery.lost_plans, 3..6);
    }

    #[test]
    fn a_lost_tail_is_accounted_for_by_the_epoch_that_was_begun_after_it() {
        let mut cut = epoch(1, 0, 1, vec![plan(1)]);
        cut.witness = Some(4);
        // The start after it skips the numbers; one that dies before its checkpoint leaves them to the next.
        let begun = epoch(2, 2, 5, vec![]);
        let recovery = choose(&fold(&[cut.clone(), begun]), |_| Ok(())).unwrap();
        assert_eq!((recovery.lost_plans, recovery.next_batch), (2..4, 4));
        let after = epoch(2, 2, 5, vec![checkpoint(1, 3)]);
        let history = fold(&[cut, after]);
        assert_eq!((history.committed_seq, history.last_seq), (6, 6));
        assert!(choose(&history, |_| Ok(())).unwrap().lost_plans.is_empty());
    }

    #[test]
    fn a_gap_in_the_plans_ends_the_replay() {
        let history = fold(&[
            epoch(1, 0, 1, vec![plan(1), checkpoint(1, 1), plan(2)]),
            epoch(3, 9, 10, vec![plan(5), done(5)]),
        ]);
        let recovery = choose(&history, |_| Ok(())).unwrap();
        assert_eq!((replayed(&recovery), recovery.next_block), (vec![2], 21));
        assert_eq!((recovery.lost_plans, recovery.next_batch), (3..6, 6));
    }

    #[test]
    fn retention_keeps_the_count_and_one_in_another_epoch() {
        let retained = |epoch: u64, id: u64| Retained {
            epoch: EpochId(epoch),
            plans_from: EpochId(epoch),
            checkpoint: id,
            next_block: id * 10,
            segments: [id, id - 1].into(),
        };
        let kept = |mut checkpoints: Vec<Retained>, count| {
            retain(&mut checkpoints, count);
            checkpoints.iter().map(|checkpoint| checkpoint.checkpoint).collect::<Vec<_>>()
        };
        assert_eq!(kept(vec![retained(1, 1), retained(1, 2), retained(1, 3)], 2), [2, 3]);
        assert_eq!(
            kept(vec![retained(1, 1), retained(1, 2), retained(2, 3), retained(2, 4), retained(2, 5)], 2),
            [2, 3, 4, 5]
        );
        assert_eq!(kept(vec![retained(1, 1), retained(2, 2), retained(3, 3)], 2), [2, 3]);
        assert_eq!(kept(vec![retained(1, 1), retained(2, 2), retained(3, 3)], 3), [1, 2, 3]);
        let needed = needed(&[retained(2, 4), retained(3, 5)]).unwrap();
        assert_eq!(needed, Needed { segments: [3, 4, 5].into(), block: 40, epoch: EpochId(2) });
    }

    #[test]
    fn the_plans_after_a_checkpoint_that_took_long_are_kept_with_it() {
        // While checkpoint 2 was written, batches 3 and 4 were planned; then it began an epoch of its own.
        let history = fold(&[
            epoch(1, 0, 1, vec![plan(1), checkpoint(1, 1), plan(2), plan(3), plan(4)]),
            epoch(2, 6, 7, vec![checkpoint(2, 2), plan(5)]),
        ]);
        assert_eq!(history.planned_in[&3], EpochId(1));
        let slow = Retained {
            epoch: EpochId(2),
            plans_from: EpochId(1),
            checkpoint: 2,
            next_block: 21,
            segments: [2].into(),
        };
        assert_eq!(super::needed(&[slow]).unwrap().epoch, EpochId(1));
    }
}
