//! Does a job survive a disk that fails for a moment?

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::store::{DiskStep, FaultPlan};
use crate::testkit::checks::{case, step_text};
use crate::testkit::recovers::spread;
use crate::testkit::replay::{Replay, Replayed};
use crate::testkit::run::{Case, first_failure};
use crate::testkit::{CrashPlan, Failure, FaultKind, Input, Outcome, Setup, TestContext};

/// For how many steps a disk is full before it has space again.
const FULL_STEPS: u64 = 3;

/// How much [`Setup::withstands_faults`] went through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultCoverage {
    /// The disk steps of the undisturbed run. Each was made to fail in every way that it can.
    pub steps: usize,
    /// Single faults.
    pub faults: usize,
    /// Reads of stored files that were made to fail: each of a start, and of the batches after it, that follows a crash
    /// early in the run, late in it, and at its end.
    pub reads: usize,
    /// Two faults, the second in the same life or in the one after the first: failing steps, a failing step and then a
    /// failing read, and two failing reads in the starts after a crash.
    pub pairs: usize,
    /// Pairs of which [`Setup::pairs_max`] left no room; those that were run are spread evenly over all.
    pub pairs_left_out: usize,
}

/// A fault of one life.
type Fault = (Range<u64>, FaultKind);

/// What the disk does in one life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FaultyLife {
    Steps(Vec<Fault>),
    Read(u64),
}

impl FaultyLife {
    fn plan(&self) -> Arc<FaultPlan> {
        match self {
            FaultyLife::Steps(faults) => FaultPlan::in_order(faults.iter().cloned()),
            FaultyLife::Read(read) => FaultPlan::failing_reads(*read..*read + 1),
        }
    }

    fn told(&self, life: usize, plan: &FaultPlan) -> String {
        let fault = |(steps, kind): &Fault| {
            let (first, what) = (steps.start, step_text(&plan.passed(), steps.start));
            let steps = match steps.end - first {
                1 => format!("step {first}"),
                _ => format!("steps {first} to {}", steps.end - 1),
            };
            format!("{kind:?} at disk {steps} of life {life} ({what})")
        };
        match self {
            FaultyLife::Steps(faults) => faults.iter().map(fault).collect::<Vec<_>>().join(", then "),
            FaultyLife::Read(read) => {
                let what = step_text(&plan.reads(), *read);
                format!("an error at read {read} of life {life} ({what})")
            }
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Some(read) = text.strip_prefix("read@") {
            return Some(FaultyLife::Read(numbered(read, 1)?.start));
        }
        let fault = |text: &str| {
            let (kind, step) = text.split_once('@')?;
            let kind = KINDS.iter().find(|(name, _)| *name == kind)?.1;
            Some((numbered(step, length(kind))?, kind))
        };
        text.split('+').map(fault).collect::<Option<_>>().map(FaultyLife::Steps)
    }
}

impl fmt::Display for FaultyLife {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FaultyLife::Steps(faults) => {
                let name = |kind| KINDS.iter().find(|(_, known)| *known == kind).map_or("", |(name, _)| name);
                let texts = faults.iter().map(|(steps, kind)| format!("{}@{}", name(*kind), steps.start));
                f.write_str(&texts.collect::<Vec<_>>().join("+"))
            }
            FaultyLife::Read(read) => write!(f, "read@{read}"),
        }
    }
}

/// Kinds as they are written in a case.
const KINDS: [(&str, FaultKind); 4] = [
    ("crash", FaultKind::Crash),
    ("io", FaultKind::Io),
    ("full", FaultKind::Full),
    ("short", FaultKind::ShortWrite),
];

fn length(kind: FaultKind) -> u64 {
    if kind == FaultKind::Full { FULL_STEPS } else { 1 }
}

fn numbered(step: &str, length: u64) -> Option<Range<u64>> {
    let first = step.parse().ok().filter(|first| *first > 0)?;
    Some(first..length.checked_add(first)?)
}

fn fault(step: u64, kind: FaultKind) -> Fault {
    (step..step + length(kind), kind)
}

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
        let (expected, passed) = undisturbed(&case)?;
        let singles: Vec<Vec<FaultyLife>> = (1..=passed.len() as u64)
            .flat_map(|step| kinds_at(&passed, step))
            .map(|fault| vec![FaultyLife::Steps(vec![fault])])
            .collect();
        let check = |lives: &Vec<FaultyLife>| compare(&case, &expected, lives);
        let failed = first_failure(singles.len(), |at| check(&singles[at]));
        failed.map_or(Ok(()), Err)?;
        let recoveries = failing_reads(&case, &expected, passed.len() as u64)?;
        let mut pairs = pairs_of(passed.len() as u64);
        pairs.extend(pairs_with_reads(passed.len() as u64, &recoveries));
        let chosen = spread(&(0..pairs.len()).collect::<Vec<_>>(), self.pairs_max);
        let failed = first_failure(chosen.len(), |at| check(&pairs[chosen[at]]));
        failed.map_or(Ok(()), Err)?;
        let pairs_left_out = pairs.len() - chosen.len();
        Ok(FaultCoverage {
            steps: passed.len(),
            faults: singles.len(),
            reads: recoveries.iter().map(|(_, reads)| *reads as usize).sum(),
            pairs: chosen.len(),
            pairs_left_out,
        })
    }

    /// The same with these faults alone, one after the other, each in a life of its own.
    pub(super) fn withstands<I: Input>(
        &self,
        job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
        lives: &[FaultyLife],
    ) -> Result<(), Failure> {
        let case = case(self, &job, input);
        let (expected, _) = undisturbed(&case)?;
        compare(&case, &expected, lives).map_or(Ok(()), Err)
    }
}

