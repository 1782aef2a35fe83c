//! Does a job recover from a crash at every commit boundary, and from one during that recovery?

use std::collections::BTreeSet;

use crate::store::{DiskStep, FaultPlan};
use crate::testkit::checks::{case, step_text};
use crate::testkit::run::{Case, crashes, first_failure};
use crate::testkit::{CrashPlan, Failure, Input, Outcome, Setup, TestContext};

/// How much a check went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The commit boundaries of the undisturbed run: its disk steps. The job was crashed at each of them.
    pub boundaries: usize,
    /// Recoveries that are not alike: those that go through the same operations on the same kinds of files are.
    pub recoveries: usize,
    /// A crash, then another at a disk step of the recovery from it. Of recoveries that are alike one is crashed, at
    /// each of its steps.
    pub pairs: usize,
    /// Pairs of which [`Setup::pairs_max`] left no room; those that were run are spread evenly over all.
    pub pairs_left_out: usize,
}

impl Setup {
    /// As [`assert_recovers`](crate::testkit::assert_recovers).
    ///
    /// # Errors
    /// The first crash, in the order in which boundaries are passed, after which something is not as it should be.
    pub fn recovers<I: Input>(
        &self,
        job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
    ) -> Result<Coverage, Failure> {
        let case = case(self, &job, input);
        let undisturbed = Undisturbed::run(&case)?;
        let boundaries = undisturbed.passed.len();
        let recoveries: Vec<std::sync::OnceLock<Vec<DiskStep>>> =
            Vec::from_iter((0..boundaries).map(|_| Default::default()));
        let failed = first_failure(boundaries, |at| {
            let plan = CrashPlan::at([at as u64 + 1]);
            match undisturbed.crash(&case, &plan) {
                Ok(recovery) => recoveries[at].set(recovery).err().and(None),
                Err(failure) => Some(failure),
            }
        });
        failed.map_or(Ok(()), Err)?;
        let recoveries: Vec<Vec<DiskStep>> =
            recoveries.into_iter().map(|steps| steps.into_inner().unwrap_or_default()).collect();
        let (distinct, pairs) = pairs_of(&recoveries);
        let chosen = spread(&pairs, self.pairs_max);
        let failed =
            first_failure(chosen.len(), |at| undisturbed.crash(&case, &CrashPlan::at(chosen[at])).err());
        failed.map_or(Ok(()), Err)?;
        let (pairs_left_out, pairs) = (pairs.len() - chosen.len(), chosen.len());
        Ok(Coverage { boundaries, recoveries: distinct, pairs, pairs_left_out })
    }

    /// The same with these crashes alone.
    ///
    /// # Errors
    /// When something is not as it should be.
    pub fn recovers_from<I: Input>(
        &self,
        job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
        plan: &CrashPlan,
    ) -> Result<(), Failure> {
        let case = case(self, &job, input);
        Undisturbed::run(&case)?.crash(&case, plan).map(drop)
    }
}

/// What a run must come to.
struct Undisturbed {
    expected: Outcome,
    passed: Vec<DiskStep>,
}

impl Undisturbed {
    fn run<I: Input>(case: &Case<'_, I>) -> Result<Self, Failure> {
        let counting = FaultPlan::in_order([]);
        let run = case.run(std::slice::from_ref(&counting));
        let expected = run.map_err(|error| Failure {
            error: Some(error.into()),
            ..case.failure("a run that nothing disturbed", None, Vec::new())
        })?;
        Ok(Undisturbed { expected, passed: counting.passed() })
    }

    /// Compares the run after these crashes. Returns the disk steps of the last start.
    fn crash<I: Input>(&self, case: &Case<'_, I>, plan: &CrashPlan) -> Result<Vec<DiskStep>, Failure> {
        let last = FaultPlan::in_order([]);
        let mut lives = crashes(plan);
        lives.push(last.clone());
        let run = case.run(&lives);
        let told = || {
            let passed: Vec<Vec<DiskStep>> = lives.iter().map(|life| life.passed()).collect();
            format!("after {}", self.crashes_text(plan, &passed))
        };
        let differences = match run {
            Ok(found) => self.expected.differences(&found),
            Err(error) => {
                return Err(Failure {
                    error: Some(error.into()),
                    ..case.failure(told(), Some(plan.clone().into()), Vec::new())
                });
            }
        };
        if differences.is_empty() {
            return Ok(last.passed_in_start());
        }
        Err(case.failure(told(), Some(plan.clone().into()), differences))
    }

    fn crashes_text(&self, plan: &CrashPlan, lives: &[Vec<DiskStep>]) -> String {
        let crash = |(life, step): (usize, &u64)| {
            let what = step_text(&lives[life], *step);
            match life {
                0 => format!("a crash at disk step {step} of {} ({what})", self.passed.len()),
                _ => format!("one at disk step {step} of the start after it ({what})"),
            }
        };
        plan.0.iter().enumerate().map(crash).collect::<Vec<_>>().join(", then ")
    }
}

/// How many recoveries are not alike, and the pairs of a crash and one at each step of the recovery from it.
fn pairs_of(recoveries: &[Vec<DiskStep>]) -> (usize, Vec<[u64; 2]>) {
    let mut known = BTreeSet::new();
    let mut pairs = Vec::new();
    for (at, recovery) in recoveries.iter().enumerate() {
        if known.insert(recovery.iter().map(kind_of).collect::<Vec<_>>()) {
            pairs.extend((1..=recovery.len() as u64).map(|second| [at as u64 + 1, second]));
        }
    }
    (known.len(), pairs)
}

/// An operation and its file without its number.
fn kind_of(step: &DiskStep) -> (&'static str, String) {
    let name = step.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    (step.what, name.replace(|c: char| c.is_ascii_digit(), ""))
}

/// At most `most` of them, evenly.
pub(super) fn spread<T: Copy>(all: &[T], most: usize) -> Vec<T> {
    let count = all.len().min(most);
    (0..count).map(|at| all[at * all.len() / count]).collect()
}
