//! Does a job survive a disk that fails for a moment?

use crate::error::Error;
use crate::store::{DiskStep, FaultPlan};
use crate::testkit::checks::{case, step_text};
use crate::testkit::recovers::spread;
use crate::testkit::run::{Case, first_failure};
use crate::testkit::{Failure, FaultKind, Input, Outcome, Setup, TestContext};

/// For how many steps a disk is full before it has space again.
const FULL_STEPS: u64 = 3;

/// How much [`Setup::withstands_faults`] went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultCoverage {
    /// The disk steps of the undisturbed run. Each was made to fail in every way that it can.
    pub steps: usize,
    /// Single faults.
    pub faults: usize,
    /// Reads of stored files that were made to fail: each of a start after a crash early in the run, late in it, and
    /// at its end.
    pub reads: usize,
    /// Two faults, the second in the same life or in the start after the first.
    pub pairs: usize,
    /// Pairs of which [`Setup::pairs_max`] left no room; those that were run are spread evenly over all.
    pub pairs_left_out: usize,
}

/// A fault of one life.
type Fault = (std::ops::Range<u64>, FaultKind);

impl Setup {
    /// As [`assert_withstands_faults`](crate::testkit::assert_withstands_faults).
    ///
    /// # Errors
    /// The first fault after which something is not as it should be.
    pub fn withstands_faults<I: Input>(
        &self,
        job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
    ) -> Result<FaultCoverage, Failure> {
        let case = case(self, &job, input);
        let counting = FaultPlan::in_order([]);
        let expected = case.run(std::slice::from_ref(&counting)).map_err(|error| Failure {
            error: Some(error.into()),
            ..case.failure("a run that nothing disturbed", None, Vec::new())
        })?;
        let passed = counting.passed();
        let singles: Vec<Vec<Vec<Fault>>> = (1..=passed.len() as u64)
            .flat_map(|step| kinds_at(&passed, step))
            .map(|fault| vec![vec![fault]])
            .collect();
        let check = |lives: &Vec<Vec<Fault>>| compare(&case, &expected, &passed, lives);
        let failed = first_failure(singles.len(), |at| check(&singles[at]));
        failed.map_or(Ok(()), Err)?;
        let reads = failing_reads(&case, &expected, passed.len() as u64)?;
        let pairs = pairs_of(&passed);
        let chosen = spread(&(0..pairs.len()).collect::<Vec<_>>(), self.pairs_max);
        let failed = first_failure(chosen.len(), |at| check(&pairs[chosen[at]]));
        failed.map_or(Ok(()), Err)?;
        let pairs_left_out = pairs.len() - chosen.len();
        Ok(FaultCoverage {
            steps: passed.len(),
            faults: singles.len(),
            reads,
            pairs: chosen.len(),
            pairs_left_out,
        })
    }
}

/// Starts after a crash read what is stored; each of these reads fails once.
fn failing_reads<I: Input>(case: &Case<'_, I>, expected: &Outcome, steps: u64) -> Result<usize, Failure> {
    let mut count = 0;
    for crash in [steps / 3, steps * 2 / 3, steps].map(|step| step.max(1)) {
        let crashed = || FaultPlan::in_order([(crash..crash + 1, FaultKind::Crash)]);
        let counting = FaultPlan::in_order([]);
        let told = format!("after a crash at disk step {crash}");
        let stopped = |told: String, error: Error| Failure {
            error: Some(error.into()),
            ..case.failure(told, None, Vec::new())
        };
        case.run(&[crashed(), counting.clone()]).map_err(|error| stopped(told.clone(), error))?;
        let reads = counting.reads();
        count += reads.len();
        let failed = first_failure(reads.len(), |at| {
            let read = at as u64 + 1;
            let what = step_text(&reads, read);
            let told = format!("{told}, then an error at read {read} of the start after it ({what})");
            match case.run(&[crashed(), FaultPlan::failing_reads(read..read + 1)]) {
                Err(error) => Some(stopped(told, error)),
                Ok(found) => {
                    let differences = expected.differences(&found);
                    (!differences.is_empty()).then(|| case.failure(told, None, differences))
                }
            }
        });
        failed.map_or(Ok(()), Err)?;
    }
    Ok(count)
}

/// Every way in which a step can fail.
fn kinds_at(passed: &[DiskStep], step: u64) -> Vec<Fault> {
    let mut faults = vec![(step..step + 1, FaultKind::Io), (step..step + FULL_STEPS, FaultKind::Full)];
    if passed.get(step as usize - 1).is_some_and(|step| step.what == "write") {
        faults.push((step..step + 1, FaultKind::ShortWrite));
    }
    faults
}

/// A full disk, then an error in the same life; and an error, then each kind in the life after it.
fn pairs_of(passed: &[DiskStep]) -> Vec<Vec<Vec<Fault>>> {
    let mut pairs = Vec::new();
    let steps = passed.len() as u64;
    for first in 1..=steps {
        for second in 1..=steps {
            let (io, full) =
                ((first..first + 1, FaultKind::Io), (first..first + FULL_STEPS, FaultKind::Full));
            let kind = [FaultKind::Io, FaultKind::ShortWrite, FaultKind::Full][(first + second) as usize % 3];
            pairs.push(vec![vec![io], vec![(second..second + 1, kind)]]);
            if second >= first + FULL_STEPS {
                pairs.push(vec![vec![full, (second..second + 1, FaultKind::Io)]]);
            }
        }
    }
    pairs
}

fn compare<I: Input>(
    case: &Case<'_, I>,
    expected: &Outcome,
    passed: &[DiskStep],
    lives: &[Vec<Fault>],
) -> Option<Failure> {
    let plans: Vec<_> = lives.iter().map(|faults| FaultPlan::in_order(faults.iter().cloned())).collect();
    let (differences, error) = match case.run(&plans) {
        Ok(found) => (expected.differences(&found), None),
        Err(error) => (Vec::new(), Some(Box::new(error))),
    };
    if differences.is_empty() && error.is_none() {
        return None;
    }
    let fault = |life: usize, (steps, kind): &Fault| {
        let (first, last) = (steps.start, steps.end - 1);
        let what = if life == 0 { step_text(passed, first) } else { step_text(&plans[life].passed(), first) };
        format!("{kind:?} at disk steps {first} to {last} of life {} ({what})", life + 1)
    };
    let told: Vec<String> = lives
        .iter()
        .enumerate()
        .flat_map(|(life, faults)| faults.iter().map(move |of| (life, of)))
        .map(|(life, of)| fault(life, of))
        .collect();
    Some(Failure { error, ..case.failure(format!("after {}", told.join(", then ")), None, differences) })
}
