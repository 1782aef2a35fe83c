//! One key group of one operator: its live table over what segments hold of it.

use crate::error::Result;
use crate::record::KeyHash;
use crate::state::changes::{ChangeSums, Difference};
use crate::state::frozen::Frozen;
use crate::state::policy::GroupSize;
use crate::state::table::StateTable;
use crate::state::upgrade::Convert;
use crate::store::segments::{EncodedGroup, GroupSource, LiveSize};

/// Once this share of a group's keys was looked up in segments, reading the rest at once costs less.
const COLD_LOOKUPS_SHARE: u64 = 32;

/// ... but never before this many lookups.
const COLD_LOOKUPS_MIN: u64 = 8;

/// A key group. Entries below the live table are **cold**: they are read from segments when asked for.
#[derive(Debug, Default)]
pub(crate) struct KeyGroup {
    table: StateTable,
    /// Newest first; the last one is a base, or everything there ever was.
    cold: Vec<GroupSource>,
    cold_lookups: u64,
    /// What a restart would have to read for this group: segment and bytes, oldest first.
    chain: Vec<(u64, u64)>,
    /// Keys and bytes once cold entries are counted in, as long as there are any.
    size: LiveSize,
    /// The next checkpoint has to hold all of the group, whatever has changed.
    rewrite: bool,
    /// What a checkpoint that is on its way has to hold.
    frozen: Option<Frozen>,
    page: Vec<u8>,
    /// What was changed since it was last taken.
    sums: ChangeSums,
    has_sums: bool,
}

/// What a batch does to one group: decided first, applied when the whole stage has succeeded.
#[derive(Debug, Default)]
pub(crate) struct GroupChanges {
    /// The numbers of the touched keys, in the order of the batch's records.
    touched: Vec<u32>,
    ends: Vec<u32>,
    values: Vec<u8>,
}

const REMOVED: u32 = 1 << 31;

impl GroupChanges {
    /// # Panics
    /// When the changes of one batch to one key group outgrow 2 GiB.
    pub(crate) fn push(&mut self, at: usize, value: Option<&[u8]>) {
        self.touched.push(at as u32);
        self.values.extend_from_slice(value.unwrap_or_default());
        let end = self.values.len();
        assert!(end < REMOVED as usize, "one batch changes more than 2 GiB of one key group");
        self.ends.push(end as u32 | if value.is_none() { REMOVED } else { 0 });
    }

    pub(crate) fn touched(&self) -> &[u32] {
        &self.touched
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, Option<&[u8]>)> {
        let mut start = 0;
        self.touched.iter().zip(&self.ends).map(move |(&at, &mark)| {
            let end = (mark & !REMOVED) as usize;
            let value = &self.values[start..end];
            start = end;
            (at as usize, (mark & REMOVED == 0).then_some(value))
        })
    }
}

impl KeyGroup {
    /// A group as a checkpoint left it; `parts` are newest first.
    pub(crate) fn restored(parts: Vec<GroupSource>) -> Self {
        let newest = parts.first().map(|part| &part.group);
        let size = newest
            .map_or(LiveSize::default(), |group| LiveSize { keys: group.live_keys, bytes: group.live_bytes });
        let chain = parts.iter().rev().map(|part| (part.segment_id().0, part.group.bytes)).collect();
        KeyGroup { cold: parts, size, chain, ..KeyGroup::default() }
    }

    /// The number of `key`, whose value is in the table after this if it has one.
    #[inline]
    pub(crate) fn touch(&mut self, hash: KeyHash, key: &[u8]) -> Result<usize> {
        if !self.cold.is_empty() && self.table.find(hash, key).is_none() {
            self.warm_up(hash, key)?;
        }
        Ok(self.table.find_or_insert(hash, key).0)
    }

    /// The number of `key` if there is one; a key that is asked for and not there takes no room.
    pub(crate) fn find(&mut self, hash: KeyHash, key: &[u8]) -> Result<Option<usize>> {
        if !self.cold.is_empty() && self.table.find(hash, key).is_none() {
            self.warm_up(hash, key)?;
        }
        Ok(self.table.find(hash, key))
    }

