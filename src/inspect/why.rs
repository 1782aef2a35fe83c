//! Where the state of one key comes from, as far as the store alone tells: between two retained checkpoints the key
//! has changed or not, and so in some of the batches between them.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::format::question::{KeyReplay, Question, Reply};
use crate::format::records::{CheckpointRecord, OperatorRef, PlanRecord};
use crate::format::shown::KeyShape;
use crate::inspect::ask::JobCommand;
use crate::inspect::entries::find_operator;
use crate::inspect::key_text::parse_key;
use crate::inspect::open::{ReadStore, open};
use crate::inspect::report::{Finding, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::state::Segments;
use crate::inspect::view::{View, hex, no_such};
use crate::inspect::why_input::{InputReader, WhyBatch};
use crate::inspect::why_replay::{KeyReplayReport, replay_report};
use crate::record::{group_of, hash_of};

/// What touched a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhyReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The newest sound record of the catalog: the report shows the store as of its commit.
    pub last_durable_record: u64,
    /// The operator.
    pub operator: String,
    /// The key; `null` when its type is the job's own.
    pub key: Option<Value>,
    /// The bytes of the key in hexadecimal digits.
    pub key_hex: String,
    /// The type of the key.
    pub key_type: String,
    /// The key in each retained checkpoint that can be read, oldest first.
    pub checkpoints: Vec<KeyAtCheckpoint>,
    /// When it was written, oldest first; last the batches that no checkpoint has yet, which may have written it.
    pub changes: Vec<KeyChange>,
    /// What the job's code says; `null` when it was not asked.
    pub replayed: Option<KeyReplayReport>,
    /// Whether the catalog and the retained checkpoints are sound, and every block that a restart may need.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// A key in one checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyAtCheckpoint {
    /// The checkpoint.
    pub checkpoint: u64,
    /// The last batch whose changes are in it.
    pub batch: u64,
    /// The value; `null` when there is none or its type cannot be known without the job.
    pub value: Option<Value>,
    /// The bytes of the value in hexadecimal digits; `null` when there is none.
    pub value_hex: Option<String>,
    /// The newest entry of the key that counts for this checkpoint; `null` when no segment speaks of it.
    pub entry: Option<EntryPlace>,
}

/// Where the newest entry of a key is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryPlace {
    /// The segment.
    pub segment: u64,
    /// The checkpoint that wrote the segment.
    pub written_by: u64,
    /// Whether the key group is whole there: such an entry may have been written without a change.
    pub base: bool,
    /// Whether it says that the key was removed.
    pub removed: bool,
}

/// What became of a key between two checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyChange {
    /// What is known.
    pub change: WhyChange,
    /// The checkpoint before, `null` when that is none, or unknown.
    pub from: Option<u64>,
    /// The checkpoint that has the change, `null` for none yet.
    pub to: Option<u64>,
    /// The first of the batches that may have done it, `null` when that is unknown.
    pub first_batch: Option<u64>,
    /// The last of them.
    pub last_batch: u64,
    /// Those of them whose plans are still in the catalog and read any input.
    pub batches: Vec<WhyBatch>,
    /// How many of them are known to have been there and have no plan any more; `null` when that is unknown.
    pub pruned: Option<u64>,
}

/// What is known about a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WhyChange {
    /// The key came. Written `"added"`.
    Added,
    /// It went. Written `"removed"`.
    Removed,
    /// Its value differs. Written `"changed"`.
    Changed,
    /// It was written, and has the value that it had. Written `"written"`.
    Written,
    /// The batches may or may not have written it: they are in no checkpoint, or it has the value that it had in a key
    /// group that was written whole. Written `"unknown"`.
    Unknown,
}

