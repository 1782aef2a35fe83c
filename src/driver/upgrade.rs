//! What a start would do with a store, told without doing it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::checkpoint::matching::{Match, StateMatch, match_states};
use crate::checkpoint::recovery::{Found, read_store};
use crate::config::Settings;
use crate::dstream::Outline;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::id::{BatchId, CheckpointId, StreamId};
use crate::store::{Identity, StorePaths, refuse_foreign_directory};

/// How often a store that another process writes to is read before what is wrong with it is believed.
const READS_MAX: usize = 4;

/// What a start would do: what becomes of state and streams, and what is computed again. Made by
/// [`StreamingContext::plan`](crate::StreamingContext::plan); its `Display` is a page for people, which is also
/// in the error of a start that is refused.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct UpgradePlan {
    /// Whether the store is new.
    pub fresh: bool,
    /// The checkpoint that would be restored, and the last batch in it.
    pub checkpoint: Option<(CheckpointId, BatchId)>,
    /// Damaged checkpoints that would be passed over, with what is wrong.
    pub walked_back: Vec<(CheckpointId, String)>,
    /// The batches that would be computed again, in order.
    pub replay: Vec<BatchId>,
    /// The state of each operator: first those of the job, then those that only the checkpoint has.
    pub states: Vec<PlannedState>,
    /// Each input stream: first those of the job, then those that only the store knows.
    pub streams: Vec<PlannedStream>,
    /// Settings that are not as in the last run.
    pub settings: Vec<ChangedSetting>,
    /// Why the job cannot start like this, with what to do. Empty when it can.
    pub problems: Vec<String>,
}

/// What becomes of the state of one operator.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedState {
    /// The operator's name: in the job, or else in the checkpoint.
    pub operator: String,
    /// What becomes of it.
    pub outcome: StateMatch,
    /// How many keys the checkpoint has of it.
    pub keys: u64,
    /// The type of its keys and values in the checkpoint.
    pub stored: Option<String>,
    /// The type of its keys and values in the job.
    pub asked: Option<String>,
    /// Why the job cannot start because of it, and what to do.
    pub problem: Option<String>,
}

/// What becomes of an input stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamMatch {
    /// The job has it, as it had.
    Kept,
    /// The job did not have it before.
    New,
    /// The job no longer has it.
    Gone,
}

/// One input stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedStream {
    /// Its name, or what is known of it.
    pub stream: String,
    /// What becomes of it.
    pub outcome: StreamMatch,
    /// Received blocks that are in no batch yet: the first batch takes them, or they are lost with the stream.
    pub pending_blocks: usize,
    /// Batches with input of it that would be computed again, without it if it is gone.
    pub replayed_batches: usize,
}

/// A setting that is not as in the last run. Either value is right: results do not depend on it but where batches begin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChangedSetting {
    /// Its name in [`Settings`].
    pub setting: &'static str,
    /// Its value in the last run.
    pub before: String,
    /// Its value now.
    pub now: String,
}

/// Reads the store and tells what a start would do.
pub(crate) fn plan(settings: &Settings, outline: &Outline) -> Result<UpgradePlan> {
    let paths = StorePaths::new(&settings.store);
    refuse_foreign_directory(&paths)?;
    let store = match Identity::read(&paths)? {
        Some(identity) => identity.for_job(&settings.name, &settings.store)?.store,
        None => [0; 16],
    };
    let executor = Executor::new(settings.threads, 1)?;
    let found = read_beside_a_writer(|| read_store(&paths, store, &executor, u64::MAX))?;
    Ok(plan_of(&found, settings, outline).0)
}

/// A running job prunes what it no longer needs: what is wrong counts when it was wrong twice in the same way.
fn read_beside_a_writer(mut read: impl FnMut() -> Result<Found>) -> Result<Found> {
    let mut before = None;
    for _ in 1..READS_MAX {
        let outcome = read();
        let wrong = match &outcome {
            Ok(found) => {
                let walked = found.recovery.walked_back.iter().map(|(_, why)| why);
                walked.chain(&found.history.damage).chain(&found.log.notes).cloned().collect()
            }
            Err(error) => vec![error.chain()],
        };
        if wrong.is_empty() || before.as_ref() == Some(&wrong) {
            return outcome;
        }
        before = Some(wrong);
    }
    read()
}

