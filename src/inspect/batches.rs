//! The batches that the catalog still knows.

use std::path::Path;

use serde::Serialize;

use crate::error::Result;
use crate::format::records::{InputPlan, PlanRecord, RangeRef};
use crate::inspect::open::{ReadStore, open};
use crate::inspect::report::{Finding, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::view::View;

/// The batches of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchesReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The newest sound record of the catalog: the report shows the store as of its commit.
    pub last_durable_record: u64,
    /// The planned batches, oldest first.
    pub batches: Vec<BatchReport>,
    /// Older ones that were left out as asked.
    pub left_out: u64,
    /// Whether the catalog and the checkpoints that were read to say what a restart would do are sound.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// One batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchReport {
    /// Its number.
    pub batch: u64,
    /// Its time.
    pub time_ms: u64,
    /// Input streams that have anything in it.
    pub streams: u64,
    /// Received blocks in it.
    pub blocks: u64,
    /// The bytes of these blocks.
    pub block_bytes: u64,
    /// Ranges of replayable sources in it.
    pub ranges: u64,
    /// What these ranges span, in the units of their sources (for files: bytes).
    pub range_units: u64,
    /// Whether all its outputs are done.
    pub done: bool,
    /// The records it read; `null` until it is done, as the next two.
    pub records: Option<u64>,
    /// The bytes it read.
    pub bytes: Option<u64>,
    /// How long it took, in microseconds.
    pub processing_us: Option<u64>,
    /// The outputs that were emitted.
    pub outputs: Vec<String>,
    /// The oldest retained checkpoint that has its changes.
    pub checkpoint: Option<u64>,
    /// What a restart makes of it; `null` when a restart would refuse to start.
    pub restart: Option<BatchAtRestart>,
}

/// What a restart makes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BatchAtRestart {
    /// It is in the past of the checkpoint that the restart begins with. Written `"past"`.
    Past,
    /// It is computed again, and its outputs were emitted already. Written `"replayed"`.
    Replayed,
    /// It is computed, and its outputs are emitted: it was not done. Written `"pending"`.
    Pending,
    /// A plan before it is lost, and so it is not computed again. Written `"lost"`.
    Lost,
}

/// Lists the batches of the store in `dir`, only the newest `last` if that is given.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect).
pub fn batches(dir: &Path, last: Option<usize>) -> Result<BatchesReport> {
    let store = open(dir)?;
    settled(&store.paths, || list(&store, dir, last), |report| &report.findings)
}

fn list(store: &ReadStore, dir: &Path, last: Option<usize>) -> Result<BatchesReport> {
    let view = View::read(store)?;
    let (_, mut findings) = view.judged();
    let plans = &view.catalog.history.plans;
    let left_out = last.map_or(0, |last| plans.len().saturating_sub(last));
    Ok(BatchesReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        last_durable_record: view.catalog.history.last_seq,
        batches: plans.values().skip(left_out).map(|plan| batch_report(&view, plan)).collect(),
        left_out: left_out as u64,
        sound: judge(&mut findings),
        findings,
    })
}

pub(super) fn batch_report(view: &View<'_>, plan: &PlanRecord) -> BatchReport {
    let done = view.catalog.history.done.get(&plan.batch);
    let blocks = || plan.inputs.iter().flat_map(|input| &input.blocks);
    let ranges = || plan.inputs.iter().flat_map(|input| &input.ranges);
    let has_any = |input: &&InputPlan| !input.blocks.is_empty() || !input.ranges.is_empty();
    BatchReport {
        batch: plan.batch,
        time_ms: plan.time_ms,
        streams: plan.inputs.iter().filter(has_any).count() as u64,
        blocks: blocks().count() as u64,
        block_bytes: blocks().map(|block| u64::from(block.length)).sum(),
        ranges: ranges().count() as u64,
        range_units: ranges().map(units_of).fold(0, u64::saturating_add),
        done: done.is_some(),
        records: done.map(|done| done.records),
        bytes: done.map(|done| done.bytes),
        processing_us: done.map(|done| done.processing_us),
        outputs: done.map(|done| done.outputs.clone()).unwrap_or_default(),
        checkpoint: view.checkpoint_with(plan.batch),
        restart: at_restart(view, plan.batch, done.is_some()),
    }
}

fn units_of(range: &RangeRef) -> u64 {
    range.end.saturating_sub(range.start)
}

fn at_restart(view: &View<'_>, batch: u64, done: bool) -> Option<BatchAtRestart> {
    let recovery = view.chosen.recovery.as_ref()?;
    Some(match recovery.replay.iter().any(|plan| plan.batch == batch) {
        _ if batch <= view.restart_after() => BatchAtRestart::Past,
        false => BatchAtRestart::Lost,
        true if done => BatchAtRestart::Replayed,
        true => BatchAtRestart::Pending,
    })
}