/// Tells what the store in `dir` knows about `key` in the state of `operator`: its value in each retained checkpoint,
/// the batches in which it was written, what they read, and up to `limit` records of each block that mention it, which
/// is a guess. With the binary of the job, which computes the retained batches again beside the store, it also tells which
/// batches, blocks, ranges and records had a part in it, as [`StreamingContext::why`](crate::StreamingContext::why) does.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect); [`ErrorKind::InvalidConfig`] when no retained checkpoint has the operator
/// or an entry of the key and the job was not asked, the key is none of its type, or the job cannot be asked or cannot
/// compute the batches again; [`ErrorKind::Corrupt`] when no retained checkpoint is sound.
pub fn why(
    dir: &Path,
    operator: &str,
    key: &str,
    limit: usize,
    job: Option<&JobCommand>,
) -> Result<WhyReport> {
    let store = open(dir)?;
    let replay = job.map(|job| ask(&store, dir, operator, key, job)).transpose()?;
    let tell = || tell(&store, dir, operator, key, limit, replay.as_ref());
    settled(&store.paths, tell, |report| &report.findings)
}

/// What the job's code says about the key.
fn ask(store: &ReadStore, dir: &Path, operator: &str, key: &str, job: &JobCommand) -> Result<KeyReplay> {
    let typed = || {
        let sound = sound_checkpoints(&mut View::read(store)?)?;
        let typed = newest_operator(&sound, operator)?;
        Ok((parse_key(&typed.key_type, key)?, Vec::new()))
    };
    let (key, _): (_, Vec<Finding>) = settled(&store.paths, typed, |(_, findings)| findings)?;
    match job.ask(dir, Question::Why { operator: operator.to_owned(), key })?.reply {
        Reply::Why(replay) => Ok(replay),
        Reply::Refused(why) => {
            let why = why.lines().next().unwrap_or_default();
            Err(no_such(format!("the job cannot compute the retained batches again: {why}")))
        }
        Reply::Plan(_) | Reply::Elsewhere(_) => Err(no_such("the job answered another question".to_owned())),
    }
}

fn tell(
    store: &ReadStore,
    dir: &Path,
    operator: &str,
    key: &str,
    limit: usize,
    replay: Option<&KeyReplay>,
) -> Result<WhyReport> {
    let mut view = View::read(store)?;
    let sound = sound_checkpoints(&mut view)?;
    let typed = newest_operator(&sound, operator)?.clone();
    let bytes = parse_key(&typed.key_type, key)?;
    let checkpoints: Vec<KeyAtCheckpoint> =
        sound.iter().map(|record| key_at(&view.segments, record, operator, &bytes)).collect::<Result<_>>()?;
    let is_touched = replay.is_some_and(|replay| !replay.touches.is_empty());
    if checkpoints.iter().all(|found| found.entry.is_none()) && !is_touched {
        let message = format!("no retained checkpoint has a key `{key}` in `{operator}`, nor a trace of one");
        return Err(no_such(message));
    }
    let (_, mut findings) = view.judged();
    let mut reader = InputReader::new(store, &view, &typed, &bytes, limit);
    let value_type = sound.iter().rev().find_map(|record| view.segments.value_type(record, &typed));
    let replayed =
        replay.map(|replay| replay_report(&mut reader, value_type.as_ref(), replay)).transpose()?;
    let changes = changes(&view, &checkpoints, &mut reader, &mut findings)?;
    Ok(WhyReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        last_durable_record: view.catalog.history.last_seq,
        operator: typed.name,
        key: KeyShape::of(&typed.key_type).and_then(|shape| shape.decode(&bytes)),
        key_hex: hex(&bytes),
        key_type: typed.key_type,
        checkpoints,
        changes,
        replayed,
        sound: judge(&mut findings),
        findings,
    })
}

