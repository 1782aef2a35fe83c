//! How the state grew from checkpoint to checkpoint.

use std::path::Path;

use serde::Serialize;

use crate::error::{ErrorKind, Result};
use crate::format::records::{CheckpointRecord, OperatorRef};
use crate::inspect::catalog::read_catalog;
use crate::inspect::open::{ReadStore, open};
use crate::inspect::report::{Finding, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::state::Segments;
use crate::store::segments::GroupSource;

/// Sizes of state over the retained checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GrowthReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The newest sound record of the catalog: the report shows the store as of its commit.
    pub last_durable_record: u64,
    /// By operator and, within it, oldest checkpoint first.
    pub sizes: Vec<SizeReport>,
    /// Whether all retained checkpoints, and the catalog they are in, are sound.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// What one operator takes in one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeReport {
    /// The operator; `positions of X` for the positions of the source `X`.
    pub operator: String,
    /// The checkpoint.
    pub checkpoint: u64,
    /// The last batch whose changes are in it.
    pub batch: u64,
    /// Keys with state.
    pub keys: u64,
    /// What the entries of these keys take, headers of entries included.
    pub live_bytes: u64,
    /// What a restart reads for them.
    pub stored_bytes: u64,
    /// Entries that a restart reads for nothing: newer ones hide them, or they say that a key is gone.
    pub dead_entries: u64,
    /// The longest chain of parts that a key group has.
    pub parts_max: u64,
}

/// Shows how the state in the store in `dir` grew over the retained checkpoints, all of which are read.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect).
pub fn growth(dir: &Path) -> Result<GrowthReport> {
    let store = open(dir)?;
    settled(&store.paths, || measure(&store, dir), |report| &report.findings)
}

fn measure(store: &ReadStore, dir: &Path) -> Result<GrowthReport> {
    let catalog = read_catalog(store)?;
    let retained = catalog.retained(store)?;
    let mut segments = Segments::open(store, retained.iter().map(|(_, record)| record))?;
    let mut sizes = Vec::new();
    for (_, record) in retained {
        match segments.check(record) {
            Ok(()) => sizes.extend(record.operators.iter().map(|operator| size(&segments, record, operator))),
            // What a damaged one would have taken is not known.
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            Err(error) => return Err(error),
        }
    }
    sizes.sort_by(|a: &SizeReport, b| {
        (&a.operator, a.batch, a.checkpoint).cmp(&(&b.operator, b.batch, b.checkpoint))
    });
    let mut findings = catalog.findings.clone();
    findings.extend(segments.findings(retained));
    Ok(GrowthReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        last_durable_record: catalog.history.last_seq,
        sizes,
        sound: judge(&mut findings),
        findings,
    })
}

fn size(segments: &Segments<'_>, checkpoint: &CheckpointRecord, operator: &OperatorRef) -> SizeReport {
    let chains = segments.chains(checkpoint, &operator.name);
    let newest = || chains.iter().filter_map(|chain| chain.first());
    let all = || chains.iter().flatten();
    let sum = |values: &mut dyn Iterator<Item = u64>| values.fold(0, u64::saturating_add);
    let live_keys = sum(&mut newest().map(|part: &GroupSource| part.group.live_keys));
    SizeReport {
        operator: operator.name.clone(),
        checkpoint: checkpoint.checkpoint,
        batch: checkpoint.batch,
        keys: operator.keys,
        live_bytes: sum(&mut newest().map(|part| part.group.live_bytes)),
        stored_bytes: sum(&mut all().map(|part| part.group.stored_bytes())),
        dead_entries: sum(&mut all().map(|part| part.group.entries)).saturating_sub(live_keys),
        parts_max: chains.iter().map(Vec::len).max().unwrap_or(0) as u64,
    }
}
