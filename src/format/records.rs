//! The records of the catalog and of the files' headers: rkyv archives inside frames.
//!
//! A schema never changes in place: a changed record is a new [`FORMAT_VERSION`](super::FORMAT_VERSION).

use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::format::frame::{FrameHeader, FrameKind, HEADER_BYTES, decode_frame, encode_frame};

/// The first record of every epoch.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct EpochRecord {
    /// The store's identity.
    pub(crate) store: [u8; 16],
    /// The sequence number of the newest record that the writer of this epoch knew to be sound. A gap
    /// between it and this epoch's first record was reported when the epoch was begun.
    pub(crate) continues_after: u64,
    /// Features of the store that a reader who does not know them may pass over, one bit each.
    pub(crate) compatible: u64,
    /// Features of the store that a reader must know: one who does not refuses the store.
    pub(crate) incompatible: u64,
}

/// What a job is and how it is configured, for people and tools: the record after the first of each epoch.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct JobRecord {
    /// Its name.
    pub(crate) job: String,
    /// The version of the crate.
    pub(crate) version: String,
    pub(crate) started_ms: u64,
    pub(crate) batch_interval_ms: u64,
    pub(crate) checkpoint_every_batches: u64,
    pub(crate) partitions: u32,
    pub(crate) threads: u32,
    /// A hash of the lineage.
    pub(crate) fingerprint: u64,
    pub(crate) streams: Vec<StreamRef>,
    pub(crate) lineage: Vec<LineageNode>,
}

/// One input stream.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct StreamRef {
    /// The hash of its name.
    pub(crate) stream: u64,
    pub(crate) name: String,
    /// Of the records in its blocks; empty where they are lines or where there are no blocks.
    pub(crate) schema: String,
}

/// One start of a job, after recovery has chosen and before it replays.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct RunRecord {
    pub(crate) started_ms: u64,
}

/// One node of the description of a job's lineage.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct LineageNode {
    pub(crate) id: u32,
    pub(crate) operation: String,
    /// The name the job gave it, empty for none.
    pub(crate) name: String,
    pub(crate) record_type: String,
    pub(crate) parents: Vec<u32>,
    /// Whether its records are shuffled by key, a wide dependency.
    pub(crate) wide: bool,
}

/// The inputs of one batch, fixed before it runs.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct PlanRecord {
    pub(crate) batch: u64,
    pub(crate) time_ms: u64,
    /// Every block below this number is in this plan or in an earlier one.
    pub(crate) next_block: u64,
    pub(crate) inputs: Vec<InputPlan>,
}

/// The part of one input stream in a batch.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct InputPlan {
    /// The hash of the stream's name.
    pub(crate) stream: u64,
    pub(crate) blocks: Vec<BlockRef>,
    pub(crate) ranges: Vec<RangeRef>,
}

/// A received block in the log.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockRef {
    pub(crate) block: u64,
    pub(crate) extent: u64,
    /// Of the frame's header in the extent.
    pub(crate) offset: u64,
    /// Of the frame's payload.
    pub(crate) length: u32,
    pub(crate) crc: u32,
}

/// A range of one partition of a replayable source.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct RangeRef {
    pub(crate) partition: String,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The partition's total size that the source saw, 0 where it has none.
    pub(crate) size: u64,
    /// What the source checks when it reads the range again (for files: the modification time).
    pub(crate) stamp: u64,
}

/// A batch whose outputs are all done.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct DoneRecord {
    pub(crate) batch: u64,
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) processing_us: u64,
    /// The names of the outputs that were emitted.
    pub(crate) outputs: Vec<String>,
    /// What it changed in the state of each operator, in the order in which they ran.
    pub(crate) changes: Vec<OperatorChanges>,
}

/// What a batch changed in the state of one operator.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperatorChanges {
    /// The hash of its name, its types and the partitions of the job.
    pub(crate) operator: u64,
    /// Of all changes, 0 for none.
    pub(crate) hash: u64,
    /// Up to the last one that has a change; none at all where they would take too much.
    pub(crate) strata: Vec<StratumSums>,
}

/// The changes of the keys of one stratum.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StratumSums {
    pub(crate) sum: u64,
    /// Each change times the hash of its key.
    pub(crate) weighted: u64,
}

/// What a batch added to accumulators, written right before the batch is done. It counts only if it is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct TalliesRecord {
    pub(crate) batch: u64,
    /// From 0; a record has a greatest length, so that there may be several for one batch.
    pub(crate) part: u32,
    pub(crate) parts: u32,
    pub(crate) deltas: Vec<TallyDelta>,
}

/// What a batch added to one accumulator.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct TallyDelta {
    /// The name of the accumulator's state.
    pub(crate) name: String,
    /// The schema of the archive.
    pub(crate) schema: String,
    /// Its archive; what several parts of a batch have under one name is joined.
    pub(crate) archive: Vec<u8>,
}

