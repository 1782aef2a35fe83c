//! Whose store it is, from its other files if need be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::format::records::CatalogRecord;
use crate::inspect::open;
use crate::store::catalog::{list_epochs, salvage_epoch};
use crate::store::log_scan::{list_extents, store_of_extent};
use crate::store::quarantine::move_there;
use crate::store::segments::{Segment, list_segments};
use crate::store::{Disk, Identity, StorePaths};

use super::Account;

/// The store that is repaired.
pub(super) struct Claim {
    pub(super) paths: StorePaths,
    pub(super) identity: Identity,
    is_lost: bool,
}

impl Claim {
    pub(super) fn of(dir: &Path, job: Option<&str>, account: &mut Account) -> Result<Self> {
        let paths = StorePaths::new(dir);
        match open(dir) {
            Ok(store) => Ok(Claim { paths, identity: store.identity, is_lost: false }),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let identity = from_files(&paths, job).map_err(|why| why.caused_by(error))?;
                account.steps.push(format!("millpond.id is written again, for job `{}`", identity.job));
                Ok(Claim { paths, identity, is_lost: true })
            }
            Err(error) => Err(error),
        }
    }

    /// Without an identity no start touches the directory, so that a crash in between costs nothing.
    pub(super) fn write(&self, disk: &Disk) -> Result<()> {
        if !self.is_lost {
            return Ok(());
        }
        move_there(disk, &self.paths, &[PathBuf::from("millpond.id")])?;
        self.identity.write_again(&self.paths, disk)
    }
}

/// What the other files say: all of those that can be read have to agree.
fn from_files(paths: &StorePaths, job: Option<&str>) -> Result<Identity> {
    let mut stores: BTreeMap<[u8; 16], u64> = BTreeMap::new();
    let mut known_job = None;
    let mut add = |store| *stores.entry(store).or_default() += 1;
    for epoch in list_epochs(paths)? {
        for record in salvage_epoch(paths, epoch)?.into_values() {
            match record {
                CatalogRecord::Epoch(first) => add(first.store),
                CatalogRecord::Job(job) => known_job = Some(job.job),
                _ => {}
            }
        }
    }
    list_extents(paths)?.into_iter().filter_map(|extent| store_of_extent(paths, extent)).for_each(&mut add);
    list_segments(paths)?.into_iter().filter_map(|id| Segment::store_of(paths, id)).for_each(add);
    let [store] = stores.into_keys().collect::<Vec<_>>()[..] else {
        return Err(Error::corrupt(
            "millpond.id is damaged, and the other files do not say whose store it is",
        ));
    };
    match (known_job, job) {
        (Some(known), Some(job)) if known != job => {
            let message = format!("it is the store of job `{known}`, not of `{job}`");
            Err(Error::new(ErrorKind::InvalidConfig, message))
        }
        (Some(job), _) => Ok(Identity { store, job }),
        (None, Some(job)) if (1..=255).contains(&job.len()) => Ok(Identity { store, job: job.to_owned() }),
        (None, _) => {
            let message = "millpond.id is damaged, and nothing else has the name of the job: say it";
            Err(Error::new(ErrorKind::InvalidConfig, message))
        }
    }
}
