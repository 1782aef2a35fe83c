//! One key group of one operator: its live table over what segments hold of it.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::Result;
use crate::format::segment::Entry;
use crate::record::KeyHash;
use crate::record::growth::append_bytes;
use crate::state::changes::{ChangeSums, Difference};
use crate::state::frozen::Frozen;
use crate::state::memory::StateMemory;
use crate::state::merge::for_each_merged;
use crate::state::policy::GroupSize;
use crate::state::table::{LOOKED_AT_ONCE, StateTable};
use crate::state::upgrade::Convert;
use crate::store::segments::{EncodedGroup, GroupEncoder, GroupSource, LiveSize};

/// Once this share of a group's keys was looked up in segments, reading the rest at once costs less. A lookup takes what
/// more than 45 keys take to read.
const COLD_LOOKUPS_SHARE: u64 = 32;

/// The same where nothing has to leave memory again: what is in use goes on being used, and is read once.
const COLD_LOOKUPS_SHARE_UNLIMITED: u64 = 256;

/// ... but never before this many lookups.
const COLD_LOOKUPS_MIN: u64 = 8;

/// What a key takes in a table beyond the bytes of its entry in a segment, about.
const TABLE_BYTES: u64 = 16;

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
    /// What all groups share, if there is a limit.
    memory: Option<Arc<StateMemory>>,
    /// What of it is counted for this group.
    counted: u64,
    /// The last batch that used the group, if there is a limit.
    used: u64,
}

/// What a batch does to one group: decided first, applied when the whole stage has succeeded.
#[derive(Debug, Default)]
pub(crate) struct GroupChanges {
    /// The numbers of the touched keys, in the order of the batch's records.
    touched: Vec<u32>,
    ends: Vec<u32>,
    values: Vec<u8>,
    /// They are in the group's sums: a task that is tried again applies them again and must not count them twice.
    are_counted: AtomicBool,
}

const REMOVED: u32 = 1 << 31;

impl GroupChanges {
    /// # Panics
    /// When the changes of one batch to one key group outgrow 2 GiB.
    pub(crate) fn push(&mut self, at: usize, value: Option<&[u8]>) {
        self.touched.push(at as u32);
        append_bytes(&mut self.values, value.unwrap_or_default());
        let end = self.values.len();
        assert!(end < REMOVED as usize, "one batch changes more than 2 GiB of one key group");
        self.ends.push(end as u32 | if value.is_none() { REMOVED } else { 0 });
    }

    pub(crate) fn touched(&self) -> &[u32] {
        &self.touched
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        (self.touched.capacity() + self.ends.capacity()) * size_of::<u32>() + self.values.capacity()
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

    /// The value of a change, by its number.
    pub(super) fn value(&self, change: usize) -> Option<&[u8]> {
        let start = change.checked_sub(1).map_or(0, |before| self.ends[before] & !REMOVED);
        let mark = self.ends[change];
        let value = &self.values[start as usize..(mark & !REMOVED) as usize];
        (mark & REMOVED == 0).then_some(value)
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

    /// Makes it a group as a checkpoint left it.
    pub(crate) fn restore(&mut self, parts: Vec<GroupSource>) {
        let memory = self.memory.take();
        *self = KeyGroup { memory, counted: self.counted, ..KeyGroup::restored(parts) };
        self.recount();
    }

    /// Keeps what is in memory within a limit from here on.
    pub(crate) fn limit_memory(&mut self, memory: Arc<StateMemory>) {
        self.memory = Some(memory);
        self.recount();
    }

    /// Makes the shared count follow what the table takes now.
    fn recount(&mut self) {
        if let Some(memory) = &self.memory {
            let frozen = self.frozen.as_ref().map_or(0, Frozen::memory_bytes);
            let now = (self.table.memory_bytes() + frozen) as u64;
            memory.recount(self.counted, now);
            self.counted = now;
            self.used = memory.batch();
        }
    }

    /// The same, where no batch used the group.
    fn recount_unused(&mut self) {
        let used = self.used;
        self.recount();
        self.used = used;
    }

    /// Whether the table could hold all of the group.
    fn may_load(&self) -> bool {
        let bytes = self.size.bytes + TABLE_BYTES * self.size.keys;
        self.memory.as_ref().is_none_or(|memory| memory.has_room(bytes.saturating_sub(self.counted)))
    }

    /// Whether looking so many keys up costs more than reading all.
    fn is_worth_loading(&self, lookups: u64) -> bool {
        let share = if self.memory.is_some() { COLD_LOOKUPS_SHARE } else { COLD_LOOKUPS_SHARE_UNLIMITED };
        self.cold_lookups + lookups > COLD_LOOKUPS_MIN + self.size.keys / share && self.may_load()
    }

    /// Appends the number of each key, whose value is in the table after this if it has one. Each page is read once for all
    /// of them, and the places in memory of some at a time are waited for together.
    pub(crate) fn touch_all<'k>(
        &mut self,
        mut keys: impl Iterator<Item = (KeyHash, &'k [u8])> + Clone,
        numbers: &mut Vec<u32>,
    ) -> Result<()> {
        self.warm_up_all(keys.clone())?;
        let mut ahead = keys.clone();
        loop {
            self.table.look_ahead(ahead.by_ref().take(LOOKED_AT_ONCE).map(|(hash, _)| hash));
            let before = numbers.len();
            for (hash, key) in keys.by_ref().take(LOOKED_AT_ONCE) {
                numbers.push(self.touch(hash, key)? as u32);
            }
            if numbers.len() - before < LOOKED_AT_ONCE {
                return Ok(());
            }
        }
    }

    /// Brings keys that are cold into the table.
    fn warm_up_all<'k>(&mut self, keys: impl Iterator<Item = (KeyHash, &'k [u8])>) -> Result<()> {
        if self.cold.is_empty() {
            return Ok(());
        }
        let table = &mut self.table;
        let mut missing: Vec<(KeyHash, &[u8])> =
            keys.filter(|(hash, key)| table.find(*hash, key).is_none()).collect();
        if missing.is_empty() {
            return Ok(());
        }
        if self.is_worth_loading(missing.len() as u64) {
            return self.load();
        }
        self.cold_lookups += missing.len() as u64;
        missing.sort_unstable();
        missing.dedup();
        for part in &self.cold {
            let table = &mut self.table;
            part.find_sorted(&missing, &mut self.page, |at, value| {
                let (hash, key) = missing[at];
                let (at, _) = table.find_or_insert(hash, key);
                table.restore(at, value);
            })?;
            missing.retain(|(hash, key)| table.find(*hash, key).is_none());
        }
        for (hash, key) in missing {
            self.table.find_or_insert(hash, key);
        }
        self.recount();
        Ok(())
    }

