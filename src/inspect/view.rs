//! What most verbs begin with: the catalog, the retained checkpoints and where a restart would begin.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, ErrorKind, Result};
use crate::inspect::catalog::{Catalog, read_catalog};
use crate::inspect::open::ReadStore;
use crate::inspect::report::{Finding, RestartReport};
use crate::inspect::state::{Committed, Segments};
use crate::inspect::summary::Restart;

pub(super) use crate::format::shown::hex;

/// A store with every retained checkpoint opened and as much of them read as choosing takes.
pub(super) struct View<'s> {
    pub(super) catalog: Catalog,
    pub(super) retained: Vec<Committed>,
    pub(super) segments: Segments<'s>,
    pub(super) chosen: Restart,
}

impl<'s> View<'s> {
    pub(super) fn read(store: &'s ReadStore) -> Result<Self> {
        let catalog = read_catalog(store)?;
        let retained = catalog.retained(store)?.to_vec();
        let mut segments = Segments::open(store, retained.iter().map(|(_, record)| record))?;
        let chosen = Restart::choose(store, &catalog, &mut segments)?;
        Ok(View { catalog, retained, segments, chosen })
    }

    /// What is wrong with the catalog and with the segments that were read, and what a restart would do.
    pub(super) fn judged(&self) -> (RestartReport, Vec<Finding>) {
        let mut findings = self.catalog.findings.clone();
        findings.extend(self.segments.findings(&self.retained));
        let restart = self.chosen.report(None, &mut findings);
        (restart, findings)
    }

    /// The last batch of the checkpoint that a restart would begin with, 0 for none.
    pub(super) fn restart_after(&self) -> u64 {
        let recovery = self.chosen.recovery.as_ref();
        recovery.and_then(|recovery| recovery.checkpoint.as_ref()).map_or(0, |checkpoint| checkpoint.batch)
    }

    /// Blocks from this number on wait for a batch.
    pub(super) fn next_block(&self) -> u64 {
        let history = &self.catalog.history;
        let planned = history.plans.values().next_back().map(|plan| plan.next_block);
        let checkpointed = history.checkpoints.last().map(|(_, record)| record.next_block);
        match &self.chosen.recovery {
            Some(recovery) => recovery.next_block,
            None => planned.max(checkpointed).unwrap_or(1),
        }
    }

    /// The oldest retained checkpoint that has the changes of `batch`.
    pub(super) fn checkpoint_with(&self, batch: u64) -> Option<u64> {
        self.retained
            .iter()
            .map(|(_, record)| record)
            .find(|record| record.batch >= batch)
            .map(|r| r.checkpoint)
    }
}

/// A retained or pinned checkpoint by its number.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`] when there is none of this number.
pub(super) fn find_checkpoint<'c>(
    catalog: &'c Catalog,
    retained: &'c [Committed],
    id: u64,
) -> Result<&'c Committed> {
    let pinned = catalog.pins.iter().map(|pin| &pin.committed);
    let found = pinned.chain(retained).rfind(|(_, record)| record.checkpoint == id);
    found.ok_or_else(|| {
        let numbers: BTreeSet<u64> = catalog
            .pins
            .iter()
            .map(|pin| &pin.committed)
            .chain(retained)
            .map(|(_, record)| record.checkpoint)
            .collect();
        let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let is_known = catalog.history.checkpoints.iter().any(|(_, record)| record.checkpoint == id);
        let why = if is_known { "its state was pruned" } else { "the catalog has none of this number" };
        let kept = if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") };
        no_such(format!("there is no checkpoint {id}: {why} (retained: {kept})"))
    })
}

/// What was asked for is not there.
pub(super) fn no_such(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

/// The names of the input streams of the last run.
pub(super) fn stream_names(catalog: &Catalog) -> BTreeMap<u64, String> {
    let streams = catalog.history.job.iter().flat_map(|job| &job.streams);
    streams.map(|stream| (stream.stream, stream.name.clone())).collect()
}

/// A stream's id as 16 hexadecimal digits.
pub(super) fn stream_id(stream: u64) -> String {
    format!("{stream:016x}")
}

/// The bytes that hexadecimal digits stand for.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect())
}
