//! Where records come from.
//!
//! A source is of one of two kinds. A [`ReplayableSource`] can be read again: a plan records the ranges it
//! offered, and a replay reads them again. What is **received** (sockets, a custom [`Receiver`]) is gone once
//! read: it is cut into blocks and logged before it counts.

mod admission;
mod binary_records;
mod decoded_socket;
mod directory;
mod feed;
mod file;
mod lines;
mod queue;
mod ranges;
mod receiver;
mod regular;
mod replayable;
mod socket;

pub(crate) use admission::Admission;
pub use binary_records::BinaryRecordsSource;
pub use decoded_socket::encode_raw_frame;
pub(crate) use decoded_socket::{Decode, Decoded, DecodedSocketReceiver, decode_raw_frame};
pub use directory::DirectorySource;
pub(crate) use feed::Feed;
pub use file::FileSource;
pub(crate) use lines::emit_lines;
pub use queue::Queue;
pub use receiver::{BlockStore, Receiver, ReceiverError};
pub(crate) use receiver::{Inlet, ReceiverChange, ReceiverChanges, ReceiverTask, run_receiver};
pub use replayable::{Offer, Position, Positions, RangeReader, ReplayableSource, SourceRange};
pub(crate) use socket::SocketReceiver;
