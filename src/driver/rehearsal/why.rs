//! What touched one key: the retained batches are computed again, and of each that has something for the key its input is
//! taken apart, block by block and record by record.
//!
//! An input has a part in what the operator is given for the key when it gives something for the key alone, or when
//! what all of the batch gives is another without it, as it is of one side of a join.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use crate::batch::{Batch, BatchInput};
use crate::checkpoint::between::read_from_oldest;
use crate::config::Settings;
use crate::driver::changes::Watched;
use crate::driver::plan::{Inputs, inputs_of};
use crate::driver::start::restore;
use crate::driver::upgrade::plan_of;
use crate::dstream::{Job, StatefulNode, inputs_without_state};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::format::block::{BlockEncoding, BlockHeader, for_each_record};
use crate::format::frame::HEADER_BYTES;
use crate::format::records::PlanRecord;
use crate::id::{BatchId, BatchTime, BlockId, CheckpointId, StreamId};
use crate::receive_log::ReceivedBlock;
use crate::source::SourceRange;
use crate::store::extents::{BLOCK_DATA_AT, read_block};

use super::{Rehearsal, identify};

/// So many records of a block are told apart.
const RECORDS_MAX: usize = 16;

/// What touched a key. Made by [`StreamingContext::why`](crate::StreamingContext::why).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyHistory {
    /// The checkpoint that was begun at; 0 is the beginning of the store.
    pub from: CheckpointId,
    /// The batches that were computed again, in order.
    pub batches: Vec<BatchId>,
    /// Whether [`causes`](KeyTouch::causes) are told: not where the operator's input is not by its key, as that of a
    /// window, or comes from another operator that keeps state.
    pub causes_known: bool,
    /// The batches that gave the operator something for the key, or changed its state, in order.
    pub touches: Vec<KeyTouch>,
}

/// A batch that touched a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyTouch {
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
    /// The bytes of the key's value before it, if there was one.
    pub before: Option<Vec<u8>>,
    /// The bytes after it.
    pub after: Option<Vec<u8>>,
    /// The input that had a part in it. None for a change that came with time, such as a timeout.
    pub causes: Vec<KeyCause>,
}

/// Input that had a part in what became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyCause {
    /// The input stream.
    pub stream: String,
    /// Where the input is.
    pub place: CausePlace,
}

/// Where input is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CausePlace {
    /// In a received block.
    #[non_exhaustive]
    Block {
        /// The block.
        block: BlockId,
        /// Which of its records, counted from 0; several in one range have a part in it only together. At most 16.
        records: Vec<Range<u64>>,
        /// Whether there are more.
        more: bool,
    },
    /// In a range of a replayable source, which is not taken apart.
    #[non_exhaustive]
    Range(SourceRange),
}

/// Finds out what touched `key` of `operator`.
pub(crate) fn why(settings: &Settings, job: &Job, operator: &str, key: &[u8]) -> Result<KeyHistory> {
    let node = node_of(job, operator)?;
    let (paths, store) = identify(settings)?;
    let executor = Arc::new(Executor::new(settings.threads, settings.task_attempts_max)?);
    let found = read_from_oldest(&paths, store, &executor)?;
    let (plan, matches) = plan_of(&found, settings, &job.outline());
    plan.check()?;
    restore(job, &found, &matches, &executor)?;
    let watched = Watched::of(job, settings.partitions);
    let rehearsal = Rehearsal { job, executor: &executor, paths: Arc::new(paths), watched, originals: &[] };
    let streams = inputs_without_state(&job.lineage, operator);
    let mut history = KeyHistory {
        from: CheckpointId(found.recovery.checkpoint.as_ref().map_or(0, |chosen| chosen.checkpoint)),
        batches: Vec::new(),
        causes_known: streams.is_some(),
        touches: Vec::new(),
    };
    for plan in &found.recovery.replay {
        let batch = BatchId(plan.batch);
        let before = node.state().get(key)?;
        rehearsal
            .run_batch(plan, found.history.interval_ms(plan.batch))
            .map_err(|error| error.within(batch))?;
        let after = node.state().get(key)?;
        let probe = Probe { rehearsal: &rehearsal, node: &**node, plan, key };
        let causes = match &streams {
            None => None,
            Some(streams) => probe.causes(streams).map_err(|error| error.within(batch))?,
        };
        history.causes_known &= causes.is_some();
        let causes = causes.unwrap_or_default();
        if before != after || !causes.is_empty() {
            history.touches.push(KeyTouch { batch, time: BatchTime(plan.time_ms), before, after, causes });
        }
        history.batches.push(batch);
        let tallies = found.history.tallies.get(&plan.batch);
        job.variables.apply(tallies.map_or(&[], |tallies| &**tallies))?;
    }
    Ok(history)
}

