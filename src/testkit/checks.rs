//! What the checks have in common.

use crate::store::DiskStep;
use crate::testkit::run::{Case, Describe, crashes};
use crate::testkit::{CrashPlan, Difference, Failure, Input, Outcome, Replay, Setup, TestContext};

impl<I: Input> Case<'_, I> {
    pub(super) fn failure(
        &self,
        case: impl Into<String>,
        replay: Option<Replay>,
        differences: Vec<Difference>,
    ) -> Failure {
        Failure { case: case.into(), differences, error: None, replay, setup: Box::new(self.setup.clone()) }
    }

    /// A run that must come through, after the crashes of `plan` if there are any.
    pub(super) fn outcome_of(&self, case: &str, plan: &CrashPlan) -> Result<Outcome, Failure> {
        let planned = Some(plan).filter(|plan| !plan.0.is_empty()).cloned().map(Replay::from);
        self.run(&crashes(plan))
            .map_err(|error| Failure { error: Some(error.into()), ..self.failure(case, planned, Vec::new()) })
    }
}

pub(super) fn case<'a, I: Input>(setup: &'a Setup, job: Describe<'a, I>, input: &'a I) -> Case<'a, I> {
    Case { job, input, setup }
}

/// A disk step as a person reads it: what is done, to which file of the store.
pub(super) fn step_text(passed: &[DiskStep], step: u64) -> String {
    let Some(DiskStep { what, path }) = passed.get(step as usize - 1) else {
        return "which the run does not come to".to_owned();
    };
    let below_store = path.iter().skip_while(|part| *part != "store" && *part != "outside").skip(1);
    let name = below_store.collect::<std::path::PathBuf>().display().to_string();
    if name.is_empty() { format!("{what} of the store") } else { format!("{what} of {name}") }
}

impl Setup {
    /// Runs a job over all of its input.
    ///
    /// # Errors
    /// What stopped it.
    pub fn run<I: Input>(
        &self,
        job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
    ) -> Result<Outcome, Failure> {
        case(self, &job, input).outcome_of("a run that nothing disturbed", &CrashPlan::default())
    }

    /// Runs a job over all of its input, crashed where the plan says and started again each time.
    ///
    /// # Errors
    /// What stopped it that was not one of the crashes.
    pub fn run_and_recover<I: Input>(
        &self,
        job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
        plan: &CrashPlan,
    ) -> Result<Outcome, Failure> {
        case(self, &job, input).outcome_of(&format!("a run with crashes at the disk steps {plan}"), plan)
    }
}
