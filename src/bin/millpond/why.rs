//! What touched a key.

use std::fmt::Write;

use millpond::inspect::{
    CauseReport, KeyAtCheckpoint, KeyChange, KeyReplayReport, RecordsReport, WhyBatch, WhyBlock, WhyChange,
    WhyInput, WhyReport,
};

use super::block::contents;
use super::{add, align_right, counted, facts, findings, row, shown, table, utc};

/// Where the state of a key comes from.
pub(crate) fn why(report: &WhyReport) -> String {
    let mut page = String::new();
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "state", &shown(&report.operator, 80));
    let key = report.key.as_ref().map_or(format!("0x{}", report.key_hex), ToString::to_string);
    row(&mut facts, "key", &format!("{}, of type {}", shown(&key, 80), shown(&report.key_type, 80)));
    add(&mut page, &facts);
    let mut checkpoints = table(&["checkpoint", "batch", "value", "newest entry"]);
    for found in &report.checkpoints {
        let numbers = [found.checkpoint, found.batch].map(|number| number.to_string());
        checkpoints.add_row(numbers.into_iter().chain([value_of(found), entry_of(found)]));
    }
    align_right(&mut checkpoints, &[0, 1]);
    add(&mut page, &checkpoints);
    report.changes.iter().for_each(|change| change_of(&mut page, change));
    if let Some(replayed) = &report.replayed {
        replayed_of(&mut page, replayed);
    }
    findings(&mut page, &report.findings);
    page
}

fn value_of(found: &KeyAtCheckpoint) -> String {
    let hex = found.value_hex.as_ref().map(|hex| format!("0x{hex}"));
    let text = found.value.as_ref().map(ToString::to_string).or(hex);
    text.map_or("none".to_owned(), |text| shown(&text, 80))
}

fn entry_of(found: &KeyAtCheckpoint) -> String {
    let Some(entry) = &found.entry else { return "none".to_owned() };
    let part = match (entry.base, entry.removed) {
        (true, _) => "base",
        (false, false) => "delta",
        (false, true) => "tombstone",
    };
    format!("{part} in {}.segment, by checkpoint {}", entry.segment, entry.written_by)
}

fn replayed_of(page: &mut String, replayed: &KeyReplayReport) {
    let from = match replayed.from {
        0 => "the beginning".to_owned(),
        from => format!("checkpoint {from}"),
    };
    let batches = counted(replayed.batches.len() as u64, "batch", "batches");
    let touched = counted(replayed.touches.len() as u64, "touches", "touch");
    let _ = writeln!(page, "\nthe job's code, {batches} computed again from {from}: {touched} the key");
    if !replayed.causes_known {
        page.push_str("Their input is not taken apart: it is not by this key, or comes from other state.\n");
    }
    let mut causes = table(&["batch", "batch time", "before", "after", "stream", "input", "records"]);
    let value = |value: &Option<serde_json::Value>, hex: &Option<String>| {
        let hex = hex.as_ref().map(|hex| format!("0x{hex}"));
        value.as_ref().map(ToString::to_string).or(hex).map_or("none".to_owned(), |text| shown(&text, 60))
    };
    for touch in &replayed.touches {
        let (before, after) =
            (value(&touch.before, &touch.before_hex), value(&touch.after, &touch.after_hex));
        let head = || [touch.batch.to_string(), utc(touch.time_ms), before.clone(), after.clone()];
        if touch.causes.is_empty() {
            causes.add_row(head());
        }
        for cause in &touch.causes {
            let tail = [shown(&cause.stream, 40), input_of(cause), records_of(cause)];
            causes.add_row(head().into_iter().chain(tail));
        }
    }
    align_right(&mut causes, &[0]);
    if !replayed.touches.is_empty() {
        add(page, &causes);
    }
    let mut records = table(&["block", "record", "has a part in it"]);
    let first = replayed.touches.iter().flat_map(|touch| &touch.causes);
    let first = first.flat_map(|cause| cause.first.iter().map(|found| (cause.block.unwrap_or(0), found)));
    let rows: Vec<[String; 3]> = first
        .map(|(block, found)| [block.to_string(), found.record.to_string(), contents(&found.contents)])
        .collect();
    if !rows.is_empty() {
        records.add_rows(rows);
        align_right(&mut records, &[0, 1]);
        add(page, &records);
    }
}

