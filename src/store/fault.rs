//! Counted disk steps, so that a test can stop the world at each of them.

#[cfg(any(test, feature = "testkit"))]
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Result;

/// Which step on the disk fails, for tests of recovery.
///
/// Every operation that changes the disk is a step with a number, counted from 1. A **crash** leaves the chosen
/// one half done (a write stops in its middle) and from then on every step fails, as if the process had died
/// there. A **full disk** refuses the chosen steps and has space again after them.
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
    fault: Fault,
}

#[derive(Debug, Default)]
enum Fault {
    #[default]
    Never,
    #[cfg(any(test, feature = "testkit"))]
    CrashAt(u64),
    #[cfg(any(test, feature = "testkit"))]
    Full(std::ops::Range<u64>),
}

/// What a write does at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Whole,
    Torn,
}

#[cfg(any(test, feature = "testkit"))]
impl FaultPlan {
    /// Only counts the steps.
    pub fn never() -> Arc<Self> {
        Arc::default()
    }

    /// Crashes at the `step`-th step.
    pub fn crash_at(step: u64) -> Arc<Self> {
        Arc::new(FaultPlan { steps: AtomicU64::new(0), fault: Fault::CrashAt(step) })
    }

    /// The disk is full from step `steps.start` on, up to and without `steps.end`.
    pub fn full_during(steps: std::ops::Range<u64>) -> Arc<Self> {
        Arc::new(FaultPlan { steps: AtomicU64::new(0), fault: Fault::Full(steps) })
    }

    /// How many steps were begun.
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::SeqCst)
    }

    /// Whether the crash happened.
    pub fn has_crashed(&self) -> bool {
        matches!(self.fault, Fault::CrashAt(step) if self.steps() >= step)
    }
}

impl FaultPlan {
    /// Counts a step and says how it goes.
    pub(crate) fn step(&self, what: &str) -> Result<Step> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        tracing::trace!(step, what, "disk step");
        match &self.fault {
            #[cfg(any(test, feature = "testkit"))]
            Fault::CrashAt(at) if step == *at && what == "write" => Ok(Step::Torn),
            #[cfg(any(test, feature = "testkit"))]
            Fault::CrashAt(at) if step >= *at => {
                let message = format!("injected crash at disk step {step} ({what})");
                Err(crate::error::Error::new(crate::error::ErrorKind::Io, message))
            }
            #[cfg(any(test, feature = "testkit"))]
            Fault::Full(steps) if steps.contains(&step) => {
                let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
                Err(crate::error::Error::io(format!("{what} (injected at disk step {step})"), full))
            }
            _ => Ok(Step::Whole),
        }
    }
}
