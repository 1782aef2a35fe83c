//! Batches.

use std::fmt::Write;

use millpond::inspect::{BatchAtRestart, BatchDetail, BatchReport, BatchesReport};

use super::{add, align_right, bytes, counted, facts, findings, row, shown, table, utc};

/// The batches of a store.
pub(crate) fn batches(report: &BatchesReport) -> String {
    let mut page = format!("job {} in {}\n", shown(&report.job, 80), report.directory);
    let header = [
        "batch",
        "batch time",
        "blocks",
        "ranges",
        "bytes",
        "records",
        "took",
        "outputs",
        "checkpoint",
        "a restart",
    ];
    let mut table = table(&header);
    for batch in &report.batches {
        table.add_row([
            batch.batch.to_string(),
            utc(batch.time_ms),
            batch.blocks.to_string(),
            batch.ranges.to_string(),
            bytes(batch.bytes.unwrap_or(batch.block_bytes)),
            batch.records.map_or("-".to_owned(), |records| records.to_string()),
            batch.processing_us.map_or("-".to_owned(), took),
            if batch.done {
                counted(batch.outputs.len() as u64, "done", "done")
            } else {
                "not done".to_owned()
            },
            batch.checkpoint.map_or("-".to_owned(), |checkpoint| checkpoint.to_string()),
            at_restart(batch).to_owned(),
        ]);
    }
    align_right(&mut table, &[0, 2, 3, 4, 5, 6, 8]);
    add(&mut page, &table);
    if report.left_out > 0 {
        let _ =
            writeln!(page, "{} left out.", counted(report.left_out, "older batch is", "older batches are"));
    }
    findings(&mut page, &report.findings);
    page
}

/// One batch.
pub(crate) fn batch(report: &BatchDetail) -> String {
    let mut page = String::new();
    let mut facts = facts();
    let batch = &report.batch;
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "batch", &format!("{} of {}", batch.batch, utc(batch.time_ms)));
    row(
        &mut facts,
        "plan",
        &format!("in epoch {}; blocks below {} are in it or before it", report.epoch, report.next_block),
    );
    match (batch.records, batch.bytes, batch.processing_us) {
        (Some(records), Some(size), Some(us)) => {
            let read = counted(records, "record", "records");
            row(&mut facts, "done", &format!("{read}, {} in {}", bytes(size), took(us)));
        }
        _ => row(&mut facts, "done", "no"),
    }
    for (at, output) in batch.outputs.iter().enumerate() {
        row(&mut facts, if at == 0 { "outputs" } else { "" }, &shown(output, 80));
    }
    let checkpoint =
        batch.checkpoint.map_or("none has its changes".to_owned(), |id| format!("{id} has its changes"));
    row(&mut facts, "checkpoint", &checkpoint);
    row(&mut facts, "a restart", at_restart(batch));
    add(&mut page, &facts);
    inputs(&mut page, report);
    accumulators(&mut page, report);
    findings(&mut page, &report.findings);
    page
}

fn inputs(page: &mut String, report: &BatchDetail) {
    for input in &report.inputs {
        let name = input.name.as_ref().map_or("(not in the last run)".to_owned(), |name| shown(name, 80));
        let _ = writeln!(page, "\nstream {name}, {}", input.stream);
        if !input.blocks.is_empty() {
            let mut table = table(&["block", "extent", "offset", "bytes", "health"]);
            for block in &input.blocks {
                let numbers =
                    [block.block, block.extent, block.offset, block.bytes].map(|number| number.to_string());
                let health = block.unreadable.as_deref().unwrap_or("sound");
                table.add_row(numbers.iter().map(String::as_str).chain([health]));
            }
            align_right(&mut table, &[0, 1, 2, 3]);
            add(page, &table);
        }
        if !input.ranges.is_empty() {
            let mut table = table(&["partition", "start", "end", "size", "stamp"]);
            for range in &input.ranges {
                let numbers =
                    [range.start, range.end, range.size, range.stamp].map(|number| number.to_string());
                table.add_row([shown(&range.partition, 80)].iter().chain(&numbers));
            }
            align_right(&mut table, &[1, 2, 3, 4]);
            add(page, &table);
        }
    }
}

fn accumulators(page: &mut String, report: &BatchDetail) {
    if report.accumulators.is_empty() {
        return;
    }
    let mut table = table(&["added to", "type", "amount"]);
    for amount in &report.accumulators {
        let value = amount.value.as_ref().map_or(format!("0x{}", amount.hex), ToString::to_string);
        let value_type = amount.value_type.as_deref().unwrap_or("unknown");
        table.add_row([shown(&amount.name, 60), shown(value_type, 60), shown(&value, 60)]);
    }
    add(page, &table);
}

fn at_restart(batch: &BatchReport) -> &'static str {
    match batch.restart {
        Some(BatchAtRestart::Past) => "in its past",
        Some(BatchAtRestart::Replayed) => "replays it",
        Some(BatchAtRestart::Pending) => "computes it",
        Some(BatchAtRestart::Lost) => "cannot reach it",
        None => "would refuse",
    }
}

fn took(us: u64) -> String {
    if us < 10_000 { format!("{us} us") } else { format!("{} ms", us / 1_000) }
}
