//! Planning a batch: its inputs are fixed and made durable before anything is read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::batch::BatchInput;
use crate::batch::tick::Tick;
use crate::dstream::InputKind;
use crate::error::{Error, ErrorKind, Result};
use crate::format::records::{BlockRef, InputPlan, PlanRecord, RangeRef, Record, Unnumbered};
use crate::id::{BatchId, BatchTime, StreamId};
use crate::receive_log::ReceivedBlock;
use crate::source::SourceRange;

use super::shares::{bytes_in_plan, deal};
use super::{Driver, lock};

/// So many blocks at most in one batch, so that a plan stays small.
const BLOCKS_MAX: usize = 2_000;

/// What the ranges of a plan may take in it.
const RANGES_BYTES_MAX: usize = 80 << 10;

/// In the order of the streams' ids, so that a plan's bytes depend on what is planned alone.
pub(super) type Inputs = BTreeMap<StreamId, Arc<BatchInput>>;

/// What a new batch takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// Nothing: its time has passed, and what was received since belongs to a later one.
    Nothing,
    /// What was received.
    Received,
    /// That, and what replayable sources have.
    All,
}

/// A batch that is ready to run.
pub(super) struct PlannedBatch {
    pub(super) batch: BatchId,
    pub(super) time: BatchTime,
    /// The batch interval of the run that planned it.
    pub(super) interval_ms: u64,
    pub(super) inputs: Inputs,
    /// Bytes of all inputs.
    pub(super) bytes: u64,
    /// Of these, what counts against the receive buffer.
    pub(super) buffered: usize,
    /// When it was due; `None` when it was planned by an earlier run.
    pub(super) due_ms: Option<u64>,
}

impl Driver {
    /// Plans the next batch and commits the plan.
    pub(super) fn plan_next(&mut self, time: BatchTime, take: Take) -> Result<PlannedBatch> {
        let (plan, planned) = self.draw_up(time, take)?;
        self.commit("commit a plan", &mut vec![plan.unnumbered()?])?;
        self.adopt(&planned)?;
        Ok(planned)
    }

    /// The plan of the batch after this one, if that is due at once: it is committed with the completion of this one, with
    /// one sync for both. Not when anything has to happen, or may, between the two.
    pub(super) fn draw_up_ahead(&mut self) -> Result<Option<(PlanRecord, PlannedBatch)>> {
        let checkpoint_comes = self.is_checkpoint_due(self.batches_since_checkpoint + 1)
            // One may be taken early.
            || self.residency.is_some();
        let is_last = self.shared.stop_requested().is_some();
        if is_last || checkpoint_comes || self.variables.log_blocks() {
            return Ok(None);
        }
        match self.due() {
            Tick::Due(time) => {
                let (time, take) = self.within_boundaries(time);
                self.draw_up(time, take).map(Some)
            }
            Tick::Wait(_) => Ok(None),
        }
    }

    /// Plans the next batch, without committing anything.
    fn draw_up(&mut self, time: BatchTime, take: Take) -> Result<(PlanRecord, PlannedBatch)> {
        let ranges = if take == Take::All {
            self.variables.before_plan(time)?;
            self.poll_sources()?
        } else {
            HashMap::new()
        };
        let blocks = if take == Take::Nothing { Vec::new() } else { self.log.take_pending(BLOCKS_MAX) };
        if let Some(last) = blocks.last() {
            self.next_block = last.place.block + 1;
        }
        let inputs = group_by_stream(blocks, ranges);
        let batch = self.next_batch;
        let plan = PlanRecord {
            batch: batch.0,
            time_ms: time.0,
            next_block: self.next_block,
            inputs: inputs.iter().map(|(stream, input)| input_plan(*stream, input)).collect(),
        };
        let interval_ms = self.settings.batch_interval_ms();
        let due_ms = (self.last_time.0 + interval_ms).max(self.ready_ms);
        let planned = PlannedBatch { due_ms: Some(due_ms), ..planned(batch, (time, interval_ms), inputs) };
        if planned.bytes > 0 {
            self.note_busy(true);
            self.log.activity().note();
        }
        Ok((plan, planned))
    }

    /// Goes on from a plan that is committed.
    pub(super) fn adopt(&mut self, planned: &PlannedBatch) -> Result<()> {
        self.next_batch = planned.batch.next();
        self.last_time = planned.time;
        self.advance_positions(&planned.inputs)
    }

    /// Commits records, which may take until there is space.
    pub(super) fn commit(&self, what: &str, records: &mut Vec<Unnumbered>) -> Result<()> {
        let mut catalog = lock(&self.catalog);
        self.full_disk.wait_out(what, || catalog.append_all(records))
    }

