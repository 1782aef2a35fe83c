//! What a restart would find: the summary of a store.

use std::path::Path;
use std::time::Duration;

use crate::checkpoint::protocol::{History, Recovery, choose};
use crate::error::{ErrorKind, Result};
use crate::inspect::catalog::{Catalog, describe, read_catalog};
use crate::inspect::log::read_log;
use crate::inspect::open::{ReadStore, open, relative};
use crate::inspect::pins::quarantined;
use crate::inspect::report::{
    AgeReport, DiskReport, Finding, LostBatches, PredictedRestart, RestartReport, SCHEMA, StoreReport,
    WalkedBack, judge,
};
use crate::inspect::settle::settled;
use crate::inspect::state::{Committed, Segments};
use crate::store::running::is_running;
use crate::time::{Clock, Stopwatch, SystemClock};

/// Summarises the store in `dir`: the job, what a restart would do, what the store holds and takes.
///
/// Everything that a restart needs is read and checked, and nothing is changed.
///
/// # Errors
/// [`ErrorKind::Incompatible`] when `dir` is no store or of a newer format, [`ErrorKind::Corrupt`] when its
/// identity is damaged, [`ErrorKind::Io`] when reading is refused. Any other damage is in the report.
pub fn inspect(dir: &Path) -> Result<StoreReport> {
    let store = open(dir)?;
    settled(&store.paths, || summarise(&store, dir), |report| &report.findings)
}

fn summarise(store: &ReadStore, dir: &Path) -> Result<StoreReport> {
    let reading = Stopwatch::start();
    let catalog = read_catalog(store)?;
    let retained = catalog.retained(store)?;
    let mut segments = Segments::open(store, retained.iter().map(|(_, record)| record))?;
    let chosen = Restart::choose(store, &catalog, &mut segments)?;
    let next_block = chosen.next_block();
    let log = read_log(store, next_block, next_block)?;
    let reading = reading.elapsed();
    let mut findings = catalog.findings.clone();
    findings.extend(segments.findings(retained));
    findings.extend(log.findings.iter().cloned());
    findings.extend(quarantined(store)?);
    let replay = chosen.recovery.iter().flat_map(|recovery| &recovery.replay);
    findings.extend(log.check_planned(store, replay)?.1);
    let restart = chosen.report(log.refusal(store), &mut findings);
    let checkpoint = chosen.recovery.as_ref().and_then(|recovery| recovery.checkpoint.as_ref());
    Ok(StoreReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        store: store.id(),
        format_version: store.format_version,
        last_durable_record: catalog.history.last_seq,
        last_planned_batch: catalog.history.plans.keys().next_back().copied(),
        run: catalog.run(),
        running: is_running(&store.paths),
        age: age(&catalog.history),
        predicted_restart: chosen.predict(&catalog.history, &restart, reading),
        restart,
        pending: log.pending(next_block),
        operators: checkpoint.map(|checkpoint| segments.operators(checkpoint)).unwrap_or_default(),
        positions: checkpoint.map(|checkpoint| segments.positions(checkpoint)).unwrap_or_default(),
        disk: DiskReport {
            catalog_bytes: bytes_under(&store.paths.epochs()),
            log_bytes: bytes_under(&store.paths.log()),
            state_bytes: bytes_under(&store.paths.state()),
        },
        sound: judge(&mut findings),
        findings,
    })
}

fn age(history: &History) -> AgeReport {
    let now_ms = SystemClock::new().now_ms();
    let checkpoint = history.checkpoints.iter().map(|(_, record)| record.time_ms).max();
    let plan = history.plans.values().next_back().map(|plan| plan.time_ms);
    let run = history.runs.last().map(|run| run.started_ms);
    let age = |time_ms: u64| now_ms.saturating_sub(time_ms);
    AgeReport {
        now_ms,
        newest_checkpoint_ms: checkpoint.map(age),
        newest_record_ms: checkpoint.max(plan).max(run).map(age),
    }
}

/// Where a restart would begin, and why it would not.
pub(super) struct Restart {
    pub(super) recovery: Option<Recovery>,
    report: RestartReport,
}

