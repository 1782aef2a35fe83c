//! The job as a whole.

use millpond::inspect::{CopyReport, ExportReport, LineageReport};

use super::{add, align_right, bytes, counted, facts, findings, row, shown, table, utc};

/// The lineage of the last run.
pub(crate) fn lineage(report: &LineageReport) -> String {
    let mut page = String::new();
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    let started = format!("{} by millpond {}", utc(report.started_ms), shown(&report.version, 40));
    row(&mut facts, "last run", &started);
    row(&mut facts, "fingerprint", &report.fingerprint);
    add(&mut page, &facts);
    let mut nodes = table(&["node", "operation", "name", "reads", "dependency", "record type"]);
    for node in &report.nodes {
        let parents: Vec<String> = node.parents.iter().map(u32::to_string).collect();
        let dependency = match (node.parents.is_empty(), node.wide) {
            (true, _) => "input",
            (false, true) => "wide",
            (false, false) => "narrow",
        };
        nodes.add_row([
            node.id.to_string(),
            shown(&node.operation, 60),
            node.name.as_ref().map_or(String::new(), |name| shown(name, 60)),
            shown(&parents.join(", "), 60),
            dependency.to_owned(),
            shown(&node.record_type, 100),
        ]);
    }
    align_right(&mut nodes, &[0]);
    add(&mut page, &nodes);
    findings(&mut page, &report.findings);
    page
}

/// A copy that was made.
pub(crate) fn copy(report: &CopyReport) -> String {
    let mut page = String::new();
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "copy", &report.copy);
    let checkpoints: Vec<String> = report.checkpoints.iter().map(u64::to_string).collect();
    let checkpoints = if checkpoints.is_empty() { "none yet".to_owned() } else { checkpoints.join(", ") };
    row(&mut facts, "checkpoints", &checkpoints);
    let after = [counted(report.batches, "batch", "batches"), counted(report.blocks, "block", "blocks")];
    row(&mut facts, "after them", &format!("{}, {}", after[0], after[1]));
    row(&mut facts, "on disk", &bytes(report.bytes));
    row(&mut facts, "health", "sound: every byte of the copy was read back");
    add(&mut page, &facts);
    findings(&mut page, &report.findings);
    page
}

/// State that was exported to a file.
pub(crate) fn export(report: &ExportReport) -> String {
    let mut page = String::new();
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "state", &shown(&report.operator, 80));
    row(&mut facts, "checkpoint", &format!("{}, after batch {}", report.checkpoint, report.batch));
    row(&mut facts, "exported", &format!("{} of {} keys", report.exported, report.keys));
    row(&mut facts, "file", report.file.as_deref().unwrap_or("-"));
    add(&mut page, &facts);
    page
}
