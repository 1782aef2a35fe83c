//! What the epochs still say, where the job goes on from there, and how that is said again.

use std::collections::{BTreeMap, BTreeSet};

use crate::checkpoint::protocol::{History, fold};
use crate::checkpoint::recovery::SegmentChecker;
use crate::checkpoint::rollback::roll_back;
use crate::checkpoint::tallies;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::format::records::{CatalogRecord, CheckpointRecord, PlanRecord, RollbackRecord, SegmentHeader};
use crate::id::{EpochId, SegmentId};
use crate::store::catalog::{
    Catalog, EpochContents, epoch_name, list_epochs, read_epoch, salvage_epoch, sync_epoch,
};
use crate::store::extents::read_block;
use crate::store::pins::{Pins, pin_path};
use crate::store::segments::{EncodedState, list_segments, segment_name, write_segment};
use crate::store::{Disk, StorePaths};

use super::Account;
use super::identity::Claim;
use super::log::LogRescue;
use super::state::{salvage, unreadable};

/// What is kept of a store, and how the job goes on.
pub(super) struct Rescue {
    paths: StorePaths,
    store: [u8; 16],
    history: History,
    epochs: Vec<EpochId>,
    /// Whether epochs are put aside, so that what they say is said again.
    says_again: bool,
    /// Plans that lose blocks or get other numbers.
    plans: Vec<PlanRecord>,
    /// The state that is left, to be written as this segment.
    state: Option<(SegmentId, EncodedState)>,
    /// What the next start begins with, `None` where it finds its way by itself.
    record: Option<RollbackRecord>,
    log: LogRescue,
}

/// The checkpoint to go on from.
struct Base {
    /// As the catalog or a pin has it.
    target: u64,
    target_batch: u64,
    checkpoint: CheckpointRecord,
    state: Option<EncodedState>,
    /// Whether a start would not choose it by itself.
    is_new: bool,
}

impl Rescue {
    pub(super) fn plan(claim: &Claim, disk: Option<&Disk>, account: &mut Account) -> Result<Self> {
        let (paths, store) = (&claim.paths, claim.identity.store);
        let epochs = list_epochs(paths)?;
        let mut contents = Vec::new();
        for epoch in &epochs {
            contents.push(read_epoch(paths, store, *epoch)?);
        }
        contents.retain(|epoch| !epoch.unfinished);
        let aside = save_epochs(paths, store, &mut contents, account)?;
        let history = fold(&contents);
        let pins = Pins::read(paths, store)?;
        for (name, what) in &pins.damage {
            let place = pin_path(paths, name);
            account.quarantine.push(place.strip_prefix(&paths.root).unwrap_or(&place).to_owned());
            account.lost.push(format!("pin `{name}`: {what}"));
        }
        let base = base(paths, store, &history, &pins, account)?;
        let (mut plans, replay_to) = replayable(paths, &history, &base.checkpoint, account)?;
        let last_plan = history.plans.get(&replay_to).filter(|_| replay_to > base.checkpoint.batch);
        let from = last_plan.map_or(base.checkpoint.next_block, |plan| plan.next_block);
        let log = LogRescue::plan(paths, store, from, disk, account)?;
        let Base { target, target_batch, mut checkpoint, state, is_new } = base;
        if log.renumbers() {
            match last_plan {
                None => checkpoint.next_block = log.next_block,
                Some(plan) => {
                    let mut plan = plans.pop_if(|changed| changed.batch == replay_to).unwrap_or(plan.clone());
                    plan.next_block = log.next_block;
                    plans.push(plan);
                }
            }
        }
        let commits = is_new || !aside.is_empty() || !plans.is_empty() || log.renumbers();
        checkpoint.checkpoint = history.newest_checkpoint().max(pins.newest_checkpoint()) + 1;
        let next_batch = history.newest_batch.max(checkpoint.batch) + history.unreadable + 1;
        let newest =
            list_segments(paths)?.last().map_or(0, |segment| segment.0).max(history.newest_segment());
        if commits {
            account.steps.push(format!("checkpoint {} is what a start begins with", checkpoint.checkpoint));
        }
        Ok(Rescue {
            paths: paths.clone(),
            store,
            epochs,
            says_again: !aside.is_empty(),
            plans,
            state: state.map(|state| (SegmentId(newest + 1), state)),
            record: commits.then_some(RollbackRecord { target, target_batch, next_batch, checkpoint }),
            log,
            history,
        })
    }

    /// The number of the checkpoint that the job goes on from, where a start would not find it by itself.
    pub(super) fn checkpoint(&self) -> Option<u64> {
        self.record.as_ref().map(|record| record.checkpoint.checkpoint)
    }

