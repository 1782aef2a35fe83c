//! What the code of a job says about a key, with the records that it names.

use serde::Serialize;
use serde_json::Value;

use crate::error::Result;
use crate::format::question::{KeyReplay, ReplayedCause, ReplayedPlace, ReplayedTouch};
use crate::format::shown::ValueType;
use crate::format::shown::hex;
use crate::inspect::batch::RangeReport;
use crate::inspect::why_input::{InputReader, MentionReport};

/// What touched a key when the retained batches were computed again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyReplayReport {
    /// The checkpoint that was begun at, 0 for the beginning of the store.
    pub from: u64,
    /// The batches that were computed again.
    pub batches: Vec<u64>,
    /// Whether the causes are told: not where the operator's input is not by its key, as that of a window, or comes from
    /// another operator that keeps state.
    pub causes_known: bool,
    /// The batches that gave the operator something for the key, or changed its state, in order.
    pub touches: Vec<TouchReport>,
}

/// A batch that touched a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TouchReport {
    /// Its number.
    pub batch: u64,
    /// Its time.
    pub time_ms: u64,
    /// The value before it; `null` when there is none or its type cannot be known without the job.
    pub before: Option<Value>,
    /// Its bytes in hexadecimal digits.
    pub before_hex: Option<String>,
    /// The value after it; `null` when there is none or its type cannot be known without the job.
    pub after: Option<Value>,
    /// Its bytes in hexadecimal digits.
    pub after_hex: Option<String>,
    /// The input that had a part in it; none for a change that came with time.
    pub causes: Vec<CauseReport>,
}

/// Input that had a part in what became of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CauseReport {
    /// The input stream.
    pub stream: String,
    /// The received block, `null` for a range.
    pub block: Option<u64>,
    /// Which of the block's records, at most 16 runs of them.
    pub records: Vec<RecordsReport>,
    /// Whether there are more.
    pub more: bool,
    /// The first of these records, as many as asked for.
    pub first: Vec<MentionReport>,
    /// The range of a replayable source, `null` for a block.
    pub range: Option<RangeReport>,
}

/// Records of a block that had a part in it together; mostly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RecordsReport {
    /// The first, counted from 1.
    pub first: u64,
    /// The last.
    pub last: u64,
}

pub(super) fn replay_report(
    reader: &mut InputReader<'_>,
    value_type: Option<&ValueType>,
    replay: &KeyReplay,
) -> Result<KeyReplayReport> {
    let touches = replay.touches.iter().map(|touch| touch_report(reader, value_type, touch));
    Ok(KeyReplayReport {
        from: replay.from,
        batches: replay.batches.clone(),
        causes_known: replay.causes_known,
        touches: touches.collect::<Result<_>>()?,
    })
}

fn touch_report(
    reader: &InputReader<'_>,
    value_type: Option<&ValueType>,
    touch: &ReplayedTouch,
) -> Result<TouchReport> {
    let value = |bytes: &Option<Vec<u8>>| value_type?.decode(bytes.as_deref()?);
    Ok(TouchReport {
        batch: touch.batch,
        time_ms: touch.time_ms,
        before: value(&touch.before),
        before_hex: touch.before.as_deref().map(hex),
        after: value(&touch.after),
        after_hex: touch.after.as_deref().map(hex),
        causes: touch.causes.iter().map(|cause| cause_report(reader, cause)).collect::<Result<_>>()?,
    })
}

fn cause_report(reader: &InputReader<'_>, cause: &ReplayedCause) -> Result<CauseReport> {
    let stream = cause.stream.clone();
    Ok(match &cause.place {
        ReplayedPlace::Block { block, records, more } => CauseReport {
            stream,
            block: Some(*block),
            records: records
                .iter()
                .map(|(start, end)| RecordsReport { first: start + 1, last: *end })
                .collect(),
            more: *more,
            first: reader.records(*block, records)?,
            range: None,
        },
        ReplayedPlace::Range(range) => CauseReport {
            stream,
            block: None,
            records: Vec::new(),
            more: false,
            first: Vec::new(),
            range: Some(RangeReport::of(range)),
        },
    })
}
