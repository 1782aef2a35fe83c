//! One batch in full.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::{ErrorKind, Result};
use crate::format::records::{BlockRef, InputPlan, PlanRecord, RangeRef, TallyDelta};
use crate::format::shown::schema::Type;
use crate::format::shown::value::archive_json;
use crate::inspect::batches::{BatchReport, batch_report};
use crate::inspect::open::{ReadStore, open, relative};
use crate::inspect::report::{Finding, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::view::{View, hex, no_such, stream_id, stream_names};
use crate::store::extents::read_block;

const REMEDY: &str = "put the file back from a copy: the batch cannot be computed again without it";

/// One batch: its plan, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BatchDetail {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The newest sound record of the catalog: the report shows the store as of its commit.
    pub last_durable_record: u64,
    /// The batch as `batches` lists it.
    pub batch: BatchReport,
    /// The epoch of the catalog that its plan is in.
    pub epoch: u64,
    /// Blocks below this number are in this batch or an earlier one.
    pub next_block: u64,
    /// What it reads, by stream.
    pub inputs: Vec<InputReport>,
    /// What it added to accumulators.
    pub accumulators: Vec<AmountReport>,
    /// Whether the catalog, and the blocks if a restart may need them, are sound.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// What a batch reads of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InputReport {
    /// The id of the stream: 16 hexadecimal digits.
    pub stream: String,
    /// Its name; `null` when the last run has no input of this id.
    pub name: Option<String>,
    /// Received blocks.
    pub blocks: Vec<BlockPlace>,
    /// Ranges of a replayable source.
    pub ranges: Vec<RangeReport>,
}

/// A block that a batch reads, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BlockPlace {
    /// Its number.
    pub block: u64,
    /// The extent of the log that it is in.
    pub extent: u64,
    /// Where its frame begins there.
    pub offset: u64,
    /// The bytes of its payload.
    pub bytes: u64,
    /// Why it cannot be read, `null` when it is sound. A batch in the past of every checkpoint has no use
    /// for its blocks, and they go.
    pub unreadable: Option<String>,
}

/// A range of one partition of a replayable source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RangeReport {
    /// The partition (for files: the path).
    pub partition: String,
    /// Where it begins, in the source's unit.
    pub start: u64,
    /// Where it ends.
    pub end: u64,
    /// The whole partition as the source saw it, 0 where it has no size.
    pub size: u64,
    /// What tells that the partition is still the same (for files: the time of their last change).
    pub stamp: u64,
}

impl RangeReport {
    pub(super) fn of(range: &RangeRef) -> Self {
        let RangeRef { partition, start, end, size, stamp } = range.clone();
        RangeReport { partition, start, end, size, stamp }
    }
}

/// What a batch added to one accumulator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AmountReport {
    /// The state of the accumulator.
    pub name: String,
    /// The amount's type, `null` when no retained checkpoint has the accumulator.
    pub value_type: Option<String>,
    /// The amount, `null` when the type is not one that can be known without the job.
    pub value: Option<Value>,
    /// The amount's archive in hexadecimal digits.
    pub hex: String,
}

/// Shows batch `id` of the store in `dir` and reads its blocks.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect), and [`ErrorKind::InvalidConfig`] when the catalog has no plan of
/// this number.
pub fn batch(dir: &Path, id: u64) -> Result<BatchDetail> {
    let store = open(dir)?;
    settled(&store.paths, || detail(&store, dir, id), |report| &report.findings)
}

fn detail(store: &ReadStore, dir: &Path, id: u64) -> Result<BatchDetail> {
    let view = View::read(store)?;
    let history = &view.catalog.history;
    let plan = history.plans.get(&id).ok_or_else(|| {
        let known = match (history.plans.first_key_value(), history.plans.last_key_value()) {
            (Some((first, _)), Some((last, _))) => format!("the catalog has plans from {first} to {last}"),
            _ => "the catalog has no plan".to_owned(),
        };
        no_such(format!("there is no batch {id}: {known}"))
    })?;
    let (_, mut findings) = view.judged();
    let inputs = inputs_of(store, &view, plan, &mut findings)?;
    let tallies = history.tallies.get(&id).into_iter().flatten();
    Ok(BatchDetail {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        last_durable_record: history.last_seq,
        batch: batch_report(&view, plan),
        epoch: history.planned_in.get(&id).map_or(0, |epoch| epoch.0),
        next_block: plan.next_block,
        inputs,
        accumulators: tallies.map(|delta| amount(&view, delta)).collect(),
        sound: judge(&mut findings),
        findings,
    })
}

fn inputs_of(
    store: &ReadStore,
    view: &View<'_>,
    plan: &PlanRecord,
    findings: &mut Vec<Finding>,
) -> Result<Vec<InputReport>> {
    let names = stream_names(&view.catalog);
    let is_needed = plan.batch > view.catalog.oldest_needed_batch();
    let mut place = |block: &BlockRef| {
        let unreadable = match read_block(&store.paths, block) {
            Ok(_) => None,
            Err(error) if error.kind() == ErrorKind::Corrupt => Some(relative(&store.paths, &error.chain())),
            Err(error) => return Err(error),
        };
        if let Some(what) = unreadable.as_ref().filter(|_| is_needed) {
            let place = format!("log/{}.extent", block.extent);
            findings.push(Finding::damage(place, format!("batch {}: {what}", plan.batch), REMEDY));
        }
        let BlockRef { block, extent, offset, length, .. } = *block;
        Ok(BlockPlace { block, extent, offset, bytes: length.into(), unreadable })
    };
    let mut input = |input: &InputPlan| {
        Ok(InputReport {
            stream: stream_id(input.stream),
            name: names.get(&input.stream).cloned(),
            blocks: input.blocks.iter().map(&mut place).collect::<Result<_>>()?,
            ranges: input.ranges.iter().map(RangeReport::of).collect(),
        })
    };
    plan.inputs.iter().map(&mut input).collect()
}

fn amount(view: &View<'_>, delta: &TallyDelta) -> AmountReport {
    let operators = view.retained.iter().rev().flat_map(|(_, record)| &record.operators);
    let mut of_name = operators.filter(|operator| operator.name == delta.name);
    let value_type = of_name.next().map(|operator| operator.value_type.clone());
    let value = Type::parse(&delta.schema).and_then(|root| archive_json(&root, &delta.archive));
    AmountReport { name: delta.name.clone(), value_type, value, hex: hex(&delta.archive) }
}
