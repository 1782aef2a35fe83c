//! The memory that all live tables of a job may take together.

use std::sync::atomic::{AtomicU64, Ordering};

/// How much is resident, and how much may be. What it says decides what stays in memory, never what is computed.
#[derive(Debug)]
pub(crate) struct StateMemory {
    limit: u64,
    resident: AtomicU64,
    /// Counts batches: which groups were used last.
    batch: AtomicU64,
}

impl StateMemory {
    pub(crate) fn new(limit: u64) -> Self {
        StateMemory { limit, resident: AtomicU64::new(0), batch: AtomicU64::new(0) }
    }

    pub(crate) fn resident(&self) -> u64 {
        self.resident.load(Ordering::Relaxed)
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn has_room(&self, bytes: u64) -> bool {
        self.resident().saturating_add(bytes) <= self.limit
    }

    pub(super) fn recount(&self, before: u64, now: u64) {
        self.resident.fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
    }

    pub(crate) fn next_batch(&self) {
        self.batch.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn batch(&self) -> u64 {
        self.batch.load(Ordering::Relaxed)
    }
}
