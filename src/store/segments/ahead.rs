//! Filters that are read along with one that is asked for: a batch asks key group by key group, and their filters lie side
//! by side.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};

use crate::config::KEY_GROUPS;

/// So much is read at once, or the filter alone if that is longer.
const AHEAD_BYTES: usize = 8 << 10;

/// Each holds what was read last for this many key groups in a row: tasks work on different ones.
const GROUPS_PER_SLOT: usize = 16;

/// What was read and not yet asked for. None of it was checked.
#[derive(Debug, Default)]
pub(super) struct ReadAhead {
    slots: [Mutex<Chunk>; KEY_GROUPS / GROUPS_PER_SLOT],
}

#[derive(Debug, Default)]
struct Chunk {
    begin: u64,
    bytes: Vec<u8>,
}

impl ReadAhead {
    /// Fills `out` with what the file has at `at`, for a key group. The file is known to have `left` bytes from there
    /// on, and `out` to be no longer.
    pub(super) fn read(
        &self,
        group: u16,
        file: &File,
        (at, left): (u64, u64),
        out: &mut [u8],
    ) -> std::io::Result<()> {
        let group = usize::from(group);
        let Some(slot) = self.slots.get(group / GROUPS_PER_SLOT) else { return file.read_exact_at(out, at) };
        let mut chunk = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if !chunk.copy_to(at, out) {
            let length = AHEAD_BYTES.min(usize::try_from(left).unwrap_or(usize::MAX)).max(out.len());
            let mut bytes = std::mem::take(&mut *chunk).bytes;
            bytes.resize(length, 0);
            file.read_exact_at(&mut bytes, at)?;
            out.copy_from_slice(&bytes[..out.len()]);
            *chunk = Chunk { begin: at, bytes };
        }
        if group % GROUPS_PER_SLOT == GROUPS_PER_SLOT - 1 {
            // A batch asks for no more of it.
            *chunk = Chunk::default();
        }
        Ok(())
    }
}

impl Chunk {
    fn copy_to(&self, at: u64, out: &mut [u8]) -> bool {
        let from = at.checked_sub(self.begin).and_then(|from| usize::try_from(from).ok());
        let held = from.and_then(|from| self.bytes.get(from..)?.get(..out.len()));
        held.map(|held| out.copy_from_slice(held)).is_some()
    }
}