    /// The number of `key`, whose value is in the table after this if it has one.
    #[inline]
    pub(crate) fn touch(&mut self, hash: KeyHash, key: &[u8]) -> Result<usize> {
        if !self.cold.is_empty() {
            if let Some(at) = self.table.find(hash, key) {
                return Ok(at);
            }
            self.warm_up(hash, key)?;
        }
        Ok(self.table.find_or_insert(hash, key).0)
    }

    /// The value of `key`; one that is asked for and not there takes no room. Neither does one that is cold, where
    /// memory is limited.
    pub(crate) fn value(&mut self, hash: KeyHash, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>> {
        self.used = self.memory.as_ref().map_or(0, |memory| memory.batch());
        if !self.cold.is_empty() && self.table.find(hash, key).is_none() {
            if self.memory.is_some() && !self.is_worth_loading(1) {
                self.cold_lookups += 1;
                return Ok(self.find_cold(hash, key)?.flatten().map(Cow::Owned));
            }
            self.warm_up(hash, key)?;
        }
        Ok(self.table.find(hash, key).and_then(|at| self.table.value(at)).map(Cow::Borrowed))
    }

    fn warm_up(&mut self, hash: KeyHash, key: &[u8]) -> Result<()> {
        if self.is_worth_loading(1) {
            return self.load();
        }
        self.cold_lookups += 1;
        if let Some(value) = self.find_cold(hash, key)? {
            let (at, _) = self.table.find_or_insert(hash, key);
            self.table.restore(at, value.as_deref());
        }
        Ok(())
    }

    /// What the newest part that knows the key says about it.
    fn find_cold(&mut self, hash: KeyHash, key: &[u8]) -> Result<Option<Option<Vec<u8>>>> {
        for part in &self.cold {
            if let Some(value) = part.find(hash, key, &mut self.page)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// Reads everything that is still cold.
    pub(crate) fn load(&mut self) -> Result<()> {
        let stored: u64 = self.cold.iter().map(GroupSource::entries_max).sum();
        let missing = self.size.keys.saturating_sub(self.table.live_keys() as u64).min(stored);
        self.table.reserve(missing as usize);
        let mut bytes = Vec::new();
        for part in &self.cold {
            let table = &mut self.table;
            part.load(&mut bytes, |page| {
                // What is in the table already is newer: it was touched, or came from a newer part.
                table.restore_absent(page);
                Ok(())
            })?;
        }
        self.cold.clear();
        self.recount();
        Ok(())
    }

    /// Reads everything that is still cold if there is room for it. Returns whether nothing of the group is cold now.
    pub(crate) fn load_if_it_fits(&mut self) -> Result<bool> {
        if !self.cold.is_empty() && self.may_load() {
            self.load()?;
        }
        Ok(self.cold.is_empty())
    }

    /// Calls `each` with every entry that has a value, ordered by (hash, key). What there is no room for is read and
    /// not kept.
    pub(crate) fn for_each(&mut self, mut each: impl FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        if !self.load_if_it_fits()? {
            return for_each_merged(self.table.all(), &self.cold, each);
        }
        self.table.live().into_iter().try_for_each(|at| each(self.table.entry(at)))
    }

    /// Lets go of everything that segments hold: of all but what was changed since the last checkpoint. `parts` are
    /// those of the group's chain, newest first. Numbers of keys change.
    pub(crate) fn evict(&mut self, parts: Vec<GroupSource>) {
        self.size = self.live();
        self.cold = parts;
        self.cold_lookups = 0;
        self.table.keep_changes();
        self.recount_unused();
    }

    /// Reads what is cold from the present chain, whose parts are these: older ones may be gone from the store.
    pub(crate) fn follow_chain(&mut self, parts: Vec<GroupSource>) {
        self.cold = parts;
    }

    /// Whether something is cold that is not part of the chain any more.
    pub(crate) fn is_off_its_chain(&self) -> bool {
        let is_part =
            |part: &GroupSource| self.chain.iter().any(|(segment, _)| *segment == part.segment_id().0);
        !self.rewrite && !self.cold.iter().all(is_part)
    }

    /// What letting go of it would free at most, and the batch that used it last; `None` for a group that cannot be let
    /// go of.
    pub(crate) fn evictable(&self) -> Option<(u64, u64)> {
        let clean = self.table.len() > self.table.changed_keys();
        (!self.rewrite && self.frozen.is_none() && clean).then_some((self.used, self.counted))
    }

    pub(crate) fn table(&self) -> &StateTable {
        &self.table
    }

    /// Applies a batch's changes. Again is as once.
    pub(crate) fn apply(&mut self, changes: &GroupChanges) {
        // The lock of the group orders the attempts.
        let counts = !changes.are_counted.swap(true, Ordering::Relaxed);
        self.has_sums |= counts && !changes.touched.is_empty();
        for (at, value) in changes.iter() {
            if counts {
                self.sums.add(self.table.hash(at), value);
            }
            if !self.cold.is_empty() {
                self.resize(at, value);
            }
            if let Some(frozen) = &mut self.frozen {
                frozen.keep(at, &self.table);
            }
            self.table.change(at, value);
        }
        if !changes.touched.is_empty() {
            self.recount();
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
        let mut best: Option<(usize, Vec<u8>)> = None;
        let mut consider = |hash, key: &[u8]| {
            if let Some(stratum) = difference.fits(hash)
                && best.as_ref().is_none_or(|(most, known)| (stratum, key) > (*most, known.as_slice()))
            {
                best = Some((stratum, key.to_vec()));
            }
        };
        if all {
            self.for_each(|entry| {
                consider(entry.hash, entry.key);
                Ok(())
            })?;
        }
        let table = &self.table;
        (0..table.len())
            .filter(|at| all || table.is_dirty(*at))
            .for_each(|at| consider(table.hash(at), table.key(at)));
        Ok(best)
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
    pub(crate) fn size_with_delta(&self, segment: u64, oldest_to_keep: u64) -> GroupSize {
        let chain_bytes: u64 = self.chain.iter().map(|(_, bytes)| bytes).sum();
        let oldest = self.segments().min();
        GroupSize {
            chain_parts: self.chain.len() + usize::from(self.table.has_changes()),
            chain_bytes: chain_bytes + self.delta_bytes(),
            live_bytes: self.live().bytes,
            age: oldest.map_or(0, |oldest| segment.saturating_sub(oldest)),
            is_pressed: oldest.is_some_and(|oldest| oldest < oldest_to_keep),
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
        for at in self.table.live() {
            let Entry { hash, key, value } = self.table.entry(at);
            if let Some(value) = value.map(convert).transpose()?.flatten() {
                let (at, _) = table.find_or_insert(hash, key);
                table.restore(at, Some(&value));
            }
        }
        self.table = table;
        self.recount();
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
            self.load_if_it_fits()?;
        }
        let Some(frozen) = &self.frozen else { return Ok(None) };
        let mut encoder = GroupEncoder::new(group, frozen.base, frozen.live);
        let entries = frozen.entries(&self.table);
        encoder.reserve(entries.len());
        if frozen.base {
            for_each_merged(entries.collect(), &self.cold, |entry| encoder.push(entry))?;
        } else {
            // Without a chain there is nothing for a tombstone to hide.
            let hides = !self.chain.is_empty();
            let mut needed = entries.filter(|entry| hides || entry.value.is_some());
            needed.try_for_each(|entry| encoder.push(entry))?;
        }
        encoder.finish().map(Some)
    }

    /// Takes note that what was frozen is in `segment`, with so many bytes.
    pub(crate) fn thaw(&mut self, segment: u64, bytes: u64) {
        let Some(frozen) = self.frozen.take() else { return };
        if frozen.base {
            self.chain.clear();
            self.rewrite = false;
        }
        self.chain.push((segment, bytes));
        self.recount_unused();
    }

    /// Lets go of keys that have no value, also of those that were only asked for, where no checkpoint has to remove
    /// them. Numbers of keys change. Returns how many keys were looked at.
    pub(crate) fn tidy_up(&mut self) -> usize {
        if !self.cold.is_empty() || self.frozen.is_some() || !self.table.is_sparse() {
            return 0;
        }
        let keys = self.table.len();
        self.table.compact();
        self.recount_unused();
        keys
    }

    /// The segments that a restart needs for this group.
    pub(crate) fn segments(&self) -> impl Iterator<Item = u64> {
        self.chain.iter().map(|(segment, _)| *segment)
    }
}

#[cfg(test)]
mod tests;