fn node_of<'j>(job: &'j Job, operator: &str) -> Result<&'j Arc<dyn StatefulNode>> {
    job.stateful.iter().find(|node| node.state().name() == operator).ok_or_else(|| {
        let known: Vec<&str> = job.stateful.iter().map(|node| node.state().name()).collect();
        let message = format!("the job has no stateful operator `{operator}`: it has {}", known.join(", "));
        Error::new(ErrorKind::InvalidConfig, message)
    })
}

/// Computes what parts of a batch's input give an operator for a key. Nothing between input and operator keeps state, so
/// that this can be done beside the batch.
struct Probe<'a> {
    rehearsal: &'a Rehearsal<'a>,
    node: &'a dyn StatefulNode,
    plan: &'a PlanRecord,
    key: &'a [u8],
}

/// What is tried of a stream in place of all its input.
#[derive(Clone)]
enum Part {
    Block(ReceivedBlock),
    Range(SourceRange),
}

/// How it is told whether a part of the input matters.
#[derive(Clone, Copy)]
enum Test<'a> {
    /// It gives something alone.
    Alone,
    /// All gives something else without it.
    Without(&'a [Vec<u8>]),
}

impl Probe<'_> {
    /// `None` when the operator's input is not by its key.
    fn causes(&self, streams: &BTreeSet<StreamId>) -> Result<Option<Vec<KeyCause>>> {
        let all = inputs_of(self.plan, |stream| self.rehearsal.job.inputs.iter().any(|i| i.stream == stream));
        let Some(values) = self.values(all.clone())? else { return Ok(None) };
        let mut causes = Vec::new();
        if values.is_empty() {
            return Ok(Some(causes));
        }
        for (stream, input) in all.iter().filter(|(stream, _)| streams.contains(stream)) {
            let blocks = input.blocks.iter().cloned().map(Part::Block);
            let parts: Vec<Part> = blocks.chain(input.ranges.iter().cloned().map(Part::Range)).collect();
            for at in 0..parts.len() {
                if let Some(place) = self.cause(&all, *stream, &parts, at, &values)? {
                    let of_stream = self.rehearsal.job.inputs.iter().find(|input| input.stream == *stream);
                    let stream = of_stream.map_or_else(|| stream.to_string(), |input| input.name.to_string());
                    causes.push(KeyCause { stream, place });
                }
            }
        }
        causes.sort_by(|a, b| a.stream.cmp(&b.stream));
        Ok(Some(causes))
    }

    /// Whether part `at` of a stream matters, and what of it.
    fn cause(
        &self,
        all: &Inputs,
        stream: StreamId,
        parts: &[Part],
        at: usize,
        values: &[Vec<u8>],
    ) -> Result<Option<CausePlace>> {
        for test in [Test::Alone, Test::Without(values)] {
            // What takes the place of the part: all of it or nothing, and later some of its records.
            let matters = |some: Option<Part>, others: Option<Part>| -> Result<bool> {
                let inputs = match test {
                    Test::Alone => Inputs::from([(stream, input_of(some))]),
                    Test::Without(_) => {
                        let (head, tail) = (parts[..at].iter().cloned(), parts[at + 1..].iter().cloned());
                        let mut inputs = all.clone();
                        inputs.insert(stream, input_of(head.chain(others).chain(tail)));
                        inputs
                    }
                };
                let found = self.values(inputs)?.unwrap_or_default();
                Ok(match test {
                    Test::Alone => !found.is_empty(),
                    Test::Without(values) => found != values,
                })
            };
            if !matters(Some(parts[at].clone()), None)? {
                continue;
            }
            return Ok(Some(match &parts[at] {
                Part::Range(range) => CausePlace::Range(range.clone()),
                Part::Block(block) => {
                    let cut = CutBlock::read(self.rehearsal, block)?;
                    let matters = |some: Range<usize>| {
                        matters(Some(cut.part(some.clone(), true)), Some(cut.part(some, false)))
                    };
                    let mut records = Vec::new();
                    let more = narrow(0..cut.ends.len(), &matters, &mut records)?;
                    CausePlace::Block { block: BlockId(block.place.block), records, more }
                }
            }));
        }
        Ok(None)
    }

    /// What the operator is given for the key of such a batch.
    fn values(&self, inputs: Inputs) -> Result<Option<Vec<Vec<u8>>>> {
        let Rehearsal { executor, paths, .. } = self.rehearsal;
        // Only states that are carried on go by the interval, and none is here.
        let (id, time) = (BatchId(self.plan.batch), (BatchTime(self.plan.time_ms), 0));
        let batch = Batch::new(id, time, Arc::clone(executor), paths.clone(), inputs);
        executor.begin_batch();
        let values = self.node.values_for(&batch, self.key);
        drop(executor.tally().take());
        values
    }
}

