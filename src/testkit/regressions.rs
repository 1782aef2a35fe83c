//! Cases that failed once are written to a file beside the test, and are run first from then on.

use std::io::Write;
use std::panic::Location;
use std::path::PathBuf;

use crate::testkit::{Failure, Replay};

/// The variable that has a check run one case alone.
const ASKED: &str = "MILLPOND_CASE";

const HEAD: &str = "\
# Cases in which tests of these names did not pass a check, found by millpond's testkit: the tests run them first. Keep
# this file with the tests in version control, so that everyone who runs them tries these.
";

/// What a test that calls a check knows of earlier cases, and where it writes new ones.
struct Regressions {
    path: Option<PathBuf>,
    test: String,
}

impl Regressions {
    fn of(caller: &Location<'_>) -> Self {
        let source = PathBuf::from(caller.file());
        // Only where the source is: elsewhere a file would be litter.
        let path = source.is_file().then(|| source.with_extension("millpond-regressions"));
        let test = std::thread::current().name().unwrap_or("main").to_owned();
        Regressions { path, test }
    }

    /// The cases of this test that failed before, as they were written.
    fn known(&self) -> Vec<String> {
        let text = self.path.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(test, _)| *test == self.test).map(|(_, case)| case.trim().to_owned()).collect()
    }

    /// Writes the case down. Returns where.
    fn add(&self, replay: &Replay) -> Option<PathBuf> {
        let (path, case) = (self.path.as_ref()?, replay.to_string());
        if self.known().contains(&case) {
            return Some(path.clone());
        }
        let is_new = !path.exists();
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).ok()?;
        let head = if is_new { HEAD } else { "" };
        writeln!(file, "{head}{} {case}", self.test).ok()?;
        Some(path.clone())
    }

    /// How the case is run again.
    fn again(&self, replay: &Replay) -> String {
        let test = if self.test == "main" { "NAME_OF_THE_TEST" } else { &self.test };
        let again = format!("\n  again: {ASKED}={replay} cargo test {test}");
        match self.add(replay) {
            Some(path) => format!("{again}\n  written to {}, from which it is run first", path.display()),
            None => again,
        }
    }
}

/// Runs a check as the asserts do: the one case that is asked for, if it is one of this check (if it is another's,
/// nothing); else the cases that failed before, and then everything.
///
/// # Panics
/// With the page of the failure; and when what is asked for, or what is in the file, is no case.
pub(super) fn check<T: Default>(
    what_fails: &str,
    check: &str,
    caller: &Location<'_>,
    one: impl Fn(&Replay) -> Result<T, Failure>,
    all: impl FnOnce() -> Result<T, Failure>,
) -> T {
    let regressions = Regressions::of(caller);
    let asked = std::env::var(ASKED).ok();
    let is_asked = asked.is_some();
    let read = |case: String| match case.parse::<Replay>() {
        Ok(replay) => replay,
        Err(error) if is_asked => panic!("{ASKED}: {error}"),
        Err(error) => panic!("{}: {error}", caller.file()),
    };
    let first = asked.map_or_else(|| regressions.known(), |case| vec![case]);
    let first = first.into_iter().map(read).filter(|replay| replay.check() == check);
    let outcome = first.map(|replay| one(&replay)).try_fold(T::default(), |_, outcome| outcome);
    let outcome = if is_asked { outcome } else { outcome.and_then(|_| all()) };
    outcome.unwrap_or_else(|failure| {
        let again = failure.replay.as_ref().map_or_else(String::new, |replay| regressions.again(replay));
        panic!("{what_fails}: {failure}{again}");
    })
}
