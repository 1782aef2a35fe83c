//! What the `millpond` command asks a job's binary, and what it answers: files of their own, in no store.
//!
//! ```text
//!  0        4          6          8            12        16
//!  | "MLPQ" | protocol | reserved | length u32 | crc u32 | rkyv archive of a Message
//! ```
//!
//! Little-endian. The CRC32 (IEEE) covers bytes 0..12 and the archive. Both sides are built with the crate, possibly
//! in two versions of it: a protocol that is not one's own is refused before anything else is read.

use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::format::records::RangeRef;

const MAGIC: [u8; 4] = *b"MLPQ";

/// Raised with every change of a [`Message`].
const PROTOCOL: u16 = 1;

const HEADER_BYTES: usize = 16;

/// What goes from the command to the job, or back.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Ask(Ask),
    Answer(Box<Answer>),
}

/// A question about one store: a job on any other one has no answer to it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Ask {
    /// The bytes of its path.
    pub(crate) store: Vec<u8>,
    pub(crate) question: Question,
}

/// What a job may be asked in place of starting.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum Question {
    /// What would a start do?
    Plan,
    /// What touched a key, by computing the retained batches again?
    Why { operator: String, key: Vec<u8> },
}

/// What a job says.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    /// The version of the crate that the job is built with.
    pub(crate) version: String,
    pub(crate) job: String,
    pub(crate) reply: Reply,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum Reply {
    Plan(StartPlan),
    Why(KeyReplay),
    /// A start would be refused, and there is nothing more to say.
    Refused(String),
    /// The job is on the store of this path.
    Elsewhere(Vec<u8>),
}

/// What a start of a job would do.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "tool", derive(serde::Serialize))]
pub struct StartPlan {
    /// Whether nothing was stored yet.
    pub fresh: bool,
    /// The checkpoint that would be restored.
    pub checkpoint: Option<u64>,
    /// The last batch in it.
    pub batch: Option<u64>,
    /// Damaged checkpoints that would be passed over.
    pub walked_back: Vec<DamagedCheckpoint>,
    /// The batches that would be computed again, in order.
    pub replay: Vec<u64>,
    /// The state of each operator: first those of the job, then those that only the checkpoint has.
    pub operators: Vec<OperatorPlan>,
    /// Each input stream: first those of the job, then those that only the store knows.
    pub streams: Vec<StreamPlan>,
    /// Settings that are not as in the last run.
    pub settings: Vec<SettingPlan>,
    /// Why the job cannot start like this, with what to do. Empty when it can.
    pub problems: Vec<String>,
}

/// A checkpoint that a start would pass over.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "tool", derive(serde::Serialize))]
pub struct DamagedCheckpoint {
    /// Its number.
    pub checkpoint: u64,
    /// What is wrong with it.
    pub why: String,
}

/// What becomes of the state of one operator.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "tool", derive(serde::Serialize))]
pub struct OperatorPlan {
    /// The operator's name: in the job, or else in the checkpoint.
    pub operator: String,
    /// `"matched"`, `"upgraded"`, `"new"`, `"dropped"` or `"incompatible"`.
    pub outcome: String,
    /// Its name in the checkpoint if that is another one and it is upgraded.
    pub was: Option<String>,
    /// Whether its values are migrated to another type.
    pub migrated: bool,
    /// How many keys the checkpoint has of it.
    pub keys: u64,
    /// The type of its keys and values in the checkpoint.
    pub stored: Option<String>,
    /// The type of its keys and values in the job.
    pub asked: Option<String>,
    /// Why the job cannot start because of it, and what to do.
    pub problem: Option<String>,
}

/// What becomes of an input stream.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "tool", derive(serde::Serialize))]
pub struct StreamPlan {
    /// Its name in back quotes, or what is known of it.
    pub stream: String,
    /// `"kept"`, `"new"` or `"gone"`.
    pub outcome: String,
    /// Received blocks that are in no batch yet: the first batch takes them, or they are lost with the stream.
    pub pending_blocks: u64,
    /// Batches with input of it that would be computed again, without it if it is gone.
    pub replayed_batches: u64,
}

/// A setting that is not as in the last run.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "tool", derive(serde::Serialize))]
pub struct SettingPlan {
    /// Its name.
    pub setting: String,
    /// Its value in the last run.
    pub before: String,
    /// Its value now.
    pub now: String,
}