/// The retained checkpoints that are sound, oldest first.
fn sound_checkpoints(view: &mut View<'_>) -> Result<Vec<CheckpointRecord>> {
    let (mut sound, mut damage) = (Vec::new(), None);
    for (_, record) in &view.retained {
        match view.segments.check(record) {
            Ok(()) => sound.push(record.clone()),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                damage = Some(error.within(format!("checkpoint {}", record.checkpoint)));
            }
            Err(error) => return Err(error),
        }
    }
    match (sound.is_empty(), damage) {
        (false, _) => Ok(sound),
        (true, Some(damage)) => Err(damage),
        (true, None) => Err(match view.catalog.findings.iter().find(|finding| finding.is_damage()) {
            Some(finding) => Error::corrupt(format!("{}: {}", finding.place, finding.what)),
            None => no_such("there is no checkpoint yet, and so no stored state".to_owned()),
        }),
    }
}

/// The operator as the newest checkpoint that has it says.
fn newest_operator<'c>(sound: &'c [CheckpointRecord], name: &str) -> Result<&'c OperatorRef> {
    let mut missing = None;
    for record in sound.iter().rev() {
        match find_operator(record, name) {
            Ok(found) => return Ok(found),
            Err(error) => drop(missing.get_or_insert(error)),
        }
    }
    Err(missing.unwrap_or_else(|| no_such(format!("there is no operator `{name}`"))))
}

fn key_at(
    segments: &Segments<'_>,
    record: &CheckpointRecord,
    operator: &str,
    key: &[u8],
) -> Result<KeyAtCheckpoint> {
    let mut found = KeyAtCheckpoint {
        checkpoint: record.checkpoint,
        batch: record.batch,
        value: None,
        value_hex: None,
        entry: None,
    };
    // A checkpoint that does not list the operator has no state of it, whatever its segments hold.
    let Ok(operator) = find_operator(record, operator) else { return Ok(found) };
    let (hash, mut page) = (hash_of(key), Vec::new());
    for part in segments.chains(record, &operator.name).swap_remove(group_of(hash)) {
        let Some(value) = part.find(hash, key, &mut page)? else { continue };
        found.entry = Some(EntryPlace {
            segment: part.segment_id().0,
            written_by: part.written_by()?,
            base: part.group.base,
            removed: value.is_none(),
        });
        let value_type = segments.value_type(record, operator);
        found.value = value_type.and_then(|value_type| value_type.decode(value.as_deref()?));
        found.value_hex = value.as_deref().map(hex);
        break;
    }
    Ok(found)
}

/// In which batches the key was written.
fn changes(
    view: &View<'_>,
    checkpoints: &[KeyAtCheckpoint],
    reader: &mut InputReader<'_>,
    findings: &mut Vec<Finding>,
) -> Result<Vec<KeyChange>> {
    let mut changes = Vec::new();
    let mut add = |span: Span| -> Result<()> {
        changes.push(span.describe(view, reader, findings)?);
        Ok(())
    };
    if let Some(span) = checkpoints.first().and_then(|oldest| Span::before(view, oldest)) {
        add(span)?;
    }
    for pair in checkpoints.windows(2) {
        if let [before, after] = pair
            && let Some(change) = compare(before, after)
        {
            let (from, to) = (Some(before.checkpoint), Some(after.checkpoint));
            add(Span { change, from, to, first: Some(before.batch + 1), last: after.batch })?;
        }
    }
    let newest_planned = view.catalog.history.plans.keys().next_back().copied().unwrap_or(0);
    if let Some(newest) = checkpoints.last().filter(|newest| newest.batch < newest_planned) {
        let (from, first) = (Some(newest.checkpoint), Some(newest.batch + 1));
        add(Span { change: WhyChange::Unknown, from, to: None, first, last: newest_planned })?;
    }
    Ok(changes)
}