    fn warm_up(&mut self, hash: KeyHash, key: &[u8]) -> Result<()> {
        self.cold_lookups += 1;
        if self.cold_lookups > COLD_LOOKUPS_MIN + self.size.keys / COLD_LOOKUPS_SHARE {
            return self.load();
        }
        for part in &self.cold {
            if let Some(value) = part.find(hash, key, &mut self.page)? {
                let (at, _) = self.table.find_or_insert(hash, key);
                self.table.restore(at, value.as_deref());
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads everything that is still cold.
    pub(crate) fn load(&mut self) -> Result<()> {
        for part in &self.cold {
            let table = &mut self.table;
            part.for_each(|entry| {
                // What is in the table already is newer: it was touched, or came from a newer part.
                let (at, new) = table.find_or_insert(entry.hash, entry.key);
                if new {
                    table.restore(at, entry.value);
                }
                Ok(())
            })?;
        }
        self.cold.clear();
        Ok(())
    }

    /// Whether nothing of the group is cold.
    pub(crate) fn is_loaded(&self) -> bool {
        self.cold.is_empty()
    }

    pub(crate) fn table(&self) -> &StateTable {
        &self.table
    }

    /// Applies a batch's changes.
    pub(crate) fn apply(&mut self, changes: &GroupChanges) {
        self.has_sums |= !changes.touched.is_empty();
        for (at, value) in changes.iter() {
            self.sums.add(self.table.hash(at), value);
            if !self.cold.is_empty() {
                self.resize(at, value);
            }
            if let Some(frozen) = &mut self.frozen {
                frozen.keep(at, &self.table);
            }
            self.table.change(at, value);
        }
    }

    /// Adds what was changed since the last call to `sums`.
    pub(crate) fn take_sums(&mut self, sums: &mut ChangeSums) {
        if std::mem::take(&mut self.has_sums) {
            sums.merge(&std::mem::take(&mut self.sums));
        }
    }

    /// The key of highest stratum that fits a difference, of those that were changed since the last checkpoint, or
    /// of `all`.
    pub(crate) fn key_that_fits(
        &mut self,
        difference: &Difference,
        all: bool,
    ) -> Result<Option<(usize, Vec<u8>)>> {
        if all {
            self.load()?;
        }
        let table = &self.table;
        let numbers = (0..table.len()).filter(|at| all || table.is_dirty(*at));
        let fitting = numbers.filter_map(|at| Some((difference.fits(table.hash(at))?, table.key(at))));
        Ok(fitting.max().map(|(stratum, key)| (stratum, key.to_vec())))
    }

    /// Keeps count of keys and bytes while some are cold and the table alone cannot tell.
    fn resize(&mut self, at: usize, value: Option<&[u8]>) {
        let bytes = |value| crate::format::segment::entry_bytes(self.table.key(at), Some(value)) as u64;
        if let Some(before) = self.table.value(at) {
            self.size.keys -= 1;
            self.size.bytes -= bytes(before);
        }
        if let Some(value) = value {
            self.size.keys += 1;
            self.size.bytes += bytes(value);
        }
    }

    pub(crate) fn live(&self) -> LiveSize {
        if self.cold.is_empty() {
            LiveSize { keys: self.table.live_keys() as u64, bytes: self.table.live_bytes() }
        } else {
            self.size
        }
    }

    /// About what a delta would take.
    pub(crate) fn delta_bytes(&self) -> u64 {
        let (live, changed) = (self.live(), self.table.changed_keys() as u64);
        (changed * live.bytes).checked_div(live.keys).unwrap_or(changed)
    }

    /// The size that the policy decides on, with the delta that is due in `segment`.
    pub(crate) fn size_with_delta(&self, segment: u64) -> GroupSize {
        let chain_bytes: u64 = self.chain.iter().map(|(_, bytes)| bytes).sum();
        GroupSize {
            chain_parts: self.chain.len() + usize::from(self.table.has_changes()),
            chain_bytes: chain_bytes + self.delta_bytes(),
            live_bytes: self.live().bytes,
            age: self.segments().min().map_or(0, |oldest| segment.saturating_sub(oldest)),
        }
    }

    /// Makes the next checkpoint hold all of the group: what earlier ones hold must not be read with it.
    pub(crate) fn rewrite(&mut self) {
        self.rewrite = true;
        self.chain.clear();
    }

    /// Converts every value. When one cannot be, nothing has changed.
    pub(crate) fn convert(&mut self, convert: &Convert) -> Result<()> {
        self.load()?;
        let mut table = StateTable::default();
        for at in self.table.live().into_iter().map(|at| at as usize) {
            if let Some(value) = self.table.value(at).map(convert).transpose()?.flatten() {
                let (at, _) = table.find_or_insert(self.table.hash(at), self.table.key(at));
                table.restore(at, Some(&value));
            }
        }
        self.table = table;
        Ok(())
    }

    /// A checkpoint begins, which holds what changed since the one before, or all of the group. Batches may go on. Returns
    /// whether it holds all.
    pub(crate) fn freeze(&mut self, whole: bool) -> bool {
        let (live, whole) = (self.live(), whole || self.rewrite);
        self.frozen = if whole {
            self.table.take_changes();
            Some(Frozen::base(live))
        } else if self.table.has_changes() {
            Some(Frozen::delta(self.table.take_changes(), live))
        } else {
            None
        };
        whole
    }

    /// Whether a checkpoint that is on its way has something to hold of the group.
    pub(crate) fn is_frozen(&self) -> bool {
        self.frozen.is_some()
    }

    /// Lays out what the checkpoint on its way has to hold, if there is anything; the same each time.
    pub(crate) fn encode_frozen(&mut self, group: usize) -> Result<Option<EncodedGroup>> {
        if self.frozen.as_ref().is_some_and(|frozen| frozen.base) {
            self.load()?;
        }
        // Without a chain there is nothing for a tombstone to hide.
        let hides = !self.chain.is_empty();
        self.frozen.as_ref().map(|frozen| frozen.encode(group, &self.table, hides)).transpose()
    }

    /// Takes note that what was frozen is in `segment`, with so many bytes.
    pub(crate) fn thaw(&mut self, segment: u64, bytes: u64) {
        let Some(frozen) = self.frozen.take() else { return };
        if frozen.base {
            self.chain.clear();
            self.rewrite = false;
        }
        self.chain.push((segment, bytes));
    }

    /// Lets go of keys that have no value, also of those that were only asked for, where no checkpoint has to remove
    /// them. Numbers of keys change. Returns how many keys were looked at.
    pub(crate) fn tidy_up(&mut self) -> usize {
        if !self.cold.is_empty() || self.frozen.is_some() || !self.table.is_sparse() {
            return 0;
        }
        let keys = self.table.len();
        self.table.compact();
        keys
    }

    /// The segments that a restart needs for this group.
    pub(crate) fn segments(&self) -> impl Iterator<Item = u64> {
        self.chain.iter().map(|(segment, _)| *segment)
    }
}

#[cfg(test)]
mod tests {
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
    }

    const STEPS: [Step; 7] = [
        Step::Put(b"a"),
        Step::Put(b"b"),
        Step::Remove(b"a"),
        Step::Ask(b"a"),
        Step::Delta,
        Step::Base,
        Step::Restart,
    ];

    /// A group with the segments that hold it, and a plain map.
    struct Tested<'a> {
        paths: &'a StorePaths,
        group: KeyGroup,
        segments: BTreeMap<u64, Vec<GroupSource>>,
        model: BTreeMap<&'static [u8], Vec<u8>>,
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
            let at = self.group.find(hash_of(key), key).unwrap()?;
            self.group.table().value(at).map(<[u8]>::to_vec)
        }

        fn checkpoint(&mut self, number: u64, whole: bool) {
            if whole {
                self.group.load().unwrap();
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
                    let parts = self.group.segments().map(|segment| self.segments.remove(&segment).unwrap());
                    let parts: Vec<_> = parts.flatten().collect();
                    self.segments =
                        parts.iter().map(|part| (part.segment_id().0, vec![part.clone()])).collect();
                    self.group = KeyGroup::restored(parts.into_iter().rev().collect());
                }
            }
        }
    }

    /// Every sequence of up to five steps, the idea of Spark's `StateMapSuite`: whatever was changed, removed,
    /// checkpointed, rewritten and restored in whatever order, the group has what a plain map has.
    #[test]
    fn every_short_history_ends_as_a_plain_map() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StorePaths::new(dir.path());
        std::fs::create_dir(paths.state()).unwrap();
        for length in 1..=5u32 {
            for sequence in 0..STEPS.len().pow(length) {
                let step = |place: u32| STEPS[sequence / STEPS.len().pow(place) % STEPS.len()];
                let steps: Vec<Step> = (0..length).map(step).collect();
                let mut tested = Tested {
                    paths: &paths,
                    group: KeyGroup::default(),
                    segments: BTreeMap::new(),
                    model: BTreeMap::new(),
                };
                (1..).zip(&steps).for_each(|(number, step)| tested.step(number, *step));
                assert_eq!(tested.group.live().keys, tested.model.len() as u64, "{steps:?}");
                let entry =
                    |(key, value): (&&[u8], &Vec<u8>)| crate::format::segment::entry_bytes(key, Some(value));
                let bytes: usize = tested.model.iter().map(entry).sum();
                assert_eq!(tested.group.live().bytes, bytes as u64, "{steps:?}");
                for key in [&b"b"[..], b"a", b"c"] {
                    assert_eq!(tested.value(key), tested.model.get(key).cloned(), "{steps:?}");
                }
                tested.group.load().unwrap();
                assert_eq!(tested.group.table().live_keys(), tested.model.len(), "{steps:?}");
            }
        }
    }
}
