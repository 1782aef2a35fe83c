//! One checkpoint in full.

use std::path::Path;

use serde::Serialize;

use crate::error::{ErrorKind, Result};
use crate::format::records::{CheckpointRecord, SegmentRef};
use crate::inspect::catalog::{Catalog, describe, read_catalog};
use crate::inspect::open::{ReadStore, open};
use crate::inspect::report::{CheckpointReport, Finding, OperatorReport, PositionsReport, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::state::Segments;
use crate::inspect::view::find_checkpoint;
use crate::store::segments::GroupSource;

/// One checkpoint: what it holds, where that is, and what a restart from it would compute again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointDetail {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The newest sound record of the catalog: the report shows the store as of its commit.
    pub last_durable_record: u64,
    /// The checkpoint as `checkpoints` lists it.
    pub checkpoint: CheckpointReport,
    /// Blocks below this number are in its past.
    pub next_block: u64,
    /// Of the job's lineage when it was taken: 16 hexadecimal digits.
    pub fingerprint: String,
    /// Its stateful operators.
    pub operators: Vec<OperatorReport>,
    /// Its positions of replayable sources.
    pub positions: Vec<PositionsReport>,
    /// Every segment that it needs, oldest first.
    pub segments: Vec<SegmentReport>,
    /// What a restart from it would compute again.
    pub replay: ReplayReport,
    /// Whether the checkpoint and the catalog it is in are sound.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// A file of checkpointed state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentReport {
    /// Its number.
    pub segment: u64,
    /// The length of the file.
    pub bytes: u64,
    /// What the checkpoint takes from it, by operator.
    pub parts: Vec<SegmentPart>,
    /// What is damaged, `null` when it is sound.
    pub damage: Option<String>,
}

/// What a checkpoint takes of one operator from one segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SegmentPart {
    /// The operator; `positions of X` for the positions of the source `X`.
    pub operator: String,
    /// The key groups that are whole.
    pub base: Vec<u16>,
    /// The key groups of which it has changes.
    pub delta: Vec<u16>,
    /// Entries in these groups, those of removed keys included.
    pub entries: u64,
    /// The bytes of these groups.
    pub bytes: u64,
}

/// The batches that are computed again after a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ReplayReport {
    /// How many there are.
    pub batches: u64,
    /// The first.
    pub from: Option<u64>,
    /// The last.
    pub to: Option<u64>,
    /// How many of them are done: their outputs would not be emitted again.
    pub done: u64,
}

/// Shows checkpoint `id` of the store in `dir` and reads all the state it refers to.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect), and [`ErrorKind::InvalidConfig`] when the store retains no such
/// checkpoint.
pub fn checkpoint(dir: &Path, id: u64) -> Result<CheckpointDetail> {
    let store = open(dir)?;
    settled(&store.paths, || detail(&store, dir, id), |report| &report.findings)
}

fn detail(store: &ReadStore, dir: &Path, id: u64) -> Result<CheckpointDetail> {
    let catalog = read_catalog(store)?;
    let retained = catalog.retained(store)?;
    let committed = find_checkpoint(&catalog, retained, id)?;
    let (epoch, record) = committed;
    let mut segments = Segments::open(store, std::iter::once(record))?;
    let damage = match segments.check(record) {
        Ok(()) => None,
        Err(error) if error.kind() == ErrorKind::Corrupt => Some(error.chain()),
        Err(error) => return Err(error),
    };
    let mut findings = catalog.findings.clone();
    findings.extend(segments.findings(std::slice::from_ref(committed)));
    Ok(CheckpointDetail {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        last_durable_record: catalog.history.last_seq,
        checkpoint: CheckpointReport {
            pins: catalog.names_of(record.checkpoint),
            ..describe(epoch.0, record, damage)
        },
        next_block: record.next_block,
        fingerprint: format!("{:016x}", record.fingerprint),
        operators: segments.operators(record),
        positions: segments.positions(record),
        segments: segment_reports(&segments, record),
        replay: replay_after(&catalog, record.batch),
        sound: judge(&mut findings),
        findings,
    })
}

/// By operator, the parts that count.
type Chains<'a> = Vec<(&'a str, Vec<GroupSource>)>;

fn segment_reports(segments: &Segments<'_>, checkpoint: &CheckpointRecord) -> Vec<SegmentReport> {
    let parts = |operator: &str| segments.chains(checkpoint, operator).into_iter().flatten().collect();
    let chains: Chains<'_> =
        checkpoint.operators.iter().map(|operator| (&*operator.name, parts(&operator.name))).collect();
    let report = |segment: &SegmentRef| SegmentReport {
        segment: segment.segment,
        bytes: segment.length,
        parts: parts_in(segment.segment, &chains),
        damage: segments.damage_of(segment.segment),
    };
    checkpoint.segments.iter().map(report).collect()
}

fn parts_in(segment: u64, chains: &Chains<'_>) -> Vec<SegmentPart> {
    let part_of = |(operator, sources): &(&str, Vec<GroupSource>)| {
        let operator = (*operator).to_owned();
        let mut part = SegmentPart { operator, base: Vec::new(), delta: Vec::new(), entries: 0, bytes: 0 };
        for source in sources.iter().filter(|source| source.segment_id().0 == segment) {
            let group = &source.group;
            if group.base { &mut part.base } else { &mut part.delta }.push(group.group);
            part.entries = part.entries.saturating_add(group.entries);
            part.bytes = part.bytes.saturating_add(group.bytes);
        }
        Some(part).filter(|part| !part.base.is_empty() || !part.delta.is_empty())
    };
    chains.iter().filter_map(part_of).collect()
}

fn replay_after(catalog: &Catalog, batch: u64) -> ReplayReport {
    let history = &catalog.history;
    let planned = (batch.saturating_add(1)..).take_while(|batch| history.plans.contains_key(batch));
    planned.fold(ReplayReport::default(), |replay, batch| ReplayReport {
        batches: replay.batches + 1,
        from: replay.from.or(Some(batch)),
        to: Some(batch),
        done: replay.done + u64::from(history.done.contains_key(&batch)),
    })
}
