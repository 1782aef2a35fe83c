//! Bytes only, no I/O: the code twin of `checkpoint-format.md`.
//!
//! Everything stored is a [frame](frame): a header with magic, version, kind, length and CRC32, then a
//! payload. Catalog payloads are rkyv archives ([`records`]); blocks, segment pages and filters have
//! layouts of their own ([`block`], [`segment`], [`filter`]).

pub(crate) mod block;
pub(crate) mod features;
pub(crate) mod filter;
pub(crate) mod frame;
pub(crate) mod object;
pub(crate) mod question;
pub(crate) mod records;
pub(crate) mod segment;
#[cfg(any(feature = "tool", feature = "testkit"))]
pub(crate) mod shown;
#[cfg(test)]
mod spec;

/// The version this build writes, and the newest it reads.
///
/// History: 1 is the first.
pub const FORMAT_VERSION: u16 = 1;

/// The oldest version this build reads.
pub const FORMAT_VERSION_OLDEST: u16 = 1;
