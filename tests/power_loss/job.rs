//! The job whose disk loses power, what it promises while it runs, and whether a store keeps the promises.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::testkit::FaultPlan;
use millpond::{
    Accumulator, BatchStarted, CheckpointWritten, Clock, ContextBuilder, DStream, ManualClock, Queue,
    RecoveryReport, RunningContext, StopMode, StreamingContext, StreamingListener,
};

use crate::lives::{INTERVAL_MS, Scripted};

/// Batches are this far apart, so that every second checkpoint or so begins a new epoch.
const STEP_MS: u64 = 4 * INTERVAL_MS;

/// A job that does nothing for so long hangs. Nothing else here depends on real time.
const HUNG_MS: u64 = 60_000;

type Row = (u32, u64);

/// What the world outside was told. One line each: the order is that of the recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// These records are about to be pushed.
    Pushing(u32),
    /// They were acknowledged.
    Pushed(u32),
    /// An output was emitted under a key.
    Emitted {
        key: String,
        batch: u64,
        rows: Vec<Row>,
    },
    Done(u64),
    /// A checkpoint of that batch was committed.
    Checkpoint(u64),
}

impl Told {
    pub fn line(&self) -> String {
        match self {
            Told::Pushing(push) => format!("pushing {push}\n"),
            Told::Pushed(push) => format!("pushed {push}\n"),
            Told::Emitted { key, batch, rows } => {
                let rows: Vec<String> = rows.iter().map(|(key, value)| format!("{key}:{value}")).collect();
                format!("emitted {key} {batch} {}\n", rows.join(","))
            }
            Told::Done(batch) => format!("done {batch}\n"),
            Told::Checkpoint(batch) => format!("checkpoint {batch}\n"),
        }
    }

    pub fn read(line: &str) -> Told {
        let words: Vec<&str> = line.trim_end_matches('\n').split(' ').collect();
        let row = |row: &str| {
            let (key, value) = row.split_once(':').unwrap();
            (key.parse().unwrap(), value.parse().unwrap())
        };
        match words[..] {
            ["pushing", push] => Told::Pushing(push.parse().unwrap()),
            ["pushed", push] => Told::Pushed(push.parse().unwrap()),
            ["emitted", key, batch, rows] => Told::Emitted {
                key: key.to_owned(),
                batch: batch.parse().unwrap(),
                rows: rows.split(',').filter(|row| !row.is_empty()).map(row).collect(),
            },
            ["done", batch] => Told::Done(batch.parse().unwrap()),
            ["checkpoint", batch] => Told::Checkpoint(batch.parse().unwrap()),
            _ => panic!("told: {line:?}"),
        }
    }
}

/// Where the job tells the world.
pub type Tell = Arc<dyn Fn(Told) + Send + Sync>;

/// The records of a push. Every third takes several sectors.
fn records_of(push: u32) -> Vec<Row> {
    let count = if push.is_multiple_of(3) { 130 } else { 3 + push % 4 };
    (0..count).map(|n| (push, u64::from(push) * 1_000 + u64::from(n) * 7)).collect()
}

/// The records of the chunks that a replayable source offers, one per batch.
fn chunks() -> Arc<Vec<Vec<Row>>> {
    let chunk = |chunk: u32| (0..2 + chunk % 3).map(|n| (1_000_000 + chunk, u64::from(n + chunk))).collect();
    Arc::new((0..40).map(chunk).collect())
}

/// Tells of checkpoints, and lets a job that `hurries` fall behind: the batch after every third is due when that begins, so
/// that its plan is committed with the completion of the one before.
struct Listener {
    tell: Tell,
    clock: Arc<ManualClock>,
    hurries: bool,
}

impl StreamingListener for Listener {
    fn checkpoint_written(&self, event: &CheckpointWritten) {
        (self.tell)(Told::Checkpoint(event.batch.0));
    }

    fn batch_started(&self, event: &BatchStarted) {
        if self.hurries && event.batch.0 % 3 == 1 && !event.replayed {
            self.clock.advance(STEP_MS);
        }
    }
}

/// A job that was started.
pub struct Life {
    job: RunningContext,
    queue: Queue<Row>,
    emitted_rows: Accumulator<u64>,
    clock: Arc<ManualClock>,
    tell: Tell,
}

/// By key of state: how many records there were, and their sum.
type Sums = BTreeMap<u32, (u64, u64)>;

fn add_up(new: &[u64], old: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let (count, sum) = old.unwrap_or_default();
    Some((count + new.len() as u64, sum + new.iter().sum::<u64>()))
}

impl Life {
    /// Starts the job; `tell` hears of everything that leaves it.
    pub fn start(store: &Path, tell: Tell) -> millpond::Result<Life> {
        Life::start_with(StreamingContext::builder("power"), store, tell, false)
    }

