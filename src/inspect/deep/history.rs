//! The catalog: plans, what is done of them, and checkpoints, against each other and the log.

use std::collections::{BTreeMap, BTreeSet};

use crate::format::records::{CheckpointRecord, OperatorRef, PlanRecord};
use crate::format::shown::schema::Type;
use crate::format::shown::value::archive_json;
use crate::inspect::catalog::Catalog;
use crate::inspect::deep::Violations;
use crate::inspect::log::Log;
use crate::inspect::report::DeepReport;
use crate::inspect::state::Committed;

pub(super) fn check(
    catalog: &Catalog,
    retained: &[Committed],
    log: &Log,
    report: &mut DeepReport,
    violations: &mut Violations,
) {
    let history = &catalog.history;
    let oldest = catalog.surely_retained().first().map(|(_, record)| record);
    let after = oldest.map_or(0, |record| record.batch);
    let plans: Vec<&PlanRecord> =
        history.plans.range(after.saturating_add(1)..).map(|(_, plan)| plan).collect();
    report.batches = plans.len() as u64;
    check_sequence(&plans, oldest, violations);
    check_inputs(catalog, &plans, log, violations);
    check_done(catalog, after, violations);
    check_checkpoints(catalog, retained, violations);
}

/// Where a plan or checkpoint is.
fn place(catalog: &Catalog, plan: &PlanRecord) -> String {
    catalog
        .history
        .planned_in
        .get(&plan.batch)
        .map_or("epochs".to_owned(), |epoch| format!("epochs/{}", epoch.0))
}

/// Batches follow each other without a gap, and so do their times and blocks.
fn check_sequence(plans: &[&PlanRecord], oldest: Option<&CheckpointRecord>, violations: &mut Violations) {
    let start = oldest.map_or((0, 0, 1), |record| (record.batch, record.time_ms, record.next_block));
    let mut before = start;
    for plan in plans {
        let (batch, time_ms, next_block) = before;
        violations.check(plan.batch == batch.saturating_add(1), "epochs", "batches have no gaps", || {
            format!("after batch {batch} comes the plan of batch {}", plan.batch)
        });
        violations.check(plan.time_ms >= time_ms, "epochs", "the times of batches only grow", || {
            format!("batch {} is of {} ms, the one before of {time_ms} ms", plan.batch, plan.time_ms)
        });
        violations.check(plan.next_block >= next_block, "epochs", "the blocks of plans only grow", || {
            format!(
                "batch {} ends before block {}, the one before it before {next_block}",
                plan.batch, plan.next_block
            )
        });
        let blocks = plan.inputs.iter().flat_map(|input| &input.blocks);
        for block in blocks {
            let within = (next_block..plan.next_block).contains(&block.block);
            violations.check(within, "epochs", "a block is in the one plan that it belongs to", || {
                format!(
                    "block {} is in the plan of batch {}, of blocks {next_block} to below {}",
                    block.block, plan.batch, plan.next_block
                )
            });
        }
        before = (plan.batch, plan.time_ms, plan.next_block);
    }
}

/// A plan's blocks are of its streams, each once, and its ranges have an end after their start. That blocks are
/// where the plan says, with its checksums, is checked with the log.
fn check_inputs(catalog: &Catalog, plans: &[&PlanRecord], log: &Log, violations: &mut Violations) {
    let streams: BTreeMap<u64, u64> =
        log.contents.blocks.iter().map(|found| (found.block.block, found.stream.0)).collect();
    for plan in plans {
        let place = place(catalog, plan);
        let (mut blocks, mut inputs) = (BTreeSet::new(), BTreeSet::new());
        for input in &plan.inputs {
            violations.check(inputs.insert(input.stream), &place, "a stream is in a plan once", || {
                format!("batch {} has stream {:016x} twice", plan.batch, input.stream)
            });
            for block in &input.blocks {
                violations.check(blocks.insert(block.block), &place, "a block is in a plan once", || {
                    format!("batch {} has block {} twice", plan.batch, block.block)
                });
                let of = streams.get(&block.block).copied().unwrap_or(input.stream);
                violations.check(
                    of == input.stream,
                    &place,
                    "a block is of the stream that its plan says",
                    || {
                        format!(
                            "block {} in batch {} is of {of:016x}, not {:016x}",
                            block.block, plan.batch, input.stream
                        )
                    },
                );
            }
            for range in &input.ranges {
                violations.check(range.start <= range.end, &place, "a range ends after its start", || {
                    format!(
                        "batch {}: `{}` from {} to {}",
                        plan.batch, range.partition, range.start, range.end
                    )
                });
            }
        }
    }
}

/// What is done was planned, in order, and what it added to accumulators is of their types.
fn check_done(catalog: &Catalog, after: u64, violations: &mut Violations) {
    let history = &catalog.history;
    for batch in history.done.range(after.saturating_add(1)..).map(|(batch, _)| batch) {
        violations.check(
            history.plans.contains_key(batch),
            "epochs",
            "a batch that is done was planned",
            || format!("batch {batch} is done, but there is no plan of it"),
        );
    }
    for (batch, deltas) in history.tallies.range(after.saturating_add(1)..) {
        for delta in deltas {
            // A type that is not known decodes nothing, nor does this say that it should.
            let root = Type::parse(&delta.schema);
            let decodes = root.is_none_or(|root| archive_json(&root, &delta.archive).is_some());
            violations.check(decodes, "epochs", "an amount is of its accumulator's type", || {
                format!("what batch {batch} added to `{}`", delta.name)
            });
        }
    }
}

/// A checkpoint says of its batch what the batch's plan says, and names everything once.
fn check_checkpoints(catalog: &Catalog, retained: &[Committed], violations: &mut Violations) {
    for (epoch, record) in retained {
        let (id, place) = (record.checkpoint, format!("epochs/{}", epoch.0));
        let plan = catalog.history.plans.get(&record.batch);
        let agrees =
            plan.is_none_or(|plan| (plan.next_block, plan.time_ms) == (record.next_block, record.time_ms));
        violations.check(agrees, &place, "a checkpoint is where its batch is", || {
            format!(
                "checkpoint {id} is of {} ms and before block {}, the plan of its batch {} says otherwise",
                record.time_ms, record.next_block, record.batch
            )
        });
        let ordered = record.segments.is_sorted_by(|a, b| a.segment < b.segment);
        violations.check(ordered, &place, "the segments of a checkpoint are in order", || {
            let numbers: Vec<String> =
                record.segments.iter().map(|segment| segment.segment.to_string()).collect();
            format!("those of checkpoint {id} are {}", numbers.join(", "))
        });
        let mut names = BTreeSet::new();
        for OperatorRef { name, .. } in &record.operators {
            violations.check(names.insert(name), &place, "an operator is in a checkpoint once", || {
                format!("checkpoint {id} has `{name}` twice")
            });
        }
    }
}