/// One commit point: everything a restart needs besides the plans and blocks after it.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct CheckpointRecord {
    pub(crate) checkpoint: u64,
    /// The last batch whose changes are in it.
    pub(crate) batch: u64,
    pub(crate) time_ms: u64,
    /// As in the plan of that batch.
    pub(crate) next_block: u64,
    pub(crate) fingerprint: u64,
    /// Every segment that some key group needs, in ascending order.
    pub(crate) segments: Vec<SegmentRef>,
    pub(crate) operators: Vec<OperatorRef>,
}

/// Puts the job back to a checkpoint: what was committed before and is newer no longer counts.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct RollbackRecord {
    /// The checkpoint that the job goes back to. Those with a higher number no longer count.
    pub(crate) target: u64,
    /// Its last batch. Checkpoints of later batches no longer count either.
    pub(crate) target_batch: u64,
    /// Batches below this number were planned, whether their plans are there or not.
    pub(crate) next_batch: u64,
    /// The target under a new number, from which the next start begins. Where the batches right after the
    /// target are lost, its batch is the last of them.
    pub(crate) checkpoint: CheckpointRecord,
}

/// A checkpoint that has a name and is kept for as long as it has.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct PinRecord {
    /// The store's identity.
    pub(crate) store: [u8; 16],
    pub(crate) name: String,
    pub(crate) pinned_ms: u64,
    pub(crate) checkpoint: CheckpointRecord,
}

/// A file of checkpointed state.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentRef {
    pub(crate) segment: u64,
    /// The whole file.
    pub(crate) length: u64,
    /// The CRC of the directory frame.
    pub(crate) directory_crc: u32,
}

/// The operator that holds the positions of a source is called this and the stream's name.
pub(crate) const POSITIONS_PREFIX: &str = "positions of ";

/// One stateful operator, or the positions of one replayable source.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperatorRef {
    pub(crate) name: String,
    pub(crate) key_type: String,
    pub(crate) value_type: String,
    /// The width of the value's archived root.
    pub(crate) value_width: u32,
    /// The hash of the schema of the archives in its values.
    pub(crate) schema: u64,
    pub(crate) keys: u64,
}

/// The start of a file of the receive log.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct ExtentHeader {
    pub(crate) store: [u8; 16],
    /// The number and durable length of the extent before this one; number 0 for none.
    pub(crate) previous: u64,
    pub(crate) previous_length: u64,
    /// The number that this extent's first block gets.
    pub(crate) first_block: u64,
}

/// The start of a segment.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct SegmentHeader {
    pub(crate) store: [u8; 16],
    pub(crate) checkpoint: u64,
}

/// Where a segment holds which key group of which operator.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub(crate) struct Directory {
    pub(crate) operators: Vec<OperatorDirectory>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct OperatorDirectory {
    pub(crate) name: String,
    /// Of the archives in its values.
    pub(crate) schema: String,
    pub(crate) groups: Vec<GroupDirectory>,
}

#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub(crate) struct GroupDirectory {
    pub(crate) group: u16,
    /// A base holds the whole group; segments before it no longer count for the group.
    pub(crate) base: bool,
    /// Of the frame of its filter; 0 for none.
    pub(crate) filter_bytes: u32,
    pub(crate) entries: u64,
    /// Of its pages.
    pub(crate) bytes: u64,
    /// The keys that the group holds once this checkpoint is applied, and the bytes of a base of them.
    pub(crate) live_keys: u64,
    pub(crate) live_bytes: u64,
    /// Of the frame of its filter, 0 for none.
    pub(crate) filter_offset: u64,
    pub(crate) pages: Vec<PageRef>,
}

impl GroupDirectory {
    /// Of its pages and its filter.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.filter_bytes.into())
    }
}

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
pub(crate) struct PageRef {
    pub(crate) offset: u64,
    pub(crate) first_hash: u64,
}

/// A record that has a frame of its own.
pub(crate) trait Record: Sized {
    const KIND: FrameKind;

    fn to_archive(&self) -> Result<Vec<u8>>;

    /// Validates the archive of a payload whose CRC was checked.
    fn from_archive(payload: &[u8]) -> Result<Self>;

    fn to_frame(&self, id: u64) -> Result<Vec<u8>> {
        encode_frame(Self::KIND, id, &self.to_archive()?)
    }

    fn unnumbered(&self) -> Result<Unnumbered> {
        Ok(Unnumbered { kind: Self::KIND, archive: self.to_archive()? })
    }

    /// The id and record of the frame that fills `bytes` exactly.
    fn from_frame(bytes: &[u8]) -> Result<(u64, Self)> {
        let (header, payload) = decode_frame(bytes)?;
        Ok((header.id, Self::from_payload(&header, payload)?))
    }

