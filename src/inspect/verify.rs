//! Reading and checking everything.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::inspect::catalog::{Catalog, read_catalog};
use crate::inspect::log::{Log, read_log, read_whole_log};
use crate::inspect::open::{ReadStore, open, relative};
use crate::inspect::pins::quarantined;
use crate::inspect::report::{Finding, SCHEMA, VerifyReport, judge};
use crate::inspect::settle::settled;
use crate::inspect::state::{Committed, Segments};
use crate::inspect::summary::Restart;
use crate::store::StorePaths;

/// Checks every byte of the store in `dir`: its identity, every epoch with its witness, every page of every
/// checkpoint's segments, every frame of the receive log, and every block that a replay may need.
///
/// # Errors
/// [`ErrorKind::Incompatible`] when `dir` is no store or of a newer format, [`ErrorKind::Io`] when reading is
/// refused. Damage of any kind is in the report.
pub fn verify(dir: &Path) -> Result<VerifyReport> {
    let store = match open(dir) {
        Ok(store) => store,
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(without_identity(dir, &error)),
        Err(error) => return Err(error),
    };
    settled(&store.paths, || check(&store, dir), |report| &report.findings)
}

/// Nothing in a store whose identity is unknown can be told from another store's.
fn without_identity(dir: &Path, error: &Error) -> VerifyReport {
    let what = relative(&StorePaths::new(dir), &error.chain());
    let remedy = "put the file back from a copy; nothing else was checked";
    VerifyReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: None,
        last_durable_record: 0,
        epochs: 0,
        checkpoints: 0,
        segments: 0,
        extents: 0,
        blocks: 0,
        planned_blocks: 0,
        restart: None,
        sound: false,
        findings: vec![Finding::damage("millpond.id", what, remedy)],
    }
}

fn check(store: &ReadStore, dir: &Path) -> Result<VerifyReport> {
    let catalog = read_catalog(store)?;
    let retained = catalog.retained(store)?;
    let kept = catalog.kept(store)?;
    let mut segments = Segments::open(store, kept.iter().map(|(_, record)| record))?;
    read_all(&mut segments, &kept)?;
    let chosen = Restart::choose(store, &catalog, &mut segments)?;
    let log = read_whole_log(store, catalog.oldest_needed_block(), chosen.next_block())?;
    let (planned_blocks, unreadable) = check_planned(store, &catalog, &log)?;
    let mut findings = catalog.findings.clone();
    findings.extend(segments.findings(&kept));
    findings.extend(quarantined(store)?);
    findings.extend(log.findings.iter().cloned());
    findings.extend(unreadable);
    // A start reads the log from the first block that is in no plan on, and refuses over damage there only.
    let refusal = if log.contents.damage.is_empty() {
        None
    } else {
        read_log(store, chosen.next_block(), chosen.next_block())?.refusal(store)
    };
    let restart = chosen.report(refusal, &mut findings);
    findings.extend(segments.leftovers(&kept)?);
    findings.extend(log.leftovers(store)?);
    Ok(VerifyReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: Some(store.identity.job.clone()),
        last_durable_record: catalog.history.last_seq,
        epochs: catalog.epochs as u64,
        checkpoints: retained.len() as u64,
        segments: segments.read(),
        extents: log.contents.extents.len() as u64,
        blocks: log.contents.blocks.len() as u64,
        planned_blocks,
        restart: Some(restart),
        sound: judge(&mut findings),
        findings,
    })
}

fn read_all(segments: &mut Segments<'_>, checkpoints: &[Committed]) -> Result<()> {
    for (_, record) in checkpoints {
        match segments.check(record) {
            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The blocks of every batch that a restart may have to compute again, were the newer checkpoints lost too.
fn check_planned(store: &ReadStore, catalog: &Catalog, log: &Log) -> Result<(u64, Vec<Finding>)> {
    let after = catalog.oldest_needed_batch();
    log.check_planned(store, catalog.history.plans.range(after + 1..).map(|(_, plan)| plan))
}
