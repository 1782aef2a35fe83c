//! What a batch read that may have touched a key.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::error::{ErrorKind, Result};
use crate::format::block::{BlockEncoding, BlockHeader, for_each_record};
use crate::format::frame::HEADER_BYTES;
use crate::format::records::{BlockRef, InputPlan, LineageNode, OperatorRef, PlanRecord};
use crate::format::shown::schema::Type;
use crate::id::StreamId;
use crate::inspect::batch::RangeReport;
use crate::inspect::block::{RecordReport, archive_report, line_report, read_found, record_schema};
use crate::inspect::mentions::Mention;
use crate::inspect::open::ReadStore;
use crate::inspect::report::Finding;
use crate::inspect::view::{View, stream_id, stream_names};

const REMEDY: &str = "put the file back from a copy: the batch cannot be computed again without it";

/// A batch that may have written a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhyBatch {
    /// Its number.
    pub batch: u64,
    /// Its time.
    pub time_ms: u64,
    /// What it reads, by stream; only streams that the operator is computed from, where the lineage tells.
    pub inputs: Vec<WhyInput>,
}

/// What a batch reads of one stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhyInput {
    /// The id of the stream: 16 hexadecimal digits.
    pub stream: String,
    /// Its name; `null` when the last run has no input of this id.
    pub name: Option<String>,
    /// Received blocks.
    pub blocks: Vec<WhyBlock>,
    /// Ranges of a replayable source, which are not in the store.
    pub ranges: Vec<RangeReport>,
}

/// A block that a batch reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WhyBlock {
    /// Its number.
    pub block: u64,
    /// Why it cannot be read, `null` when it was.
    pub unreadable: Option<String>,
    /// How many records it has; `null` when it cannot be read.
    pub records: Option<u64>,
    /// How many of them mention the key: a guess. `null` when the block cannot be read, or the key is nothing that a
    /// record could mention as far as its type and that of the records are known.
    pub mentions: Option<u64>,
    /// The first of these.
    pub first: Vec<MentionReport>,
}

/// A record that mentions a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MentionReport {
    /// Which of its block's records it is, counted from 1.
    pub record: u64,
    /// What it is.
    #[serde(flatten)]
    pub contents: RecordReport,
}

/// Reads the input of batches for one key.
pub(super) struct InputReader<'s> {
    store: &'s ReadStore,
    view: &'s View<'s>,
    names: BTreeMap<u64, String>,
    /// `None` when the lineage does not tell.
    streams: Option<BTreeSet<u64>>,
    mention: Option<Mention>,
    limit: usize,
}

impl<'s> InputReader<'s> {
    pub(super) fn new(
        store: &'s ReadStore,
        view: &'s View<'s>,
        operator: &OperatorRef,
        key: &[u8],
        limit: usize,
    ) -> Self {
        let nodes = view.catalog.history.job.as_ref().map_or(&[][..], |job| &job.lineage);
        InputReader {
            store,
            view,
            names: stream_names(&view.catalog),
            streams: streams_of(nodes, &operator.name),
            mention: Mention::of(&operator.key_type, key),
            limit,
        }
    }

    /// What a batch reads; `None` when it reads nothing that the operator is computed from.
    pub(super) fn batch(
        &mut self,
        plan: &PlanRecord,
        findings: &mut Vec<Finding>,
    ) -> Result<Option<WhyBatch>> {
        let is_read = |input: &&InputPlan| {
            let is_wanted = self.streams.as_ref().is_none_or(|streams| streams.contains(&input.stream));
            is_wanted && !(input.blocks.is_empty() && input.ranges.is_empty())
        };
        let mut inputs = Vec::new();
        for input in plan.inputs.iter().filter(is_read) {
            let mut blocks = Vec::new();
            for block in &input.blocks {
                blocks.push(self.block(plan.batch, block, findings)?);
            }
            inputs.push(WhyInput {
                stream: stream_id(input.stream),
                name: self.names.get(&input.stream).cloned(),
                blocks,
                ranges: input.ranges.iter().map(RangeReport::of).collect(),
            });
        }
        Ok((!inputs.is_empty()).then_some(WhyBatch { batch: plan.batch, time_ms: plan.time_ms, inputs }))
    }