/// The plan for what was found, and how to follow it.
pub(super) fn plan_of(found: &Found, settings: &Settings, outline: &Outline) -> (UpgradePlan, Vec<Match>) {
    let recovery = &found.recovery;
    let chosen = recovery.checkpoint.as_ref();
    let stored = chosen.map_or(&[][..], |checkpoint| &checkpoint.operators);
    let mut matches =
        match_states(stored, &outline.states, chosen.map_or(0, |checkpoint| checkpoint.time_ms));
    if settings.allow_dropping_state {
        let dropped = matches.iter_mut().filter(|found| found.outcome == StateMatch::Dropped);
        dropped.for_each(|dropped| dropped.problem = None);
    }
    let streams = streams_of(found, outline);
    let mut problems: Vec<String> = matches.iter().filter_map(|found| found.problem.clone()).collect();
    if !settings.allow_dropping_state {
        problems.extend(streams.iter().filter_map(lost_input));
    }
    problems.extend(changed_inputs(found, outline, &streams));
    let plan = UpgradePlan {
        fresh: found.is_fresh(),
        checkpoint: chosen.map(|c| (CheckpointId(c.checkpoint), BatchId(c.batch))),
        walked_back: recovery.walked_back.iter().map(|(id, why)| (CheckpointId(*id), why.clone())).collect(),
        replay: recovery.replay.iter().map(|plan| BatchId(plan.batch)).collect(),
        states: matches.iter().map(planned_state).collect(),
        streams,
        settings: changed_settings(found, settings),
        problems,
    };
    (plan, matches)
}

fn planned_state(found: &Match) -> PlannedState {
    PlannedState {
        operator: found.name.clone(),
        outcome: found.outcome.clone(),
        keys: found.stored.as_ref().map_or(0, |stored| stored.keys),
        stored: found.stored.as_ref().map(|stored| format!("{} -> {}", stored.key_type, stored.value_type)),
        asked: found.asked.as_ref().map(|asked| format!("{} -> {}", asked.key, asked.value)),
        problem: found.problem.clone(),
    }
}

/// What was received or planned of a stream that is gone would be lost.
fn lost_input(stream: &PlannedStream) -> Option<String> {
    let PlannedStream { stream, outcome, pending_blocks, replayed_batches } = stream;
    let is_lost = *outcome == StreamMatch::Gone && pending_blocks + replayed_batches > 0;
    is_lost.then(|| {
        format!(
            "{pending_blocks} received blocks and the input of {replayed_batches} unfinished batches are of {stream}, which \
             the job no longer has: bring the stream back, or allow dropping state"
        )
    })
}

/// What was received as one type cannot be read as another.
fn changed_inputs(found: &Found, outline: &Outline, streams: &[PlannedStream]) -> Vec<String> {
    let known = found.history.job.iter().flat_map(|job| &job.streams);
    let before: BTreeMap<u64, &str> = known.map(|stream| (stream.stream, &*stream.schema)).collect();
    // A plan has the streams of the job first, in their order.
    let waiting = outline.streams.iter().zip(streams);
    let changed = waiting.filter_map(|((_, id, now), planned)| {
        let before = before.get(&id.0).filter(|before| !before.is_empty() && **before != now)?;
        let PlannedStream { stream, pending_blocks, replayed_batches, .. } = planned;
        (pending_blocks + replayed_batches > 0).then(|| {
            format!(
                "{pending_blocks} received blocks and the input of {replayed_batches} unfinished batches of {stream} have \
                 records of another type, {before} and not {now}: run the job as it was until it is stopped gracefully, \
                 which leaves none of them"
            )
        })
    });
    changed.collect()
}

fn streams_of(found: &Found, outline: &Outline) -> Vec<PlannedStream> {
    let mut pending: BTreeMap<StreamId, usize> = BTreeMap::new();
    found.log.blocks.iter().for_each(|block| *pending.entry(block.stream).or_default() += 1);
    let mut replayed: BTreeMap<StreamId, usize> = BTreeMap::new();
    let inputs = found.recovery.replay.iter().flat_map(|plan| &plan.inputs);
    inputs.for_each(|input| *replayed.entry(StreamId(input.stream)).or_default() += 1);
    let known_streams = found.history.job.iter().flat_map(|job| &job.streams);
    let before: BTreeMap<StreamId, &str> =
        known_streams.map(|stream| (StreamId(stream.stream), &*stream.name)).collect();
    let planned = |id: StreamId, stream: String, outcome| PlannedStream {
        stream,
        outcome,
        pending_blocks: pending.get(&id).copied().unwrap_or(0),
        replayed_batches: replayed.get(&id).copied().unwrap_or(0),
    };
    let kept = outline.streams.iter().map(|(name, id, _)| {
        let known = before.contains_key(id) || pending.contains_key(id) || replayed.contains_key(id);
        planned(*id, format!("`{name}`"), if known { StreamMatch::Kept } else { StreamMatch::New })
    });
    let present: BTreeSet<StreamId> = outline.streams.iter().map(|(_, id, _)| *id).collect();
    let known: BTreeSet<StreamId> =
        before.keys().chain(pending.keys()).chain(replayed.keys()).copied().collect();
    let gone = known.difference(&present).map(|id| {
        let name = before.get(id).map_or_else(|| id.to_string(), |name| format!("`{name}`"));
        planned(*id, name, StreamMatch::Gone)
    });
    kept.chain(gone).collect()
}

