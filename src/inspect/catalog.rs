//! The catalog as it is found, and what is wrong with it.

use std::collections::BTreeSet;

use crate::checkpoint::protocol::{self, History, Retained};
use crate::error::Result;
use crate::format::records::{CatalogRecord, CheckpointRecord, SegmentRef};
use crate::id::EpochId;
use crate::inspect::open::{ReadStore, relative};
use crate::inspect::pins::{Pinned, read_pins};
use crate::inspect::report::{CheckpointReport, Finding, RunReport};
use crate::inspect::state::Committed;
use crate::store::catalog::{EpochContents, list_epochs, note_missing_witnesses, read_epoch};
use crate::store::numbered_entries;
use crate::store::segments::list_segments;

const EPOCH_REMEDY: &str =
    "put the directory back from a copy; otherwise a start goes on without what is damaged";

/// Everything the catalog says.
pub(super) struct Catalog {
    pub(super) history: History,
    /// The checkpoints of the history that retention counts, oldest first.
    counted: Vec<Committed>,
    pub(super) epochs: usize,
    /// By name.
    pub(super) pins: Vec<Pinned>,
    pub(super) findings: Vec<Finding>,
}

pub(super) fn read_catalog(store: &ReadStore) -> Result<Catalog> {
    let epochs = list_epochs(&store.paths)?;
    let read = |epoch: &EpochId| {
        let contents = read_epoch(&store.paths, store.identity.store, *epoch);
        contents.map_err(|error| error.within(store.paths.epochs().display()))
    };
    let contents = epochs.iter().map(read).collect::<Result<Vec<_>>>()?;
    let (unfinished, mut finished): (Vec<_>, Vec<_>) =
        contents.into_iter().partition(|contents| contents.unfinished);
    note_missing_witnesses(&mut finished);
    let mut findings: Vec<Finding> = finished.iter().filter_map(|epoch| damage_of(store, epoch)).collect();
    findings.extend(gaps(store, &finished));
    findings.extend(unfinished.iter().map(|contents| {
        let what = "its creation was interrupted; nothing was committed to it";
        Finding::note(place_of(contents.epoch), what, "nothing: it is removed when the job has gone on")
    }));
    let history = protocol::fold(&finished);
    let passed_over = history.features.passed_over();
    if passed_over != 0 {
        let what = format!(
            "the store has features {passed_over:#x} that this build does not know and need not know"
        );
        findings.push(Finding::note("epochs".to_owned(), what, "nothing, or use a newer build"));
    }
    let pins = read_pins(store, &history, &mut findings)?;
    let counted = counted(store, &history)?;
    Ok(Catalog { history, counted, epochs: epochs.len(), pins, findings })
}

/// Without those that a start has passed over: what is damaged of them is in quarantine, and a newer one stands in.
fn counted(store: &ReadStore, history: &History) -> Result<Vec<Committed>> {
    let aside = numbered_entries(&store.paths.quarantine().join("state"), ".segment").unwrap_or_default();
    let present: BTreeSet<u64> = list_segments(&store.paths)?.into_iter().map(|segment| segment.0).collect();
    let is_aside =
        |segment: &SegmentRef| aside.contains(&segment.segment) && !present.contains(&segment.segment);
    let stands = |(_, record): &Committed| !record.segments.iter().any(is_aside);
    let all = &history.checkpoints;
    let newest = all.iter().rposition(stands).unwrap_or(0);
    let counts = |(at, committed): &(usize, &Committed)| *at >= newest || stands(committed);
    Ok(all.iter().enumerate().filter(counts).map(|(_, committed)| committed.clone()).collect())
}

fn place_of(epoch: EpochId) -> String {
    format!("epochs/{}", epoch.0)
}

fn damage_of(store: &ReadStore, contents: &EpochContents) -> Option<Finding> {
    let all = contents.damage.join("; ");
    (!all.is_empty())
        .then(|| Finding::damage(place_of(contents.epoch), relative(&store.paths, &all), EPOCH_REMEDY))
}

