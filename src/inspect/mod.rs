//! What a store holds, read without changing it: what the `millpond` command prints.
//!
//! The reader is read-only by construction: it opens nothing in the store for writing and neither takes nor
//! needs its lock, so that it works on what a killed job left behind and beside a running one. There it shows
//! what was durable last. It depends on the format and the store only, never on a job's code.
//!
//! # Wire format
//!
//! With `--json` the command writes one object to standard output: [`StoreReport`] for `inspect`,
//! [`CheckpointsReport`] for `checkpoints`, [`VerifyReport`] for `verify`. The fields of these types are the
//! keys of the object, under the same names. What is absent is `null`, never left out. Times are
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
//! store, no permission, a newer format version. In the last case, and when the store's identity is damaged,
//! there is one line on standard error; only `verify` has a report then, for a damaged identity.

mod batch;
mod batches;
mod block;
mod blocks;
mod catalog;
mod checkpoint;
mod checkpoints;
mod copy;
mod diff;
mod entries;
mod growth;
mod key_text;
mod lineage;
mod log;
mod open;
mod report;
mod settle;
mod state;
mod summary;
mod value_json;
mod verify;
mod view;

pub use batch::{AmountReport, BatchDetail, BlockPlace, InputReport, RangeReport, batch};
pub use batches::{BatchAtRestart, BatchReport, BatchesReport, batches};
pub use block::{BlockDetail, RecordReport, block, block_bytes};
pub use blocks::{BlockReport, BlocksReport, blocks};
pub use checkpoint::{CheckpointDetail, ReplayReport, SegmentPart, SegmentReport, checkpoint};
pub use checkpoints::checkpoints;
pub use copy::{CopyReport, copy};
pub use diff::{Change, DiffReport, KeyDiff, OperatorDiff, diff};
pub use entries::{EntryReport, StateQuery, StateReport, state};
pub use growth::{GrowthReport, SizeReport, growth};
pub use lineage::{LineageNodeReport, LineageReport, lineage};
pub use report::{
    CheckpointReport, CheckpointsReport, DiskReport, Finding, LostBatches, OperatorReport, PendingReport,
    PositionsReport, RestartReport, RunReport, SCHEMA, Severity, StoreReport, VerifyReport, WalkedBack,
};
pub use summary::inspect;
pub use verify::verify;