impl Restart {
    /// Decides as a start does.
    pub(super) fn choose(store: &ReadStore, catalog: &Catalog, segments: &mut Segments<'_>) -> Result<Self> {
        match choose(&catalog.history, |checkpoint| segments.check(checkpoint)) {
            Ok(recovery) => {
                let report = report_of(catalog, &recovery, catalog.retained(store)?);
                Ok(Restart { recovery: Some(recovery), report })
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let refused = Some(relative(&store.paths, &error.chain()));
                Ok(Restart { recovery: None, report: RestartReport { refused, ..Default::default() } })
            }
            Err(error) => Err(error),
        }
    }

    /// Blocks from this number on wait for a batch.
    pub(super) fn next_block(&self) -> u64 {
        self.recovery.as_ref().map_or(1, |recovery| recovery.next_block)
    }

    fn predict(
        &self,
        history: &History,
        report: &RestartReport,
        reading: Duration,
    ) -> Option<PredictedRestart> {
        let recovery = self.recovery.as_ref().filter(|_| report.refused.is_none())?;
        let recorded = history.done.values().map(|done| done.processing_us);
        let mean_us =
            recorded.fold(0, u64::saturating_add).checked_div(history.done.len() as u64).unwrap_or(0);
        let mut predicted = PredictedRestart {
            state_bytes: report.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.bytes),
            reading_us: reading.as_micros() as u64,
            replayed_batches: report.replayed_batches,
            ..PredictedRestart::default()
        };
        for plan in &recovery.replay {
            let done = history.done.get(&plan.batch);
            predicted.replayed_unmeasured += u64::from(done.is_none());
            let took_us = done.map_or(mean_us, |done| done.processing_us);
            predicted.replay_us = predicted.replay_us.saturating_add(took_us);
        }
        predicted.estimated_us = predicted.reading_us.saturating_add(predicted.replay_us);
        Some(predicted)
    }

    /// Completes the report with why the log makes a start refuse, and adds what is lost to `findings`.
    pub(super) fn report(&self, log_refuses: Option<String>, findings: &mut Vec<Finding>) -> RestartReport {
        let mut report = self.report.clone();
        if let Some(refused) = &report.refused {
            let remedy = "put the damaged files back from a copy, or move the store away to begin anew";
            findings.push(Finding::damage("epochs", refused.clone(), remedy));
            return report;
        }
        if let Some(LostBatches { from, to }) = report.lost {
            let what = format!("the plans of batches {from} to {to} are lost, or may be");
            let remedy = "put the epochs back from a copy; otherwise what these batches read is planned anew, and \
                          their outputs may be emitted twice";
            findings.push(Finding::damage("epochs", what, remedy));
        }
        report.refused = log_refuses.or_else(|| self.unreadable_replay(findings));
        report
    }

    /// The first finding about a block of a batch that has to be replayed.
    fn unreadable_replay(&self, findings: &[Finding]) -> Option<String> {
        let replay = &self.recovery.as_ref()?.replay;
        let about = |finding: &&Finding| {
            replay.iter().any(|plan| finding.what.starts_with(&format!("batch {}: ", plan.batch)))
        };
        findings.iter().find(about).map(|finding| finding.what.clone())
    }
}

fn report_of(catalog: &Catalog, recovery: &Recovery, kept: &[Committed]) -> RestartReport {
    let history = &catalog.history;
    let is_kept = |id: u64| kept.iter().any(|(_, record)| record.checkpoint == id);
    let walked_back = recovery.walked_back.iter().filter(|(id, _)| is_kept(*id));
    let replay = &recovery.replay;
    let lost = &recovery.lost_plans;
    RestartReport {
        checkpoint: recovery
            .checkpoint
            .as_ref()
            .map(|record| describe(catalog.epoch_of(record.checkpoint), record, None)),
        walked_back: walked_back.map(|(id, why)| WalkedBack { checkpoint: *id, why: why.clone() }).collect(),
        replayed_batches: replay.len() as u64,
        replay_from: replay.first().map(|plan| plan.batch),
        replay_to: replay.last().map(|plan| plan.batch),
        replayed_done: replay.iter().filter(|plan| history.done.contains_key(&plan.batch)).count() as u64,
        lost: (!lost.is_empty()).then(|| LostBatches { from: lost.start, to: lost.end - 1 }),
        next_batch: recovery.next_batch,
        refused: None,
    }
}

/// The bytes of all files below `dir`. What disappears in the meantime counts nothing.
pub(super) fn bytes_under(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => bytes_under(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}
