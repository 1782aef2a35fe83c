//! Computing batches again beside a store, without being its job: nothing is emitted, nothing is written.
//!
//! The states of a checkpoint are restored in memory, and the plans after it are computed with the job's code, as a
//! start does, up to another checkpoint. Then the states are compared with what that one holds. An **audit** is the
//! rehearsal of the code that ran, and there must be no difference; a **fork** that of other code, and the differences
//! are the answer.

mod compare;
mod reports;
mod why;

use std::sync::Arc;

pub use compare::{KeyDifference, OperatorDifference};
pub use reports::{AuditReport, Fork, RetainedCheckpoint};
pub(crate) use why::why;
pub use why::{CausePlace, KeyCause, KeyHistory, KeyTouch};

use crate::batch::Batch;
use crate::checkpoint::between::{Between, read_between, retained};
use crate::checkpoint::matching::{Match, StateMatch, match_states};
use crate::config::Settings;
use crate::dstream::{InputKind, Job};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::format::records::PlanRecord;
use crate::id::{BatchId, BatchTime, CheckpointId};
use crate::state::{ChangeSums, OperatorState};
use crate::store::{Identity, StorePaths, refuse_foreign_directory};

use super::changes::Watched;
use super::plan::inputs_of;
use super::start::restore;
use super::upgrade::plan_of;
use super::{ReplayDifference, UpgradePlan};
use compare::{original_of, state_difference};

/// How often a store that another process writes to is read before what is wrong with it is believed.
const READS_MAX: usize = 4;

/// Whose code is rehearsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// That which ran.
    Same,
    Other,
}

/// What came of a rehearsal.
struct Rehearsed {
    plan: UpgradePlan,
    to: (CheckpointId, BatchId),
    batches: Vec<BatchId>,
    /// Batches whose changes were recorded.
    compared: usize,
    first_difference: Option<ReplayDifference>,
    operators: Vec<OperatorDifference>,
    states: Vec<Arc<OperatorState>>,
}

/// The checkpoints that a rehearsal can begin at, oldest first.
pub(crate) fn retained_checkpoints(settings: &Settings) -> Result<Vec<RetainedCheckpoint>> {
    let (paths, store) = identify(settings)?;
    let all = retained(&paths, store)?;
    Ok(all.iter().map(RetainedCheckpoint::of).collect())
}

/// Proves checkpoint `to`.
pub(crate) fn audit(
    settings: &Settings,
    job: Job,
    from: CheckpointId,
    to: CheckpointId,
) -> Result<AuditReport> {
    let Rehearsed { batches, compared, first_difference, operators, .. } =
        rehearse(settings, &job, from, Some(to), Code::Same)?;
    Ok(AuditReport { from, to, batches, batches_compared: compared, first_difference, operators })
}

/// Computes what other code would have made of the same input.
pub(crate) fn fork(settings: Settings, job: Job, from: CheckpointId) -> Result<Fork> {
    let settings = Settings { allow_dropping_state: true, ..settings };
    let rehearsed = rehearse(&settings, &job, from, None, Code::Other)?;
    Ok(Fork::of(from, rehearsed))
}

/// The store that is rehearsed beside.
fn identify(settings: &Settings) -> Result<(StorePaths, [u8; 16])> {
    let paths = StorePaths::new(&settings.store);
    refuse_foreign_directory(&paths)?;
    let nothing = || {
        let message =
            format!("{} is no store yet: there is nothing to compute again", settings.store.display());
        Error::new(ErrorKind::InvalidConfig, message)
    };
    let identity = Identity::read(&paths)?.ok_or_else(nothing)?;
    Ok((paths, identity.for_job(&settings.name, &settings.store)?.store))
}

fn rehearse(
    settings: &Settings,
    job: &Job,
    from: CheckpointId,
    to: Option<CheckpointId>,
    code: Code,
) -> Result<Rehearsed> {
    let (paths, store) = identify(settings)?;
    let executor = Arc::new(Executor::new(settings.threads, settings.task_attempts_max)?);
    let read = || read_between(&paths, store, &executor, from, to);
    let between = settled(read)?;
    let (plan, matches) = plan_of(&between.found, settings, &job.outline());
    plan.check()?;
    let states = job.states();
    let to_matches = match_states(&between.to.operators, &states, between.to.time_ms);
    if code == Code::Same {
        refuse_other_code(settings, &between, &to_matches)?;
    }
    restore(job, &between.found, &matches, &executor)?;
    let originals = original_of(&states, &to_matches, &between.to_segments, &executor)?;
    let watched = Watched::of(job, settings.partitions);
    watched.take();
    let rehearsal = Rehearsal {
        job,
        executor: &executor,
        paths: Arc::new(paths.clone()),
        watched,
        originals: &originals,
    };
    let (compared, first_difference) = rehearsal.run(&between).map_err(|error| {
        // A running job may have let go of the input in the meantime.
        match read() {
            Err(gone) if gone.kind() == ErrorKind::InvalidConfig => gone.caused_by(error),
            _ => error,
        }
    })?;
    let differences =
        states.iter().zip(&originals).map(|(state, original)| state_difference(original, state, &executor));
    let mut operators = differences.collect::<Result<Vec<_>>>()?;
    for (difference, matched) in operators.iter_mut().zip(&to_matches) {
        difference.outcome = matched.outcome.clone();
    }
    let dropped = to_matches.iter().filter(|matched| matched.outcome == StateMatch::Dropped);
    operators.extend(dropped.map(OperatorDifference::dropped));
    Ok(Rehearsed {
        plan,
        to: (CheckpointId(between.to.checkpoint), BatchId(between.to.batch)),
        batches: between.found.recovery.replay.iter().map(|plan| BatchId(plan.batch)).collect(),
        compared,
        first_difference,
        operators,
        states,
    })
}

