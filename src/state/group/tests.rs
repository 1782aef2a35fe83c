use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::format::records::SegmentHeader;
use crate::id::SegmentId;
use crate::record::hash_of;
use crate::store::segments::{EncodedOperator, EncodedState, Segment, write_segment};
use crate::store::{Disk, StorePaths};

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(&'static [u8]),
    Remove(&'static [u8]),
    Ask(&'static [u8]),
    Delta,
    Base,
    Restart,
    Evict,
}

const STEPS: [Step; 8] = [
    Step::Put(b"a"),
    Step::Put(b"b"),
    Step::Remove(b"a"),
    Step::Ask(b"a"),
    Step::Delta,
    Step::Base,
    Step::Restart,
    Step::Evict,
];

/// A group with the segments that hold it, and a plain map.
struct Tested<'a> {
    paths: &'a StorePaths,
    group: KeyGroup,
    segments: BTreeMap<u64, Vec<GroupSource>>,
    model: BTreeMap<&'static [u8], Vec<u8>>,
    /// Whether there is no room for anything that need not be in memory.
    without_room: bool,
}

impl Tested<'_> {
    fn change(&mut self, key: &'static [u8], value: Option<Vec<u8>>) {
        let at = self.group.touch(hash_of(key), key).unwrap();
        let mut changes = GroupChanges::default();
        changes.push(at, value.as_deref());
        self.group.apply(&changes);
        match value {
            Some(value) => drop(self.model.insert(key, value)),
            None => drop(self.model.remove(key)),
        }
    }

    fn value(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.group.value(hash_of(key), key).unwrap().map(Cow::into_owned)
    }

    fn checkpoint(&mut self, number: u64, whole: bool) {
        if whole && self.group.cold.is_empty() {
            self.group.table.compact();
        }
        self.group.freeze(whole);
        let Some(encoded) = self.group.encode_frozen(0).unwrap() else { return };
        self.group.thaw(number, encoded.bytes());
        let state = EncodedState {
            operators: vec![EncodedOperator {
                name: "totals".into(),
                schema: "bytes".into(),
                groups: vec![encoded],
            }],
        };
        let header = SegmentHeader { store: [1; 16], checkpoint: number };
        let written =
            write_segment(&Disk::default(), self.paths, SegmentId(number), &header, &state).unwrap();
        let segment = Arc::new(Segment::open(self.paths, [1; 16], &written).unwrap());
        self.segments.insert(number, segment.groups_of("totals"));
    }

    fn step(&mut self, number: u64, step: Step) {
        match step {
            Step::Put(key) => self.change(key, Some(vec![number as u8; number as usize % 3])),
            Step::Remove(key) => self.change(key, None),
            Step::Ask(key) => assert_eq!(self.value(key), self.model.get(key).cloned()),
            Step::Delta => self.checkpoint(number, false),
            Step::Base => self.checkpoint(number, true),
            Step::Restart => {
                self.checkpoint(number, false);
                let parts = self.chain();
                self.segments = parts.iter().map(|part| (part.segment_id().0, vec![part.clone()])).collect();
                self.group = KeyGroup::restored(parts);
                self.limit();
            }
            Step::Evict => {
                self.group.evict(self.chain());
                assert_eq!(self.group.table().len(), self.group.table().changed_keys());
            }
        }
    }

    /// The parts of the chain, newest first.
    fn chain(&self) -> Vec<GroupSource> {
        let mut parts: Vec<_> =
            self.group.segments().flat_map(|segment| self.segments[&segment].clone()).collect();
        parts.reverse();
        parts
    }

    fn limit(&mut self) {
        if self.without_room {
            self.group.limit_memory(Arc::new(StateMemory::new(0)));
        }
    }

    /// All there is, in the order in which it is handed out.
    fn rows(&mut self) -> Vec<(KeyHash, Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        let row = |entry: Entry<'_>| (entry.hash, entry.key.to_vec(), entry.value.unwrap().to_vec());
        self.group
            .for_each(|entry| {
                rows.push(row(entry));
                Ok(())
            })
            .unwrap();
        rows
    }
}

fn every_history(steps: &[Step], length: u32, without_room: bool) {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    std::fs::create_dir(paths.state()).unwrap();
    for (length, sequence) in
        (1..=length).flat_map(|length| (0..steps.len().pow(length)).map(move |at| (length, at)))
    {
        let step = |place: u32| steps[sequence / steps.len().pow(place) % steps.len()];
        let steps: Vec<Step> = (0..length).map(step).collect();
        let (group, segments, model) = (KeyGroup::default(), BTreeMap::new(), BTreeMap::new());
        let mut tested = Tested { paths: &paths, group, segments, model, without_room };
        tested.limit();
        (1..).zip(&steps).for_each(|(number, step)| tested.step(number, *step));
        assert_eq!(tested.group.live().keys, tested.model.len() as u64, "{steps:?}");
        let entry = |(key, value): (&&[u8], &Vec<u8>)| crate::format::segment::entry_bytes(key, Some(value));
        let bytes: usize = tested.model.iter().map(entry).sum();
        assert_eq!(tested.group.live().bytes, bytes as u64, "{steps:?}");
        let row = |(key, value): (&&[u8], &Vec<u8>)| (hash_of(key), key.to_vec(), value.clone());
        let mut rows: Vec<_> = tested.model.iter().map(row).collect();
        rows.sort_unstable();
        assert_eq!(tested.rows(), rows, "{steps:?}");
        for key in [&b"b"[..], b"a", b"c"] {
            assert_eq!(tested.value(key), tested.model.get(key).cloned(), "{steps:?}");
        }
        tested.group.load().unwrap();
        assert_eq!(tested.group.table().live_keys(), tested.model.len(), "{steps:?}");
        assert_eq!(tested.rows(), rows, "{steps:?}");
    }
}

/// Every sequence of up to five steps, the idea of Spark's `StateMapSuite`: whatever was changed, removed,
/// checkpointed, rewritten and restored in whatever order, the group has what a plain map has.
#[test]
fn every_short_history_ends_as_a_plain_map() {
    every_history(&STEPS[..7], 5, false);
}

#[test]
fn every_short_history_with_what_was_let_go_of_ends_as_a_plain_map() {
    every_history(&STEPS, 4, false);
    every_history(&STEPS, 4, true);
}
