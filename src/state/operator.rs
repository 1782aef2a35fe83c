//! The state of one operator: its key groups behind one lock each.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::config::KEY_GROUPS;
use crate::error::Result;
use crate::exec::Executor;
use crate::format::object::name_without_paths;
use crate::format::records::OperatorRef;
use crate::id::SegmentId;
use crate::record::{Data, Described, Key, Schema, group_of, hash_of, schema_hash};
use crate::state::changes::{ChangeSums, Difference};
use crate::state::group::{GroupChanges, KeyGroup};
use crate::state::memory::StateMemory;
use crate::state::policy::groups_to_rewrite;
use crate::state::upgrade::{Convert, Origins};
use crate::store::segments::{EncodedGroup, GroupSource, Segment};

/// The end of the type of values that are kept with timers.
const WITH_TIMERS: &str = " with timers";

/// So many keys at least may be looked at before a checkpoint, to let go of those that are gone.
const TIDIED_KEYS_MIN: usize = 1 << 16;

/// What a checkpoint says about the types of an operator's state. Types go by their names without paths, so that
/// a type may move to another module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateType {
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) value_width: u32,
    /// Of the archives in the values.
    pub(crate) schema: KnownSchema,
}

/// A schema, by its hash alone where only that is known.
#[derive(Clone, Debug, Eq)]
pub(crate) struct KnownSchema {
    pub(crate) hash: u64,
    pub(crate) text: Option<Arc<str>>,
}

impl PartialEq for KnownSchema {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl KnownSchema {
    pub(crate) fn of<T: Described>() -> Self {
        Self::of_text(Schema::of::<T>().text())
    }

    /// The text, empty where only the hash is known.
    pub(crate) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Of values that no Rust type stands for.
    pub(crate) fn of_text(text: &str) -> Self {
        KnownSchema { hash: schema_hash(text), text: Some(text.into()) }
    }
}

impl StateType {
    pub(crate) fn of<K: Key, S: Data>() -> Self {
        StateType {
            key: K::key_type(),
            value: name_without_paths(std::any::type_name::<S>()),
            value_width: S::archived_width() as u32,
            schema: KnownSchema::of::<S>(),
        }
    }

    /// States that are kept with timers.
    pub(crate) fn with_timers<K: Key, S: Data>() -> Self {
        let plain = Self::of::<K, S>();
        StateType { value: format!("{}{WITH_TIMERS}", plain.value), ..plain }
    }

    /// What a checkpoint has. Checkpoints of before types went by short names have paths in them.
    pub(crate) fn stored(operator: &OperatorRef) -> Self {
        StateType {
            key: operator.key_type.clone(),
            value: name_without_paths(&operator.value_type),
            value_width: operator.value_width,
            schema: KnownSchema { hash: operator.schema, text: None },
        }
    }

    /// The type of the values alone, and whether they are kept with timers.
    pub(crate) fn without_timers(&self) -> (Self, bool) {
        let plain = self.value.strip_suffix(WITH_TIMERS);
        let value = plain.unwrap_or(&self.value).to_owned();
        (StateType { value, ..self.clone() }, plain.is_some())
    }
}

/// The named, keyed state of one operator.
#[derive(Debug)]
pub(crate) struct OperatorState {
    name: String,
    state_type: StateType,
    origins: Origins,
    groups: Vec<Mutex<KeyGroup>>,
}

impl OperatorState {
    pub(crate) fn new(name: &str, state_type: StateType) -> Arc<Self> {
        Self::with_origins(name, state_type, Origins::default())
    }

