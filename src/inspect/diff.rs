//! What changed in the state between two checkpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::Result;
use crate::format::records::{CheckpointRecord, OperatorRef};
use crate::format::shown::KeyShape;
use crate::format::shown::ValueType;
use crate::inspect::catalog::read_catalog;
use crate::inspect::entries::{find_operator, live_entries};
use crate::inspect::open::{ReadStore, open};
use crate::inspect::report::{Finding, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::state::Segments;
use crate::inspect::view::{find_checkpoint, hex};
use crate::store::segments::GroupSource;

/// The difference between two checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiffReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The checkpoint that was compared with.
    pub from: u64,
    /// Its batch.
    pub from_batch: u64,
    /// The checkpoint that was compared.
    pub to: u64,
    /// Its batch.
    pub to_batch: u64,
    /// The operators of both, by name.
    pub operators: Vec<OperatorDiff>,
    /// Always true: a checkpoint that is damaged is an error.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// What changed in one operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperatorDiff {
    /// The operator; `positions of X` for the positions of the source `X`.
    pub operator: String,
    /// Keys that only the second checkpoint has.
    pub added: u64,
    /// Keys that only the first one has.
    pub removed: u64,
    /// Keys whose values differ.
    pub changed: u64,
    /// The first of all these, ordered by the bytes of their keys.
    pub keys: Vec<KeyDiff>,
}

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyDiff {
    /// How.
    pub change: Change,
    /// The key; `null` when its type is the job's own.
    pub key: Option<Value>,
    /// The bytes of the key in hexadecimal digits.
    pub key_hex: String,
    /// The value in the first checkpoint; `null` when there is none or its type cannot be known.
    pub before: Option<Value>,
    /// Its bytes in hexadecimal digits.
    pub before_hex: Option<String>,
    /// The value in the second checkpoint; `null` when there is none or its type cannot be known.
    pub after: Option<Value>,
    /// Its bytes in hexadecimal digits.
    pub after_hex: Option<String>,
}

/// How a key differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// Only the second checkpoint has it. Written `"added"`.
    Added,
    /// Only the first one has it. Written `"removed"`.
    Removed,
    /// The values differ. Written `"changed"`.
    Changed,
}

/// Compares checkpoint `to` of the store in `dir` with checkpoint `from`: all operators, or the one called
/// `operator`, with up to `limit` keys of each.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect); [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when one of them is
/// damaged, [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when there is no such checkpoint or
/// operator.
pub fn diff(dir: &Path, from: u64, to: u64, operator: Option<&str>, limit: usize) -> Result<DiffReport> {
    let store = open(dir)?;
    let read = || compare(&store, dir, (from, to), operator, limit);
    settled(&store.paths, read, |report| &report.findings)
}

fn compare(
    store: &ReadStore,
    dir: &Path,
    (from, to): (u64, u64),
    operator: Option<&str>,
    limit: usize,
) -> Result<DiffReport> {
    let catalog = read_catalog(store)?;
    let retained = catalog.retained(store)?;
    let (_, before) = find_checkpoint(&catalog, retained, from)?;
    let (_, after) = find_checkpoint(&catalog, retained, to)?;
    let mut segments = Segments::open(store, [before, after].into_iter())?;
    for record in [before, after] {
        segments.check(record).map_err(|error| error.within(format!("checkpoint {}", record.checkpoint)))?;
    }
    let names: BTreeSet<&str> = match operator {
        Some(name) => {
            BTreeSet::from([&*find_operator(before, name).or_else(|_| find_operator(after, name))?.name])
        }
        None => before.operators.iter().chain(&after.operators).map(|operator| &*operator.name).collect(),
    };
    let operators = names.into_iter().map(|name| operator_diff(&segments, name, (before, after), limit));
    let mut findings = Vec::new();
    Ok(DiffReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        from,
        from_batch: before.batch,
        to,
        to_batch: after.batch,
        operators: operators.collect::<Result<_>>()?,
        sound: judge(&mut findings),
        findings,
    })
}

/// A key's value before and after.
type Values = (Option<Vec<u8>>, Option<Vec<u8>>);

fn operator_diff(
    segments: &Segments<'_>,
    name: &str,
    (before, after): (&CheckpointRecord, &CheckpointRecord),
    limit: usize,
) -> Result<OperatorDiff> {
    // A checkpoint that does not list the operator has no state of it, whatever its segments hold.
    let sides = [before, after].map(|record| Some((record, find_operator(record, name).ok()?)));
    let [before, after] = sides.map(|side| side.map(|(record, _)| segments.chains(record, name)));
    let chain_of = |side: &Option<Vec<Vec<GroupSource>>>, group: usize| {
        side.as_ref().and_then(|chains| chains.get(group)).cloned().unwrap_or_default()
    };
    let mut diff =
        OperatorDiff { operator: name.to_owned(), added: 0, removed: 0, changed: 0, keys: Vec::new() };
    let mut kept: BTreeMap<Vec<u8>, Values> = BTreeMap::new();
    for group in 0..crate::config::KEY_GROUPS {
        for (key, values) in group_diff(&chain_of(&before, group), &chain_of(&after, group))? {
            match values {
                (None, _) => diff.added += 1,
                (_, None) => diff.removed += 1,
                _ => diff.changed += 1,
            }
            kept.insert(key, values);
            if kept.len() > limit {
                kept.pop_last();
            }
        }
    }
    let types = sides.map(|side| side.map(|(record, operator)| Types::of(segments, record, operator)));
    diff.keys = kept.into_iter().map(|(key, values)| key_diff(&types, &key, values)).collect();
    Ok(diff)
}

/// The keys of one group that differ.
fn group_diff(before: &[GroupSource], after: &[GroupSource]) -> Result<BTreeMap<Vec<u8>, Values>> {
    let segments = |chain: &[GroupSource]| chain.iter().map(GroupSource::segment_id).collect::<Vec<_>>();
    if segments(before) == segments(after) {
        return Ok(BTreeMap::new());
    }
    let mut differ = BTreeMap::new();
    let mut after = live_entries(after)?;
    for (key, value) in live_entries(before)? {
        match after.remove(&key) {
            Some(now) if now == value => {}
            now => drop(differ.insert(key, (Some(value), now))),
        }
    }
    differ.extend(after.into_iter().map(|(key, value)| (key, (None, Some(value)))));
    Ok(differ)
}

/// How keys and values of one checkpoint are shown.
struct Types {
    key: Option<KeyShape>,
    value: Option<ValueType>,
}

impl Types {
    fn of(segments: &Segments<'_>, checkpoint: &CheckpointRecord, operator: &OperatorRef) -> Self {
        let value = segments.value_type(checkpoint, operator);
        Types { key: KeyShape::of(&operator.key_type), value }
    }
}

fn key_diff(types: &[Option<Types>; 2], key: &[u8], (before, after): Values) -> KeyDiff {
    let [types_before, types_after] = types;
    let shown = |types: &Option<Types>, value: &Option<Vec<u8>>| {
        types.as_ref()?.value.as_ref()?.decode(value.as_ref()?)
    };
    let of_key = if after.is_some() { types_after } else { types_before };
    let key_shape = of_key.as_ref().and_then(|types| types.key.as_ref());
    KeyDiff {
        change: match (&before, &after) {
            (None, _) => Change::Added,
            (_, None) => Change::Removed,
            _ => Change::Changed,
        },
        key: key_shape.and_then(|shape| shape.decode(key)),
        key_hex: hex(key),
        before: shown(types_before, &before),
        before_hex: before.as_deref().map(hex),
        after: shown(types_after, &after),
        after_hex: after.as_deref().map(hex),
    }
}
