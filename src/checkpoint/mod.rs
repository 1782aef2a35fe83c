//! Checkpoints: one atomic commit point every N batches, and the way back to it.
//!
//! ```text
//!  changed key groups ─▶ segment, synced ─▶ checkpoint record, committed ─▶ what nothing needs is pruned
//! ```
//!
//! [`protocol`] decides, over facts; [`writer`] and [`recovery`] read the facts and do what was decided.

pub(crate) mod between;
mod layout;
pub(crate) mod matching;
pub(crate) mod protocol;
pub(crate) mod recovery;
#[cfg(feature = "tool")]
pub(crate) mod rollback;
pub(crate) mod sweep;
pub(crate) mod tallies;
pub(crate) mod writer;
