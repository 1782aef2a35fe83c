//! What is left of the state of a damaged checkpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::error::{ErrorKind, Result};
use crate::format::records::{CheckpointRecord, SegmentRef};
use crate::format::segment::{Entry, entry_bytes};
use crate::record::schema_hash;
use crate::store::StorePaths;
use crate::store::segments::{EncodedGroup, EncodedOperator, EncodedState, GroupSource, LiveSize, Segment};

/// State that was saved from a damaged checkpoint: every key group whole.
pub(super) struct Salvaged {
    pub(super) state: EncodedState,
    /// The record, without segments, with the keys that are left.
    pub(super) record: CheckpointRecord,
    /// What is lost, one line each.
    pub(super) lost: Vec<String>,
}

/// The segments of a checkpoint that can be opened, and those that cannot.
type Opened = (Vec<Arc<Segment>>, Vec<(u64, String)>);

fn open_all(paths: &StorePaths, store: [u8; 16], segments: &[SegmentRef]) -> Result<Opened> {
    let (mut opened, mut gone) = (Vec::new(), Vec::new());
    for reference in segments {
        match Segment::open(paths, store, reference) {
            Ok(segment) => opened.push(Arc::new(segment)),
            Err(error) if error.kind() == ErrorKind::Corrupt => gone.push((reference.segment, error.chain())),
            Err(error) => return Err(error),
        }
    }
    Ok((opened, gone))
}

/// How many segments of a checkpoint say nothing at all any more.
pub(super) fn unreadable(paths: &StorePaths, store: [u8; 16], record: &CheckpointRecord) -> Result<usize> {
    Ok(open_all(paths, store, &record.segments)?.1.len())
}

/// Reads every page of a checkpoint that is sound.
pub(super) fn salvage(paths: &StorePaths, store: [u8; 16], record: &CheckpointRecord) -> Result<Salvaged> {
    let (opened, gone) = open_all(paths, store, &record.segments)?;
    let mut record = record.clone();
    let (mut state, mut lost) = (EncodedState::default(), Vec::new());
    for (segment, why) in &gone {
        lost.push(format!(
            "all of segment {segment} ({why}): keys that it had are gone, or have the values that they had before it"
        ));
    }
    for operator in &mut record.operators {
        let mut groups: BTreeMap<u16, Vec<GroupSource>> = BTreeMap::new();
        let schema_of = |segment: &Arc<Segment>| segment.schema_of(&operator.name).cloned();
        let ours = |schema: &Arc<str>| schema_hash(schema) == operator.schema;
        let Some(schema) = opened.iter().rev().filter_map(schema_of).find(ours) else {
            if operator.keys > 0 {
                lost.push(format!("all of `{}`: {} keys", operator.name, operator.keys));
            }
            operator.keys = 0;
            continue;
        };
        let sound = opened.iter().filter(|segment| schema_of(segment).is_some_and(|schema| ours(&schema)));
        for part in sound.flat_map(|segment| segment.groups_of(&operator.name)) {
            let chain = groups.entry(part.group.group).or_default();
            if part.group.base {
                chain.clear();
            }
            chain.push(part);
        }
        let (mut encoded, mut damaged, mut keys) = (Vec::new(), Vec::new(), 0);
        for (group, chain) in &groups {
            let (rows, pages) = live_rows(chain)?;
            if pages > 0 {
                damaged.push(format!("{group} ({pages} pages)"));
            }
            keys += rows.len() as u64;
            encoded.push(encode(*group, &rows)?);
        }
        if !damaged.is_empty() || keys < operator.keys {
            let missing = operator.keys.saturating_sub(keys);
            let groups = if damaged.is_empty() { "none known".to_owned() } else { damaged.join(", ") };
            lost.push(format!(
                "of `{}` about {missing} of {} keys, and changes of others; damaged key groups: {groups}",
                operator.name, operator.keys
            ));
        }
        operator.keys = keys;
        state.operators.push(EncodedOperator { name: operator.name.clone(), schema, groups: encoded });
    }
    record.segments.clear();
    Ok(Salvaged { state, record, lost })
}

/// By (hash, key), as entries are ordered.
type Rows = BTreeMap<(u64, Vec<u8>), Vec<u8>>;

/// What a group holds as far as it can be read, and how many pages cannot.
fn live_rows(chain: &[GroupSource]) -> Result<(Rows, u64)> {
    let (mut rows, mut damaged) = (Rows::new(), 0);
    for part in chain {
        damaged += part.for_each_sound(|entry| {
            let at = (entry.hash, entry.key.to_vec());
            match entry.value {
                Some(value) => drop(rows.insert(at, value.to_vec())),
                None => drop(rows.remove(&at)),
            }
        })?;
    }
    Ok((rows, damaged))
}

fn encode(group: u16, rows: &Rows) -> Result<EncodedGroup> {
    let bytes = rows.iter().map(|((_, key), value)| entry_bytes(key, Some(value)) as u64).sum();
    let live = LiveSize { keys: rows.len() as u64, bytes };
    let entries = rows.iter().map(|((hash, key), value)| Entry { hash: *hash, key, value: Some(value) });
    EncodedGroup::encode(usize::from(group), true, live, entries)
}
