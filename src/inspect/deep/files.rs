//! Files that nothing refers to.

use std::path::Path;

use crate::checkpoint::protocol::{Retained, needed};
use crate::error::{Error, Result};
use crate::inspect::catalog::Catalog;
use crate::inspect::log::Log;
use crate::inspect::open::ReadStore;
use crate::inspect::report::Finding;
use crate::inspect::state::Committed;
use crate::store::catalog::list_epochs;

/// What belongs into a store, next to the files that have numbers.
const OWN: [&str; 9] =
    ["millpond.id", "lock", "epochs", "log", "state", "pins", "quarantine", "suspect", "log/witness"];

/// Segments that are not needed are found in any case: here is the rest.
pub(super) fn check(
    store: &ReadStore,
    catalog: &Catalog,
    retained: &[Committed],
    log: &Log,
) -> Result<Vec<Finding>> {
    let mut findings = unneeded(store, catalog, retained, log)?;
    let mut names = Vec::new();
    for dir in ["", "epochs", "log", "state"] {
        list(&store.paths.root, dir, &mut names)?;
    }
    names.sort_unstable();
    findings.extend(names.into_iter().filter(|name| !is_own(name)).map(|name| {
        Finding::note(name, "it is no file of a store", "nothing: it may be removed, and is never looked at")
    }));
    Ok(findings)
}

/// Extents and epochs before everything that the retained checkpoints need.
fn unneeded(store: &ReadStore, catalog: &Catalog, retained: &[Committed], log: &Log) -> Result<Vec<Finding>> {
    let history = &catalog.history;
    let kept: Vec<Retained> = retained
        .iter()
        .map(|(epoch, record)| {
            let plans_from = history.planned_in.get(&record.batch.saturating_add(1)).unwrap_or(epoch);
            Retained::of(*epoch, *plans_from, record)
        })
        .collect();
    let Some(needed) = needed(&kept) else { return Ok(Vec::new()) };
    let what = "no retained checkpoint needs it";
    let remedy = "nothing: it may be removed, and the next checkpoint removes it";
    let extents = log.contents.extents.iter().zip(log.contents.extents.iter().skip(1));
    let extents = extents.filter(|(_, (_, next_begins))| *next_begins <= needed.block);
    let mut notes: Vec<Finding> = extents
        .map(|((extent, _), _)| Finding::note(format!("log/{}.extent", extent.0), what, remedy))
        .collect();
    let epochs = list_epochs(&store.paths)?.into_iter().filter(|epoch| *epoch < needed.epoch);
    notes.extend(epochs.map(|epoch| Finding::note(format!("epochs/{}", epoch.0), what, remedy)));
    Ok(notes)
}

/// The names in `dir`, relative to the store.
fn list(root: &Path, dir: &str, names: &mut Vec<String>) -> Result<()> {
    let path = root.join(dir);
    let io = |cause| Error::io(format!("list {}", path.display()), cause);
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(io(cause)),
    };
    for entry in entries {
        let name = entry.map_err(io)?.file_name();
        let separator = if dir.is_empty() { "" } else { "/" };
        names.push(format!("{dir}{separator}{}", name.to_string_lossy()));
    }
    Ok(())
}

fn is_own(name: &str) -> bool {
    let is_number = |number: &str| number.parse::<u64>().is_ok();
    let numbered = |dir: &str, suffix: &str| {
        name.strip_prefix(dir).and_then(|name| name.strip_suffix(suffix)).is_some_and(is_number)
    };
    OWN.contains(&name)
        || numbered("epochs/", "")
        || numbered("log/", ".extent")
        || numbered("state/", ".segment")
}
