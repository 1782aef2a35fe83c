//! Bytes at rest: one directory that belongs to one job.
//!
//! ```text
//! STORE/
//!   millpond.id            who this store is (written once)
//!   lock                   held by the running job
//!   epochs/N/              the catalog: one sled database per epoch, append-only, and its witness
//!   log/N.extent           received blocks, append-only; log/witness: how far they are durable
//!   state/N.segment        checkpointed state, one file per checkpoint, never changed
//!   pins/NAME.pin          a checkpoint that is kept under a name
//!   suspect                state that a job read was damaged: the next start checks all of it first
//!   quarantine/            damaged files that nothing refers to any more, under the same names
//! ```
//!
//! Nothing is ever overwritten or removed inside a file: trimming deletes whole files and epochs. Above
//! this module nobody knows how bytes rest; [`catalog`] is the one module that names sled.

pub(crate) mod catalog;
pub(crate) mod disk;
pub(crate) mod extents;
mod fault;
mod identity;
pub(crate) mod late_damage;
pub(crate) mod log_scan;
pub(crate) mod pins;
mod private;
pub(crate) mod quarantine;
pub(crate) mod retry;
#[cfg(feature = "tool")]
pub(crate) mod running;
pub(crate) mod segments;

use std::fs::File;
use std::path::{Path, PathBuf};

pub(crate) use disk::Disk;
pub use fault::FaultPlan;
#[cfg(feature = "testkit")]
pub use fault::{DiskStep, FaultKind};
pub(crate) use identity::{Identity, refuse_foreign_directory};
#[cfg(any(feature = "tool", feature = "testkit"))]
pub(crate) use private::private_tempdir;
pub(crate) use private::private_tempfile;

use crate::error::{Error, ErrorKind, Result};

/// Where everything of a store is.
#[derive(Clone, Debug)]
pub(crate) struct StorePaths {
    pub(crate) root: PathBuf,
}

impl StorePaths {
    pub(crate) fn new(root: &Path) -> Self {
        StorePaths { root: root.to_owned() }
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.root.join("millpond.id")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }

    pub(crate) fn epochs(&self) -> PathBuf {
        self.root.join("epochs")
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(crate) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    pub(crate) fn suspect(&self) -> PathBuf {
        self.root.join("suspect")
    }

    pub(crate) fn quarantine(&self) -> PathBuf {
        self.root.join("quarantine")
    }
}

/// A store opened for writing. The lock is held for as long as this lives.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) paths: StorePaths,
    pub(crate) disk: Disk,
    pub(crate) identity: Identity,
    _lock: Lock,
}

impl Store {
    /// Opens the store of `job` in `root`, or makes one there if there is nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Locked`] when another process has it, [`ErrorKind::Incompatible`] when the directory
    /// is something else, has a symbolic link in it, or the store is another job's, [`ErrorKind::Corrupt`] when its identity is damaged.
    pub(crate) fn open(root: &Path, job: &str, disk: Disk) -> Result<Self> {
        let paths = StorePaths::new(root);
        #[cfg(any(test, feature = "testkit"))]
        disk.watch_reads(root);
        identity::refuse_foreign_directory(&paths)?;
        disk.create_dir(root)?;
        private::make_private(&paths)?;
        let lock = take_lock(&paths.lock())?;
        for dir in [paths.epochs(), paths.log(), paths.state()] {
            disk.create_dir(&dir)?;
        }
        disk.sync_dir(root)?;
        let identity = match Identity::read(&paths)? {
            Some(identity) => identity.for_job(job, root)?,
            None => Identity::create(&paths, job, &disk)?,
        };
        Ok(Store { paths, disk, identity, _lock: lock })
    }
}

/// The lock of a store that is there, for who changes it and is not its job.
///
/// # Errors
/// [`ErrorKind::Locked`] when the job runs, [`ErrorKind::Incompatible`] when a symbolic link is in the store.
#[cfg(feature = "tool")]
pub(crate) fn lock_existing(paths: &StorePaths) -> Result<Lock> {
    private::make_private(paths)?;
    take_lock(&paths.lock())
}

/// The lock file, locked.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a process that is just being started elsewhere in ours still has the file open.
        let _ = self.0.unlock();
    }
}

fn take_lock(path: &Path) -> Result<Lock> {
    let file = disk::open_options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(|cause| Error::io(format!("open {}", path.display()), cause))?;
    match file.try_lock() {
        Ok(()) => Ok(Lock(file)),
        Err(std::fs::TryLockError::WouldBlock) => {
            let message =
                format!("another process holds {}: a store belongs to one running job", path.display());
            Err(Error::new(ErrorKind::Locked, message))
        }
        Err(std::fs::TryLockError::Error(cause)) => Err(Error::io(format!("lock {}", path.display()), cause)),
    }
}

/// The numbers of the entries of `dir` called `N` + `suffix`, ascending. A directory that is not there
/// has none.
pub(crate) fn numbered_entries(dir: &Path, suffix: &str) -> Result<Vec<u64>> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(Error::io(format!("list {}", dir.display()), cause)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io(format!("list {}", dir.display()), cause))?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(suffix));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}
