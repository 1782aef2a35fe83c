//! The next epoch, made beside the commits to the one before: making a database takes as long as many commits, and no
//! batch should wait for it.

use std::thread::JoinHandle;

use super::{OpenEpoch, remove_epoch};
use crate::error::Result;
use crate::id::EpochId;
use crate::store::{Disk, StorePaths};

/// What threads do for the catalog.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Makes an epoch that holds nothing yet.
    next: Option<(EpochId, JoinHandle<Result<OpenEpoch>>)>,
    /// Closes the database of the epoch before.
    closing: Option<JoinHandle<()>>,
}

impl Ahead {
    /// Begins to make epoch `id`, if that has not begun.
    pub(super) fn make(&mut self, disk: &Disk, paths: &StorePaths, id: EpochId) {
        if self.next.is_some() {
            return;
        }
        let (disk, paths) = (disk.clone(), paths.clone());
        let thread = std::thread::Builder::new().name("millpond-epoch".to_owned());
        match thread.spawn(move || make(&disk, &paths, id)) {
            Ok(next) => self.next = Some((id, next)),
            Err(error) => tracing::debug!(%error, "the next epoch is made when it is needed"),
        }
    }

    /// The epoch that was made ahead. What went wrong shows again when it is made anew.
    pub(super) fn take(&mut self, id: EpochId) -> Option<OpenEpoch> {
        let (made, next) = self.next.take()?;
        match next.join() {
            Ok(Ok(epoch)) if made == id => return Some(epoch),
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::debug!(error = %error.chain(), "{made} was not made ahead"),
            Err(_) => tracing::debug!("making {made} ahead panicked"),
        }
        None
    }

    /// Closes a database: sled takes its time to stop its threads.
    pub(super) fn close_epoch(&mut self, epoch: OpenEpoch) {
        self.wait();
        let thread = std::thread::Builder::new().name("millpond-epoch".to_owned());
        // Without a thread the closure is dropped here, and the epoch with it.
        self.closing = thread.spawn(move || drop(epoch)).ok();
    }

    fn wait(&mut self) {
        if let Some(closing) = self.closing.take()
            && closing.join().is_err()
        {
            tracing::warn!("closing a database panicked");
        }
    }

    /// Removes what was made and is not used, and waits for what is under way.
    pub(super) fn end(&mut self, disk: &Disk, paths: &StorePaths) {
        self.wait();
        let Some(id) = self.next.as_ref().map(|(id, _)| *id) else { return };
        drop(self.take(id));
        if let Err(error) = remove_epoch(disk, paths, id) {
            tracing::debug!(error = %error.chain(), "{id}, which holds nothing, is left behind");
        }
    }
}

#[cfg(test)]
impl Ahead {
    pub(super) fn is_under_way(&self) -> bool {
        self.next.is_some()
    }

    pub(super) fn wait_for_next(&self) {
        while self.next.as_ref().is_some_and(|(_, next)| !next.is_finished()) {
            std::thread::yield_now();
        }
    }
}

/// Makes an epoch, with all that can be made durable before its first record.
pub(super) fn make(disk: &Disk, paths: &StorePaths, id: EpochId) -> Result<OpenEpoch> {
    // A directory that an earlier, failed attempt left behind holds nothing that was committed.
    remove_epoch(disk, paths, id)?;
    let mut epoch = OpenEpoch::create(disk, paths, id)?;
    epoch.settle(disk)?;
    Ok(epoch)
}
