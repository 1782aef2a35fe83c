//! Does a new version of a job go on with the state of the old one?

use std::fmt;

use crate::driver::StopMode;
use crate::error::Error;
use crate::store::{DiskStep, FaultPlan};
use crate::testkit::checks::{case, step_text};
use crate::testkit::replay::{Replay, Replayed};
use crate::testkit::run::{Case, Ended, Home, first_failure};
use crate::testkit::{Failure, FaultKind, Input, Outcome, Setup, StoreSnapshot, TestContext};
use crate::time::Clock;

/// What the new version came to from one point on.
#[derive(Clone, Debug)]
pub struct Upgraded {
    /// How many batches the old version had run.
    pub batches_before: u64,
    /// How it ended: stopped gracefully, or at once, as by a crash, so that the new version computes the batches after
    /// the last checkpoint again.
    pub stopped: StopMode,
    /// The state at the end of the input, and what the new version emitted.
    pub outcome: Outcome,
}

/// The point at which the versions change.
struct Handover {
    store: StoreSnapshot,
    now_ms: u64,
}

impl Setup {
    /// As [`assert_upgrades`](crate::testkit::assert_upgrades).
    ///
    /// # Errors
    /// The first point at which the new version does not start, or does not recover.
    pub fn upgrades<I: Input>(
        &self,
        old_job: impl Fn(&TestContext, I::Streams) + Sync,
        new_job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
    ) -> Result<Vec<Upgraded>, Failure> {
        let (old, new) = (case(self, &old_job, input), case(self, &new_job, input));
        let points = (0..=old.batches()).flat_map(|batches_before| {
            let ends = [StopMode::Graceful, StopMode::Now];
            ends.map(|stopped| Handing { batches_before, stopped, crash: None })
        });
        points.map(|point| point.check(&old, &new)).collect()
    }
}

/// How the old version ends and the new one begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Handing {
    batches_before: u64,
    stopped: StopMode,
    /// The start of the new version is crashed at this step alone; `None` for no step, then each of them.
    crash: Option<u64>,
}

impl fmt::Display for Handing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.batches_before, self.how())?;
        self.crash.map_or(Ok(()), |step| write!(f, ",{step}"))
    }
}

impl Handing {
    fn how(&self) -> &'static str {
        if self.stopped == StopMode::Graceful { "stopped" } else { "crashed" }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let batches_before = parts.next()?.parse().ok()?;
        let stopped = match parts.next()? {
            "stopped" => StopMode::Graceful,
            "crashed" => StopMode::Now,
            _ => return None,
        };
        let crash = match parts.next() {
            Some(step) => Some(step.parse().ok().filter(|step| *step > 0)?),
            None => None,
        };
        parts.next().is_none().then_some(Handing { batches_before, stopped, crash })
    }

    pub(super) fn check<I: Input>(&self, old: &Case<'_, I>, new: &Case<'_, I>) -> Result<Upgraded, Failure> {
        let (batches_before, stopped) = (self.batches_before, self.stopped);
        let how = self.how();
        let point =
            format!("the old version {how} after batch {batches_before}, the new one started on its store");
        let replay = |crash| Replay(Replayed::Upgrade(Handing { crash, ..self.clone() }));
        let stopped_by = |error: Error| {
            let failure = new.failure(point.clone(), Some(replay(None)), Vec::new());
            Failure { error: Some(error.into()), ..failure }
        };
        let handover = Handover::reach(old, batches_before, stopped).map_err(stopped_by)?;
        let counting = FaultPlan::in_order([]);
        let home = handover.home().map_err(stopped_by)?;
        let outcome = new.run_in(&home, std::slice::from_ref(&counting)).map_err(stopped_by)?;
        drop(home);
        let start = counting.passed_in_start();
        let steps: Vec<u64> =
            self.crash.map_or_else(|| (1..=start.len() as u64).collect(), |step| vec![step]);
        let failed = first_failure(steps.len(), |at| {
            let failure = handover.crash(new, &point, steps[at], &start, &outcome)?;
            Some(Failure { replay: Some(replay(Some(steps[at]))), ..failure })
        });
        match failed {
            Some(failure) => Err(failure),
            None => Ok(Upgraded { batches_before, stopped, outcome }),
        }
    }
}

impl Handover {
    fn reach<I: Input>(old: &Case<'_, I>, batches_before: u64, stopped: StopMode) -> Result<Self, Error> {
        let home = Home::new()?;
        match old.live(&home, &FaultPlan::in_order([]), batches_before, stopped) {
            Ended::Failed(error) => return Err(error),
            Ended::Through(lived) => drop(lived),
        }
        let store = StoreSnapshot::take(&home.store())?;
        Ok(Handover { store, now_ms: home.clock.now_ms() })
    }

    fn home(&self) -> Result<Home, Error> {
        Home::with(&self.store, self.now_ms)
    }

    /// The start of the new version is crashed; after it everything must be as without.
    fn crash<I: Input>(
        &self,
        new: &Case<'_, I>,
        point: &str,
        step: u64,
        start: &[DiskStep],
        expected: &Outcome,
    ) -> Option<Failure> {
        let what = step_text(start, step);
        let told = format!("{point}, with a crash at disk step {step} of its start ({what})");
        let plan = FaultPlan::in_order([(step..step + 1, FaultKind::Crash)]);
        let run = self.home().and_then(|home| new.run_in(&home, &[plan]));
        match run {
            Err(error) => Some(Failure { error: Some(error.into()), ..new.failure(told, None, Vec::new()) }),
            Ok(found) => {
                let differences = expected.differences(&found);
                (!differences.is_empty()).then(|| new.failure(told, None, differences))
            }
        }
    }
}
