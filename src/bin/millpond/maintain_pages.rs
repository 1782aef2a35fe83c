//! What the verbs that write did, or would do.

use millpond::maintenance::{
    BatchSpan, EditReport, ImportReport, PinReport, PruneReport, RepairReport, RollbackReport, UnpinReport,
};

use super::{add, align_right, bytes, counted, facts, row, shown, table, utc};

/// A checkpoint that was given a name.
pub(crate) fn pin(report: &PinReport) -> String {
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    let already = if report.was_pinned { ", which it has already" } else { "" };
    row(&mut facts, "pin", &format!("{}{already}", report.pin));
    let (number, batch, time) = (report.checkpoint, report.batch, utc(report.time_ms));
    row(&mut facts, "checkpoint", &format!("{number}, after batch {batch} of {time}"));
    let segments = counted(report.segments, "segment", "segments");
    row(&mut facts, "keeps", &format!("{segments}, {}", bytes(report.bytes)));
    page_of(&facts)
}

/// A name that was taken from a checkpoint.
pub(crate) fn unpin(report: &UnpinReport) -> String {
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "pin", &report.pin);
    let checkpoint = report.checkpoint.map_or("unknown: the pin is damaged".to_owned(), |id| id.to_string());
    row(&mut facts, "checkpoint", &checkpoint);
    let freed = format!("{}, by the next clean-up or `prune`", bytes(report.freed_later_bytes));
    row(&mut facts, "frees", &freed);
    page_of(&facts)
}

/// A job that was put back to a checkpoint.
pub(crate) fn rollback(report: &RollbackReport) -> String {
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    let (number, batch) = (report.checkpoint, report.batch);
    row(&mut facts, "back to", &format!("checkpoint {number}, after batch {batch}"));
    row(&mut facts, "becomes", &format!("checkpoint {}", report.becomes));
    let dropped: Vec<String> = report.dropped.iter().map(u64::to_string).collect();
    let dropped = if dropped.is_empty() { "none".to_owned() } else { dropped.join(", ") };
    row(&mut facts, "dropped", &format!("{dropped} (gone after the job's next checkpoint, unless pinned)"));
    let replay = report.replay.map_or("no batch again".to_owned(), |span| {
        format!(
            "batches {} again, {} of them done: not emitted again",
            shown_span(span),
            report.replayed_done
        )
    });
    row(&mut facts, "a restart", &format!("computes {replay}"));
    if let Some(lost) = report.lost {
        let lost = format!("batches {}: their plans or blocks are gone", shown_span(lost));
        row(&mut facts, "lost", &lost);
        if !report.done {
            row(&mut facts, "", "takes --lose-batches");
        }
    }
    page_of(&facts)
}

/// What was removed.
pub(crate) fn prune(report: &PruneReport) -> String {
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    let kept: Vec<String> = report.kept.iter().map(u64::to_string).collect();
    let kept = if kept.is_empty() { "none yet".to_owned() } else { kept.join(", ") };
    row(&mut facts, "checkpoints", &format!("{kept} stay, and pinned ones"));
    row(&mut facts, "freed", &bytes(report.freed_bytes));
    let mut page = page_of(&facts);
    if !report.removed.is_empty() {
        let mut removed = table(&["removed", "bytes", "why"]);
        for removal in &report.removed {
            removed.add_row([&removal.place, &bytes(removal.bytes), &removal.why]);
        }
        align_right(&mut removed, &[1]);
        add(&mut page, &removed);
    }
    page
}

fn shown_span(span: BatchSpan) -> String {
    format!("{} to {}", span.from, span.to)
}

fn page_of(facts: &comfy_table::Table) -> String {
    let mut page = String::new();
    add(&mut page, facts);
    page
}

/// A store that was repaired.
pub(crate) fn repair(report: &RepairReport) -> String {
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    if !report.was_damaged {
        row(&mut facts, "health", "sound: there is nothing to repair");
    }
    if let Some(checkpoint) = report.checkpoint {
        row(&mut facts, "a restart", &format!("begins with checkpoint {checkpoint}"));
    }
    let lists = [("step", &report.steps), ("lost", &report.lost), ("quarantined", &report.quarantined)];
    for (what, lines) in lists {
        lines.iter().for_each(|line| row(&mut facts, what, &shown(line, 200)));
    }
    page_of(&facts)
}

/// A key whose value was changed.
pub(crate) fn edit(report: &EditReport) -> String {
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "state", &shown(&report.operator, 80));
    let key = report.key.as_ref().map_or(format!("0x{}", report.key_hex), ToString::to_string);
    row(&mut facts, "key", &shown(&key, 100));
    let value = |value: &Option<serde_json::Value>, none: &str| {
        value.as_ref().map_or(none.to_owned(), |value| shown(&value.to_string(), 200))
    };
    row(&mut facts, "before", &value(&report.before, "not there"));
    row(&mut facts, "after", &value(&report.after, "removed"));
    successor(
        &mut facts,
        (report.checkpoint, report.batch),
        report.becomes,
        report.replay,
        report.replayed_done,
    );
    page_of(&facts)
}

/// Keys and values that were read from a file.
pub(crate) fn import(report: &ImportReport) -> String {
    let mut facts = facts();
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "state", &shown(&report.operator, 80));
    row(&mut facts, "file", &format!("{}, {}", report.file, counted(report.lines, "line", "lines")));
    let ImportReport { added, changed, unchanged, keys, .. } = report;
    let counts = format!("{added} added, {changed} changed, {unchanged} as they are: {keys} in all");
    row(&mut facts, "keys", &counts);
    successor(
        &mut facts,
        (report.checkpoint, report.batch),
        report.becomes,
        report.replay,
        report.replayed_done,
    );
    page_of(&facts)
}

/// The checkpoint with a change, and what a restart makes of it.
fn successor(
    facts: &mut comfy_table::Table,
    (checkpoint, batch): (u64, u64),
    becomes: Option<u64>,
    replay: Option<BatchSpan>,
    done: u64,
) {
    row(facts, "in", &format!("checkpoint {checkpoint}, after batch {batch}, which stays"));
    let Some(becomes) = becomes else { return row(facts, "becomes", "nothing: it is so already") };
    row(facts, "becomes", &format!("checkpoint {becomes}"));
    let replay = replay.map_or("computes no batch again".to_owned(), |span| {
        format!(
            "computes batches {} again on top, {done} of them done: what they emitted stays as it was",
            shown_span(span)
        )
    });
    row(facts, "a restart", &replay);
}
