//! What a check says when a job does not pass it.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;
use crate::testkit::replay::Replayed;
use crate::testkit::{Difference, Replay, Setup};

/// How many differences are shown.
const SHOWN_MAX: usize = 5;

/// Where a job is crashed: its first life at one disk step, the start after that at another, and so on; the life after
/// the last is not disturbed. A step that a life does not come to crashes nothing.
///
/// ```
/// use millpond::testkit::CrashPlan;
///
/// let plan = CrashPlan::at([17, 3]);
/// assert_eq!(plan.to_string(), "17,3");
/// assert_eq!("17,3".parse(), Ok(plan));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CrashPlan(pub(super) Vec<u64>);

impl CrashPlan {
    /// A crash at each of these disk steps, counted from 1 in each life.
    pub fn at(steps: impl IntoIterator<Item = u64>) -> Self {
        CrashPlan(steps.into_iter().collect())
    }

    /// The steps.
    pub fn steps(&self) -> &[u64] {
        &self.0
    }
}

impl fmt::Display for CrashPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<String> = self.0.iter().map(u64::to_string).collect();
        f.write_str(&steps.join(","))
    }
}

impl FromStr for CrashPlan {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let steps = text.split(',').filter(|step| !step.is_empty());
        steps.map(|step| step.trim().parse()).collect::<Result<_, _>>().map(CrashPlan)
    }
}

/// Why a job did not pass a check. Both `Debug` and `Display` are the page for people that the asserts panic with.
pub struct Failure {
    /// What was done to the job.
    pub case: String,
    /// What came out otherwise than it should; empty when the job did not come that far.
    pub differences: Vec<Difference>,
    /// What stopped the job.
    pub error: Option<Box<Error>>,
    /// The case, to be run again; `None` when nothing was done to the job.
    pub replay: Option<Replay>,
    /// How the job ran.
    pub setup: Box<Setup>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.case)?;
        if let Some(error) = &self.error {
            writeln!(f, "  the job stopped: {}", error.chain().replace('\n', "\n  "))?;
        }
        for difference in self.differences.iter().take(SHOWN_MAX) {
            writeln!(f, "  {difference}")?;
        }
        if let Some(more @ 1..) = self.differences.len().checked_sub(SHOWN_MAX) {
            writeln!(f, "  and {more} more")?;
        }
        write!(f, "  how it ran: {:?}", self.setup)?;
        let Some(replay) = &self.replay else { return Ok(()) };
        let call = if matches!(replay.0, Replayed::Upgrade(_)) {
            "replay_upgrade(old_job, new_job, "
        } else {
            "replay(job, "
        };
        write!(f, "\n  in code: setup.{call}&input, &\"{replay}\".parse().unwrap())")
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Failure {}