    /// What each replayable source has for the next batch, within what a plan may hold.
    fn poll_sources(&mut self) -> Result<HashMap<StreamId, Vec<SourceRange>>> {
        let now_ms = self.now_ms();
        let limit = self.settings.source_bytes_per_batch_max;
        let mut waiting = false;
        let (mut streams, mut offers) = (Vec::new(), Vec::new());
        for input in &mut self.inputs {
            let InputKind::Replayable { source, positions } = &mut input.kind else { continue };
            let offer = source
                .poll(positions, self.rates.limit(input.stream, limit), now_ms)
                .map_err(|error| error.within(format!("`{}`", input.name)))?;
            for partition in &offer.retired {
                positions.forget(partition)?;
            }
            refuse_long_names(&offer.ranges).map_err(|error| error.within(format!("`{}`", input.name)))?;
            waiting |= offer.waiting;
            streams.push(input.stream);
            offers.push(offer.ranges);
        }
        let all: usize = offers.iter().map(Vec::len).sum();
        let first = self.next_batch.0 % streams.len().max(1) as u64;
        let dealt = deal(offers, first as usize, RANGES_BYTES_MAX);
        self.sources_wait = waiting || dealt.iter().map(Vec::len).sum::<usize>() < all;
        Ok(streams.into_iter().zip(dealt).collect())
    }

    /// Makes a batch from a plan of an earlier run with this batch interval.
    pub(super) fn plan_again(&self, plan: &PlanRecord, interval_ms: u64) -> Result<PlannedBatch> {
        let is_known = |stream: &StreamId| self.streams.contains_key(stream);
        for lost in plan.inputs.iter().map(|input| StreamId(input.stream)).filter(|stream| !is_known(stream))
        {
            self.refuse_lost_input(lost, &format!("batch {}", plan.batch))?;
        }
        let inputs = inputs_of(plan, |stream| is_known(&stream));
        Ok(planned(BatchId(plan.batch), (BatchTime(plan.time_ms), interval_ms), inputs))
    }

    /// Input of a stream that the job no longer has may be passed over only when it was told so.
    pub(super) fn refuse_lost_input(&self, stream: StreamId, what: &str) -> Result<()> {
        if self.settings.allow_dropping_state {
            return Ok(());
        }
        let message = format!(
            "{what} has input of {stream}, which the job no longer has: bring the stream back, or allow \
             dropping state"
        );
        Err(Error::new(ErrorKind::Incompatible, message))
    }

    /// Moves the sources' positions to the ends of what is planned.
    pub(super) fn advance_positions(&self, inputs: &Inputs) -> Result<()> {
        for input in &self.inputs {
            let InputKind::Replayable { positions, .. } = &input.kind else { continue };
            let planned = inputs.get(&input.stream);
            planned
                .iter()
                .flat_map(|planned| &planned.ranges)
                .try_for_each(|range| positions.advance(range))?;
        }
        Ok(())
    }
}

/// What a plan has of the streams that are known.
pub(super) fn inputs_of(plan: &PlanRecord, is_known: impl Fn(StreamId) -> bool) -> Inputs {
    let known = plan.inputs.iter().filter(|input| is_known(StreamId(input.stream)));
    let input = |input: &InputPlan| {
        let stream = StreamId(input.stream);
        let blocks = input.blocks.iter().map(|block| logged_block(stream, *block)).collect();
        let ranges = input.ranges.iter().map(source_range).collect();
        (stream, Arc::new(BatchInput::new(blocks, ranges)))
    };
    known.map(input).collect()
}

/// A range that fits no plan would wait for ever.
fn refuse_long_names(ranges: &[SourceRange]) -> Result<()> {
    let Some(long) = ranges.iter().find(|range| bytes_in_plan(range) > RANGES_BYTES_MAX) else {
        return Ok(());
    };
    let message =
        format!("the name of a partition has {} bytes, which no plan can hold", long.partition.len());
    Err(Error::new(ErrorKind::Source, message))
}

fn group_by_stream(blocks: Vec<ReceivedBlock>, ranges: HashMap<StreamId, Vec<SourceRange>>) -> Inputs {
    let mut by_stream: HashMap<StreamId, (Vec<ReceivedBlock>, Vec<SourceRange>)> = HashMap::new();
    for block in blocks {
        by_stream.entry(block.stream).or_default().0.push(block);
    }
    for (stream, ranges) in ranges {
        if !ranges.is_empty() {
            by_stream.entry(stream).or_default().1 = ranges;
        }
    }
    by_stream
        .into_iter()
        .map(|(stream, (blocks, ranges))| (stream, Arc::new(BatchInput::new(blocks, ranges))))
        .collect()
}

fn planned(batch: BatchId, (time, interval_ms): (BatchTime, u64), inputs: Inputs) -> PlannedBatch {
    let blocks = || inputs.values().flat_map(|input| &input.blocks);
    let bytes = inputs.values().map(|input| input.bytes()).sum();
    let buffered = blocks().filter_map(|block| block.frame.as_ref()).map(|frame| frame.len()).sum();
    PlannedBatch { batch, time, interval_ms, inputs, bytes, buffered, due_ms: None }
}

fn input_plan(stream: StreamId, input: &BatchInput) -> InputPlan {
    InputPlan {
        stream: stream.0,
        blocks: input.blocks.iter().map(|block| block.place).collect(),
        ranges: input.ranges.iter().map(range_ref).collect(),
    }
}

fn range_ref(range: &SourceRange) -> RangeRef {
    let SourceRange { partition, start, end, size, stamp } = range.clone();
    RangeRef { partition, start, end, size, stamp }
}

fn source_range(range: &RangeRef) -> SourceRange {
    let RangeRef { partition, start, end, size, stamp } = range.clone();
    SourceRange { partition, start, end, size, stamp }
}

fn logged_block(stream: StreamId, place: BlockRef) -> ReceivedBlock {
    ReceivedBlock { place, stream, frame: None }
}