    /// State that may be taken over from elsewhere.
    pub(crate) fn with_origins(name: &str, state_type: StateType, origins: Origins) -> Arc<Self> {
        let groups = (0..KEY_GROUPS).map(|_| Mutex::default()).collect();
        let state_type = StateType { value: name_without_paths(&state_type.value), ..state_type };
        Arc::new(OperatorState { name: name.to_owned(), state_type, origins, groups })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn state_type(&self) -> &StateType {
        &self.state_type
    }

    pub(crate) fn origins(&self) -> &Origins {
        &self.origins
    }

    pub(crate) fn group(&self, group: usize) -> MutexGuard<'_, KeyGroup> {
        // A poisoned group belongs to a task that panicked before its changes were applied.
        self.groups[group].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Points every group at what `segments` (in ascending order) hold of it. Nothing is read yet.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when a segment holds values of another schema.
    pub(crate) fn restore(&self, segments: &[Arc<Segment>]) -> Result<()> {
        let parts = checked_parts_of(&self.name, segments, self.state_type.schema.hash)?;
        for (group, parts) in parts.into_iter().enumerate() {
            self.group(group).restore(parts);
        }
        Ok(())
    }

    /// Keeps what is in memory within a limit that it shares with other operators.
    pub(crate) fn limit_memory(&self, memory: &Arc<StateMemory>) {
        (0..KEY_GROUPS).for_each(|group| self.group(group).limit_memory(memory.clone()));
    }

    /// What could be let go of: the last use, the bytes and the number of each key group.
    pub(crate) fn evictable(&self) -> Vec<(u64, u64, usize)> {
        let group = |number| self.group(number).evictable().map(|(used, bytes)| (used, bytes, number));
        (0..KEY_GROUPS).filter_map(group).collect()
    }

    /// Lets go of what a group has in memory that `segments` hold. Returns whether all of them were there.
    pub(crate) fn evict(&self, group: usize, segments: &BTreeMap<u64, Arc<Segment>>) -> bool {
        let mut state = self.group(group);
        let parts = self.parts_of_chain(&state, group, segments);
        parts.is_some_and(|parts| {
            state.evict(parts);
            true
        })
    }

    /// Points what is cold at the present segments, which are these.
    pub(crate) fn follow_chains(&self, segments: &BTreeMap<u64, Arc<Segment>>) {
        for group in 0..KEY_GROUPS {
            let mut state = self.group(group);
            if state.is_off_its_chain()
                && let Some(parts) = self.parts_of_chain(&state, group, segments)
            {
                state.follow_chain(parts);
            }
        }
    }

    fn parts_of_chain(
        &self,
        state: &KeyGroup,
        group: usize,
        segments: &BTreeMap<u64, Arc<Segment>>,
    ) -> Option<Vec<GroupSource>> {
        let part = |segment| segments.get(&segment)?.group_of(&self.name, group);
        let mut parts = state.segments().map(part).collect::<Option<Vec<_>>>()?;
        parts.reverse();
        Some(parts)
    }

    /// Takes over what `segments` hold of the operator `stored`, every value converted. The next checkpoint writes
    /// all of it anew, under the name and type that it has now; until then nothing on the disk has changed.
    ///
    /// # Errors
    /// What converting a value failed with, and those of [`restore`](Self::restore).
    pub(crate) fn take_over(
        &self,
        segments: &[Arc<Segment>],
        stored: &OperatorRef,
        convert: Option<&Convert>,
        executor: &Executor,
    ) -> Result<()> {
        let parts = checked_parts_of(&stored.name, segments, stored.schema)?;
        for (group, parts) in parts.into_iter().enumerate() {
            let is_stored = !parts.is_empty();
            let mut group = self.group(group);
            group.restore(parts);
            if is_stored {
                group.rewrite();
            }
        }
        self.hide(segments);
        let Some(convert) = convert else { return Ok(()) };
        let stage = format!("migrate the state of `{}`", self.name);
        executor.run_stage(&stage, KEY_GROUPS, |_, group| self.group(group).convert(convert))?;
        Ok(())
    }

    /// Sees to it that what `segments` hold under this name does not come back: it is of an operator that was
    /// dropped, in files that others still need.
    pub(crate) fn hide(&self, segments: &[Arc<Segment>]) {
        for part in segments.iter().flat_map(|segment| segment.groups_of(&self.name)) {
            if let Some(group) = self.groups.get(usize::from(part.group.group)) {
                group.lock().unwrap_or_else(PoisonError::into_inner).rewrite();
            }
        }
    }

    /// Fixes what the checkpoint that goes into `segment` has to hold of this operator: the groups' deltas, and bases of
    /// a few of them, first of those that need segments older than `oldest_to_keep`. From here on batches may go on, while
    /// the groups are laid out one by one. Returns about how many bytes they take.
    pub(crate) fn freeze(&self, segment: u64, oldest_to_keep: u64) -> u64 {
        self.tidy_up(segment);
        let groups = || (0..KEY_GROUPS).map(|group| self.group(group));
        let sizes: Vec<_> = groups().map(|group| group.size_with_delta(segment, oldest_to_keep)).collect();
        let rewritten = groups_to_rewrite(&sizes, groups().map(|group| group.delta_bytes()).sum());
        let freeze = |(number, mut group): (usize, MutexGuard<'_, KeyGroup>)| {
            let (delta_bytes, base_bytes) = (group.delta_bytes(), group.live().bytes);
            match group.freeze(rewritten.contains(&number)) {
                true => base_bytes,
                false => delta_bytes,
            }
        };
        groups().enumerate().map(freeze).sum()
    }

    /// Lets go of keys that are gone, in a few groups at a time.
    fn tidy_up(&self, segment: u64) {
        let groups = || (0..KEY_GROUPS).map(|at| self.group((at + segment as usize) % KEY_GROUPS));
        // Each key that was removed pays for a few that are looked at.
        let mut left =
            TIDIED_KEYS_MIN.max(4 * groups().map(|group| group.table().changed_keys()).sum::<usize>());
        for mut group in groups() {
            left = left.saturating_sub(group.tidy_up());
            if left == 0 {
                return;
            }
        }
    }

    /// Whether the checkpoint on its way has to hold anything of this operator.
    pub(crate) fn is_frozen(&self) -> bool {
        (0..KEY_GROUPS).any(|group| self.group(group).is_frozen())
    }

    /// Lays out what the checkpoint on its way has to hold of a group, if there is anything; the same each time.
    pub(crate) fn encode_frozen(&self, group: usize) -> Result<Option<EncodedGroup>> {
        self.group(group).encode_frozen(group)
    }

    /// Takes note that what was frozen is in `segment`, with so many bytes of each group.
    pub(crate) fn thaw(&self, segment: u64, bytes: &[u64]) {
        bytes.iter().enumerate().for_each(|(group, bytes)| self.group(group).thaw(segment, *bytes));
    }

    /// What a checkpoint into `segment` has to hold, at once.
    #[cfg(test)]
    pub(crate) fn encode_changes(
        &self,
        executor: &Executor,
        segment: u64,
        oldest_to_keep: u64,
    ) -> Result<Vec<EncodedGroup>> {
        self.freeze(segment, oldest_to_keep);
        let encoded = executor.run_stage("encode", KEY_GROUPS, |_, group| self.encode_frozen(group))?;
        let bytes = |group: &Option<EncodedGroup>| group.as_ref().map_or(0, EncodedGroup::bytes);
        self.thaw(segment, &encoded.iter().map(bytes).collect::<Vec<_>>());
        Ok(encoded.into_iter().flatten().collect())
    }

    /// These groups as a segment holds them.
    #[cfg(test)]
    pub(crate) fn encoded(&self, groups: Vec<EncodedGroup>) -> crate::store::segments::EncodedOperator {
        let schema = self.state_type.schema.text.clone().unwrap_or_default();
        crate::store::segments::EncodedOperator { name: self.name.clone(), schema, groups }
    }

    /// The segments that a restart needs.
    pub(crate) fn segments(&self) -> Vec<u64> {
        (0..KEY_GROUPS).flat_map(|group| self.group(group).segments().collect::<Vec<_>>()).collect()
    }

    pub(crate) fn live_keys(&self) -> u64 {
        (0..KEY_GROUPS).map(|group| self.group(group).live().keys).sum()
    }

    /// What the operator goes by where a name would take too much: a number of its name, its types and the partitions,
    /// on which it depends how windows lay their records out.
    pub(crate) fn id(&self, partitions: usize) -> u64 {
        let StateType { key, value, schema, .. } = &self.state_type;
        let text = format!("{}\0{key}\0{value}\0{}\0{partitions}", self.name, schema.hash);
        xxh3_64(text.as_bytes())
    }

    pub(crate) fn describe(&self) -> OperatorRef {
        OperatorRef {
            name: self.name.clone(),
            key_type: self.state_type.key.clone(),
            value_type: self.state_type.value.clone(),
            value_width: self.state_type.value_width,
            schema: self.state_type.schema.hash,
            keys: self.live_keys(),
        }
    }

    /// What was changed since the last call.
    pub(crate) fn take_changes(&self) -> ChangeSums {
        let mut sums = ChangeSums::default();
        (0..KEY_GROUPS).for_each(|group| self.group(group).take_sums(&mut sums));
        sums
    }

    /// A key that two runs of a batch changed differently, if one can be told: best of those changed since the last
    /// checkpoint.
    pub(crate) fn key_that_differs(&self, difference: &Difference) -> Result<Option<Vec<u8>>> {
        for all in [false, true] {
            let groups = (0..KEY_GROUPS).map(|group| self.group(group).key_that_fits(difference, all));
            let fitting = groups.filter_map(Result::transpose).collect::<Result<Vec<_>>>()?;
            if let Some((_, key)) = fitting.into_iter().max() {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    /// One key's value.
    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        let hash = hash_of(key);
        let mut group = self.group(group_of(hash));
        Ok(group.value(hash, key)?.map(Cow::into_owned))
    }

    /// Sets or removes one key outside of a stage.
    pub(crate) fn put(&self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        let hash = hash_of(key);
        let mut group = self.group(group_of(hash));
        let at = group.touch(hash, key)?;
        let mut changes = GroupChanges::default();
        changes.push(at, value);
        group.apply(&changes);
        Ok(())
    }

    /// Calls `each` with every key and value, by key group and within it by (hash, key).
    pub(crate) fn for_each(&self, mut each: impl FnMut(&[u8], &[u8]) -> Result<()>) -> Result<()> {
        for group in 0..KEY_GROUPS {
            self.group(group).for_each(|entry| entry.value.map_or(Ok(()), |value| each(entry.key, value)))?;
        }
        Ok(())
    }
}

/// What `segments` (in ascending order) hold under a name, by key group: newest first, down to the newest base.
fn parts_of(name: &str, segments: &[Arc<Segment>]) -> Vec<Vec<GroupSource>> {
    let mut parts: Vec<Vec<_>> = (0..KEY_GROUPS).map(|_| Vec::new()).collect();
    for part in segments.iter().flat_map(|segment| segment.groups_of(name)) {
        if let Some(parts) = parts.get_mut(usize::from(part.group.group)) {
            if part.group.base {
                parts.clear();
            }
            parts.insert(0, part);
        }
    }
    parts
}

/// Whether what `segments` (in ascending order) hold of each operator is of the schema that a checkpoint says.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) naming a segment where it is not.
pub(crate) fn check_schemas(operators: &[OperatorRef], segments: &[Arc<Segment>]) -> Result<()> {
    operators.iter().try_for_each(|stored| checked_parts_of(&stored.name, segments, stored.schema).map(drop))
}

/// The same, where every part that counts must hold values of the schema with this hash.
fn checked_parts_of(name: &str, segments: &[Arc<Segment>], schema: u64) -> Result<Vec<Vec<GroupSource>>> {
    let parts = parts_of(name, segments);
    let needed: BTreeMap<SegmentId, &Arc<Segment>> =
        parts.iter().flatten().map(|part| (part.segment_id(), part.segment())).collect();
    needed.values().try_for_each(|segment| segment.expect_schema(name, schema))?;
    Ok(parts)
}

#[cfg(test)]
mod tests;