/// What became of the key between two checkpoints, `None` when it was not written.
fn compare(before: &KeyAtCheckpoint, after: &KeyAtCheckpoint) -> Option<WhyChange> {
    match (&before.value_hex, &after.value_hex) {
        (None, Some(_)) => Some(WhyChange::Added),
        (Some(_), None) => Some(WhyChange::Removed),
        (Some(before), Some(after)) if before != after => Some(WhyChange::Changed),
        (value, _) => {
            let entry = after.entry.as_ref().filter(|entry| entry.written_by > before.checkpoint)?;
            match (entry.base, value) {
                // A delta has only what was written.
                (false, _) => Some(WhyChange::Written),
                (true, Some(_)) => Some(WhyChange::Unknown),
                (true, None) => None,
            }
        }
    }
}

/// Batches that may have written the key.
struct Span {
    change: WhyChange,
    from: Option<u64>,
    to: Option<u64>,
    first: Option<u64>,
    last: u64,
}

impl Span {
    /// When the entry that the oldest checkpoint has was written: by the checkpoint of its segment or, where the key
    /// group is whole there, at any time before.
    fn before(view: &View<'_>, oldest: &KeyAtCheckpoint) -> Option<Self> {
        let entry = oldest.entry.as_ref()?;
        let change = if entry.removed { WhyChange::Removed } else { WhyChange::Written };
        let all = || view.catalog.history.checkpoints.iter().map(|(_, record)| record);
        let writer = all().rfind(|record| record.checkpoint == entry.written_by);
        let before = all().rfind(|record| record.checkpoint < entry.written_by);
        let (from, first) = match before {
            _ if entry.written_by == 1 => (None, Some(1)),
            _ if entry.base => (None, None),
            Some(before) => (Some(before.checkpoint), Some(before.batch + 1)),
            None => (None, None),
        };
        let last = writer.map_or(oldest.batch, |writer| writer.batch);
        Some(Span { change, from, to: Some(entry.written_by), first, last })
    }

    fn describe(
        self,
        view: &View<'_>,
        reader: &mut InputReader<'_>,
        findings: &mut Vec<Finding>,
    ) -> Result<KeyChange> {
        let first = self.first.unwrap_or(0);
        let plans: Vec<&PlanRecord> =
            view.catalog.history.plans.range(first..=self.last.max(first)).map(|(_, plan)| plan).collect();
        let known: BTreeSet<u64> = plans.iter().map(|plan| plan.batch).collect();
        let mut batches = Vec::new();
        for plan in plans {
            batches.extend(reader.batch(plan, findings)?);
        }
        Ok(KeyChange {
            change: self.change,
            from: self.from,
            to: self.to,
            first_batch: self.first,
            last_batch: self.last,
            batches,
            pruned: self.first.map(|first| (self.last + 1).saturating_sub(first) - known.len() as u64),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(checkpoint: u64, value: Option<&str>, entry: Option<(u64, bool)>) -> KeyAtCheckpoint {
        let entry = entry.map(|(written_by, base)| EntryPlace {
            segment: 1,
            written_by,
            base,
            removed: value.is_none(),
        });
        let value_hex = value.map(str::to_owned);
        KeyAtCheckpoint { checkpoint, batch: checkpoint * 10, value: None, value_hex, entry }
    }

    #[test]
    fn a_key_was_written_when_its_value_or_a_delta_says_so() {
        let before = at(3, Some("01"), Some((2, false)));
        let after = |value, entry| compare(&before, &at(5, value, entry));
        assert_eq!(after(Some("02"), Some((5, true))), Some(WhyChange::Changed));
        assert_eq!(after(None, None), Some(WhyChange::Removed));
        assert_eq!(after(Some("01"), Some((2, false))), None);
        assert_eq!(after(Some("01"), Some((4, false))), Some(WhyChange::Written));
        assert_eq!(after(Some("01"), Some((4, true))), Some(WhyChange::Unknown));
        let absent = at(3, None, Some((2, false)));
        assert_eq!(compare(&absent, &at(5, Some("01"), Some((5, false)))), Some(WhyChange::Added));
        assert_eq!(compare(&absent, &at(5, None, Some((4, false)))), Some(WhyChange::Written));
        assert_eq!(compare(&absent, &at(5, None, None)), None);
    }
}
