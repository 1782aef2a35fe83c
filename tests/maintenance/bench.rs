//! A store of a job that lived for a while.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millpond::maintenance::Maintenance;
use millpond::testkit::FaultPlan;
use millpond::{Clock, ManualClock, Result, RunningContext, StopMode, inspect};

use crate::support::lives::{Life, start_life};
use crate::support::{Chunk, Emitted, INTERVAL_MS, Run, Sink, describe, run_through, states, wait_for_batch};
use crate::tool::copy_dir;

/// What a job ends with: what it emitted, and its state.
pub type End = (Emitted, String);

pub struct Bench {
    dir: tempfile::TempDir,
    pub clock: Arc<ManualClock>,
    pub chunks: Arc<Vec<Chunk>>,
    pub sink: Sink,
    pub run: Run,
}

pub fn chunks(batches: u16) -> Arc<Vec<Chunk>> {
    let chunk = |batch: u16| (0..12u16).map(|n| ((n * 7 + batch * 3) % 10, i64::from(n % 5) - 2)).collect();
    Arc::new((0..batches).map(chunk).collect())
}

impl Bench {
    pub fn new(chunks: Arc<Vec<Chunk>>, run: Run) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        Bench { dir, clock: ManualClock::at(0), chunks, sink: Sink::default(), run }
    }

    /// After nine of twelve batches in three lives, with a checkpoint after every other one; only its name, `kept`,
    /// keeps that after the second. It was stopped at once: the ninth batch is to be computed again.
    pub fn lived() -> Bench {
        let bench = Bench::new(chunks(12), Run { threads: 1, checkpoint_every: 2, ..Run::default() });
        bench.live(2);
        Maintenance::confirmed(bench.store()).pin("1", "kept").unwrap();
        bench.live(6);
        bench.live(9);
        let aside = bench.store().join("quarantine/log");
        fs::create_dir_all(&aside).unwrap();
        fs::write(aside.join("9.extent"), [0; 10]).unwrap();
        bench
    }

    pub fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// The same store once more, with what was emitted so far.
    pub fn copy(&self) -> Bench {
        let copy = Bench::new(self.chunks.clone(), self.run.clone());
        copy.clock.advance(self.clock.now_ms());
        copy_dir(&self.store(), &copy.store());
        self.sink.rows().into_iter().for_each(|(key, rows)| copy.sink.emit(key, rows));
        copy
    }

    pub fn start(&self, faults: &Arc<FaultPlan>) -> Result<RunningContext> {
        let life = Life::with_faults(&self.run, faults);
        start_life(&self.store(), &self.clock, &life, &|context, run| {
            describe(context, &self.chunks, run, &self.sink);
        })
    }

    pub fn last_batch(&self, job: &RunningContext) -> u64 {
        job.progress().last_batch.map_or(0, |(batch, _)| batch.0)
    }

    /// Runs the job up to that batch, lets it write its checkpoints, and stops it at once. Returns its state.
    pub fn live(&self, until: u64) -> String {
        let job = self.start(&FaultPlan::never()).unwrap();
        let replayed = u64::from(!job.recovery().replayed.is_empty());
        while self.last_batch(&job) < until {
            let batch = self.last_batch(&job) + 1;
            // A repair may leave numbers out, and then they run ahead of times.
            let time = job.progress().last_batch.map_or(0, |(_, time)| time.0);
            self.clock.advance((time + INTERVAL_MS).saturating_sub(self.clock.now_ms()));
            assert!(wait_for_batch(&job, batch), "the job ended before batch {batch}");
        }
        let checkpoints = replayed + job.progress().batches / self.run.checkpoint_every;
        while job.progress().checkpoints < checkpoints {
            assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
        }
        let state = states(&job);
        job.stop(StopMode::Now).unwrap();
        state
    }

    pub fn live_to_the_end(&self) -> End {
        let state = self.live(self.chunks.len() as u64);
        (self.sink.rows(), state)
    }

    /// What it ends with when nothing happens to it.
    pub fn uninterrupted(&self) -> End {
        run_through(&self.chunks, &self.run, &[])
    }

    pub fn newest_checkpoint(&self) -> u64 {
        inspect::checkpoints(&self.store()).unwrap().checkpoints.last().unwrap().checkpoint
    }

    /// A segment that only the newest checkpoint needs.
    pub fn own_segment_of_newest(&self) -> String {
        let newest = inspect::checkpoint(&self.store(), self.newest_checkpoint()).unwrap();
        format!("state/{}.segment", newest.segments.last().unwrap().segment)
    }

    /// Changes the bytes of a file; returns what they are now.
    pub fn damage(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let path = self.store().join(name);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, &bytes).unwrap();
        bytes
    }
}
