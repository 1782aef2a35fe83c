//! The reports as pages for people.

pub(crate) mod batch;
pub(crate) mod block;
pub(crate) mod job;
#[path = "maintain_pages.rs"]
pub(crate) mod maintain;
pub(crate) mod state;

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};
use millpond::inspect::{
    CheckpointReport, CheckpointsReport, Finding, RestartReport, StoreReport, VerifyReport,
};

/// The summary of a store.
pub(crate) fn store(report: &StoreReport) -> String {
    let mut page = String::new();
    let mut facts = facts();
    row(&mut facts, "job", &report.job);
    row(&mut facts, "store", &format!("{} ({})", report.directory, report.store));
    row(&mut facts, "format version", &report.format_version.to_string());
    row(&mut facts, "last durable", &last_durable(report.last_durable_record, report.last_planned_batch));
    if let Some(run) = &report.run {
        let started = format!("{} by millpond {}", utc(run.started_ms), run.version);
        row(&mut facts, "newest run", &started);
        let settings = format!(
            "a batch every {} ms, a checkpoint every {}; {} partitions, {}",
            run.batch_interval_ms,
            counted(run.checkpoint_every_batches, "batch", "batches"),
            run.partitions,
            counted(run.threads.into(), "thread", "threads"),
        );
        row(&mut facts, "", &settings);
    }
    restart_rows(&mut facts, &report.restart);
    let pending = &report.pending;
    let blocks = counted(pending.blocks, "block", "blocks");
    row(&mut facts, "pending", &format!("{blocks}, {}", bytes(pending.bytes)));
    let disk = &report.disk;
    let sizes = [disk.catalog_bytes, disk.log_bytes, disk.state_bytes].map(bytes);
    row(&mut facts, "on disk", &format!("catalog {}, log {}, state {}", sizes[0], sizes[1], sizes[2]));
    row(&mut facts, "health", &health(report.sound, &report.findings));
    add(&mut page, &facts);
    operators(&mut page, report);
    positions(&mut page, report);
    findings(&mut page, &report.findings);
    page
}

fn operators(page: &mut String, report: &StoreReport) {
    if report.operators.is_empty() {
        return;
    }
    let mut table = table(&["state", "keys", "key type", "value type", "base", "deltas"]);
    for operator in &report.operators {
        let sizes = [operator.base_bytes, operator.delta_bytes].map(bytes);
        table.add_row([
            &operator.name,
            &operator.keys.to_string(),
            &operator.key_type,
            &operator.value_type,
            &sizes[0],
            &sizes[1],
        ]);
    }
    align_right(&mut table, &[1, 4, 5]);
    add(page, &table);
}

fn positions(page: &mut String, report: &StoreReport) {
    if report.positions.is_empty() {
        return;
    }
    let mut table = table(&["positions of source", "partitions", "bytes"]);
    for source in &report.positions {
        table.add_row([&source.source, &source.partitions.to_string(), &bytes(source.bytes)]);
    }
    align_right(&mut table, &[1, 2]);
    add(page, &table);
}

/// The checkpoints of a store.
pub(crate) fn checkpoints(report: &CheckpointsReport) -> String {
    let mut page = format!("job {} in {}\n", report.job, report.directory);
    let _ = writeln!(page, "last durable: record {}", report.last_durable_record);
    let mut table = table(&[
        "checkpoint",
        "epoch",
        "batch",
        "batch time",
        "keys",
        "segments",
        "bytes",
        "pinned",
        "health",
    ]);
    for checkpoint in &report.checkpoints {
        let CheckpointReport { checkpoint, epoch, batch, time_ms, keys, segments, bytes: size, pins, damage } =
            checkpoint;
        let numbers = [checkpoint, epoch, batch, keys, segments].map(u64::to_string);
        table.add_row([
            &numbers[0],
            &numbers[1],
            &numbers[2],
            &utc(*time_ms),
            &numbers[3],
            &numbers[4],
            &bytes(*size),
            &pins.join(", "),
            damage.as_deref().unwrap_or("sound"),
        ]);
    }
    align_right(&mut table, &[0, 1, 2, 4, 5, 6]);
    add(&mut page, &table);
    if report.pruned > 0 {
        let pruned = counted(report.pruned, "older one is", "older ones are");
        let _ = writeln!(page, "{pruned} in the catalog without their state, which was pruned.");
    }
    findings(&mut page, &report.findings);
    page
}