/// What a run must come to, and its disk steps.
fn undisturbed<I: Input>(case: &Case<'_, I>) -> Result<(Outcome, Vec<DiskStep>), Failure> {
    let counting = FaultPlan::in_order([]);
    let run = case.run(std::slice::from_ref(&counting));
    let expected = run.map_err(|error| Failure {
        error: Some(error.into()),
        ..case.failure("a run that nothing disturbed", None, Vec::new())
    })?;
    Ok((expected, counting.passed()))
}

/// Starts after a crash, and batches after them, read what is stored; each of these reads fails once. Returns the steps
/// of the crashes, and how many reads came after each.
fn failing_reads<I: Input>(
    case: &Case<'_, I>,
    expected: &Outcome,
    steps: u64,
) -> Result<Vec<(u64, u64)>, Failure> {
    let mut recoveries = Vec::new();
    for crash in [steps / 3, steps * 2 / 3, steps].map(|step| step.max(1)) {
        let crashed = FaultyLife::Steps(vec![fault(crash, FaultKind::Crash)]);
        let counting = FaultPlan::in_order([]);
        case.run(&[crashed.plan(), counting.clone()]).map_err(|error| Failure {
            error: Some(error.into()),
            ..case.failure(
                format!("after a crash at disk step {crash}"),
                Some(CrashPlan::at([crash]).into()),
                Vec::new(),
            )
        })?;
        let reads = counting.reads().len();
        recoveries.push((crash, reads as u64));
        let failed = first_failure(reads, |at| {
            compare(case, expected, &[crashed.clone(), FaultyLife::Read(at as u64 + 1)])
        });
        failed.map_or(Ok(()), Err)?;
    }
    Ok(recoveries)
}

/// Every way in which a step can fail.
fn kinds_at(passed: &[DiskStep], step: u64) -> Vec<Fault> {
    let mut faults = vec![fault(step, FaultKind::Io), fault(step, FaultKind::Full)];
    if passed.get(step as usize - 1).is_some_and(|step| step.what == "write") {
        faults.push(fault(step, FaultKind::ShortWrite));
    }
    faults
}

/// A full disk, then an error in the same life; and an error, then each kind in the life after it.
fn pairs_of(steps: u64) -> Vec<Vec<FaultyLife>> {
    let mut pairs = Vec::new();
    for first in 1..=steps {
        for second in 1..=steps {
            let (io, full) = (fault(first, FaultKind::Io), fault(first, FaultKind::Full));
            let kind = [FaultKind::Io, FaultKind::ShortWrite, FaultKind::Full][(first + second) as usize % 3];
            pairs.push(vec![FaultyLife::Steps(vec![io]), FaultyLife::Steps(vec![fault(second, kind)])]);
            if second >= first + FULL_STEPS {
                pairs.push(vec![FaultyLife::Steps(vec![full, fault(second, FaultKind::Io)])]);
            }
        }
    }
    pairs
}

/// An error, then a failing read in the life after it; and a failing read in the start after a crash, then another one
/// in the start after that.
fn pairs_with_reads(steps: u64, recoveries: &[(u64, u64)]) -> Vec<Vec<FaultyLife>> {
    let life = |step, kind| FaultyLife::Steps(vec![fault(step, kind)]);
    let most = recoveries.iter().map(|(_, reads)| *reads).max().unwrap_or(0);
    let after_errors = (1..=steps)
        .flat_map(|step| (1..=most).map(move |read| vec![life(step, FaultKind::Io), FaultyLife::Read(read)]));
    let in_starts = recoveries.iter().flat_map(|&(crash, reads)| {
        let both = (1..=reads).flat_map(move |first| (1..=reads).map(move |second| (first, second)));
        both.map(move |(first, second)| {
            vec![life(crash, FaultKind::Crash), FaultyLife::Read(first), FaultyLife::Read(second)]
        })
    });
    after_errors.chain(in_starts).collect()
}

fn compare<I: Input>(case: &Case<'_, I>, expected: &Outcome, lives: &[FaultyLife]) -> Option<Failure> {
    let plans: Vec<_> = lives.iter().map(FaultyLife::plan).collect();
    let (differences, error) = match case.run(&plans) {
        Ok(found) => (expected.differences(&found), None),
        Err(error) => (Vec::new(), Some(Box::new(error))),
    };
    if differences.is_empty() && error.is_none() {
        return None;
    }
    let told: Vec<String> =
        lives.iter().zip(&plans).enumerate().map(|(at, (life, plan))| life.told(at + 1, plan)).collect();
    let replay = Replay(Replayed::Faults(lives.to_vec()));
    let told = format!("after {}", told.join(", then "));
    Some(Failure { error, ..case.failure(told, Some(replay), differences) })
}
