//! Checkpointed state.

use std::fmt::Write;

use millpond::inspect::{
    Change, CheckpointDetail, DiffReport, GrowthReport, KeyDiff, SegmentReport, StateReport,
};

use super::{add, align_right, bytes, counted, facts, findings, row, shown, table, utc};

/// One checkpoint.
pub(crate) fn checkpoint(report: &CheckpointDetail) -> String {
    let mut page = String::new();
    let mut facts = facts();
    let checkpoint = &report.checkpoint;
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "checkpoint", &format!("{} in epoch {}", checkpoint.checkpoint, checkpoint.epoch));
    let past = format!("batch {} of {}", checkpoint.batch, utc(checkpoint.time_ms));
    row(&mut facts, "holds", &format!("{past}, blocks below {}", report.next_block));
    let sizes =
        [counted(checkpoint.keys, "key", "keys"), counted(checkpoint.segments, "segment", "segments")];
    row(&mut facts, "", &format!("{}, {}, {}", sizes[0], sizes[1], bytes(checkpoint.bytes)));
    let replay = &report.replay;
    let restart = match (replay.from, replay.to) {
        (Some(from), Some(to)) => {
            let batches = counted(replay.batches, "batch", "batches");
            format!("from it replays {batches} ({from} to {to}), {} of them done already", replay.done)
        }
        _ => "from it replays nothing".to_owned(),
    };
    row(&mut facts, "a restart", &restart);
    row(&mut facts, "health", checkpoint.damage.as_deref().unwrap_or("sound"));
    add(&mut page, &facts);
    operators(&mut page, report);
    segments(&mut page, &report.segments);
    findings(&mut page, &report.findings);
    page
}

fn operators(page: &mut String, report: &CheckpointDetail) {
    let mut table = table(&["state", "keys", "key type", "value type", "base", "deltas"]);
    for operator in &report.operators {
        table.add_row([
            shown(&operator.name, 60),
            operator.keys.to_string(),
            shown(&operator.key_type, 60),
            shown(&operator.value_type, 80),
            bytes(operator.base_bytes),
            bytes(operator.delta_bytes),
        ]);
    }
    for source in &report.positions {
        let name = format!("positions of {}", shown(&source.source, 60));
        let (keys, size) = (source.partitions.to_string(), bytes(source.bytes));
        table.add_row([name, keys, "utf8".to_owned(), "position".to_owned(), size, String::new()]);
    }
    align_right(&mut table, &[1, 4, 5]);
    add(page, &table);
}

fn segments(page: &mut String, segments: &[SegmentReport]) {
    let mut table =
        table(&["segment", "file", "state", "entries", "bytes", "base groups", "delta groups", "health"]);
    for segment in segments {
        let health = segment.damage.as_deref().unwrap_or("sound");
        let file = [format!("{}.segment", segment.segment), bytes(segment.bytes)];
        if segment.parts.is_empty() {
            table.add_row([&file[0], &file[1], "", "", "", "", "", health]);
        }
        for part in &segment.parts {
            table.add_row([
                &file[0],
                &file[1],
                &shown(&part.operator, 60),
                &part.entries.to_string(),
                &bytes(part.bytes),
                &spans(&part.base),
                &spans(&part.delta),
                health,
            ]);
        }
    }
    align_right(&mut table, &[1, 3, 4]);
    add(page, &table);
}

/// Key groups as `0-3, 7`, and only how many where that is long.
fn spans(groups: &[u16]) -> String {
    let mut sorted = groups.to_vec();
    sorted.sort_unstable();
    let mut spans: Vec<String> = Vec::new();
    for span in sorted.chunk_by(|a, b| a.checked_add(1) == Some(*b)) {
        match span {
            [only] => spans.push(only.to_string()),
            [first, .., last] => spans.push(format!("{first}-{last}")),
            [] => {}
        }
    }
    if spans.len() > 4 { format!("{} of 256", groups.len()) } else { spans.join(", ") }
}

