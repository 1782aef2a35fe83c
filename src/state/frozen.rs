//! What a checkpoint has to hold of a key group: the group as it was when the checkpoint began, while batches go on
//! changing it.
//!
//! Nothing is copied when it begins. A key that is changed while the checkpoint is on its way leaves behind the value
//! that it had, once; all others are still in the table.

use crate::error::Result;
use crate::format::segment::Entry;
use crate::record::KeyHash;
use crate::state::group::GroupChanges;
use crate::state::table::{StateTable, numbers_in};
use crate::store::segments::{EncodedGroup, LiveSize};

/// In place of the number of a kept value: the one in the table.
const IN_TABLE: u32 = u32::MAX;

/// Where an entry is.
struct Place {
    hash: KeyHash,
    at: u32,
    from: u32,
}

#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) base: bool,
    live: LiveSize,
    /// One bit per key: it is to be in the checkpoint, with the value that it has in the table. In a base this goes for keys
    /// beyond the last bit too: they may come up from segments.
    in_table: Vec<u64>,
    /// The keys that were changed since, with what they had.
    kept: GroupChanges,
}

impl Frozen {
    /// What was changed, one bit per key.
    pub(super) fn delta(changed: Vec<u64>, live: LiveSize) -> Self {
        Frozen { base: false, live, in_table: changed, kept: GroupChanges::default() }
    }

    /// Everything.
    pub(super) fn base(live: LiveSize) -> Self {
        Frozen { base: true, live, in_table: Vec::new(), kept: GroupChanges::default() }
    }

    /// Keeps the value of a key that is about to change, if the checkpoint has to hold it.
    pub(super) fn keep(&mut self, at: usize, table: &StateTable) {
        let (word, bit) = (at / 64, 1 << (at % 64));
        if self.base && word >= self.in_table.len() {
            self.in_table.resize(word + 1, !0);
        }
        if let Some(bits) = self.in_table.get_mut(word)
            && *bits & bit != 0
        {
            *bits &= !bit;
            self.kept.push(at, table.value(at));
        }
    }

    /// Lays the group out as it was. `hides` says whether removed keys have something to hide.
    pub(super) fn encode(&self, group: usize, table: &StateTable, hides: bool) -> Result<EncodedGroup> {
        let place = |at: usize, from| Place { hash: table.hash(at), at: at as u32, from };
        let beyond = if self.base { self.in_table.len() * 64..table.len() } else { 0..0 };
        let in_table = numbers_in(&self.in_table).filter(|at| *at < table.len()).chain(beyond);
        let touched = self.kept.touched().iter().zip(0..);
        let mut places = Vec::with_capacity(if self.base { table.len() } else { 0 });
        places.extend(in_table.map(|at| place(at, IN_TABLE)));
        places.extend(touched.map(|(at, kept)| place(*at as usize, kept)));
        // Hashes travel with the numbers: looking each up while sorting would miss the cache every time.
        places.sort_unstable_by_key(|place| place.hash);
        for same_hash in places.chunk_by_mut(|a, b| a.hash == b.hash).filter(|same| same.len() > 1) {
            same_hash.sort_unstable_by(|a, b| table.key(a.at as usize).cmp(table.key(b.at as usize)));
        }
        let kept: Vec<Option<&[u8]>> = self.kept.iter().map(|(_, value)| value).collect();
        let entries = places.into_iter().map(|Place { hash, at, from }| {
            let value = if from == IN_TABLE { table.value(at as usize) } else { kept[from as usize] };
            Entry { hash, key: table.key(at as usize), value }
        });
        let hides = hides && !self.base;
        EncodedGroup::encode(
            group,
            self.base,
            self.live,
            entries.filter(|entry| hides || entry.value.is_some()),
        )
    }
}