    fn start_with(
        builder: ContextBuilder,
        store: &Path,
        tell: Tell,
        hurries: bool,
    ) -> millpond::Result<Life> {
        let clock = ManualClock::at(1_000_000);
        let context = builder
            .store(store)
            .clock(clock.clone())
            .batch_interval(Duration::from_millis(INTERVAL_MS))
            .checkpoint_every_batches(2)
            .threads(1)
            .partitions(2)
            .stop_on_signals(false)
            .listener(Arc::new(Listener { tell: tell.clone(), clock: clock.clone(), hurries }))
            .build()?;
        let (pushed, queue) = context.queue_stream::<Row>("pushes");
        let script = Scripted { chunks: chunks(), ranges: 1, flaky: false };
        let all = pushed.union(&context.replayable_stream("script", script));
        let sums = all.update_state_by_key("sums", |new: &[u64], old| add_up(new, old));
        // Keys that come and go: what the last batch had.
        // Keys that are written again and again.
        let few = all.map(|(key, value)| (key % 5, value));
        let last = few.update_state_by_key("last", |new: &[u64], _: Option<u64>| new.last().copied());
        let emitted_rows = context.accumulator("emitted rows", 0u64, |a, b| a + b);
        emit(&all, &emitted_rows, &tell);
        drop((sums, last));
        let job = context.start()?;
        Ok(Life { job, queue, emitted_rows, clock, tell })
    }

    pub fn recovery(&self) -> RecoveryReport {
        self.job.recovery().clone()
    }

    /// Pushes records and tells when they are acknowledged.
    pub fn push(&self, push: u32) -> millpond::Result<()> {
        (self.tell)(Told::Pushing(push));
        self.queue.push(records_of(push))?;
        (self.tell)(Told::Pushed(push));
        Ok(())
    }

    /// Runs one batch and tells when it is done.
    pub fn tick(&self) -> Result<u64, String> {
        let last = || self.job.progress().last_batch.map_or(0, |(batch, _)| batch.0);
        let before = last();
        // The clock of a job that goes on may be behind its last batch: then its next batch is due an interval on.
        self.clock.advance(STEP_MS);
        for _ in 0..HUNG_MS {
            if last() > before {
                (self.tell)(Told::Done(last()));
                return Ok(last());
            }
            let ended = self.job.await_termination_or_timeout(Duration::from_millis(1));
            match ended {
                Ok(false) => {}
                Ok(true) => return Err("the job has stopped by itself".to_owned()),
                Err(error) => return Err(format!("the job failed: {}", error.chain())),
            }
        }
        Err(format!("no batch after {before}: the job hangs (its clock is at {})", self.clock.now_ms()))
    }

    pub fn stop(&self, mode: StopMode) -> Result<(), String> {
        self.job.stop(mode).map_err(|error| format!("it failed: {}", error.chain()))
    }

    fn sums(&self) -> millpond::Result<Sums> {
        let mut sums = Sums::new();
        let state = self.job.state::<u32, (u64, u64)>("sums")?;
        state.for_each(|key, sum| sums.extend([(key, sum)]))?;
        Ok(sums)
    }

    /// What the job has ended with, if it has failed.
    fn failure(&self) -> Option<millpond::Error> {
        self.job.await_termination_or_timeout(Duration::ZERO).err()
    }
}

fn emit(all: &DStream<Row>, emitted_rows: &Accumulator<u64>, tell: &Tell) {
    let (tell, emitted_rows) = (tell.clone(), emitted_rows.clone());
    all.for_each_rdd(move |rdd, info| {
        let rows = rdd.collect()?;
        emitted_rows.add(rows.len() as u64);
        let key = info.idempotency_key().replace(' ', "_");
        tell(Told::Emitted { key, batch: info.batch.0, rows });
        Ok(())
    });
}

/// What a process does before it ends. It tells the world by lines in a file.
pub fn live(store: &Path, told: &Path, life: u32, rounds: u32) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(told).unwrap();
    let file = Mutex::new(file);
    // Set once the process is to die within an output.
    let dies = Arc::new(Mutex::new(false));
    let dying = dies.clone();
    let tell: Tell = Arc::new(move |told| {
        file.lock().unwrap().write_all(told.line().as_bytes()).unwrap();
        if matches!(told, Told::Emitted { .. }) && *dying.lock().unwrap() {
            std::process::abort();
        }
    });
    let running = Life::start_with(StreamingContext::builder("power"), store, tell, true).unwrap();
    if rounds == 0 {
        // A start that came to nothing.
        std::process::abort();
    }
    let push = |number: u32| running.push(life * 100 + number).unwrap();
    for round in 0..rounds {
        push(round * 2);
        push(round * 2 + 1);
        running.tick().unwrap();
    }
    push(80);
    match life % 3 {
        // Killed between plan and completion of a batch.
        1 => {
            *dies.lock().unwrap() = true;
            let _ = running.tick();
            panic!("it should have died");
        }
        // With a block that no batch has.
        2 => running.stop(StopMode::Now).unwrap(),
        _ => running.stop(StopMode::Graceful).unwrap(),
    }
}

