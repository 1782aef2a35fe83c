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
        let limited = || {
            let (state, memory) = (operator(), limit.map(|limit| Arc::new(StateMemory::new(limit))));
            memory.iter().for_each(|memory| state.limit_memory(memory));
            (state, memory)
        };
        let (mut state, mut memory) = limited();
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
                (state, memory) = limited();
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