/// A running job prunes what it no longer needs: what is wrong counts when it was wrong twice in the same way.
fn settled(mut read: impl FnMut() -> Result<Between>) -> Result<Between> {
    let mut before = None;
    for _ in 1..READS_MAX {
        match read() {
            Ok(between) => return Ok(between),
            Err(error) if before.as_ref() == Some(&error.chain()) => return Err(error),
            Err(error) => before = Some(error.chain()),
        }
    }
    read()
}

/// An audit of code that plainly is not that of the store would prove nothing.
fn refuse_other_code(settings: &Settings, between: &Between, matches: &[Match]) -> Result<()> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Incompatible, message));
    if let Some(other) = matches.iter().find(|matched| matched.outcome != StateMatch::Matched) {
        return refuse(format!(
            "`{}` is not in checkpoint {} as the job has it ({:?}): audit with the code that ran",
            other.name, between.to.checkpoint, other.outcome
        ));
    }
    let job = between.found.history.job.as_ref();
    let partitions = job.map_or(settings.partitions, |job| job.partitions as usize);
    if partitions != settings.partitions {
        let message = format!(
            "the job ran with {partitions} partitions, which the places of records in windows depend on, not with {}: \
             audit with the same",
            settings.partitions
        );
        return refuse(message);
    }
    Ok(())
}

/// A job whose batches are computed again beside its store.
struct Rehearsal<'a> {
    job: &'a Job,
    executor: &'a Arc<Executor>,
    paths: Arc<StorePaths>,
    watched: Watched,
    /// What the second checkpoint has, in the order of the job's states.
    originals: &'a [Arc<OperatorState>],
}

impl Rehearsal<'_> {
    /// Computes all batches. Returns how many have recorded what they changed, and the first that changed
    /// something else now.
    fn run(&self, between: &Between) -> Result<(usize, Option<ReplayDifference>)> {
        let history = &between.found.history;
        let (mut compared, mut first) = (0, None);
        for plan in &between.found.recovery.replay {
            let batch = BatchId(plan.batch);
            let changes =
                self.run_batch(plan, history.interval_ms(plan.batch)).map_err(|error| error.within(batch))?;
            if let Some(done) = history.done.get(&plan.batch) {
                compared += 1;
                if first.is_none() {
                    let original =
                        |name: &str| self.originals.iter().find(|state| state.name() == name).cloned();
                    first = self.watched.first_difference(batch, &done.changes, &changes, original)?;
                }
            }
            // What outputs add is recorded, since nobody emits them again.
            let tallies = history.tallies.get(&plan.batch);
            self.job.variables.apply(tallies.map_or(&[], |tallies| &**tallies))?;
        }
        Ok((compared, first))
    }

    /// As the driver does it, without the outputs and without committing anything.
    fn run_batch(&self, plan: &PlanRecord, interval_ms: u64) -> Result<Vec<ChangeSums>> {
        let known = |stream| self.job.inputs.iter().any(|input| input.stream == stream);
        let inputs = inputs_of(plan, known);
        for input in &self.job.inputs {
            let InputKind::Replayable { positions, .. } = &input.kind else { continue };
            let ranges = inputs.get(&input.stream).into_iter().flat_map(|planned| &planned.ranges);
            ranges.into_iter().try_for_each(|range| positions.advance(range))?;
        }
        let (id, time) = (BatchId(plan.batch), BatchTime(plan.time_ms));
        let batch = Batch::new(id, (time, interval_ms), self.executor.clone(), self.paths.clone(), inputs);
        self.executor.begin_batch();
        self.job.variables.advance(&batch)?;
        self.job.stateful.iter().try_for_each(|node| node.advance(&batch))?;
        let changes = self.watched.take();
        drop(batch);
        self.job.stateful.iter().try_for_each(|node| node.finish_batch())?;
        // What transformations added is part of what is recorded.
        drop(self.executor.tally().take());
        Ok(changes)
    }
}