/// What must hold in a store, by what the world had been told.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    pushing: BTreeSet<u32>,
    pushed: BTreeSet<u32>,
    emitted: BTreeMap<String, (u64, Vec<Row>)>,
    done: u64,
    checkpoint: u64,
    /// What is wrong already.
    broken: Vec<String>,
}

impl Promises {
    pub fn of<'a>(told: impl IntoIterator<Item = &'a Told>) -> Self {
        let mut promises = Promises::default();
        told.into_iter().for_each(|told| promises.hear(told));
        promises
    }

    fn hear(&mut self, told: &Told) {
        match told {
            Told::Pushing(push) => drop(self.pushing.insert(*push)),
            Told::Pushed(push) => drop(self.pushed.insert(*push)),
            Told::Done(batch) => self.done = self.done.max(*batch),
            Told::Checkpoint(batch) => self.checkpoint = self.checkpoint.max(*batch),
            Told::Emitted { key, batch, rows } => {
                if *batch <= self.done {
                    self.broken.push(format!("batch {batch} was done, and is emitted again"));
                }
                let before = self.emitted.insert(key.clone(), (*batch, rows.clone()));
                if before.is_some_and(|before| before != (*batch, rows.clone())) {
                    self.broken.push(format!("{key} is emitted again with other rows"));
                }
            }
        }
    }
}

/// Starts the job on what a power cut left and lets it go on for a while, as life number `life`. `again` starts it
/// once more after that. Returns how it went on, or what is broken.
pub fn judge(store: &Path, promises: &Promises, life: u32, again: bool) -> Result<String, String> {
    let heard = Arc::new(Mutex::new(promises.clone()));
    let judged = catch_unwind(AssertUnwindSafe(|| {
        let outcome = judge_once(store, &heard, life)?;
        if again {
            judge_once(store, &heard, life + 1).map_err(|broken| format!("at the second start: {broken}"))?;
        }
        Ok(outcome)
    }));
    judged.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(format!("panicked: {}", text.unwrap_or_else(|| "without a message".to_owned())))
    })
}

fn judge_once(store: &Path, heard: &Arc<Mutex<Promises>>, life: u32) -> Result<String, String> {
    let hears = heard.clone();
    let promised = heard.lock().unwrap().clone();
    let tell: Tell = Arc::new(move |told| hears.lock().unwrap().hear(&told));
    let started = Life::start(store, tell).map_err(|error| format!("refused: {}", error.chain()))?;
    let outcome = judge_report(&started.recovery(), &promised)?;
    started.push(life * 100).map_err(|error| format!("the push failed: {}", error.chain()))?;
    let batch = started.tick()?;
    let promises = heard.lock().unwrap().clone();
    if let Some(broken) = promises.broken.first() {
        return Err(broken.clone());
    }
    if batch <= promised.done {
        return Err(format!("batch {} was done, the next one is {batch}", promised.done));
    }
    let sums = started.sums().map_err(|error| format!("state cannot be read: {}", error.chain()))?;
    judge_emitted(&sums, started.emitted_rows.value(), &promises)?;
    judge_totals(&sums, &promises)?;
    started.stop(StopMode::Now)?;
    Ok(outcome)
}

/// When a start on a damaged store looks at all of its state.
#[derive(Clone, Copy, Debug)]
pub enum Looks {
    /// Before it comes back.
    AtOnce,
    /// Behind the start, in a thread beside the batches.
    Beside,
    /// Behind the start, when a batch, a question or a stop needs it.
    WhenNeeded,
}

/// What became of a job that was started on a damaged store.
#[derive(Debug)]
pub enum Lived {
    /// The start, or a replay in it, was refused.
    Refused(millpond::Error),
    /// It went on to a stop, and everything was right.
    Whole(RecoveryReport),
    /// What it had told was right, and it ended by itself. The world was promised what is here.
    Ended(millpond::Error, Box<Promises>),
}