    /// Writes what is kept: blocks and state first, then the records that make them count.
    pub(super) fn write(self, disk: &Disk) -> Result<()> {
        let Rescue { paths, store, history, .. } = &self;
        if !self.log.is_sound() {
            self.log.write(disk, paths, *store)?;
        }
        let Some(mut record) = self.record.clone() else { return Ok(()) };
        if let Some((segment, state)) = &self.state {
            let header = SegmentHeader { store: *store, checkpoint: record.checkpoint.checkpoint };
            record.checkpoint.segments = vec![write_segment(disk, paths, *segment, &header, state)?];
        }
        self.epochs.iter().try_for_each(|epoch| sync_epoch(disk, paths, *epoch))?;
        let newest = self.epochs.last().copied().unwrap_or(EpochId(0));
        let start = history.next_epoch(*store, newest, history.job.clone());
        let mut catalog = Catalog::begin(disk.clone(), paths.clone(), start)?;
        // First: from here on no number of a batch that may be lost is free, whatever a crash leaves of the rest.
        catalog.append(&record)?;
        if self.says_again {
            say_again(&mut catalog, history, &record)?;
        }
        self.plans.iter().try_for_each(|plan| catalog.append(plan).map(drop))?;
        self.log.settle(disk, paths)
    }
}

/// Completes damaged epochs with the records behind the damage, and says which are put aside.
fn save_epochs(
    paths: &StorePaths,
    store: [u8; 16],
    contents: &mut [EpochContents],
    account: &mut Account,
) -> Result<BTreeSet<EpochId>> {
    let mut aside = BTreeSet::new();
    for epoch in contents.iter_mut().filter(|epoch| !epoch.damage.is_empty()) {
        aside.insert(epoch.epoch);
        account.quarantine.push(epoch_name(epoch.epoch));
        let mut records: BTreeMap<u64, CatalogRecord> =
            std::mem::take(&mut epoch.records).into_iter().collect();
        let reaches = epoch.witness.unwrap_or(u64::MAX);
        let salvaged = salvage_epoch(paths, epoch.epoch)?.into_iter();
        for (seq, record) in salvaged.filter(|(seq, _)| *seq <= reaches) {
            records.entry(seq).or_insert(record);
        }
        let is_ours =
            |record: &CatalogRecord| !matches!(record, CatalogRecord::Epoch(first) if first.store != store);
        epoch.records = records.into_iter().filter(|(_, record)| is_ours(record)).collect();
        let first = epoch.records.first().map_or(0, |(seq, _)| *seq);
        let end = epoch.witness.max(epoch.last_seq()).unwrap_or(0);
        let missing = (end + 1).saturating_sub(first).saturating_sub(epoch.records.len() as u64);
        let count = epoch.records.len();
        account.steps.push(format!("{count} records of epoch {} are said again", epoch.epoch.0));
        if missing > 0 || count == 0 {
            let damage = epoch.damage.join("; ");
            account.lost.push(format!(
                "{missing} or more records of epoch {} of the catalog: {damage}",
                epoch.epoch.0
            ));
        }
    }
    Ok(aside)
}

/// Finds what to go on from: the newest sound checkpoint, what is left of a damaged one, a pin, or nothing.
fn base(
    paths: &StorePaths,
    store: [u8; 16],
    history: &History,
    pins: &Pins,
    account: &mut Account,
) -> Result<Base> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let executor = Executor::new(threads, 1)?;
    let mut checker = SegmentChecker::new(paths, store, &executor);
    let mut chosen = None;
    for (_, record) in history.checkpoints.iter().rev() {
        match checker.check(record) {
            Ok(()) => {
                chosen = Some(record.clone());
                break;
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let what = format!("checkpoint {}: {}", record.checkpoint, error.chain());
                account.lost.push(what);
            }
            Err(error) => return Err(error),
        }
    }
    let mut needed = pins.segments(paths)?;
    needed.extend(chosen.iter().flat_map(|record| &record.segments).map(|segment| segment.segment));
    let damaged = checker.damaged().into_iter().filter(|segment| !needed.contains(segment));
    let places = damaged.map(|segment| segment_name(SegmentId(segment)));
    account.quarantine.extend(places.filter(|place| paths.root.join(place).exists()));
    if let Some(checkpoint) = chosen {
        let (target, target_batch) = (checkpoint.checkpoint, checkpoint.batch);
        // What is put aside must not be missed by the checkpoints that are passed over: they no longer count.
        let is_new = history.checkpoints.last().is_some_and(|(_, newest)| newest.checkpoint != target);
        return Ok(Base { target, target_batch, checkpoint, state: None, is_new });
    }
    if let Some(damaged) = least_damaged(paths, store, history)? {
        return from_what_is_left(paths, store, damaged, account);
    }
    let sound_pin =
        pins.pins.iter().map(|pin| &pin.checkpoint).filter(|record| checker.check(record).is_ok());
    if let Some(pinned) = sound_pin.max_by_key(|record| record.checkpoint) {
        let rollback = roll_back(history, pinned, 0, |_| Ok(true))?;
        account.steps.push(format!("the job goes on from pinned checkpoint {}", pinned.checkpoint));
        if !rollback.lost.is_empty() {
            account.lost.push(format!("batches {:?}", rollback.lost));
        }
        let RollbackRecord { target, target_batch, checkpoint, .. } = rollback.record;
        return Ok(Base { target, target_batch, checkpoint, state: None, is_new: true });
    }
    from_nothing(history, account)
}