/// What touched a key.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct KeyReplay {
    /// The checkpoint that was begun at, 0 for the beginning of the store.
    pub(crate) from: u64,
    pub(crate) batches: Vec<u64>,
    pub(crate) causes_known: bool,
    pub(crate) touches: Vec<ReplayedTouch>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct ReplayedTouch {
    pub(crate) batch: u64,
    pub(crate) time_ms: u64,
    pub(crate) before: Option<Vec<u8>>,
    pub(crate) after: Option<Vec<u8>>,
    pub(crate) causes: Vec<ReplayedCause>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct ReplayedCause {
    pub(crate) stream: String,
    pub(crate) place: ReplayedPlace,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) enum ReplayedPlace {
    /// The records from the first up to the second, counted from 0.
    Block {
        block: u64,
        records: Vec<(u64, u64)>,
        more: bool,
    },
    Range(RangeRef),
}

impl Message {
    pub(crate) fn to_bytes(&self) -> Result<Vec<u8>> {
        let archive = rkyv::to_bytes::<RkyvError>(self)
            .map_err(|cause| Error::new(ErrorKind::Io, "cannot archive a message").caused_by(cause))?;
        let length = u32::try_from(archive.len())
            .map_err(|_| Error::new(ErrorKind::Io, "a message is longer than 4 GiB"))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + archive.len());
        bytes.extend(MAGIC);
        bytes.extend(PROTOCOL.to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(length.to_le_bytes());
        bytes.extend(checksum(&bytes, &archive).to_le_bytes());
        bytes.extend_from_slice(&archive);
        Ok(bytes)
    }

    /// The message that fills `bytes` exactly.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] for another protocol, [`ErrorKind::Corrupt`] for anything else.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let header = bytes.first_chunk::<HEADER_BYTES>().filter(|header| header[..4] == MAGIC);
        let Some(header) = header else { return Err(Error::corrupt("it is no message of millpond")) };
        let protocol = u16::from_le_bytes([header[4], header[5]]);
        if protocol != PROTOCOL {
            let message = format!("it is written by protocol {protocol}, and this version reads {PROTOCOL}");
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
        let word =
            |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let archive = &bytes[HEADER_BYTES..];
        if archive.len() != word(8) as usize || checksum(&header[..12], archive) != word(12) {
            return Err(Error::corrupt("its length or its CRC does not agree"));
        }
        let mut aligned = AlignedVec::<16>::with_capacity(archive.len());
        aligned.extend_from_slice(archive);
        rkyv::from_bytes::<Self, RkyvError>(&aligned)
            .map_err(|cause| Error::corrupt("it has no valid archive").caused_by(cause))
    }
}

fn checksum(head: &[u8], archive: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(head);
    crc.update(archive);
    crc.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answer(text: String, replay: Vec<u64>) -> Message {
        let operator = OperatorPlan {
            operator: text.clone(),
            outcome: "new".to_owned(),
            was: None,
            migrated: false,
            keys: 3,
            stored: None,
            asked: Some(text.clone()),
            problem: None,
        };
        let plan = StartPlan {
            fresh: false,
            checkpoint: Some(1),
            batch: Some(2),
            walked_back: vec![DamagedCheckpoint { checkpoint: 2, why: text.clone() }],
            replay,
            operators: vec![operator],
            streams: vec![],
            settings: vec![],
            problems: vec![text.clone()],
        };
        Message::Answer(Box::new(Answer { version: "1".to_owned(), job: text, reply: Reply::Plan(plan) }))
    }

    proptest! {
        #[test]
        fn a_message_survives_and_every_flipped_bit_is_noticed(
            text in ".{0,20}", replay in prop::collection::vec(any::<u64>(), 0..9), at in any::<prop::sample::Index>(),
        ) {
            let message = answer(text, replay);
            let mut bytes = message.to_bytes().unwrap();
            prop_assert_eq!(Message::from_bytes(&bytes).unwrap(), message);
            prop_assert!(Message::from_bytes(&bytes[..at.index(bytes.len())]).is_err());
            let bit = at.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Message::from_bytes(&bytes).is_err());
        }

        #[test]
        fn any_archive_with_a_good_crc_is_refused_or_read(archive in any::<Vec<u8>>()) {
            let mut bytes = [&MAGIC[..], &PROTOCOL.to_le_bytes(), &[0; 2]].concat();
            bytes.extend((archive.len() as u32).to_le_bytes());
            bytes.extend(checksum(&bytes, &archive).to_le_bytes());
            bytes.extend(archive);
            drop(Message::from_bytes(&bytes));
        }
    }

    #[test]
    fn another_protocol_is_told_apart_from_damage() {
        let mut bytes = Message::Ask(Ask { store: vec![1], question: Question::Plan }).to_bytes().unwrap();
        bytes[4] = 99;
        assert_eq!(Message::from_bytes(&bytes).unwrap_err().kind(), ErrorKind::Incompatible);
    }
}