/// State over time.
pub(crate) fn growth(report: &GrowthReport) -> String {
    let mut page = format!("job {} in {}\n", shown(&report.job, 80), report.directory);
    let mut table =
        table(&["state", "checkpoint", "batch", "keys", "live", "stored", "dead entries", "parts"]);
    for size in &report.sizes {
        let numbers = [size.checkpoint, size.batch, size.keys].map(|number| number.to_string());
        let sizes = [size.live_bytes, size.stored_bytes].map(bytes);
        let rest = [size.dead_entries, size.parts_max].map(|number| number.to_string());
        table.add_row([shown(&size.operator, 60)].iter().chain(&numbers).chain(&sizes).chain(&rest));
    }
    align_right(&mut table, &[1, 2, 3, 4, 5, 6, 7]);
    add(&mut page, &table);
    findings(&mut page, &report.findings);
    page
}

/// Keys and values.
pub(crate) fn state(report: &StateReport) -> String {
    let mut page = String::new();
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "state", &shown(&report.operator, 80));
    row(&mut facts, "checkpoint", &format!("{}, after batch {}", report.checkpoint, report.batch));
    let unknown = |known: bool| if known { "" } else { " (the job's own: shown as bytes)" };
    let types = [
        format!("{}{}", shown(&report.key_type, 80), unknown(report.key_type_known)),
        format!("{}{}", shown(&report.value_type, 80), unknown(report.value_type_known)),
    ];
    row(&mut facts, "key type", &types[0]);
    row(&mut facts, "value type", &types[1]);
    let counts =
        format!("{} in all, {} asked for, {} shown", report.keys, report.matched, report.entries.len());
    row(&mut facts, "keys", &counts);
    add(&mut page, &facts);
    let mut entries = table(&["key", "value"]);
    for entry in &report.entries {
        let key = entry.key.as_ref().map_or(format!("0x{}", entry.key_hex), ToString::to_string);
        let value = entry.value.as_ref().map_or(format!("0x{}", entry.value_hex), ToString::to_string);
        entries.add_row([shown(&key, 60), shown(&value, 100)]);
    }
    if !report.entries.is_empty() {
        add(&mut page, &entries);
    }
    findings(&mut page, &report.findings);
    page
}

/// The difference between two checkpoints.
pub(crate) fn diff(report: &DiffReport) -> String {
    let mut page = format!("job {} in {}\n", shown(&report.job, 80), report.directory);
    let sides = [(report.from, report.from_batch), (report.to, report.to_batch)];
    let [from, to] =
        sides.map(|(checkpoint, batch)| format!("checkpoint {checkpoint} (after batch {batch})"));
    let _ = writeln!(page, "from {from} to {to}");
    let mut counts = table(&["state", "added", "removed", "changed"]);
    for operator in &report.operators {
        let numbers = [operator.added, operator.removed, operator.changed].map(|number| number.to_string());
        counts.add_row([shown(&operator.operator, 60)].iter().chain(&numbers));
    }
    align_right(&mut counts, &[1, 2, 3]);
    add(&mut page, &counts);
    for operator in report.operators.iter().filter(|operator| !operator.keys.is_empty()) {
        let mut keys = table(&[&shown(&operator.operator, 60), "key", "before", "after"]);
        for key in &operator.keys {
            keys.add_row(key_row(key));
        }
        add(&mut page, &keys);
    }
    findings(&mut page, &report.findings);
    page
}

fn key_row(diff: &KeyDiff) -> [String; 4] {
    let value = |value: &Option<serde_json::Value>, hex: &Option<String>| {
        let bytes = hex.as_ref().map(|hex| format!("0x{hex}"));
        let text = value.as_ref().map(ToString::to_string).or(bytes);
        shown(&text.unwrap_or_default(), 60)
    };
    let change = match diff.change {
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed => "changed",
    };
    let key = diff.key.as_ref().map_or(format!("0x{}", diff.key_hex), ToString::to_string);
    let before = value(&diff.before, &diff.before_hex);
    [change.to_owned(), shown(&key, 60), before, value(&diff.after, &diff.after_hex)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_shown_as_spans() {
        assert_eq!(spans(&[3, 0, 1, 2, 7]), "0-3, 7");
        assert_eq!(spans(&[]), "");
        assert_eq!(spans(&[0, 2, 4, 6, 8]), "5 of 256");
        assert_eq!(spans(&[0, u16::MAX]), "0, 65535");
    }
}