    fn from_payload(header: &FrameHeader, payload: &[u8]) -> Result<Self> {
        header.expect(Self::KIND)?;
        Self::from_archive(payload)
    }
}

/// A record whose frame has no id yet.
#[derive(Debug)]
pub(crate) struct Unnumbered {
    kind: FrameKind,
    archive: Vec<u8>,
}

impl Unnumbered {
    /// The length of its frame.
    pub(crate) fn frame_bytes(&self) -> usize {
        HEADER_BYTES + self.archive.len()
    }

    pub(crate) fn to_frame(&self, id: u64) -> Result<Vec<u8>> {
        encode_frame(self.kind, id, &self.archive)
    }
}

macro_rules! framed_records {
    ($($record:ident => $kind:ident,)*) => { $(
        impl Record for $record {
            const KIND: FrameKind = FrameKind::$kind;

            fn to_archive(&self) -> Result<Vec<u8>> {
                let bytes = rkyv::to_bytes::<RkyvError>(self).map_err(|cause| {
                    Error::new(ErrorKind::Io, concat!("cannot archive ", stringify!($record))).caused_by(cause)
                })?;
                Ok(bytes.into_vec())
            }

            fn from_archive(payload: &[u8]) -> Result<Self> {
                let mut aligned = AlignedVec::<16>::with_capacity(payload.len());
                aligned.extend_from_slice(payload);
                rkyv::from_bytes::<Self, RkyvError>(&aligned).map_err(|cause| {
                    Error::corrupt(concat!("no valid archive of ", stringify!($record))).caused_by(cause)
                })
            }
        }
    )* };
}

framed_records! {
    EpochRecord => Epoch,
    RunRecord => Run,
    PlanRecord => Plan,
    DoneRecord => Done,
    TalliesRecord => Tallies,
    JobRecord => Job,
    CheckpointRecord => Checkpoint,
    RollbackRecord => Rollback,
    PinRecord => Pin,
    ExtentHeader => ExtentHeader,
    SegmentHeader => SegmentHeader,
    Directory => Directory,
}

/// Any record of the catalog, as it is read back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum CatalogRecord {
    Epoch(EpochRecord),
    Run(RunRecord),
    Plan(PlanRecord),
    Done(DoneRecord),
    Checkpoint(CheckpointRecord),
    Tallies(TalliesRecord),
    Job(JobRecord),
    Rollback(RollbackRecord),
}

impl CatalogRecord {
    /// The sequence number and record of a catalog frame.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] or [`ErrorKind::Incompatible`].
    pub(crate) fn from_frame(bytes: &[u8]) -> Result<(u64, Self)> {
        let (header, payload) = decode_frame(bytes)?;
        let record = match header.kind {
            FrameKind::Epoch => CatalogRecord::Epoch(Record::from_payload(&header, payload)?),
            FrameKind::Run => CatalogRecord::Run(Record::from_payload(&header, payload)?),
            FrameKind::Plan => CatalogRecord::Plan(Record::from_payload(&header, payload)?),
            FrameKind::Done => CatalogRecord::Done(Record::from_payload(&header, payload)?),
            FrameKind::Checkpoint => CatalogRecord::Checkpoint(Record::from_payload(&header, payload)?),
            FrameKind::Tallies => CatalogRecord::Tallies(Record::from_payload(&header, payload)?),
            FrameKind::Job => CatalogRecord::Job(Record::from_payload(&header, payload)?),
            FrameKind::Rollback => CatalogRecord::Rollback(Record::from_payload(&header, payload)?),
            other => return Err(Error::corrupt(format!("a {other:?} frame does not belong in the catalog"))),
        };
        Ok((header.id, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_round_trip_and_its_kind_is_checked() {
        let done = DoneRecord {
            batch: 3,
            records: 10,
            bytes: 99,
            processing_us: 5,
            outputs: vec!["print".into()],
            changes: vec![],
        };
        let frame = done.to_frame(42).unwrap();
        assert_eq!(DoneRecord::from_frame(&frame).unwrap(), (42, done.clone()));
        assert_eq!(CatalogRecord::from_frame(&frame).unwrap(), (42, CatalogRecord::Done(done)));
        assert_eq!(EpochRecord::from_frame(&frame).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn a_damaged_archive_with_a_good_crc_is_refused_not_trusted() {
        let plan = PlanRecord { batch: 1, time_ms: 2, next_block: 3, inputs: vec![] };
        let mut archive = plan.to_archive().unwrap();
        for at in 0..archive.len() {
            archive[at] ^= 0x80;
            let frame = encode_frame(FrameKind::Plan, 1, &archive).unwrap();
            drop(PlanRecord::from_frame(&frame));
            archive[at] ^= 0x80;
        }
        let cut = encode_frame(FrameKind::Plan, 1, &archive[..archive.len() - 1]).unwrap();
        assert_eq!(PlanRecord::from_frame(&cut).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
