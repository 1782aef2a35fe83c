//! New values of an operator's keys: where they go, and the segment that holds them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::checkpoint::rollback::roll_back;
use crate::error::{Error, ErrorKind, Result};
use crate::format::records::{CheckpointRecord, OperatorRef, RollbackRecord, SegmentHeader};
use crate::format::segment::{Entry, entry_bytes};
use crate::format::shown::{KeyShape, ValueType};
use crate::id::SegmentId;
use crate::maintenance::open::Opened;
use crate::maintenance::rollback::{BatchSpan, can_replay};
use crate::record::{group_of, hash_of};
use crate::store::segments::{
    EncodedGroup, EncodedOperator, EncodedState, GroupSource, LiveSize, Segment, list_segments,
    remove_segment, write_segment,
};

/// The operator whose keys get new values, in the newest checkpoint.
pub(super) struct Target<'s> {
    store: &'s Opened,
    pub(super) record: CheckpointRecord,
    pub(super) operator: OperatorRef,
    schema: Arc<str>,
    pub(super) key_shape: Option<KeyShape>,
    pub(super) value_type: ValueType,
    segments: Vec<Arc<Segment>>,
}

/// New values, `None` for keys that go, by key group and then as entries are ordered.
#[derive(Default)]
pub(super) struct Changes(BTreeMap<usize, Rows<Option<Vec<u8>>>>);

type Rows<V> = BTreeMap<(u64, Vec<u8>), V>;

impl Changes {
    /// Whether the key is there for the first time.
    pub(super) fn insert(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) -> bool {
        let hash = hash_of(&key);
        self.0.entry(group_of(hash)).or_default().insert((hash, key), value).is_none()
    }
}

/// What changes come to.
#[derive(Default)]
pub(super) struct Difference {
    groups: Vec<EncodedGroup>,
    pub(super) added: u64,
    pub(super) changed: u64,
    pub(super) removed: u64,
    /// Keys that have the value already.
    pub(super) unchanged: u64,
}

impl Difference {
    pub(super) fn is_empty(&self) -> bool {
        self.added + self.changed + self.removed == 0
    }
}

/// What the next start does after a change.
pub(super) struct Outlook {
    /// The number of the checkpoint that the change becomes.
    pub(super) checkpoint: u64,
    pub(super) replay: Option<BatchSpan>,
    pub(super) replayed_done: u64,
}

impl<'s> Target<'s> {
    /// Finds the operator, and proves the checkpoint.
    pub(super) fn find(store: &'s Opened, operator: &str) -> Result<Self> {
        if let Some(damage) = store.history.damage.first() {
            return Err(Error::corrupt(format!("{damage}: `repair` comes first")));
        }
        let Some((_, record)) = store.history.checkpoints.last() else {
            let message = "there is no checkpoint yet, and so no type of values is known: start the job with one \
                           key of the operator, or give it initial state with `StateSpec::initial_state`";
            return Err(invalid(message));
        };
        store.prove(record).map_err(|error| {
            error.within(
                "state is changed in the newest checkpoint only, `rollback` to a sound one comes first",
            )
        })?;
        let found = record.operators.iter().find(|known| known.name == operator);
        let Some(found) = found else {
            let known: Vec<&str> = record.operators.iter().map(|known| &*known.name).collect();
            return Err(invalid(&format!(
                "there is no operator `{operator}` in checkpoint {}, which has {}; one that has no state yet has no \
                 type of values either: start the job with one key of it, or give it initial state with \
                 `StateSpec::initial_state`",
                record.checkpoint,
                known.join(", ")
            )));
        };
        let segments =
            record.segments.iter().map(|reference| Segment::open(&store.paths, store.store, reference));
        let segments = segments.map(|segment| segment.map(Arc::new)).collect::<Result<Vec<_>>>()?;
        // All that are there are of the checkpoint's schema, which was proved.
        let Some(schema) = segments.iter().rev().find_map(|segment| segment.schema_of(operator)).cloned()
        else {
            return Err(invalid(&format!(
                "`{operator}` has no state yet, and so the store has no schema of its values: start the job with \
                 one key of it, or give it initial state with `StateSpec::initial_state`"
            )));
        };
        let Some(value_type) = ValueType::of(&found.value_type, &schema) else {
            let message =
                format!("values of type {} are the job's own: only it can write them", found.value_type);
            return Err(invalid(&message));
        };
        if let Some(why) = value_type.refusal().or_else(|| refusal(record, operator)) {
            return Err(invalid(&format!("`{operator}` is not changed by hand: {why}")));
        }
        Ok(Target {
            store,
            record: record.clone(),
            operator: found.clone(),
            key_shape: KeyShape::of(&found.key_type),
            schema,
            value_type,
            segments,
        })
    }

    /// Whether the operator is one value that is always there.
    pub(super) fn is_shared_variable(&self) -> bool {
        ["accumulator ", "broadcast "].iter().any(|prefix| self.operator.name.starts_with(prefix))
    }

    /// The bytes of a value as JSON.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when it is none of this type.
    pub(super) fn encode(&self, value: &serde_json::Value) -> Result<Vec<u8>> {
        let bytes = self.value_type.encode(value)?;
        if self.value_type.decode(&bytes).is_none() {
            return Err(invalid("the value cannot be read back after it is written"));
        }
        Ok(bytes)
    }

    /// What there is of a key.
    pub(super) fn value_of(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let hash = hash_of(key);
        let mut rows = self.rows(group_of(hash))?.1;
        Ok(rows.remove(&(hash, key.to_vec())))
    }

