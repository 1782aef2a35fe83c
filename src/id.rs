//! Identifiers as types of their own, so that a batch never passes for a block.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64;

macro_rules! numbered {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl $name {
            /// The one that follows.
            #[must_use]
            pub fn next(self) -> Self {
                $name(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}"), self.0)
            }
        }
    };
}

numbered!(
    /// The number of a batch: 1 for the first of a store, one more for each that follows, across restarts.
    BatchId,
    "batch"
);
numbered!(
    /// The number of a received block, counted over the whole life of a store.
    BlockId,
    "block"
);
numbered!(
    /// The number of a checkpoint: 1 for the first of a store.
    CheckpointId,
    "checkpoint"
);
numbered!(
    /// The number of a file of the receive log.
    ExtentId,
    "extent"
);
numbered!(
    /// The number of a file of checkpointed state.
    SegmentId,
    "segment"
);
numbered!(
    /// The number of an epoch of the catalog.
    EpochId,
    "epoch"
);

/// Names an input stream in the store: the XXH3 hash of the name the job gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

impl StreamId {
    /// The id of the stream called `name`.
    pub fn of(name: &str) -> Self {
        StreamId(xxh3_64(name.as_bytes()))
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stream {:016x}", self.0)
    }
}

/// The time of a batch: milliseconds since the Unix epoch, a multiple of the batch interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchTime(pub u64);

impl fmt::Display for BatchTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ms", self.0)
    }
}
