//! A listener that writes down what it is told.

use std::sync::Mutex;

use millpond::{
    BatchCompleted, BatchStarted, BatchSubmitted, CheckpointWritten, Failure, OutputOperationCompleted,
    OutputOperationStarted, ReceiverFailed, ReceiverStarted, ReceiverStopped, StreamingListener,
    StreamingStarted, StreamingStopped,
};

/// Writes down what it is told, one line each.
#[derive(Default)]
pub struct Recorder {
    lines: Mutex<Vec<String>>,
    checkpoints: Mutex<Vec<CheckpointWritten>>,
}

impl Recorder {
    fn note(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    pub fn clear(&self) {
        self.lines.lock().unwrap().clear();
    }

    pub fn checkpoints(&self) -> Vec<CheckpointWritten> {
        self.checkpoints.lock().unwrap().clone()
    }
}

fn again(replayed: bool) -> &'static str {
    if replayed { " again" } else { "" }
}

fn failure(error: &Option<Failure>) -> String {
    error.as_ref().map_or(String::new(), |error| format!(" failed: {:?}", error.kind))
}

impl StreamingListener for Recorder {
    fn streaming_started(&self, event: &StreamingStarted) {
        self.note(format!("started, {} replayed", event.recovery.replayed.len()));
    }

    fn batch_submitted(&self, event: &BatchSubmitted) {
        let streams: Vec<_> = event.streams.iter().map(|input| &*input.stream).collect();
        assert_eq!(event.bytes, event.streams.iter().map(|input| input.bytes).sum::<u64>());
        self.note(format!("{} submitted{} with {streams:?}", event.batch, again(event.replayed)));
    }

    fn batch_started(&self, event: &BatchStarted) {
        self.note(format!("{} begins{}", event.batch, again(event.replayed)));
    }

    fn batch_completed(&self, event: &BatchCompleted) {
        let streams: Vec<_> = event.streams.iter().map(|input| (&*input.stream, input.records)).collect();
        assert_eq!(event.total_delay, event.scheduling_delay + event.processing_time);
        let (records, failure) = (event.records, failure(&event.error));
        self.note(format!("{} of {records} {streams:?}{}{failure}", event.batch, again(event.replayed)));
    }

    fn output_operation_started(&self, event: &OutputOperationStarted) {
        self.note(format!("{} output {}", event.batch, event.output));
    }

    fn output_operation_completed(&self, event: &OutputOperationCompleted) {
        self.note(format!(
            "{} output {} after {}{}",
            event.batch,
            event.output,
            event.attempts,
            failure(&event.error)
        ));
    }

    fn receiver_started(&self, event: &ReceiverStarted) {
        self.note(format!("receiver {} started", event.stream));
    }

    fn receiver_error(&self, event: &ReceiverFailed) {
        self.note(format!("receiver {} failed: {}, {:?}", event.stream, event.error, event.restart_after));
    }

    fn receiver_stopped(&self, event: &ReceiverStopped) {
        self.note(format!("receiver {} stopped: {:?}", event.stream, event.error));
    }

    fn checkpoint_written(&self, event: &CheckpointWritten) {
        self.checkpoints.lock().unwrap().push(event.clone());
    }

    fn streaming_stopped(&self, event: &StreamingStopped) {
        self.note(format!("stopped{}", failure(&event.error)));
    }
}
