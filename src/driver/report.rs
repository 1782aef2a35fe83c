//! What the driver tells listeners and the rate controller.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use crate::checkpoint::writer::CheckpointOutcome;
use crate::error::Result;
use crate::id::StreamId;
use crate::source::{ReceiverChange, ReceiverChanges};
use crate::time::{Stopwatch, WakeUp};

use super::plan::{Inputs, PlannedBatch};
use super::rate::BatchFigures;
use super::{
    BatchCompleted, BatchStarted, BatchSubmitted, CheckpointFailed, CheckpointWritten, Driver, Failure,
    ReceiverFailed, ReceiverStarted, ReceiverStopped, StreamInput, lock,
};

/// Collects what receivers report on their threads for the driver's.
pub(super) struct ReceiverReports {
    changes: ReceiverChanges,
    reports: mpsc::Receiver<(Arc<str>, ReceiverChange)>,
}

impl ReceiverReports {
    pub(super) fn new(wake: Arc<WakeUp>) -> Self {
        let (sender, reports) = mpsc::channel();
        ReceiverReports { changes: ReceiverChanges { sender, wake }, reports }
    }

    pub(super) fn sender(&self) -> ReceiverChanges {
        self.changes.clone()
    }
}

/// A batch that is being computed.
pub(super) struct Reporting {
    started: BatchStarted,
    bytes: u64,
    watch: Stopwatch,
    begun_ms: u64,
}

impl Reporting {
    pub(super) fn elapsed(&self) -> Duration {
        self.watch.elapsed()
    }
}

impl Driver {
    /// Tells that a batch is planned and begins.
    pub(super) fn report_begin(&self, planned: &PlannedBatch) -> Reporting {
        let &PlannedBatch { batch, time, bytes, .. } = planned;
        let replayed = planned.due_ms.is_none();
        let streams = self.streams_of(&planned.inputs);
        let submitted = BatchSubmitted { batch, time, bytes, streams, replayed };
        self.listeners.tell(|listener| listener.batch_submitted(&submitted));
        let begun_ms = self.now_ms();
        let delay_ms = planned.due_ms.map_or(0, |due_ms| begun_ms.saturating_sub(due_ms));
        let scheduling_delay = Duration::from_millis(delay_ms);
        let started = BatchStarted { batch, time, scheduling_delay, replayed };
        self.listeners.tell(|listener| listener.batch_started(&started));
        Reporting { started, bytes, watch: Stopwatch::start(), begun_ms }
    }

    /// Tells that a batch is done or has failed.
    pub(super) fn report_end(&self, reporting: Reporting, inputs: &Inputs, outcome: &Result<()>) {
        let processing_time = reporting.elapsed();
        let Reporting { started, bytes, .. } = reporting;
        let BatchStarted { batch, time, scheduling_delay, replayed } = started;
        let completed = BatchCompleted {
            batch,
            time,
            bytes,
            records: inputs.values().map(|input| input.records_read()).sum(),
            streams: self.streams_of(inputs),
            scheduling_delay,
            processing_time,
            total_delay: scheduling_delay + processing_time,
            replayed,
            error: outcome.as_ref().err().map(Failure::of),
        };
        self.listeners.tell(|listener| listener.batch_completed(&completed));
    }

    /// Measures a batch that was computed, for the limits of those after it. By the job's clock: rates are decided upon,
    /// and a clock that is moved by hand has to decide the same every time.
    pub(super) fn note_rates(&mut self, reporting: &Reporting, inputs: &Inputs) {
        let Reporting { begun_ms, started: BatchStarted { scheduling_delay, replayed, .. }, .. } = *reporting;
        if replayed {
            return;
        }
        let now_ms = self.now_ms();
        let delay_ms = scheduling_delay.as_millis() as u64;
        // A batch within the clock's resolution was fast, which is a measure too.
        let processing_ms = now_ms.saturating_sub(begun_ms).max(1);
        for (stream, input) in inputs {
            let records = input.records_read();
            let figures = BatchFigures { now_ms, records, processing_ms, delay_ms };
            self.rates.update(*stream, figures, input.bytes());
        }
    }

    fn streams_of(&self, inputs: &Inputs) -> Vec<StreamInput> {
        let name =
            |stream: &StreamId| self.streams.get(stream).map_or(String::new(), |name| name.to_string());
        let input = |(stream, input): (&StreamId, &Arc<crate::batch::BatchInput>)| StreamInput {
            stream: name(stream),
            bytes: input.bytes(),
            records: input.records_read(),
        };
        let mut streams: Vec<StreamInput> = inputs.iter().map(input).collect();
        streams.sort_unstable_by(|a, b| a.stream.cmp(&b.stream));
        streams
    }

    /// Tells what receivers reported.
    pub(super) fn report_receivers(&self) {
        while let Ok((stream, change)) = self.receiver_reports.reports.try_recv() {
            let stream = stream.to_string();
            match change {
                ReceiverChange::Started => {
                    let event = ReceiverStarted { stream };
                    self.listeners.tell(|listener| listener.receiver_started(&event));
                }
                ReceiverChange::Failed { error, restart_after } => {
                    let event = ReceiverFailed { stream, error, restart_after };
                    self.listeners.tell(|listener| listener.receiver_error(&event));
                }
                ReceiverChange::Stopped { error } => {
                    let event = ReceiverStopped { stream, error };
                    self.listeners.tell(|listener| listener.receiver_stopped(&event));
                }
            }
        }
    }

    /// Tells what became of a checkpoint.
    ///
    /// # Errors
    /// What it failed with.
    pub(super) fn note_checkpoint(&mut self, outcome: Option<CheckpointOutcome>) -> Result<()> {
        let Some(outcome) = outcome else { return Ok(()) };
        let CheckpointOutcome { checkpoint, batch, bytes, took: duration, segments, result } = outcome;
        match &result {
            Ok(()) => {
                lock(&self.shared.progress).checkpoints += 1;
                let event = CheckpointWritten { checkpoint, batch, duration, bytes };
                self.listeners.tell(|listener| listener.checkpoint_written(&event));
                self.follow_checkpoint(&segments)?;
            }
            Err(error) => {
                let event = CheckpointFailed { checkpoint, batch, duration, error: Failure::of(error) };
                self.listeners.tell(|listener| listener.checkpoint_failed(&event));
            }
        }
        result
    }

    /// Tells what was still under way when the job ended.
    pub(super) fn report_last(&mut self) {
        self.report_receivers();
        let last = self.checkpoints.finish().and_then(|outcome| self.note_checkpoint(outcome));
        if let Err(error) = last {
            tracing::warn!(error = %error.chain(), "the last checkpoint was not written: more is replayed");
        }
    }
}