/// The newest of the checkpoints of which the fewest segments say nothing at all.
fn least_damaged<'h>(
    paths: &StorePaths,
    store: [u8; 16],
    history: &'h History,
) -> Result<Option<&'h CheckpointRecord>> {
    let mut best: Option<(usize, &CheckpointRecord)> = None;
    for (_, record) in history.checkpoints.iter().rev() {
        let count = unreadable(paths, store, record)?;
        if best.is_none_or(|(fewest, _)| count < fewest) {
            best = Some((count, record));
        }
    }
    Ok(best.map(|(_, record)| record))
}

fn from_what_is_left(
    paths: &StorePaths,
    store: [u8; 16],
    damaged: &CheckpointRecord,
    account: &mut Account,
) -> Result<Base> {
    let saved = salvage(paths, store, damaged)?;
    let number = damaged.checkpoint;
    account.steps.push(format!("a checkpoint is made of what is left of checkpoint {number}"));
    account.lost.extend(saved.lost);
    Ok(Base {
        target: number,
        target_batch: damaged.batch,
        checkpoint: saved.record,
        state: Some(saved.state),
        is_new: true,
    })
}

/// Empty state: for a store that never had a checkpoint, its first batch is computed again.
fn from_nothing(history: &History, account: &mut Account) -> Result<Base> {
    let empty = CheckpointRecord {
        checkpoint: 0,
        batch: 0,
        time_ms: 0,
        next_block: 1,
        fingerprint: 0,
        segments: Vec::new(),
        operators: Vec::new(),
    };
    if history.committed_seq == 0 && history.damage.is_empty() {
        return Ok(Base { target: 0, target_batch: 0, checkpoint: empty, state: None, is_new: false });
    }
    if history.from_start {
        return Ok(Base { target: 0, target_batch: 0, checkpoint: empty, state: None, is_new: false });
    }
    if history.committed_seq == 0 {
        return Err(Error::corrupt(
            "no record of the catalog is left: nothing says which batches there were; move the store away",
        ));
    }
    let rollback = roll_back(history, &empty, 0, |_| Ok(true))?;
    account.steps.push("the job goes on with empty state: no checkpoint is left".to_owned());
    account.lost.push("all state".to_owned());
    let RollbackRecord { mut checkpoint, .. } = rollback.record;
    if rollback.replay.is_empty() {
        checkpoint.batch = history.newest_batch + history.unreadable;
    }
    Ok(Base { target: 0, target_batch: 0, checkpoint, state: None, is_new: true })
}

/// The plans that a start computes again and that lose blocks; and the last batch that it computes again.
fn replayable(
    paths: &StorePaths,
    history: &History,
    checkpoint: &CheckpointRecord,
    account: &mut Account,
) -> Result<(Vec<PlanRecord>, u64)> {
    let mut changed = Vec::new();
    let mut last = checkpoint.batch;
    while let Some(plan) = history.plans.get(&(last + 1)) {
        last += 1;
        let mut kept = plan.clone();
        for input in &mut kept.inputs {
            let mut sound = Vec::new();
            for block in &input.blocks {
                match read_block(paths, block) {
                    Ok(_) => sound.push(*block),
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        account.lost.push(format!("of batch {last}: {}", error.chain()));
                    }
                    Err(error) => return Err(error),
                }
            }
            input.blocks = sound;
        }
        if kept != *plan {
            account.steps.push(format!("batch {last} is computed again without its damaged blocks"));
            changed.push(kept);
        }
    }
    Ok((changed, last))
}

/// Everything that the catalog says and that still counts, in an order that says the same.
fn say_again(catalog: &mut Catalog, history: &History, after: &RollbackRecord) -> Result<()> {
    if let Some(run) = history.runs.last() {
        catalog.append(run)?;
    }
    let counts =
        |record: &&CheckpointRecord| record.checkpoint <= after.target && record.batch <= after.target_batch;
    for checkpoint in history.checkpoints.iter().map(|(_, record)| record).filter(counts) {
        catalog.append(checkpoint)?;
    }
    for plan in history.plans.values() {
        catalog.append(plan)?;
        let added = history.tallies.get(&plan.batch).map_or(&[][..], |added| added);
        for record in tallies::records_of(plan.batch, added) {
            catalog.append(&record)?;
        }
        if let Some(done) = history.done.get(&plan.batch) {
            catalog.append(done)?;
        }
    }
    Ok(())
}
