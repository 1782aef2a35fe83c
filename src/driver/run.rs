//! Running one batch, and beginning a checkpoint after it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};

use crate::batch::Batch;
use crate::checkpoint::tallies;
use crate::checkpoint::writer::CheckpointRequest;
use crate::dstream::Output;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::panic_text;
use crate::format::records::{CheckpointRecord, DoneRecord, OperatorChanges, Record, TallyDelta};
use crate::id::{BatchId, BatchTime};
use crate::state::{ChangeSums, SEGMENTS_MAX, oldest_to_keep};
use crate::time::Stopwatch;

use super::plan::{Inputs, PlannedBatch, Take};
use super::{Driver, Failure, OutputOperationCompleted, OutputOperationStarted, ReplayDifference, lock};

/// A checkpoint is put off, while the state is still being checked, for so many intervals between two at most.
const INTERVALS_PUT_OFF_MAX: u64 = 8;

/// Whether the outputs of a batch are emitted.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Emit {
    Yes,
    /// They were, in an earlier run, which has recorded what the batch added to accumulators and changed in the state.
    DoneBefore(Vec<TallyDelta>, Vec<OperatorChanges>),
}

impl Driver {
    /// Plans and runs the batch of `time`, then takes a checkpoint if one is due.
    pub(super) fn run_next(&mut self, time: BatchTime, take: Take) -> Result<()> {
        let planned = self.plan_next(time, take)?;
        self.run_planned(planned)
    }

    /// Runs a new batch whose plan is durable, then takes a checkpoint if one is due.
    pub(super) fn run_planned(&mut self, planned: PlannedBatch) -> Result<()> {
        let (bytes, buffered) = (planned.bytes, planned.buffered);
        let watch = Stopwatch::start();
        let records = self.run_batch(planned, Emit::Yes)?;
        self.log.release(buffered);
        let mut progress = lock(&self.shared.progress);
        progress.batches += 1;
        progress.records += records;
        progress.bytes += bytes;
        progress.last_processing = watch.elapsed();
        if bytes > 0 {
            progress.active = self.log.activity().since_first().unwrap_or_default();
        }
        drop(progress);
        if self.ahead.is_none() {
            self.checkpoint_if_due()?;
        }
        self.limit_state(true)?;
        let waits = matches!(&self.ahead, Some(Ok(ahead)) if ahead.bytes > 0);
        self.note_busy(waits || self.sources_wait);
        Ok(())
    }

    /// Runs a batch whose plan is durable. Returns the records read.
    pub(super) fn run_batch(&mut self, planned: PlannedBatch, emit: Emit) -> Result<u64> {
        let reporting = self.report_begin(&planned);
        let PlannedBatch { batch: id, time, interval_ms, inputs, bytes, due_ms, .. } = planned;
        let is_new = due_ms.is_some();
        let paths = Arc::new(self.store.paths.clone());
        let batch = Batch::new(id, (time, interval_ms), self.executor.clone(), paths, inputs.clone());
        let outcome = self.compute(&batch, &emit);
        let records = batch.records_read();
        drop(batch);
        let outcome = self.compare(id, outcome, &emit);
        let outcome = self.finish_nodes(outcome).and_then(|changes| {
            self.note_rates(&reporting, &inputs);
            let done = DoneRecord {
                batch: id.0,
                records,
                bytes,
                processing_us: reporting.elapsed().as_micros() as u64,
                outputs: self.outputs.iter().map(|output| output.name.clone()).collect(),
                changes: self.watched.records(&changes),
            };
            self.finish_batch(&done, emit, is_new)
        });
        let outcome = outcome.map_err(|error| error.within(id));
        self.report_end(reporting, &inputs, &outcome);
        outcome?;
        self.give_back(inputs);
        lock(&self.shared.progress).last_batch = Some((id, time));
        self.batches_since_checkpoint += 1;
        Ok(records)
    }

    /// The memory of a batch's blocks is for later ones.
    fn give_back(&self, inputs: Inputs) {
        let inputs = inputs.into_values().filter_map(Arc::into_inner);
        let frames = inputs.flat_map(|input| input.blocks).filter_map(|block| block.frame);
        frames.for_each(|frame| self.log.buffers().give_back(frame));
    }

    /// Before anything changes state again, RDDs that somebody kept get their own copy of it.
    fn finish_nodes<R>(&self, outcome: Result<R>) -> Result<R> {
        for node in &self.stateful {
            node.finish_batch()?;
        }
        outcome
    }