/// The outcome of a verification.
pub(crate) fn verification(report: &VerifyReport) -> String {
    let mut page = String::new();
    let mut facts = facts();
    row(&mut facts, "job", report.job.as_deref().unwrap_or("unknown"));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "last durable", &last_durable(report.last_durable_record, None));
    let checked = format!(
        "{}, {}, {}",
        counted(report.epochs, "epoch", "epochs"),
        counted(report.checkpoints, "checkpoint", "checkpoints"),
        counted(report.segments, "segment", "segments"),
    );
    row(&mut facts, "checked", &checked);
    let log = format!(
        "{}, {} ({} in plans that may be replayed)",
        counted(report.extents, "extent", "extents"),
        counted(report.blocks, "block", "blocks"),
        report.planned_blocks,
    );
    row(&mut facts, "", &log);
    if let Some(restart) = &report.restart {
        restart_rows(&mut facts, restart);
    }
    row(&mut facts, "health", &health(report.sound, &report.findings));
    add(&mut page, &facts);
    findings(&mut page, &report.findings);
    page
}

fn restart_rows(facts: &mut Table, restart: &RestartReport) {
    match (&restart.refused, &restart.checkpoint) {
        (Some(why), _) => row(facts, "a restart", &format!("would refuse to start: {why}")),
        (None, Some(checkpoint)) => {
            let CheckpointReport { checkpoint, batch, time_ms, .. } = checkpoint;
            let from = format!("begins at checkpoint {checkpoint}: batch {batch} of {}", utc(*time_ms));
            row(facts, "a restart", &from);
        }
        (None, None) => row(facts, "a restart", "begins with empty state: there is no checkpoint yet"),
    }
    for passed in &restart.walked_back {
        row(facts, "", &format!("passes over checkpoint {}: {}", passed.checkpoint, passed.why));
    }
    if restart.refused.is_some() {
        return;
    }
    let replay = match (restart.replay_from, restart.replay_to) {
        (Some(from), Some(to)) => format!(
            "replays {} ({from} to {to}), {} of them done already",
            counted(restart.replayed_batches, "batch", "batches"),
            restart.replayed_done,
        ),
        _ => "replays nothing".to_owned(),
    };
    row(facts, "", &format!("{replay}; the next is batch {}", restart.next_batch));
}

fn health(sound: bool, findings: &[Finding]) -> String {
    let damage: Vec<&Finding> = findings.iter().filter(|finding| finding.is_damage()).collect();
    match damage[..] {
        _ if sound => "sound".to_owned(),
        [] => "damaged".to_owned(),
        [only] => format!("damaged: {}", only.place),
        [first, ..] => format!("damaged: {} and {} more", first.place, damage.len() - 1),
    }
}

fn findings(page: &mut String, findings: &[Finding]) {
    if findings.is_empty() {
        return;
    }
    let mut table = table(&["finding", "where", "what", "what to do"]);
    for finding in findings {
        let severity = if finding.is_damage() { "damage" } else { "note" };
        table.add_row([severity, &finding.place, &finding.what, &finding.remedy]);
    }
    add(page, &table);
}

fn last_durable(record: u64, batch: Option<u64>) -> String {
    let batch = batch.map_or(String::new(), |batch| format!(", batch {batch} planned"));
    format!("record {record} of the catalog{batch}; a running job may be further")
}

fn facts() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_header(header);
    table
}

fn row(table: &mut Table, name: &str, value: &str) {
    table.add_row([name, value]);
}

fn align_right(table: &mut Table, columns: &[usize]) {
    for column in columns {
        if let Some(column) = table.column_mut(*column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

fn add(page: &mut String, table: &Table) {
    if !page.is_empty() {
        page.push('\n');
    }
    for line in table.lines() {
        page.push_str(line.trim_end());
        page.push('\n');
    }
}

/// Stored text on one line and in a column: control characters are escaped, what is too long is cut.
fn shown(text: &str, most: usize) -> String {
    let mut line = String::new();
    let mut left = most;
    for c in text.chars() {
        if left == 0 {
            return line + "...";
        }
        left -= 1;
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn bytes(count: u64) -> String {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(size, _)| count >= *size);
    unit.map_or(format!("{count} B"), |(size, name)| format!("{:.1} {name}", count as f64 / size as f64))
}

/// A time as `2026-01-31 23:59:59.999 UTC`.
fn utc(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (of_day / 3_600_000, of_day / 60_000 % 60, of_day / 1_000 % 60);
    let ms = of_day % 1_000;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03} UTC")
}

/// The Gregorian date of a day counted from 1970-01-01. Years are taken to begin in March, so that the leap
/// day is their last (H. Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_shown_as_people_write_them() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000 UTC");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00.000 UTC");
        assert_eq!(utc(1_735_689_599_999), "2024-12-31 23:59:59.999 UTC");
        assert_eq!(bytes(1_023), "1023 B");
        assert_eq!(bytes(1_536), "1.5 KiB");
    }

    #[test]
    fn stored_text_stays_on_its_line() {
        assert_eq!(shown("a\u{1b}[31m\tb", 40), r"a\u{1b}[31m\tb");
        assert_eq!(shown("abcdef", 3), "abc...");
        assert_eq!(shown("abc", 3), "abc");
    }
}