    /// The first of the records `wanted` of a planned block; nothing of one that was trimmed since.
    pub(super) fn records(&self, block: u64, wanted: &[(u64, u64)]) -> Result<Vec<MentionReport>> {
        let inputs = self.view.catalog.history.plans.values().flat_map(|plan| &plan.inputs);
        let mut places = inputs.flat_map(|input| &input.blocks);
        let Some(place) = places.find(|place| place.block == block) else { return Ok(Vec::new()) };
        let frame = match read_found(self.store, self.view, place) {
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidConfig) => {
                return Ok(Vec::new());
            }
            read => read?,
        };
        let (header, bytes) = BlockHeader::parse(&frame[HEADER_BYTES..])?;
        let (mut at, mut found) = (0, Vec::new());
        let mut note = |contents: &dyn Fn() -> RecordReport| {
            let is_wanted = wanted.iter().any(|(start, end)| (*start..*end).contains(&at));
            at += 1;
            if is_wanted && found.len() < self.limit {
                found.push(MentionReport { record: at, contents: contents() });
            }
        };
        match header.encoding {
            BlockEncoding::Lines => {
                let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
                text.split(|byte| *byte == b'\n').for_each(|line| note(&|| line_report(line)));
            }
            BlockEncoding::Records => {
                let root = record_schema(self.view, &header);
                for_each_record(bytes, |archive| {
                    note(&|| archive_report(archive, root.as_ref()));
                    Ok(())
                })?;
            }
        }
        Ok(found)
    }

    fn block(&self, batch: u64, place: &BlockRef, findings: &mut Vec<Finding>) -> Result<WhyBlock> {
        let mut found = WhyBlock {
            block: place.block,
            unreadable: None,
            records: None,
            mentions: None,
            first: Vec::new(),
        };
        let frame = match read_found(self.store, self.view, place) {
            Ok(frame) => frame,
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidConfig) => {
                if error.kind() == ErrorKind::Corrupt && batch > self.view.catalog.oldest_needed_batch() {
                    let place = format!("log/{}.extent", place.extent);
                    findings.push(Finding::damage(place, format!("batch {batch}: {error}"), REMEDY));
                }
                found.unreadable = Some(error.chain());
                return Ok(found);
            }
            Err(error) => return Err(error),
        };
        let (header, bytes) = BlockHeader::parse(&frame[HEADER_BYTES..])?;
        match header.encoding {
            BlockEncoding::Lines => self.lines(bytes, &mut found),
            BlockEncoding::Records => {
                self.archives(bytes, record_schema(self.view, &header).as_ref(), &mut found)?;
            }
        }
        Ok(found)
    }

    fn lines(&self, bytes: &[u8], found: &mut WhyBlock) {
        let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        let lines = text.split(|byte| *byte == b'\n').filter(|_| !bytes.is_empty());
        for (line, record) in lines.zip(1..) {
            found.records = Some(record);
            if self.mention.as_ref().is_some_and(|mention| mention.is_in_line(line)) {
                self.note(found, record, || line_report(line));
            }
        }
        found.records.get_or_insert(0);
        found.mentions = found.mentions.or(self.mention.as_ref().map(|_| 0));
    }

    fn archives(&self, bytes: &[u8], root: Option<&Type>, found: &mut WhyBlock) -> Result<()> {
        let (mut record, mut searched) = (0, self.mention.is_some());
        for_each_record(bytes, |archive| {
            record += 1;
            let mention = self.mention.as_ref().and_then(|mention| mention.is_in_archive(root, archive));
            searched &= mention.is_some();
            if mention == Some(true) {
                self.note(found, record, || archive_report(archive, root));
            }
            Ok(())
        })?;
        found.records = Some(record);
        found.mentions = found.mentions.or(searched.then_some(0));
        Ok(())
    }

    fn note(&self, found: &mut WhyBlock, record: u64, contents: impl FnOnce() -> RecordReport) {
        found.mentions = Some(found.mentions.unwrap_or(0) + 1);
        if found.first.len() < self.limit {
            found.first.push(MentionReport { record, contents: contents() });
        }
    }
}

/// The input streams that an operator is computed from. `None` when the lineage does not have it under this name.
fn streams_of(nodes: &[LineageNode], operator: &str) -> Option<BTreeSet<u64>> {
    let by_id: BTreeMap<u32, &LineageNode> = nodes.iter().map(|node| (node.id, node)).collect();
    let mut open: Vec<u32> = nodes
        .iter()
        .filter(|node| node.name == operator && !node.parents.is_empty())
        .map(|node| node.id)
        .collect();
    let (mut seen, mut streams) = (BTreeSet::new(), BTreeSet::new());
    if open.is_empty() {
        return None;
    }
    while let Some(id) = open.pop() {
        let Some(node) = by_id.get(&id).filter(|_| seen.insert(id)) else { continue };
        open.extend(&node.parents);
        if node.parents.is_empty() {
            streams.insert(StreamId::of(&node.name).0);
        }
    }
    Some(streams)
}