/// Epochs whose first record continues after one that no older epoch has: it was lost since.
fn gaps(store: &ReadStore, epochs: &[EpochContents]) -> Vec<Finding> {
    // What a repair has put aside it has said again in the newest epoch.
    let aside = numbered_entries(&store.paths.quarantine().join("epochs"), "").unwrap_or_default();
    let mut findings = Vec::new();
    let mut newest: Option<u64> = None;
    for (at, epoch) in epochs.iter().enumerate() {
        let before = at.checked_sub(1).map_or(0, |before| epochs[before].epoch.0);
        if !aside.iter().any(|aside| (before..epoch.epoch.0).contains(aside))
            && let (Some(newest), Some((_, CatalogRecord::Epoch(first)))) = (newest, epoch.records.first())
            && first.continues_after > newest
        {
            let what = format!("records {} to {} before it are gone", newest + 1, first.continues_after);
            findings.push(Finding::damage(
                place_of(epoch.epoch),
                what,
                "put the older epochs back from a copy",
            ));
        }
        newest = newest.max(epoch.last_seq());
    }
    findings
}

impl Catalog {
    pub(super) fn run(&self) -> Option<RunReport> {
        self.history.job.as_ref().map(|job| RunReport {
            version: job.version.clone(),
            started_ms: job.started_ms,
            batch_interval_ms: job.batch_interval_ms,
            checkpoint_every_batches: job.checkpoint_every_batches,
            partitions: job.partitions,
            threads: job.threads,
        })
    }

    /// The checkpoints that every retention keeps, oldest first.
    pub(super) fn surely_retained(&self) -> &[Committed] {
        let all = &self.counted;
        let mut kept: Vec<Retained> =
            all.iter().map(|(epoch, record)| Retained::of(*epoch, *epoch, record)).collect();
        protocol::retain(&mut kept, protocol::RETAINED_MIN);
        &all[all.len() - kept.len()..]
    }

    /// The same, and older ones whose segments are all still there, which is what a job that keeps more
    /// than the least looks like.
    pub(super) fn retained(&self, store: &ReadStore) -> Result<&[Committed]> {
        let all = &self.counted;
        let present: Vec<u64> = list_segments(&store.paths)?.into_iter().map(|segment| segment.0).collect();
        let is_there = |(_, record): &&Committed| {
            record.segments.iter().all(|segment| present.binary_search(&segment.segment).is_ok())
        };
        let surely = self.surely_retained().len();
        let older = all[..all.len() - surely].iter().rev().take_while(is_there).count();
        Ok(&all[all.len() - surely - older..])
    }

    /// The last batch of the oldest checkpoint that a restart may have to walk back to.
    pub(super) fn oldest_needed_batch(&self) -> u64 {
        self.surely_retained().first().map_or(0, |(_, record)| record.batch)
    }

    /// Blocks before this one may have been trimmed.
    pub(super) fn oldest_needed_block(&self) -> u64 {
        self.surely_retained().first().map_or(0, |(_, record)| record.next_block)
    }

    /// The retained checkpoints and those that only pins keep, by number.
    pub(super) fn kept(&self, store: &ReadStore) -> Result<Vec<Committed>> {
        let mut kept = self.retained(store)?.to_vec();
        for pin in &self.pins {
            if !kept.iter().any(|(_, record)| record.checkpoint == pin.committed.1.checkpoint) {
                kept.push(pin.committed.clone());
            }
        }
        kept.sort_by_key(|(_, record)| record.checkpoint);
        Ok(kept)
    }

    /// The names that a checkpoint is pinned under.
    pub(super) fn names_of(&self, checkpoint: u64) -> Vec<String> {
        let named = self.pins.iter().filter(|pin| pin.committed.1.checkpoint == checkpoint);
        named.map(|pin| pin.name.clone()).collect()
    }

    pub(super) fn epoch_of(&self, checkpoint: u64) -> u64 {
        let found = self.history.checkpoints.iter().rfind(|(_, record)| record.checkpoint == checkpoint);
        found.map_or(0, |(epoch, _)| epoch.0)
    }
}

/// A checkpoint as it is reported; its pins are not known here.
pub(super) fn describe(epoch: u64, record: &CheckpointRecord, damage: Option<String>) -> CheckpointReport {
    let operators = record.operators.iter().filter(|operator| !super::state::is_positions(operator));
    CheckpointReport {
        checkpoint: record.checkpoint,
        epoch,
        batch: record.batch,
        time_ms: record.time_ms,
        keys: operators.map(|operator| operator.keys).sum(),
        segments: record.segments.len() as u64,
        bytes: record.segments.iter().map(|segment| segment.length).sum(),
        pins: Vec::new(),
        damage,
    }
}
