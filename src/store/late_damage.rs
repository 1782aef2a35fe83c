//! Damage of state that is found after the start, by whoever reads a page first.
//!
//! Pages are checked when they are read, so that nothing damaged is ever used; but by then the job runs on a checkpoint
//! that needs them. So it stops, and leaves a note in the store: the next start checks all pages before anything else, and
//! walks back.

use std::sync::OnceLock;

use crate::error::{Error, Result};
use crate::store::{Disk, StorePaths};

/// The first damage that was found in the state that a job goes on from.
#[derive(Debug, Default)]
pub(crate) struct LateDamage {
    first: OnceLock<String>,
}

impl LateDamage {
    pub(crate) fn note(&self, error: &Error) {
        let what = error.chain();
        if self.first.set(what).is_ok() {
            tracing::error!(damage = %error.chain(), "the state is damaged: the job stops");
        }
    }

    /// What was found.
    pub(crate) fn found(&self) -> Option<&str> {
        self.first.get().map(String::as_str)
    }

    /// The error that a job stops with.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when damage was found.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(damage) = self.found() else { return Ok(()) };
        Err(Error::corrupt(format!("{damage}: start again to go back to a checkpoint that is sound")))
    }

    /// Leaves the note when damage was found.
    pub(crate) fn leave_note(&self, disk: &Disk, paths: &StorePaths) -> Result<()> {
        match self.found() {
            Some(damage) if !is_suspect(paths) => disk.publish(&paths.suspect(), damage.as_bytes()),
            _ => Ok(()),
        }
    }
}

/// Whether the store has such a note. What it says is for people: that it is there is all that counts.
pub(crate) fn is_suspect(paths: &StorePaths) -> bool {
    paths.suspect().symlink_metadata().is_ok()
}

/// The state was checked, and nothing depends any more on what is damaged.
pub(crate) fn remove_note(disk: &Disk, paths: &StorePaths) -> Result<()> {
    if is_suspect(paths) {
        disk.remove_file(&paths.suspect())?;
        disk.sync_dir(&paths.root)?;
    }
    Ok(())
}