fn input_of(parts: impl IntoIterator<Item = Part>) -> Arc<BatchInput> {
    let (mut blocks, mut ranges) = (Vec::new(), Vec::new());
    for part in parts {
        match part {
            Part::Block(block) => blocks.push(block),
            Part::Range(range) => ranges.push(range),
        }
    }
    Arc::new(BatchInput::new(blocks, ranges))
}

/// Finds the records that matter among some that do, by halves. Where both halves matter only together they are one
/// range. Returns whether there are more than are told.
fn narrow(
    among: Range<usize>,
    matters: &impl Fn(Range<usize>) -> Result<bool>,
    found: &mut Vec<Range<u64>>,
) -> Result<bool> {
    if among.is_empty() {
        return Ok(false);
    }
    if found.len() == RECORDS_MAX {
        return Ok(true);
    }
    let known = found.len();
    let mut more = false;
    if among.len() > 1 {
        let middle = among.start + among.len() / 2;
        for half in [among.start..middle, middle..among.end] {
            if matters(half.clone())? {
                more |= narrow(half, matters, found)?;
            }
        }
    }
    if found.len() == known && !more {
        found.push(among.start as u64..among.end as u64);
    }
    Ok(more)
}

/// A block whose records can be taken out.
struct CutBlock {
    block: ReceivedBlock,
    frame: Vec<u8>,
    /// Where each record ends, in the frame.
    ends: Vec<usize>,
}

impl CutBlock {
    fn read(rehearsal: &Rehearsal<'_>, block: &ReceivedBlock) -> Result<Self> {
        let frame = read_block(&rehearsal.paths, &block.place)?;
        let (header, bytes) = BlockHeader::parse(&frame[HEADER_BYTES..])?;
        let (mut ends, mut at) = (Vec::new(), BLOCK_DATA_AT);
        match header.encoding {
            BlockEncoding::Lines => {
                ends.extend(bytes.split_inclusive(|byte| *byte == b'\n').map(|line| {
                    at += line.len();
                    at
                }));
            }
            BlockEncoding::Records => for_each_record(bytes, |record| {
                at += size_of::<u32>() + record.len();
                ends.push(at);
                Ok(())
            })?,
        }
        Ok(CutBlock { block: block.clone(), frame, ends })
    }

    /// The block with some of its records only, or with all others.
    fn part(&self, some: Range<usize>, inside: bool) -> Part {
        let begin = |record: usize| record.checked_sub(1).map_or(BLOCK_DATA_AT, |before| self.ends[before]);
        let (start, end) = (begin(some.start), begin(some.end));
        let mut frame = self.frame[..BLOCK_DATA_AT].to_vec();
        if inside {
            frame.extend_from_slice(&self.frame[start..end]);
        } else {
            frame.extend_from_slice(&self.frame[BLOCK_DATA_AT..start]);
            frame.extend_from_slice(&self.frame[end..]);
        }
        Part::Block(ReceivedBlock { frame: Some(Arc::new(frame)), ..self.block.clone() })
    }
}
