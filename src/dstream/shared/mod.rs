//! Variables that the closures of a job share, and that survive a crash.

mod accumulator;
mod broadcast;
mod dataset;
mod join_dataset;
mod loads;

use std::any::Any;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub use accumulator::Accumulator;
pub use broadcast::Broadcast;
pub use dataset::{Dataset, LoadError, Reload};

use crate::batch::Batch;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::exec::panic_text;
use crate::exec::tally::Parts;
use crate::format::records::TallyDelta;
use crate::id::BatchTime;
use crate::state::OperatorState;

/// A variable that changes at the beginning of a batch, before any operator runs.
pub(crate) trait SharedVariable: Send + Sync {
    /// What a checkpoint holds of it.
    fn states(&self) -> Vec<Arc<OperatorState>>;

    /// The states are as a checkpoint left them.
    fn restored(&self) -> Result<()>;

    /// Logs what the batch that is planned next has to have for it.
    fn before_plan(&self, _time: BatchTime) -> Result<()> {
        Ok(())
    }

    /// Logs what there must be before the first batch of a run that begins after `time`.
    fn before_start(&self, time: BatchTime) -> Result<()>;

    /// Takes what the batch's plan has for it.
    fn advance(&self, batch: &Batch) -> Result<()>;
}

/// A variable that a batch adds to.
pub(crate) trait Tallied: Send + Sync {
    /// What contributions to it are marked with.
    fn id(&self) -> u64;

    fn state(&self) -> &Arc<OperatorState>;

    /// The state is as a checkpoint left it.
    fn restored(&self) -> Result<()>;

    /// Merges contributions, in this order, and archives the result.
    fn merge(&self, contributions: Vec<Box<dyn Any + Send>>) -> Result<Option<Vec<u8>>>;

    /// Adds what a batch gave.
    fn apply(&self, archive: &[u8]) -> Result<()>;
}

/// All shared variables of a job.
#[derive(Default)]
pub(crate) struct SharedVariables {
    variables: Vec<Arc<dyn SharedVariable>>,
    accumulators: Vec<Arc<dyn Tallied>>,
}

impl SharedVariables {
    pub(super) fn add(&mut self, variable: Arc<dyn SharedVariable>) {
        self.variables.push(variable);
    }

    pub(super) fn add_accumulator(&mut self, accumulator: Arc<dyn Tallied>) {
        self.accumulators.push(accumulator);
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = Arc<OperatorState>> {
        let accumulators = self.accumulators.iter().map(|accumulator| accumulator.state().clone());
        self.in_batches().chain(accumulators)
    }

    /// The states that change at the beginning of a batch.
    pub(crate) fn in_batches(&self) -> impl Iterator<Item = Arc<OperatorState>> {
        self.variables.iter().flat_map(|variable| variable.states())
    }

    /// Publishes what was restored.
    pub(crate) fn restored(&self, executor: &Executor) -> Result<()> {
        if !self.accumulators.is_empty() {
            executor.tally().enable();
        }
        self.variables.iter().try_for_each(|variable| variable.restored())?;
        self.accumulators.iter().try_for_each(|accumulator| accumulator.restored())
    }

    /// Before the first batch of a run: logs what there must be from the beginning.
    pub(crate) fn before_start(&self, time: BatchTime) -> Result<()> {
        self.variables.iter().try_for_each(|variable| variable.before_start(time))
    }

    /// Before a batch is planned: logs what has to be in it.
    pub(crate) fn before_plan(&self, time: BatchTime) -> Result<()> {
        self.variables.iter().try_for_each(|variable| variable.before_plan(time))
    }

    /// Whether there is a variable that logs blocks before batches are planned.
    pub(crate) fn log_blocks(&self) -> bool {
        !self.variables.is_empty()
    }

    /// Before anything else of a batch.
    pub(crate) fn advance(&self, batch: &Batch) -> Result<()> {
        self.variables.iter().try_for_each(|variable| variable.advance(batch))
    }

    /// What the batch that just ran added to accumulators.
    pub(crate) fn take_deltas(&self, executor: &Executor) -> Result<Vec<TallyDelta>> {
        let mut by_accumulator: HashMap<u64, Vec<Box<dyn Any + Send>>> = HashMap::new();
        for (accumulator, contribution) in executor.tally().take().into_iter().flat_map(Parts::into_iter) {
            by_accumulator.entry(accumulator).or_default().push(contribution);
        }
        let mut deltas = Vec::new();
        for accumulator in &self.accumulators {
            let Some(contributions) = by_accumulator.remove(&accumulator.id()) else { continue };
            let name = accumulator.state().name();
            if let Some(archive) = guarded(name, || accumulator.merge(contributions))? {
                let schema = accumulator.state().state_type().schema.text().to_owned();
                deltas.push(TallyDelta { name: name.to_owned(), schema, archive });
            }
        }
        if !by_accumulator.is_empty() {
            tracing::warn!("what was added to accumulators of another job is dropped");
        }
        Ok(deltas)
    }

    /// Adds what a batch gave, once it is done. Returns the names that no accumulator has.
    pub(crate) fn apply(&self, deltas: &[TallyDelta]) -> Result<Vec<String>> {
        let mut unknown = Vec::new();
        for delta in deltas {
            let of_name = |tallied: &&Arc<dyn Tallied>| tallied.state().name() == delta.name;
            let Some(accumulator) = self.accumulators.iter().find(of_name) else {
                unknown.push(delta.name.clone());
                continue;
            };
            if accumulator.state().state_type().schema.text() != delta.schema {
                return Err(Error::new(ErrorKind::Incompatible, another_type(&delta.name)));
            }
            guarded(&delta.name, || accumulator.apply(&delta.archive))?;
        }
        Ok(unknown)
    }
}

fn another_type(name: &str) -> String {
    format!(
        "what a batch added to `{name}` is of another type than the job's: go back to the type that it had, start once \
         and stop gracefully, so that it is in a checkpoint"
    )
}

/// Runs code that calls a user's closure on the driver's thread.
fn guarded<R>(name: &str, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| {
        Err(Error::new(ErrorKind::UserCode, format!("panicked: {}", panic_text(&*payload))))
    });
    outcome.map_err(|error| error.within(format!("`{name}`")))
}
