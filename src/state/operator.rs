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
mod tests {
    use super::*;
    use crate::format::records::SegmentHeader;
    use crate::state::GroupChanges;
    use crate::state::policy::oldest_to_keep;
    use crate::store::segments::{EncodedState, write_segment};
    use crate::store::{Disk, StorePaths};
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    type Model = BTreeMap<Vec<u8>, Vec<u8>>;

    fn contents(state: &OperatorState) -> Model {
        let mut found = Model::new();
        state
            .for_each(|key, value| {
                assert!(found.insert(key.to_vec(), value.to_vec()).is_none());
                Ok(())
            })
            .unwrap();
        found
    }

    fn operator() -> Arc<OperatorState> {
        OperatorState::new("totals", StateType::of::<u16, u64>())
    }

    /// Such as the keys of nothing but late records: nothing of theirs is in any checkpoint.
    #[test]
    fn keys_that_never_get_a_value_take_no_memory_after_a_checkpoint() {
        let (executor, state) = (Executor::new(2, 1).unwrap(), operator());
        for checkpoint in 0..50 {
            for key in (0..200).map(|key| checkpoint * 1_000 + key) {
                state.group(3).touch(key, &key.to_le_bytes()).unwrap();
            }
            assert!(state.encode_changes(&executor, checkpoint, 0).unwrap().is_empty());
            assert_eq!(state.group(3).table().len(), 0);
        }
    }

    fn changes(most: usize) -> impl Strategy<Value = Vec<(u16, Option<u8>)>> {
        prop::collection::vec((0u16..400, prop::option::of(0u8..30)), 0..most)
    }

    fn change(state: &OperatorState, model: &mut Model, changes: Vec<(u16, Option<u8>)>) {
        for (key, value) in changes {
            let key = key.to_be_bytes().to_vec();
            let value = value.map(|value| vec![value; usize::from(value) % 5]);
            state.put(&key, value.as_deref()).unwrap();
            match value {
                Some(value) => drop(model.insert(key, value)),
                None => drop(model.remove(&key)),
            }
        }
    }

    proptest! {
        #![proptest_config(crate::cases::cases(48))]
        /// Random changes over checkpoints and restarts, with every base and delta really written while the state
        /// changes further: what is restored equals the model as it was when the checkpoint began, whether keys are
        /// asked for one by one or all at once, and whatever is in memory.
        #[test]
        fn restored_state_equals_a_plain_map(
            rounds in prop::collection::vec((changes(300), changes(100), any::<bool>()), 1..12),
            // Nothing needs to stay, a part can, all does.
            limit in prop::option::of(prop_oneof![Just(0u64), 100_000..400_000u64]),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let paths = StorePaths::new(dir.path());
            std::fs::create_dir(paths.state()).unwrap();
            let memory = limit.map(|limit| Arc::new(StateMemory::new(limit)));
            let limited = || {
                let state = operator();
                memory.iter().for_each(|memory| state.limit_memory(memory));
                state
            };
            let mut state = limited();
            let mut model = Model::new();
            let mut segments = BTreeMap::new();
            for (number, (before, meanwhile, restart)) in rounds.into_iter().enumerate() {
                change(&state, &mut model, before);
                let segment = number as u64 + 1;
                state.freeze(segment, 0);
                let frozen = model.clone();
                let is_clean = meanwhile.is_empty();
                change(&state, &mut model, meanwhile);
                let stays = |group: usize| {
                    let group = state.group(group);
                    !group.is_frozen() || group.evictable().is_none()
                };
                prop_assert!((0..KEY_GROUPS).all(stays), "a group is let go of that a checkpoint reads");
                let groups: Vec<_> = (0..KEY_GROUPS).map(|group| state.encode_frozen(group).unwrap()).collect();
                let bytes: Vec<_> = groups.iter().map(|group| group.as_ref().map_or(0, EncodedGroup::bytes)).collect();
                state.thaw(segment, &bytes);
                let encoded = EncodedState { operators: vec![state.encoded(groups.into_iter().flatten().collect())] };
                let header = SegmentHeader { store: [1; 16], checkpoint: segment };
                let written = write_segment(&Disk::default(), &paths, SegmentId(segment), &header, &encoded).unwrap();
                segments.insert(segment, written);
                let needed = state.segments();
                segments.retain(|segment, _| needed.contains(segment));
                let opened: Vec<_> = segments.values()
                    .map(|segment| Arc::new(Segment::open(&paths, [1; 16], segment).unwrap())).collect();
                if let Some(memory) = &memory {
                    let opened = opened.iter().map(|segment| (segment.id.0, segment.clone())).collect();
                    state.follow_chains(&opened);
                    for (.., group) in state.evictable() {
                        if memory.resident() > memory.limit() {
                            prop_assert!(state.evict(group, &opened));
                        }
                    }
                    prop_assert!(!is_clean || memory.resident() <= memory.limit());
                }
                if restart {
                    model = frozen;
                    state = limited();
                    state.restore(&opened).unwrap();
                }
                if restart || memory.is_some() {
                    for key in (0u16..400).step_by(17).map(u16::to_be_bytes) {
                        prop_assert_eq!(state.get(&key).unwrap(), model.get(&key[..]).cloned());
                    }
                }
                prop_assert_eq!(state.live_keys(), model.len() as u64);
            }
            prop_assert_eq!(contents(&state), model);
        }
    }