/// Starts the job on a store that is damaged. When it starts, pushes `push`, lets it go on and checks its totals:
/// `Err` says what is wrong with them.
pub fn live_damaged(store: &Path, promises: &Promises, looks: Looks, push: u32) -> Result<Lived, String> {
    let heard = Arc::new(Mutex::new(promises.clone()));
    let hears = heard.clone();
    let tell: Tell = Arc::new(move |told| hears.lock().unwrap().hear(&told));
    let builder = StreamingContext::builder("power");
    let builder = match looks {
        Looks::AtOnce => builder,
        Looks::Beside => builder.verify_at_start_bytes(0),
        Looks::WhenNeeded => builder.verify_at_start_bytes(0).faults(FaultPlan::holding_sweep()),
    };
    let started = match Life::start_with(builder, store, tell, false) {
        Ok(started) => started,
        Err(error) => return Ok(Lived::Refused(error)),
    };
    let report = started.recovery();
    let went_on = started.push(push).is_ok() && started.tick().is_ok();
    let sums = if went_on { started.sums().ok() } else { None };
    if let Some(sums) = &sums {
        let promises = heard.lock().unwrap().clone();
        if report.lost_plans.is_empty() {
            judge_emitted(sums, started.emitted_rows.value(), &promises)?;
        }
        // What the batches of lost plans read is planned anew: it is in state once all the same.
        judge_totals(sums, &promises)?;
    }
    let mode = if matches!(looks, Looks::AtOnce) { StopMode::Now } else { StopMode::Graceful };
    let stopped = started.stop(mode);
    let promises = heard.lock().unwrap().clone();
    if let Some(broken) = promises.broken.first().filter(|_| report.lost_plans.is_empty()) {
        return Err(broken.clone());
    }
    match started.failure() {
        Some(error) => Ok(Lived::Ended(error, Box::new(promises))),
        None if sums.is_some() && stopped.is_ok() => Ok(Lived::Whole(report)),
        None => Err(format!("it did not go on, and does not say why: {stopped:?}")),
    }
}

/// A power cut is no damage: nothing may be passed over or lost.
fn judge_report(report: &RecoveryReport, promised: &Promises) -> Result<String, String> {
    if !report.walked_back.is_empty() {
        return Err(format!("a checkpoint is damaged: {:?}", report.walked_back));
    }
    if !report.lost_plans.is_empty() {
        return Err(format!("plans are lost: {:?}", report.lost_plans));
    }
    let checkpoint = report.checkpoint.map_or(0, |(_, batch)| batch.0);
    if checkpoint < promised.checkpoint {
        return Err(format!("the checkpoint of batch {} is lost: it is {checkpoint}'s", promised.checkpoint));
    }
    if let Some(damage) = report.damage.first() {
        return Err(format!("reported as damage: {damage}"));
    }
    Ok(match (report.fresh, report.checkpoint, report.replayed.len(), report.emitted.len()) {
        (true, ..) => "a new store",
        (_, None, 0, _) => "no checkpoint yet, nothing replayed",
        (_, None, ..) => "no checkpoint yet, replayed",
        (_, _, 0, _) => "a checkpoint, nothing replayed",
        (_, _, _, 0) => "a checkpoint, replayed, nothing emitted again",
        _ => "a checkpoint, replayed, emitted again",
    }
    .to_owned())
}

/// State and accumulator have what was emitted, each key once.
fn judge_emitted(sums: &Sums, counted: u64, promises: &Promises) -> Result<(), String> {
    let mut emitted = Sums::new();
    let mut rows = 0;
    for (key, value) in promises.emitted.values().flat_map(|(_, rows)| rows) {
        let sum = emitted.entry(*key).or_default();
        *sum = (sum.0 + 1, sum.1 + value);
        rows += 1;
    }
    if emitted != *sums {
        let key = emitted.keys().chain(sums.keys()).find(|key| emitted.get(*key) != sums.get(*key));
        let key = key.copied().unwrap_or_default();
        return Err(format!("key {key}: emitted {:?}, in state {:?}", emitted.get(&key), sums.get(&key)));
    }
    if counted != rows {
        return Err(format!("{rows} rows were emitted, the accumulator has {counted}"));
    }
    Ok(())
}

/// Everything acknowledged is in state once, and so is everything else that is there.
fn judge_totals(sums: &Sums, promises: &Promises) -> Result<(), String> {
    let expected =
        |records: &[Row]| (records.len() as u64, records.iter().map(|(_, value)| *value).sum::<u64>());
    for push in &promises.pushed {
        if !sums.contains_key(push) {
            return Err(format!("push {push} was acknowledged and is lost"));
        }
    }
    let chunks = chunks();
    let chunks_there = sums.range(1_000_000..).count();
    for (at, (key, sum)) in sums.range(1_000_000..).enumerate() {
        let chunk = &chunks[at];
        if *key != 1_000_000 + at as u32 || *sum != expected(chunk) {
            return Err(format!(
                "chunk {at} of {chunks_there}: key {key} has {sum:?}, not {:?}",
                expected(chunk)
            ));
        }
    }
    for (push, sum) in sums.range(..1_000_000) {
        if !promises.pushing.contains(push) {
            return Err(format!("push {push} was never made"));
        }
        if *sum != expected(&records_of(*push)) {
            return Err(format!("push {push} has {sum:?}, not {:?}", expected(&records_of(*push))));
        }
    }
    Ok(())
}
