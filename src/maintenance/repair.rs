//! Making a damaged store startable again, and saying what that costs.

mod catalog;
mod identity;
mod log;
mod state;

use std::path::PathBuf;

use serde::Serialize;

use crate::error::Result;
use crate::inspect::SCHEMA;
use crate::maintenance::Maintenance;
use crate::store::lock_existing;
use crate::store::quarantine::move_there;

use catalog::Rescue;
use identity::Claim;

/// A store that was repaired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RepairReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// Whether anything was damaged. A sound store is left as it is.
    pub was_damaged: bool,
    /// Whether it was done; otherwise nothing was changed.
    pub done: bool,
    /// What is done, one line each.
    pub steps: Vec<String>,
    /// What is lost, one line each: operators, key groups, keys, batches, blocks.
    pub lost: Vec<String>,
    /// Damaged files that are put into quarantine, where they were in the store.
    pub quarantined: Vec<String>,
    /// The checkpoint that a restart then begins with; `null` where it walks back to a sound one by itself.
    pub checkpoint: Option<u64>,
}

/// What a repair does and costs.
#[derive(Default)]
struct Account {
    steps: Vec<String>,
    lost: Vec<String>,
    quarantine: Vec<PathBuf>,
}

impl Maintenance {
    /// Makes a store that is damaged startable: what can be proved sound is kept, what is damaged is put into
    /// quarantine, and what is lost is said. A store that is sound is left as it is.
    ///
    /// Where no checkpoint is sound, one is made of every page that is. `job` is the name of the job, which is
    /// needed only when neither `millpond.id` nor the catalog has it.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the directory is no store, or of a newer
    /// version; [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when the job's name is not known;
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when nothing is left to go on from;
    /// [`ErrorKind::Locked`](crate::ErrorKind::Locked) when the job runs.
    pub fn repair(&self, job: Option<&str>) -> Result<RepairReport> {
        // What a running job removed under a plan only seems to be damaged.
        let damage = |report: &RepairReport| [&report.lost[..], &report.quarantined].concat();
        self.settled(|| self.make_startable(job), damage)
    }

    fn make_startable(&self, job: Option<&str>) -> Result<RepairReport> {
        let mut account = Account::default();
        let claim = Claim::of(&self.dir, job, &mut account)?;
        let _lock = self.is_confirmed.then(|| lock_existing(&claim.paths)).transpose()?;
        let rescue = Rescue::plan(&claim, self.is_confirmed.then_some(&self.disk), &mut account)?;
        let checkpoint = rescue.checkpoint();
        if self.is_confirmed {
            claim.write(&self.disk)?;
            rescue.write(&self.disk)?;
            move_there(&self.disk, &claim.paths, &account.quarantine)?;
        }
        let Account { steps, lost, quarantine } = account;
        Ok(RepairReport {
            schema: SCHEMA,
            directory: self.dir.display().to_string(),
            job: claim.identity.job.clone(),
            was_damaged: !steps.is_empty() || !quarantine.is_empty(),
            done: self.is_confirmed,
            steps,
            lost,
            quarantined: quarantine.iter().map(|place| place.display().to_string()).collect(),
            checkpoint,
        })
    }
}
