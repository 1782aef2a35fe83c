//! The receive log: every frame, how far it was acknowledged, and the blocks that plans refer to.

use std::collections::HashSet;

use crate::error::{ErrorKind, Result};
use crate::format::frame::HEADER_BYTES;
use crate::format::records::PlanRecord;
use crate::inspect::open::{ReadStore, relative};
use crate::inspect::report::{Finding, PendingReport};
use crate::store::extents::read_block;
use crate::store::log_scan::{
    LogContents, list_extents, log_witness_bytes, scan_log, scan_whole_log, witness_of,
};

const EXTENT_REMEDY: &str = "put the file back from a copy: acknowledged blocks are lost without it";

const PLANNED_REMEDY: &str = "put the file back from a copy: the batch cannot be computed again without it";

const WITNESS_REMEDY: &str = "put the file back from a copy; the next block that is received writes it anew";

/// What the log was found to hold.
pub(super) struct Log {
    pub(super) contents: LogContents,
    pub(super) findings: Vec<Finding>,
}

/// Reads every block from `from` on. The catalog says that blocks below `planned_below` were acknowledged.
pub(super) fn read_log(store: &ReadStore, from: u64, planned_below: u64) -> Result<Log> {
    let contents = scan_log(&store.paths, store.identity.store, from)?;
    Ok(log_of(store, contents, planned_below))
}

/// Reads every block that is there. Those below `needed` may have been trimmed.
pub(super) fn read_whole_log(store: &ReadStore, needed: u64, planned_below: u64) -> Result<Log> {
    let contents = scan_whole_log(&store.paths, store.identity.store, needed)?;
    Ok(log_of(store, contents, planned_below))
}

fn log_of(store: &ReadStore, contents: LogContents, planned_below: u64) -> Log {
    let damage = contents.damage.iter().map(|what| {
        let what = relative(&store.paths, what);
        let place = what.split(": ").next().unwrap_or("log").to_owned();
        Finding::damage(place, what, EXTENT_REMEDY)
    });
    let findings = damage.chain(witness_finding(store, planned_below)).collect();
    Log { contents, findings }
}

fn witness_finding(store: &ReadStore, planned_below: u64) -> Option<Finding> {
    let place = "log/witness";
    match log_witness_bytes(&store.paths) {
        Some(bytes) if bytes.is_empty() && planned_below <= 1 => {
            let what = "it was not written yet: nothing was acknowledged";
            Some(Finding::note(place, what, "nothing: the next block that is received writes it"))
        }
        Some(_) if witness_of(&store.paths).is_err() => {
            let what = "log/witness is damaged: how far the newest extent was acknowledged is not known";
            Some(Finding::damage(place, what, WITNESS_REMEDY))
        }
        Some(bytes) if bytes.is_empty() => {
            let what = "log/witness is empty: how far the newest extent was acknowledged is not known";
            Some(Finding::damage(place, what, WITNESS_REMEDY))
        }
        None if planned_below > 1 => {
            let what = "log/witness is missing: how far the newest extent was acknowledged is not known";
            Some(Finding::damage(place, what, WITNESS_REMEDY))
        }
        _ => None,
    }
}

impl Log {
    /// Why a start that reads the log from the same block on would refuse.
    pub(super) fn refusal(&self, store: &ReadStore) -> Option<String> {
        self.contents.damage.first().map(|damage| relative(&store.paths, damage))
    }

    /// What an interrupted append left behind.
    pub(super) fn leftovers(&self, store: &ReadStore) -> Result<Vec<Finding>> {
        let mut notes = Vec::new();
        for extent in list_extents(&store.paths)? {
            let place = format!("log/{}.extent", extent.0);
            let read = self.contents.extents.iter().any(|(known, _)| *known == extent);
            if !read && !self.findings.iter().any(|finding| finding.place == place) {
                let what = "its creation was interrupted; nothing in it was acknowledged";
                notes.push(Finding::note(place, what, "nothing: it holds no blocks"));
            }
        }
        let (newest, end) = self.contents.end.previous;
        let path = store.paths.log().join(format!("{newest}.extent"));
        let length = std::fs::metadata(path).map_or(0, |found| found.len());
        if newest > 0 && length > end && self.findings.is_empty() {
            let what = format!(
                "{} bytes after its last whole block: an append that was interrupted, or is in progress",
                length - end
            );
            let remedy = "nothing: they were never acknowledged";
            notes.push(Finding::note(format!("log/{newest}.extent"), what, remedy));
        }
        Ok(notes)
    }

    /// The blocks from `next_block` on, which wait for a batch.
    pub(super) fn pending(&self, next_block: u64) -> PendingReport {
        let waiting = self.contents.blocks.iter().filter(|block| block.block.block >= next_block);
        waiting.fold(PendingReport::default(), |sum, block| PendingReport {
            blocks: sum.blocks + 1,
            bytes: sum.bytes + HEADER_BYTES as u64 + u64::from(block.block.length),
        })
    }

    /// Checks the blocks of `plans`: those that the scan did not read are read here. Returns how many there
    /// are and what is wrong.
    pub(super) fn check_planned<'p>(
        &self,
        store: &ReadStore,
        plans: impl Iterator<Item = &'p PlanRecord>,
    ) -> Result<(u64, Vec<Finding>)> {
        let key =
            |block: &crate::format::records::BlockRef| (block.block, block.extent, block.offset, block.crc);
        let read: HashSet<_> = self.contents.blocks.iter().map(|found| key(&found.block)).collect();
        let mut blocks = 0;
        let mut findings = Vec::new();
        for plan in plans {
            for block in plan.inputs.iter().flat_map(|input| &input.blocks) {
                blocks += 1;
                if read.contains(&key(block)) {
                    continue;
                }
                match read_block(&store.paths, block) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::Corrupt => {
                        let what =
                            format!("batch {}: {}", plan.batch, relative(&store.paths, &error.chain()));
                        findings.push(Finding::damage(
                            format!("log/{}.extent", block.extent),
                            what,
                            PLANNED_REMEDY,
                        ));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok((blocks, findings))
    }
}