    /// The parts of a key group, oldest first, and what they come to.
    fn rows(&self, group: usize) -> Result<(Vec<GroupSource>, Rows<Vec<u8>>)> {
        let mut chain: Vec<GroupSource> = Vec::new();
        let parts = self.segments.iter().flat_map(|segment| segment.groups_of(&self.operator.name));
        for part in parts.filter(|part| usize::from(part.group.group) == group) {
            if part.group.base {
                chain.clear();
            }
            chain.push(part);
        }
        let mut rows = Rows::new();
        for part in &chain {
            part.for_each(|entry| {
                let at = (entry.hash, entry.key.to_vec());
                match entry.value {
                    Some(value) => drop(rows.insert(at, value.to_vec())),
                    None => drop(rows.remove(&at)),
                }
                Ok(())
            })?;
        }
        Ok((chain, rows))
    }

    /// Compares the changes with what there is. Values that are shown as the same are the same.
    pub(super) fn compare(&self, changes: &Changes) -> Result<Difference> {
        let mut difference = Difference::default();
        for (group, wanted) in &changes.0 {
            let (chain, mut rows) = self.rows(*group)?;
            let mut changed: Vec<(&(u64, Vec<u8>), Option<&[u8]>)> = Vec::new();
            for (at, value) in wanted {
                let before = rows.get(at);
                let shown = |bytes: &[u8]| self.value_type.decode(bytes);
                match (before, value) {
                    (Some(before), Some(value)) if shown(before) == shown(value) => {
                        difference.unchanged += 1;
                        continue;
                    }
                    (None, None) => {
                        difference.unchanged += 1;
                        continue;
                    }
                    (Some(_), Some(_)) => difference.changed += 1,
                    (None, Some(_)) => difference.added += 1,
                    (Some(_), None) => difference.removed += 1,
                }
                changed.push((at, value.as_deref()));
                match value {
                    Some(value) => drop(rows.insert(at.clone(), value.clone())),
                    None => drop(rows.remove(at)),
                }
            }
            if changed.is_empty() {
                continue;
            }
            let bytes = rows.iter().map(|((_, key), value)| entry_bytes(key, Some(value)) as u64).sum();
            let live = LiveSize { keys: rows.len() as u64, bytes };
            // The first part of a group is a base: nothing can go from it, so that it has no tombstones.
            let entries =
                changed.iter().map(|((hash, key), value)| Entry { hash: *hash, key, value: *value });
            difference.groups.push(EncodedGroup::encode(*group, chain.is_empty(), live, entries)?);
        }
        Ok(difference)
    }

    /// Says what a start would make of the changes, and makes them if that is confirmed; `None` where nothing differs.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when batches after this checkpoint cannot be computed again.
    pub(super) fn carry_out(&self, difference: Difference, is_confirmed: bool) -> Result<Option<Outlook>> {
        if difference.is_empty() {
            return Ok(None);
        }
        let (record, outlook) = self.successor(&difference)?;
        if is_confirmed {
            self.write(difference, record)?;
        }
        Ok(Some(outlook))
    }

    /// The checkpoint that would have the changes.
    fn successor(&self, difference: &Difference) -> Result<(RollbackRecord, Outlook)> {
        let store = self.store;
        let history = &store.history;
        let number = history.newest_checkpoint().max(store.pins.newest_checkpoint()) + 1;
        let mut rollback = roll_back(history, &self.record, number, |plan| can_replay(store, plan))?;
        if let Some(BatchSpan { from, to }) = BatchSpan::of(&rollback.lost) {
            let message = format!(
                "batches {from} to {to} cannot be computed again, their plans or blocks are gone: `repair` comes first"
            );
            return Err(Error::corrupt(message));
        }
        let operators = rollback.record.checkpoint.operators.iter_mut();
        for operator in operators.filter(|operator| operator.name == self.operator.name) {
            operator.keys = operator.keys + difference.added - difference.removed;
        }
        let done = rollback.replay.clone().filter(|batch| history.done.contains_key(batch)).count() as u64;
        let replay = BatchSpan::of(&rollback.replay);
        let checkpoint = rollback.record.checkpoint.checkpoint;
        Ok((rollback.record, Outlook { checkpoint, replay, replayed_done: done }))
    }

    /// Writes the segment, reads it back, and only then makes the checkpoint count. What there was stays.
    fn write(&self, difference: Difference, mut record: RollbackRecord) -> Result<()> {
        let Opened { disk, paths, .. } = self.store;
        let newest = list_segments(paths)?.last().map_or(0, |segment| segment.0);
        let segment = SegmentId(newest.max(self.store.history.newest_segment()) + 1);
        let header = SegmentHeader { store: self.store.store, checkpoint: record.checkpoint.checkpoint };
        let state = EncodedState {
            operators: vec![EncodedOperator {
                name: self.operator.name.clone(),
                schema: self.schema.clone(),
                groups: difference.groups,
            }],
        };
        let written = write_segment(disk, paths, segment, &header, &state)?;
        record.checkpoint.segments.push(written);
        if let Err(error) = self.store.prove(&record.checkpoint) {
            remove_segment(disk, paths, segment)?;
            return Err(error.within("what was written cannot be read back, nothing was changed"));
        }
        self.store.commit(&record)
    }
}

/// Why an operator's state is not changed, whatever its type.
fn refusal(record: &CheckpointRecord, operator: &str) -> Option<String> {
    let batches = format!("{operator}, batches");
    if record.operators.iter().any(|other| other.name == batches) {
        let why = "it is what a window has aggregated, and would not fit the records that leave the window";
        return Some(why.to_owned());
    }
    if operator.starts_with("dataset ") {
        return Some("it is loaded from elsewhere, and the next load replaces it".to_owned());
    }
    None
}

pub(super) fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}
