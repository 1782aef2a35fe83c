//! A source of numbers that costs next to nothing, and a job that is driven batch by batch.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use millpond::{
    BatchCompleted, CheckpointWritten, ContextBuilder, Emitter, ManualClock, Offer, Positions, RangeReader,
    ReplayableSource, RunningContext, SourceRange, StreamingContext, StreamingListener,
};

use crate::comparison::Outcome;

/// The time between the batches of a driven job, by its own clock.
const INTERVAL_MS: u64 = 1_000;

/// Each batch has the numbers that follow those before, up to what was released, in so many ranges.
pub struct Numbers {
    pub released: Arc<AtomicU64>,
    pub ranges: u64,
}

impl ReplayableSource for Numbers {
    type Item = u64;

    fn poll(&mut self, positions: &Positions, limit: u64, _now_ms: u64) -> millpond::Result<Offer> {
        let start = positions.get("numbers")?.map_or(0, |position| position.offset);
        let count = (self.released.load(Ordering::SeqCst).max(start) - start).min(limit);
        let bound = |part: u64| start + count * part / self.ranges;
        let range = |part: u64| SourceRange {
            partition: "numbers".into(),
            start: bound(part),
            end: bound(part + 1),
            size: 0,
            stamp: 0,
        };
        let ranges = (0..self.ranges).map(range).filter(|range| range.start < range.end);
        Ok(Offer { ranges: ranges.collect(), ..Offer::default() })
    }

    fn reader(&self) -> Arc<dyn RangeReader<u64>> {
        Arc::new(NumberReader)
    }
}

struct NumberReader;

impl RangeReader<u64> for NumberReader {
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, u64>) -> millpond::Result<u64> {
        out.emit_all(range.start..range.end);
        Ok(range.end - range.start)
    }
}

/// Hands on what a job tells.
struct Told {
    batches: Mutex<mpsc::Sender<BatchCompleted>>,
    checkpoints: Mutex<mpsc::Sender<CheckpointWritten>>,
}

impl StreamingListener for Told {
    fn batch_completed(&self, event: &BatchCompleted) {
        // A benchmark that is over no longer listens.
        if let Ok(batches) = self.batches.lock() {
            let _ = batches.send(event.clone());
        }
    }

    fn checkpoint_written(&self, event: &CheckpointWritten) {
        if let Ok(checkpoints) = self.checkpoints.lock() {
            let _ = checkpoints.send(event.clone());
        }
    }
}

/// Drives a job whose batches run when they are asked for.
pub struct Driven {
    clock: Arc<ManualClock>,
    pub released: Arc<AtomicU64>,
    batches: mpsc::Receiver<BatchCompleted>,
    pub checkpoints: mpsc::Receiver<CheckpointWritten>,
}

impl Driven {
    /// The builder of a job on a clock that stands at `now_ms`, and what drives it. Numbers up to `released` are
    /// taken by earlier runs.
    pub fn builder(store: &Path, now_ms: u64, released: u64) -> (ContextBuilder, Self) {
        let clock = ManualClock::at(now_ms);
        let (batches, told_batches) = mpsc::channel();
        let (checkpoints, told_checkpoints) = mpsc::channel();
        let told = Told { batches: Mutex::new(batches), checkpoints: Mutex::new(checkpoints) };
        let builder = StreamingContext::builder("driven")
            .store(store)
            .clock(clock.clone())
            .batch_interval(Duration::from_millis(INTERVAL_MS))
            .listener(Arc::new(told));
        let released = Arc::new(AtomicU64::new(released));
        (builder, Driven { clock, released, batches: told_batches, checkpoints: told_checkpoints })
    }

    pub fn numbers(&self, ranges: u64) -> Numbers {
        Numbers { released: self.released.clone(), ranges }
    }

    /// Runs a batch of the next `count` numbers.
    pub fn batch(&self, job: &RunningContext, count: u64) -> Outcome<BatchCompleted> {
        self.released.fetch_add(count, Ordering::SeqCst);
        self.clock.advance(INTERVAL_MS);
        self.completed(job)
    }

    /// Runs such a batch, and says how long it was processed: without the wait for its plan.
    pub fn processed(&self, job: &RunningContext, count: u64) -> Outcome<Duration> {
        Ok(self.batch(job, count)?.processing_time)
    }

    /// Waits for the next batch that is completed.
    pub fn completed(&self, job: &RunningContext) -> Outcome<BatchCompleted> {
        loop {
            if let Ok(done) = self.batches.recv_timeout(Duration::from_secs(1)) {
                return match &done.error {
                    None => Ok(done),
                    Some(error) => Err(format!("a batch failed: {error:?}").into()),
                };
            }
            if job.await_termination_or_timeout(Duration::ZERO)? {
                return Err("the job has stopped".into());
            }
        }
    }
}
