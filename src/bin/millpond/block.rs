//! Received blocks.

use millpond::inspect::{BlockDetail, BlockReport, BlocksReport, RecordReport};

use super::{add, align_right, bytes, facts, findings, row, shown, table};

/// The blocks in the log of a store.
pub(crate) fn blocks(report: &BlocksReport) -> String {
    let mut page = format!("job {} in {}\n", shown(&report.job, 80), report.directory);
    let mut table = table(&["block", "stream", "extent", "offset", "bytes", "encoding", "records", "batch"]);
    for block in &report.blocks {
        let numbers = [block.block, block.extent, block.offset, block.bytes].map(|number| number.to_string());
        table.add_row([
            numbers[0].clone(),
            stream_of(block),
            numbers[1].clone(),
            numbers[2].clone(),
            numbers[3].clone(),
            block.encoding.to_owned(),
            block.records.map_or("-".to_owned(), |records| records.to_string()),
            batch_of(block),
        ]);
    }
    align_right(&mut table, &[0, 2, 3, 4, 6]);
    add(&mut page, &table);
    findings(&mut page, &report.findings);
    page
}

/// One block.
pub(crate) fn block(report: &BlockDetail) -> String {
    let mut page = String::new();
    let mut facts = facts();
    let block = &report.block;
    row(&mut facts, "job", &shown(&report.job, 80));
    row(&mut facts, "store", &report.directory);
    row(&mut facts, "block", &block.block.to_string());
    row(&mut facts, "stream", &stream_of(block));
    row(&mut facts, "batch", &batch_of(block));
    let place = format!("log/{}.extent at byte {}, {}", block.extent, block.offset, bytes(block.bytes));
    row(&mut facts, "place", &format!("{place}, CRC {}", report.crc));
    let record_type = report.record_type.as_deref().unwrap_or("an unknown type");
    let count = block.records.unwrap_or(0);
    row(&mut facts, "records", &format!("{count} as {}, of {}", block.encoding, shown(record_type, 80)));
    add(&mut page, &facts);
    let mut first = table(&["record", "bytes", "contents"]);
    for (at, record) in report.first.iter().enumerate() {
        first.add_row([(at + 1).to_string(), record.bytes.to_string(), contents(record)]);
    }
    align_right(&mut first, &[0, 1]);
    if !report.first.is_empty() {
        add(&mut page, &first);
    }
    findings(&mut page, &report.findings);
    page
}

pub(super) fn contents(record: &RecordReport) -> String {
    let hex = record.hex.as_ref().map(|hex| format!("0x{hex}"));
    let value = record.value.as_ref().map(ToString::to_string);
    shown(&record.text.clone().or(value).or(hex).unwrap_or_default(), 100)
}

fn stream_of(block: &BlockReport) -> String {
    block.name.as_ref().map_or(block.stream.clone(), |name| shown(name, 40))
}

fn batch_of(block: &BlockReport) -> String {
    match (block.batch, block.pending) {
        (Some(batch), _) => batch.to_string(),
        (None, true) => "pending".to_owned(),
        (None, false) => "an older one".to_owned(),
    }
}
