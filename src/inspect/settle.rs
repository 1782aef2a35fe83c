//! Reading beside a running job, which may prune a file between the moment it is listed and the moment it
//! is read.

use crate::error::{Error, ErrorKind, Result};
use crate::inspect::report::Finding;
use crate::store::StorePaths;
use crate::store::catalog::{list_epochs, witness_bytes};
use crate::store::log_scan::{list_extents, log_witness_bytes};
use crate::store::segments::list_segments;

/// How often a store is read before it is given up. Each round needs a prune at just the wrong moment.
const ROUNDS_MAX: usize = 8;

/// Reads a report until its findings are not the doing of a running job, see [`settled_by`].
pub(super) fn settled<T>(
    paths: &StorePaths,
    read: impl FnMut() -> Result<T>,
    findings: impl Fn(&T) -> &[Finding],
) -> Result<T> {
    settled_by(paths, read, |report| {
        let damage = findings(report).iter().filter(|finding| finding.is_damage());
        damage.map(|finding| finding.place.clone()).collect()
    })
}

/// Reads until what is wrong is not the doing of a running job: nothing was wrong, nothing changed in the
/// meantime, or the same was wrong twice.
pub(crate) fn settled_by<T>(
    paths: &StorePaths,
    mut read: impl FnMut() -> Result<T>,
    wrong: impl Fn(&T) -> Vec<String>,
) -> Result<T> {
    let mut before: Vec<String> = Vec::new();
    for _ in 0..ROUNDS_MAX {
        let marks = marks(paths);
        let outcome = read();
        let wrong = match &outcome {
            Ok(read) => wrong(read),
            Err(error) => vec![error.chain()],
        };
        if wrong.iter().all(|place| before.contains(place)) || marks == self::marks(paths) {
            return outcome;
        }
        before = wrong;
    }
    let message = format!(
        "the job that runs on {} changes it faster than it can be read: try again",
        paths.root.display()
    );
    Err(Error::new(ErrorKind::Io, message))
}

/// What differs when a job went on in the meantime. A listing that fails counts as empty.
#[derive(PartialEq)]
struct Marks {
    epochs: Vec<u64>,
    extents: Vec<u64>,
    segments: Vec<u64>,
    witnesses: [Option<Vec<u8>>; 2],
}

fn marks(paths: &StorePaths) -> Marks {
    let epochs = list_epochs(paths).unwrap_or_default();
    let extents = list_extents(paths).unwrap_or_default();
    let segments = list_segments(paths).unwrap_or_default();
    let newest = epochs.last().and_then(|epoch| witness_bytes(paths, *epoch));
    Marks {
        witnesses: [newest, log_witness_bytes(paths)],
        epochs: epochs.into_iter().map(|epoch| epoch.0).collect(),
        extents: extents.into_iter().map(|extent| extent.0).collect(),
        segments: segments.into_iter().map(|segment| segment.0).collect(),
    }
}