fn changed_settings(found: &Found, settings: &Settings) -> Vec<ChangedSetting> {
    let Some(job) = &found.history.job else { return Vec::new() };
    let values = [
        ("batch_interval in ms", job.batch_interval_ms, settings.batch_interval_ms()),
        ("checkpoint_every_batches", job.checkpoint_every_batches, settings.checkpoint_every_batches),
        ("partitions", job.partitions.into(), settings.partitions as u64),
        ("threads", job.threads.into(), settings.threads as u64),
    ];
    let changed = values.into_iter().filter(|(_, before, now)| before != now);
    changed
        .map(|(setting, before, now)| ChangedSetting {
            setting,
            before: before.to_string(),
            now: now.to_string(),
        })
        .collect()
}

impl UpgradePlan {
    /// Refuses what cannot be or would lose something. The first line says what is wrong first; the plan follows.
    pub(super) fn check(&self) -> Result<()> {
        let Some(problem) = self.problems.first() else { return Ok(()) };
        Err(Error::new(ErrorKind::Incompatible, format!("{problem}\n{self}")))
    }
}

impl fmt::Display for PlannedState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlannedState { operator, outcome, keys, stored, asked, .. } = self;
        let stored = stored.as_deref().unwrap_or("nothing");
        let asked = asked.as_deref().unwrap_or("nothing");
        match outcome {
            StateMatch::Matched => write!(f, "  = `{operator}`: goes on with {keys} keys"),
            StateMatch::Upgraded { name, value_type } => {
                write!(f, "  > `{operator}`: goes on with {keys} keys")?;
                if let Some(name) = name {
                    write!(f, " of `{name}`")?;
                }
                value_type.as_ref().map_or(Ok(()), |_| write!(f, ", migrated from {stored} to {asked}"))
            }
            StateMatch::New => write!(f, "  + `{operator}`: is new, {asked}"),
            StateMatch::Dropped => write!(f, "  - `{operator}`: {keys} keys are dropped, {stored}"),
            StateMatch::Incompatible => {
                write!(f, "  ! `{operator}`: cannot go on; stored {stored}, asked {asked}, {keys} keys")
            }
        }
    }
}

impl fmt::Display for PlannedStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlannedStream { stream, outcome, pending_blocks, replayed_batches } = self;
        let (mark, what) = match outcome {
            StreamMatch::Kept => ('=', "goes on"),
            StreamMatch::New => ('+', "is new"),
            StreamMatch::Gone => ('-', "is gone"),
        };
        write!(f, "  {mark} {stream}: {what}")?;
        if pending_blocks + replayed_batches > 0 {
            write!(f, ", {pending_blocks} pending blocks, in {replayed_batches} batches to compute again")?;
        }
        Ok(())
    }
}

impl fmt::Display for UpgradePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.checkpoint {
            Some((checkpoint, batch)) => write!(f, "from {checkpoint}, which is after {batch}")?,
            None if self.fresh => write!(f, "a new store")?,
            None => write!(f, "without a checkpoint, from the first batch on")?,
        }
        writeln!(f, "; {} batches to compute again", self.replay.len())?;
        for (checkpoint, why) in &self.walked_back {
            writeln!(f, "  ! {checkpoint} is damaged and passed over: {why}")?;
        }
        writeln!(f, "state")?;
        self.states.iter().try_for_each(|state| writeln!(f, "{state}"))?;
        writeln!(f, "streams")?;
        self.streams.iter().try_for_each(|stream| writeln!(f, "{stream}"))?;
        if !self.settings.is_empty() {
            writeln!(f, "settings")?;
        }
        for ChangedSetting { setting, before, now } in &self.settings {
            writeln!(f, "  ~ {setting}: {before} -> {now}")?;
        }
        for problem in &self.problems {
            writeln!(f, "problem: {problem}")?;
        }
        write!(f, "{}", if self.problems.is_empty() { "the job can start" } else { "the job cannot start" })
    }
}