    #[test]
    fn asking_for_keys_that_are_not_there_takes_no_memory() {
        let state = operator();
        let memory = || (0..KEY_GROUPS).map(|group| state.group(group).table().memory_bytes()).sum::<usize>();
        let before = memory();
        (0..10_000u64).for_each(|key| assert_eq!(state.get(&key.to_be_bytes()).unwrap(), None));
        assert_eq!(memory(), before);
    }

    #[test]
    fn keys_that_are_visited_and_never_written_leave_nothing_behind() {
        let executor = Executor::new(1, 1).unwrap();
        let state = operator();
        for round in 0..200u64 {
            for key in 0..500u64 {
                let key = (round * 500 + key).to_be_bytes();
                let hash = hash_of(&key);
                state.group(group_of(hash)).touch(hash, &key).unwrap();
            }
            assert!(state.encode_changes(&executor, round + 1, 0).unwrap().is_empty());
        }
        let keys: usize = (0..KEY_GROUPS).map(|group| state.group(group).table().len()).sum();
        assert!(keys < 40_000, "{keys} of 100,000 keys are still there");
    }

    /// One key is changed between checkpoints, of a state whose groups are too large to be rewritten all the time: each
    /// checkpoint writes a segment of its own, and what a checkpoint refers to stays bounded all the same.
    #[test]
    fn few_changes_to_much_state_do_not_need_ever_more_segments() {
        let executor = Executor::new(1, 1).unwrap();
        let run = |most: usize| {
            let state = operator();
            let keys: Vec<[u8; 8]> = (0..2_000u64).map(u64::to_be_bytes).collect();
            keys.iter().for_each(|key| state.put(key, Some(&[7; 1_500])).unwrap());
            let (mut needed, mut written) = (Vec::new(), 0);
            for segment in 1..=800u64 {
                state.put(&keys[segment as usize % keys.len()], Some(b"changed")).unwrap();
                let oldest = oldest_to_keep(&needed, most);
                let groups = state.encode_changes(&executor, segment, oldest).unwrap();
                written += groups.iter().map(EncodedGroup::bytes).sum::<u64>();
                needed = state.segments();
                needed.sort_unstable();
                needed.dedup();
            }
            (needed.len(), written)
        };
        let (unbounded, least) = run(usize::MAX);
        assert!(unbounded > 400, "{unbounded} segments: the state is not what it should be");
        let (bounded, written) = run(100);
        assert!(bounded <= 110, "{bounded} segments");
        assert!(written < 8 * least, "{written} bytes instead of {least}");
    }

    /// A task that fails after some of its groups is tried again, and applies their changes again.
    #[test]
    fn what_is_applied_again_is_counted_once() {
        let key = |group: usize| {
            let keys = (0u64..).map(u64::to_be_bytes);
            keys.into_iter().find(|key| group_of(hash_of(key)) == group).unwrap()
        };
        let run = |fails: bool| {
            let (executor, state) = (Executor::new(2, 3).unwrap(), operator());
            let changes: Vec<GroupChanges> = (0..4)
                .map(|group| {
                    let mut changes = GroupChanges::default();
                    let at = state.group(group).touch(hash_of(&key(group)), &key(group)).unwrap();
                    changes.push(at, Some(b"value"));
                    changes
                })
                .collect();
            let attempts = AtomicUsize::new(0);
            let applied = executor.run_stage("apply", 1, |_, _| {
                for (group, changes) in changes.iter().enumerate() {
                    if group == 2 && fails && attempts.fetch_add(1, Ordering::SeqCst) == 0 {
                        panic!("once");
                    }
                    state.group(group).apply(changes);
                }
                Ok(())
            });
            applied.unwrap();
            assert_eq!(attempts.into_inner(), if fails { 2 } else { 0 });
            (state.take_changes(), state.take_changes(), contents(&state))
        };
        let undisturbed = run(false);
        assert_ne!(undisturbed.0, ChangeSums::default());
        assert_eq!(run(true), undisturbed);
    }

    #[test]
    fn keys_that_are_gone_leave_nothing_behind() {
        let executor = Executor::new(1, 1).unwrap();
        let state = operator();
        let mut written = 0;
        for round in 0..200u64 {
            for key in 0..500u64 {
                state.put(&(round * 500 + key).to_be_bytes(), Some(b"12345678")).unwrap();
                if round > 0 {
                    state.put(&((round - 1) * 500 + key).to_be_bytes(), None).unwrap();
                }
            }
            written =
                state.encode_changes(&executor, round + 1, 0).unwrap().iter().map(EncodedGroup::bytes).sum();
        }
        assert_eq!(state.live_keys(), 500);
        let memory: usize = (0..KEY_GROUPS).map(|group| state.group(group).table().memory_bytes()).sum();
        assert!(memory < 2_000_000, "{memory} bytes for 500 keys after 100,000");
        let chains: usize = (0..KEY_GROUPS).map(|group| state.group(group).segments().count()).max().unwrap();
        assert!(chains <= 34, "a chain of {chains} parts");
        assert!(written < 200_000, "{written} bytes in the last checkpoint");
    }
}
