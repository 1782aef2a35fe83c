//! Checking what checksums cannot tell: that what is stored fits together. A program with a defect writes what
//! does not, under sound checksums, and a start believes it.

mod files;
mod history;
mod state;

use std::collections::BTreeMap;

use crate::error::Result;
use crate::inspect::catalog::Catalog;
use crate::inspect::log::Log;
use crate::inspect::open::ReadStore;
use crate::inspect::report::{DeepReport, Finding, RestartReport};
use crate::inspect::state::{Committed, Segments};

/// Violated invariants, those of one kind in one place together.
#[derive(Debug, Default)]
struct Violations {
    found: BTreeMap<(String, &'static str), (String, u64)>,
}

impl Violations {
    /// In the file or directory `place`, the invariant called `rule` is violated: `what` says where and how.
    fn add(&mut self, place: &str, rule: &'static str, what: impl FnOnce() -> String) {
        let found = self.found.entry((place.to_owned(), rule));
        found.and_modify(|(_, count)| *count += 1).or_insert_with(|| (what(), 1));
    }

    fn check(&mut self, holds: bool, place: &str, rule: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.add(place, rule, what);
        }
    }

    fn merge(&mut self, other: Violations) {
        for (key, (what, more)) in other.found {
            self.found.entry(key).and_modify(|(_, count)| *count += more).or_insert((what, more));
        }
    }

    fn count(&self) -> u64 {
        self.found.values().map(|(_, count)| count).sum()
    }

    fn into_findings(self, remedy: &str) -> Vec<Finding> {
        let finding = |((place, rule), (what, count)): ((String, &'static str), (String, u64))| {
            let more = if count > 1 { format!(" (and {} more like it)", count - 1) } else { String::new() };
            Finding::damage(place, format!("{rule}: {what}{more}"), remedy)
        };
        self.found.into_iter().map(finding).collect()
    }
}

/// Checks everything that can be checked without the job's code. Segments that are damaged are passed over:
/// that they are is known.
pub(super) fn check(
    store: &ReadStore,
    catalog: &Catalog,
    segments: &mut Segments<'_>,
    retained: &[Committed],
    log: &Log,
    restart: &RestartReport,
) -> Result<(DeepReport, Vec<Finding>)> {
    let mut report = DeepReport::default();
    let mut violations = Violations::default();
    state::check(store, segments, retained, &mut report, &mut violations)?;
    history::check(catalog, retained, log, &mut report, &mut violations);
    report.violations = violations.count();
    let mut findings = violations.into_findings(&remedy(restart));
    findings.extend(files::check(store, catalog, retained, log)?);
    Ok((report, findings))
}

/// Checksums are all that a start looks at: it goes on with what was found here.
fn remedy(restart: &RestartReport) -> String {
    let begins = match (&restart.refused, &restart.checkpoint) {
        (Some(_), _) => "refuses anyway".to_owned(),
        (None, Some(chosen)) => format!("begins with checkpoint {} all the same", chosen.checkpoint),
        (None, None) => "begins with empty state".to_owned(),
    };
    let replays = match (restart.replay_from, restart.replay_to) {
        (Some(from), Some(to)) => format!(" and replays batches {from} to {to}"),
        _ => " and replays nothing".to_owned(),
    };
    let replays = if restart.refused.is_some() { String::new() } else { replays };
    format!(
        "put the file back from a copy, or begin with an older checkpoint: a start does not see this, {begins}{replays}"
    )
}

#[cfg(test)]
mod tests;
