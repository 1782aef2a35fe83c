//! Changes a store by hand: what the `millpond` command's verbs that write do (feature `tool`).
//!
//! Each verb is planned and reported in full before anything is changed. [`Maintenance::planned`] stops there, and
//! reads without the lock; [`Maintenance::confirmed`] takes the store's lock, so that no job runs, plans anew and carries it
//! out. Every step is safe to crash at: the store is then as it was, or as it was to be, or the verb can be run
//! again. What a verb replaces stays until what replaces it is durable.
//!
//! Reports are plain data, and with `--json` what the command prints; see [`inspect`](crate::inspect) for how.
//!
//! ```no_run
//! use millpond::maintenance::Maintenance;
//!
//! let store = Maintenance::confirmed("/var/lib/counts");
//! store.pin("12", "before-upgrade")?;
//! # Ok::<(), millpond::Error>(())
//! ```

mod change;
mod edit;
mod open;
mod pin;
mod prune;
mod repair;
mod rollback;

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::inspect::settled_by;
use crate::store::{Disk, StorePaths};

use open::Opened;

pub use edit::{EditReport, ImportReport};
pub use pin::{PinReport, UnpinReport};
pub use prune::{PruneReport, Removal};
pub use repair::RepairReport;
pub use rollback::{BatchSpan, RollbackReport};

/// Who changes the store of a job that does not run.
#[derive(Clone, Debug)]
pub struct Maintenance {
    dir: PathBuf,
    disk: Disk,
    is_confirmed: bool,
}

impl Maintenance {
    /// Only plans: every verb reports what it would do, and nothing is changed. The job may be running.
    pub fn planned(dir: impl AsRef<Path>) -> Self {
        Maintenance { dir: dir.as_ref().to_owned(), disk: Disk::default(), is_confirmed: false }
    }

    /// Does what each verb says. The job must not be running.
    pub fn confirmed(dir: impl AsRef<Path>) -> Self {
        Maintenance { is_confirmed: true, ..Maintenance::planned(dir) }
    }

    /// Carries out a verb on the opened store.
    fn carry_out<T>(&self, verb: impl Fn(&Opened) -> Result<T>) -> Result<T> {
        self.settled(|| verb(&Opened::open(self)?), |_| Vec::new())
    }

    /// Does what is confirmed. A plan that found something `wrong`, or failed, is made again where a running job
    /// removed under it what it was of.
    fn settled<T>(&self, verb: impl Fn() -> Result<T>, wrong: impl Fn(&T) -> Vec<String>) -> Result<T> {
        if self.is_confirmed {
            return verb();
        }
        settled_by(&StorePaths::new(&self.dir), verb, wrong)
    }

    /// Makes the disk fail as planned, for tests of recovery.
    #[cfg(any(test, feature = "testkit"))]
    #[must_use]
    pub fn faults(mut self, faults: std::sync::Arc<crate::store::FaultPlan>) -> Self {
        self.disk = Disk::with_faults(Some(faults));
        self
    }
}
