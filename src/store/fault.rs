//! Counted disk steps, so that a test can stop the world at each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, ErrorKind, Result};

/// Which step on the disk fails, for tests of recovery.
///
/// Every operation that changes the disk is a step with a number. At the chosen one the operation is
/// left half done (a write stops in its middle) and from then on every step fails, as if the process had
/// died there.
///
/// ```
/// use millpond::testkit::FaultPlan;
///
/// let plan = FaultPlan::crash_at(3);
/// assert_eq!(plan.steps(), 0);
/// assert!(!plan.has_crashed());
/// ```
#[derive(Debug, Default)]
pub struct FaultPlan {
    steps: AtomicU64,
    /// 0 for never.
    crash_at: u64,
}

/// What a write does at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Whole,
    Torn,
}

impl FaultPlan {
    /// Only counts the steps.
    pub fn never() -> Arc<Self> {
        Arc::default()
    }

    /// Crashes at the `step`-th step, counted from 1.
    pub fn crash_at(step: u64) -> Arc<Self> {
        Arc::new(FaultPlan { steps: AtomicU64::new(0), crash_at: step })
    }

    /// How many steps were begun.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::SeqCst)
    }

    /// Whether the crash happened.
    pub fn has_crashed(&self) -> bool {
        self.crash_at != 0 && self.steps() >= self.crash_at
    }

    pub(crate) fn step(&self, what: &str) -> Result<Step> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        if self.crash_at == 0 || step < self.crash_at {
            return Ok(Step::Whole);
        }
        if step == self.crash_at && what.starts_with("write") {
            return Ok(Step::Torn);
        }
        Err(Error::new(ErrorKind::Io, format!("injected crash at disk step {step} ({what})")))
    }
}
