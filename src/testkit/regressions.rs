//! Cases that failed once are written to a file beside the test, and are run first from then on.

use std::io::Write;
use std::panic::Location;
use std::path::PathBuf;

use crate::testkit::{CrashPlan, Failure};

/// The variable that has a check run one case alone.
pub(super) const REPLAY: &str = "MILLPOND_CRASHES";

const HEAD: &str = "\
# Crashes that a test of this name did not survive, found by millpond's testkit: the test runs them first. Keep this
# file with the test in version control, so that everyone who runs it tries them.
";

/// The file of the test that calls, and its name there.
pub(super) struct Regressions {
    path: Option<PathBuf>,
    test: String,
}

impl Regressions {
    pub(super) fn of(caller: &Location<'_>) -> Self {
        let source = PathBuf::from(caller.file());
        // Only where the source is: elsewhere a file would be litter.
        let path = source.is_file().then(|| source.with_extension("millpond-regressions"));
        let test = std::thread::current().name().unwrap_or("main").to_owned();
        Regressions { path, test }
    }

    /// The one case that is asked for.
    ///
    /// # Panics
    /// When what is asked for is no case.
    pub(super) fn asked() -> Option<CrashPlan> {
        let asked = std::env::var(REPLAY).ok()?;
        match asked.parse() {
            Ok(plan) => Some(plan),
            Err(error) => panic!("{REPLAY}={asked} is no list of disk steps: {error}"),
        }
    }

    /// The cases of this test that failed before.
    pub(super) fn known(&self) -> Vec<CrashPlan> {
        let text = self.path.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(test, _)| *test == self.test).filter_map(|(_, plan)| plan.parse().ok()).collect()
    }

    /// Writes the case of a failure down. Returns where.
    pub(super) fn add(&self, failure: &Failure) -> Option<PathBuf> {
        let (path, plan) = (self.path.as_ref()?, failure.plan.as_ref()?);
        if self.known().contains(plan) {
            return Some(path.clone());
        }
        let is_new = !path.exists();
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).ok()?;
        let head = if is_new { HEAD } else { "" };
        writeln!(file, "{head}{} {plan}", self.test).ok()?;
        Some(path.clone())
    }
}
