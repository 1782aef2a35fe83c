//! What a store holds, read without changing it: what the `millpond` command prints.
//!
//! The reader is read-only by construction: it opens nothing in the store for writing and neither takes nor
//! needs its lock, so that it works on what a killed job left behind and beside a running one. There it shows
//! what was durable last. It depends on the format and the store only, never on a job's code.
//!
//! # Wire format
//!
//! With `--json` the command writes one object to standard output:
//!
//! | verb | object | `sound` speaks of |
//! | --- | --- | --- |
//! | `inspect DIR` | [`StoreReport`] | what a restart needs |
//! | `verify DIR [--deep]` | [`VerifyReport`] | every byte, and with `--deep` that it fits together |
//! | `checkpoints DIR` | [`CheckpointsReport`] | the catalog and every retained checkpoint |
//! | `checkpoint DIR ID` | [`CheckpointDetail`] | the catalog and this checkpoint |
//! | `batches DIR [--last N]` | [`BatchesReport`] | the catalog and what choosing a checkpoint reads |
//! | `batch DIR ID` | [`BatchDetail`] | the same, and the batch's blocks if a restart may need them |
//! | `blocks DIR [--stream NAME]` | [`BlocksReport`] | the same as of `batches`, and the log |
//! | `block DIR ID [--raw]` | [`BlockDetail`] | this block; a damaged one is an error |
//! | `lineage DIR [--dot]` | [`LineageReport`] | the catalog |
//! | `growth DIR` | [`GrowthReport`] | the catalog and every retained checkpoint |
//! | `state DIR OPERATOR [--key K] [--prefix P] [--limit N] [--at ID]` | [`StateReport`] | the checkpoint; a damaged one is an error |
//! | `diff DIR A B [--operator NAME] [--limit N]` | [`DiffReport`] | both checkpoints; a damaged one is an error |
//! | `export DIR OPERATOR --format F --to FILE [--prefix P] [--at ID]` | [`ExportReport`] | the checkpoint; a damaged one is an error |
//! | `why DIR OPERATOR KEY [--limit N] [-- JOB ARGS]` | [`WhyReport`] | the catalog, every retained checkpoint, and needed blocks that were read |
//! | `copy DIR TO [--checkpoint ID]` | [`CopyReport`] | the copy; a damaged one is removed, and an error |
//! | `plan DIR [--timeout S] -- JOB ARGS` | [`PlanReport`] | whether the job would start |
//!
//! Keys and values of known types are JSON: numbers as numbers (beyond 64 bits, and floats that JSON has no number
//! for, as strings), text and bytes as strings (bytes that are no UTF-8 as `{"hex": "ff00"}`), tuples and lists as
//! arrays. Of keys, an option is `null` or an array of one; of values, `null` or what it holds. Their bytes are
//! beside them in hexadecimal digits.
//!
//! The fields of these types are the keys of the object, under the same names. What is absent is `null`, never left out. Times are
//! milliseconds since the Unix epoch, sizes are bytes, each with its unit in the name. Keys may be added
//! without notice; when one is removed or changes its meaning, [`SCHEMA`] is raised, which every object
//! carries as `schema`.
//!
//! ```json
//! {"schema": 1, "sound": false, "findings": [{"severity": "damage", "place": "state/3.segment",
//!  "what": "state/3.segment is missing", "remedy": "put the file back from a copy"}], "...": "..."}
//! ```
//!
//! The exit code is 0 when the store is sound, 1 when it is damaged, and 2 when it could not be read: no
//! store, no permission, a newer format version, nothing of the number or name that was asked for. In the last case, and when the store's identity is damaged,
//! there is one line on standard error; only `verify` has a report then, for a damaged identity.

mod ask;
mod batch;
mod batches;
mod block;
mod blocks;
mod catalog;
mod checkpoint;
mod checkpoints;
mod copy;
mod deep;
mod diff;
mod entries;
mod export;
mod export_csv;
mod export_json;
#[cfg(feature = "parquet")]
mod export_parquet;
mod export_table;
mod growth;
mod key_text;
#[cfg(test)]
mod layouts;
mod lineage;
mod log;
mod mentions;
mod open;
mod pins;
mod plan;
mod progress;
mod report;
mod settle;
mod state;
mod summary;
mod value_archive;
mod verify;
mod view;
mod why;
mod why_input;
mod why_replay;

pub use crate::format::question::{DamagedCheckpoint, OperatorPlan, SettingPlan, StartPlan, StreamPlan};
pub use ask::JobCommand;
pub use batch::{AmountReport, BatchDetail, BlockPlace, InputReport, RangeReport, batch};
pub use batches::{BatchAtRestart, BatchReport, BatchesReport, batches};
pub use block::{BlockDetail, RecordReport, block, block_bytes};
pub use blocks::{BlockReport, BlocksReport, blocks};
pub use checkpoint::{CheckpointDetail, ReplayReport, SegmentPart, SegmentReport, checkpoint};
pub use checkpoints::checkpoints;
pub use copy::{CopyReport, copy};
pub use diff::{Change, DiffReport, KeyDiff, OperatorDiff, diff};
pub use entries::{EntryReport, StateQuery, StateReport, state};
pub use export::{ExportFormat, ExportQuery, ExportReport, export, export_file};
pub use growth::{GrowthReport, SizeReport, growth};
pub(crate) use key_text::parse_key;
pub use lineage::{LineageNodeReport, LineageReport, lineage};
pub(crate) use open::{ReadStore, open};
pub use pins::checkpoint_number;
pub use plan::{PlanReport, plan};
pub use progress::{Progress, watched};
pub use report::{
    AgeReport, CheckpointReport, CheckpointsReport, DeepReport, DiskReport, Finding, LostBatches,
    OperatorReport, PendingReport, PositionsReport, PredictedRestart, RestartReport, RunReport, SCHEMA,
    Severity, StoreReport, VerifyReport, WalkedBack,
};
pub(crate) use settle::settled_by;
pub use summary::inspect;
pub(crate) use value_archive::shortened;
pub use verify::{verify, verify_deep};
pub use why::{EntryPlace, KeyAtCheckpoint, KeyChange, WhyChange, WhyReport, why};
pub use why_input::{MentionReport, WhyBatch, WhyBlock, WhyInput};
pub use why_replay::{CauseReport, KeyReplayReport, RecordsReport, TouchReport};

/// Shows bytes as a key and as a value of types by their names. What a key is shown as leads back to it.
#[cfg(fuzzing)]
pub(crate) fn show(key_type: &str, value_type: &str, schema: &str, bytes: &[u8]) {
    if let Some(shown) = crate::format::shown::KeyShape::of(key_type).and_then(|shape| shape.decode(bytes)) {
        let text = shown.as_str().map_or_else(|| shown.to_string(), str::to_owned);
        let text = if key_type == "()" { "()".to_owned() } else { text };
        let again = key_text::parse_key(key_type, &text).ok();
        assert!(
            (shown.is_string() && (text.starts_with("0x") || text.contains("\"hex\"")))
                || again.as_deref() == Some(bytes),
            "`{text}` is another key: {again:?}"
        );
    }
    if let Some(value_type) = crate::format::shown::ValueType::of(value_type, schema) {
        // Its text is written too: nothing may take more than a multiple of what there is.
        let text = value_type.decode(bytes).map_or(0, |value| value.to_string().len());
        assert!(text <= 64 * bytes.len() + 4_096, "{text} bytes from {}", bytes.len());
    }
}