    /// Records that the batch is done, and what it added to accumulators, unless that is recorded already.
    /// Only then it is added.
    fn finish_batch(&mut self, done: &DoneRecord, emit: Emit, is_new: bool) -> Result<()> {
        // An output may have passed over an error that it met.
        self.damage.check()?;
        let deltas = match emit {
            Emit::DoneBefore(deltas, _) => deltas,
            Emit::Yes => {
                let deltas = self.variables.take_deltas(&self.executor)?;
                self.record_done(done, &deltas, is_new)?;
                deltas
            }
        };
        let _changing = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
        let unknown = self.variables.apply(&deltas)?;
        if let Some(name) = unknown.first().filter(|_| !self.settings.allow_dropping_state) {
            let message = format!("the job has no `{name}` any more: bring it back, or allow dropping state");
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
        Ok(())
    }

    /// Records that the batch is done, and with it the plan of the next one if that is due already.
    fn record_done(&mut self, done: &DoneRecord, deltas: &[TallyDelta], is_new: bool) -> Result<()> {
        let added = tallies::records_of(done.batch, deltas);
        let mut records = added.iter().map(Record::unnumbered).collect::<Result<Vec<_>>>()?;
        records.push(done.unnumbered()?);
        // What fails of the next batch, which asks sources, is no failure of this one.
        let ahead = || self.draw_up_ahead().transpose();
        let ahead = if is_new { catch_unwind(AssertUnwindSafe(ahead)) } else { Ok(None) };
        let ahead = ahead.unwrap_or_else(|payload| {
            let text = panic_text(&*payload);
            Some(Err(Error::new(ErrorKind::UserCode, format!("the driver panicked: {text}"))))
        });
        if let Some(Ok((plan, _))) = &ahead {
            records.push(plan.unnumbered()?);
        }
        self.commit("record that a batch is done", &mut records)?;
        self.ahead = ahead.map(|ahead| {
            let (_, planned) = ahead?;
            self.adopt(&planned)?;
            Ok(planned)
        });
        Ok(())
    }

    /// Returns what the batch changed in the state.
    fn compute(&self, batch: &Batch, emit: &Emit) -> Result<Vec<ChangeSums>> {
        self.executor.begin_batch();
        {
            let _changing = self.shared.gate.write().unwrap_or_else(PoisonError::into_inner);
            self.variables.advance(batch)?;
            for node in &self.stateful {
                node.advance(batch)?;
            }
        }
        let changes = self.watched.take();
        if *emit == Emit::Yes {
            let emit = |output: &Arc<Output>| {
                let what = format!("emit output `{}`", output.name);
                self.full_disk.wait_out(&what, || self.emit(output, batch))
            };
            self.outputs.iter().try_for_each(emit)?;
        }
        Ok(changes)
    }

    /// Whether a batch that was done before has changed what it changed then.
    fn compare(
        &mut self,
        batch: BatchId,
        outcome: Result<Vec<ChangeSums>>,
        emit: &Emit,
    ) -> Result<Vec<ChangeSums>> {
        let changes = outcome?;
        let Emit::DoneBefore(_, recorded) = emit else { return Ok(changes) };
        if let Some(difference) = self.watched.first_difference(batch, recorded, &changes, |_| None)? {
            if self.settings.refuse_replay_differences {
                let ReplayDifference { operator, key, .. } = difference;
                let key = key.map_or(String::new(), |key| format!(", the key {key} for one"));
                let message = format!(
                    "`{operator}` is changed in another way than before{key}: make its code depend on its arguments \
                     alone, or allow replay differences"
                );
                return Err(Error::new(ErrorKind::Nondeterministic, message));
            }
            self.watched.differences.push(difference);
        }
        Ok(changes)
    }

    /// Emits one output; what fails is tried again with the same records and the same key.
    fn emit(&self, output: &Output, batch: &Batch) -> Result<()> {
        let watch = Stopwatch::start();
        let begun = OutputOperationStarted { batch: batch.id, time: batch.time, output: output.name.clone() };
        self.listeners.tell(|listener| listener.output_operation_started(&begun));
        let (attempts, outcome) = self.try_to_emit(output, batch);
        let OutputOperationStarted { batch, time, output } = begun;
        let error = outcome.as_ref().err().map(Failure::of);
        let duration = watch.elapsed();
        let completed = OutputOperationCompleted { batch, time, output, duration, attempts, error };
        self.listeners.tell(|listener| listener.output_operation_completed(&completed));
        outcome
    }

    /// Returns also how often it was tried.
    fn try_to_emit(&self, output: &Output, batch: &Batch) -> (u32, Result<()>) {
        let mut attempt = 1;
        loop {
            let outcome = catch_unwind(AssertUnwindSafe(|| output.emit(batch, &self.settings.name)));
            let error = match outcome {
                Ok(Ok(())) => return (attempt, Ok(())),
                Ok(Err(error)) => error,
                Err(payload) => {
                    Error::new(ErrorKind::UserCode, format!("panicked: {}", panic_text(&*payload)))
                }
            };
            let error = error.within(format!("output `{}`", output.name));
            if attempt >= self.settings.task_attempts_max || error.kind() == ErrorKind::Stopped {
                return (attempt, Err(error));
            }
            tracing::warn!(attempt, error = %error.chain(), "an output failed and is tried again");
            attempt += 1;
        }
    }

    /// Takes a checkpoint if one is due, all that it would refer to was checked, and no large one is on its way. One that is
    /// long due does not wait for the check any more: what changed since the last one is kept in memory, and would be
    /// replayed.
    pub(super) fn checkpoint_if_due(&mut self) -> Result<()> {
        let (since, every) = (self.batches_since_checkpoint, self.settings.checkpoint_every_batches);
        if !self.is_checkpoint_due(since) {
            return Ok(());
        }
        let in_order = self.store.disk.is_in_order();
        let is_checked =
            self.sweep.is_over() || in_order || since >= every.saturating_mul(INTERVALS_PUT_OFF_MAX);
        if is_checked && self.may_checkpoint()? {
            return if in_order { self.checkpoint_and_wait() } else { self.checkpoint() };
        }
        Ok(())
    }

    /// Whether a checkpoint is due once there were so many batches since the last one.
    pub(super) fn is_checkpoint_due(&self, batches: u64) -> bool {
        self.owes_checkpoint || batches >= self.settings.checkpoint_every_batches
    }

    /// A checkpoint that is due waits for the one before; batches do not wait for a large one.
    fn may_checkpoint(&mut self) -> Result<bool> {
        let outcome = self.checkpoints.poll()?;
        self.note_checkpoint(outcome)?;
        Ok(!self.checkpoints.takes_long())
    }

    /// Freezes what changed since the last checkpoint and hands it to the writer. Batches go on while it is laid out and
    /// written.
    pub(super) fn checkpoint(&mut self) -> Result<()> {
        self.begin_checkpoint(1)
    }

    /// Takes a checkpoint and waits for it: nothing else needs the cores meanwhile.
    pub(super) fn checkpoint_and_wait(&mut self) -> Result<()> {
        // What is read from segments keeps its order too.
        let threads = if self.store.disk.is_in_order() { 1 } else { self.settings.threads };
        self.begin_checkpoint(threads)?;
        self.finish_checkpoint()
    }

    /// `threads` lay it out.
    fn begin_checkpoint(&mut self, threads: usize) -> Result<()> {
        // It would count a batch that is planned and not computed.
        assert!(self.ahead.is_none(), "a checkpoint between the plan of a batch and the batch");
        self.finish_checkpoint()?;
        self.damage.check()?;
        self.sweep.finish(&self.executor)?;
        let mut needed: Vec<u64> = self.states.iter().flat_map(|state| state.segments()).collect();
        needed.sort_unstable();
        needed.dedup();
        let oldest_to_keep = oldest_to_keep(&needed, SEGMENTS_MAX);
        let segment = self.next_segment.0;
        let about_bytes = self.states.iter().map(|state| state.freeze(segment, oldest_to_keep)).sum();
        let record = CheckpointRecord {
            checkpoint: self.next_checkpoint.0,
            batch: self.next_batch.0 - 1,
            time_ms: self.last_time.0,
            next_block: self.next_block,
            fingerprint: self.fingerprint,
            segments: Vec::new(),
            operators: self.states.iter().map(|state| state.describe()).collect(),
        };
        let plans_from = lock(&self.catalog).epoch();
        self.checkpoints.begin(CheckpointRequest {
            record,
            segment: self.next_segment,
            states: self.states.clone(),
            threads,
            about_bytes,
            plans_from,
        })?;
        self.next_checkpoint = self.next_checkpoint.next();
        self.next_segment = self.next_segment.next();
        self.batches_since_checkpoint = 0;
        self.owes_checkpoint = false;
        Ok(())
    }

    /// Waits for the checkpoint in progress.
    pub(super) fn finish_checkpoint(&mut self) -> Result<()> {
        let outcome = self.checkpoints.finish()?;
        self.note_checkpoint(outcome)
    }

    pub(super) fn note_busy(&self, busy: bool) {
        lock(&self.shared.progress).busy = busy;
    }
}