fn input_of(cause: &CauseReport) -> String {
    match (&cause.block, &cause.range) {
        (Some(block), _) => format!("block {block}"),
        (None, Some(range)) => {
            format!("{} from {} to {}", shown(&range.partition, 60), range.start, range.end)
        }
        (None, None) => String::new(),
    }
}

fn records_of(cause: &CauseReport) -> String {
    let run = |records: &RecordsReport| match records.first == records.last {
        true => records.first.to_string(),
        false => format!("{} to {} together", records.first, records.last),
    };
    let runs: Vec<String> = cause.records.iter().map(run).collect();
    format!("{}{}", runs.join(", "), if cause.more { ", ..." } else { "" })
}

fn change_of(page: &mut String, change: &KeyChange) {
    let what = match change.change {
        WhyChange::Added => "added",
        WhyChange::Removed => "removed",
        WhyChange::Changed => "changed",
        WhyChange::Written => "written",
        WhyChange::Unknown if change.to.is_none() => "in no checkpoint yet, perhaps written",
        WhyChange::Unknown => "perhaps written, with the value that it had,",
    };
    let batches = match change.first_batch {
        Some(first) if first >= change.last_batch => format!("batch {}", change.last_batch),
        Some(first) => format!("batches {first} to {}", change.last_batch),
        None => format!("batch {} or before", change.last_batch),
    };
    let _ = writeln!(page, "\n{what} in {batches}");
    match change.pruned {
        Some(0) => {}
        Some(pruned) => {
            let gone = counted(pruned, "of these batches has", "of these batches have");
            let _ = writeln!(page, "{gone} no plan in the catalog any more.");
        }
        None => page.push_str("Only batches whose plans are still in the catalog are shown.\n"),
    }
    let mut inputs = table(&["batch", "batch time", "stream", "reads", "records", "mention the key"]);
    for batch in &change.batches {
        for input in &batch.inputs {
            input_rows(&mut inputs, batch, input);
        }
    }
    align_right(&mut inputs, &[0, 4, 5]);
    if !change.batches.is_empty() {
        add(page, &inputs);
    }
    mentions(page, change);
}

fn input_rows(table: &mut comfy_table::Table, batch: &WhyBatch, input: &WhyInput) {
    let stream = input.name.as_ref().map_or(input.stream.clone(), |name| shown(name, 40));
    let head = || [batch.batch.to_string(), utc(batch.time_ms), stream.clone()];
    for block in &input.blocks {
        let reads = match &block.unreadable {
            None => format!("block {}", block.block),
            Some(why) => format!("block {}: {}", block.block, shown(why, 80)),
        };
        let count = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        table.add_row(head().into_iter().chain([reads, count(block.records), count(block.mentions)]));
    }
    for range in &input.ranges {
        let reads = format!("{} from {} to {}", shown(&range.partition, 60), range.start, range.end);
        table.add_row(head().into_iter().chain([reads, "-".to_owned(), "-".to_owned()]));
    }
}

fn mentions(page: &mut String, change: &KeyChange) {
    let blocks = || change.batches.iter().flat_map(|batch| &batch.inputs).flat_map(|input| &input.blocks);
    let mut records = table(&["block", "record", "mentions the key"]);
    let mut add_records = |block: &WhyBlock| {
        for found in &block.first {
            let numbers = [block.block, found.record].map(|number| number.to_string());
            records.add_row(numbers.into_iter().chain([contents(&found.contents)]));
        }
    };
    blocks().for_each(&mut add_records);
    align_right(&mut records, &[0, 1]);
    if blocks().any(|block| !block.first.is_empty()) {
        add(page, &records);
    }
}
