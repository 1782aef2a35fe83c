//! The checkpoints of a store, one by one.

use std::path::Path;

use crate::error::{ErrorKind, Result};
use crate::inspect::catalog::{describe, read_catalog};
use crate::inspect::open::{ReadStore, open};
use crate::inspect::report::{CheckpointReport, CheckpointsReport, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::state::Segments;

/// Lists the retained checkpoints of the store in `dir` and reads all the state they refer to.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect).
pub fn checkpoints(dir: &Path) -> Result<CheckpointsReport> {
    let store = open(dir)?;
    settled(&store.paths, || list(&store, dir), |report| &report.findings)
}

fn list(store: &ReadStore, dir: &Path) -> Result<CheckpointsReport> {
    let catalog = read_catalog(store)?;
    let retained = catalog.retained(store)?.len();
    let kept = catalog.kept(store)?;
    let mut segments = Segments::open(store, kept.iter().map(|(_, record)| record))?;
    let mut checkpoints = Vec::with_capacity(kept.len());
    for (epoch, record) in &kept {
        let damage = match segments.check(record) {
            Ok(()) => None,
            Err(error) if error.kind() == ErrorKind::Corrupt => Some(error.chain()),
            Err(error) => return Err(error),
        };
        let pins = catalog.names_of(record.checkpoint);
        checkpoints.push(CheckpointReport { pins, ..describe(epoch.0, record, damage) });
    }
    let mut findings = catalog.findings.clone();
    findings.extend(segments.findings(&kept));
    Ok(CheckpointsReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        last_durable_record: catalog.history.last_seq,
        pruned: (catalog.history.checkpoints.len() - retained) as u64,
        checkpoints,
        sound: judge(&mut findings),
        findings,
    })
}
