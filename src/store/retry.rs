//! A full disk is waited out: nothing acknowledged is lost, and the job goes on when there is space.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::error::{ErrorKind, Result};
use crate::time::WakeUp;

/// How often a full disk is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Waits until there is space, or the job is told to stop.
#[derive(Clone, Debug, Default)]
pub(crate) struct FullDisk {
    gives_up: Arc<AtomicBool>,
    wake: Arc<WakeUp>,
}

impl FullDisk {
    /// Does `work` again and again for as long as the disk is full.
    ///
    /// # Errors
    /// Any other error of `work`, or [`ErrorKind::DiskFull`] once [`give_up`](Self::give_up) was called.
    pub(crate) fn wait_out<T>(&self, what: &str, mut work: impl FnMut() -> Result<T>) -> Result<T> {
        let mut told = false;
        loop {
            let seen = self.wake.seen();
            match work() {
                Err(error)
                    if error.kind() == ErrorKind::DiskFull && !self.gives_up.load(Ordering::SeqCst) =>
                {
                    if !told {
                        tracing::warn!(error = %error.chain(), "the disk is full: waiting for space to {what}");
                        told = true;
                    }
                    self.wake.wait_for(seen, RETRY);
                }
                outcome => {
                    if told && outcome.is_ok() {
                        tracing::info!("there is space again to {what}");
                    }
                    return outcome;
                }
            }
        }
    }

    /// From now on a full disk is an error.
    pub(crate) fn give_up(&self) {
        self.gives_up.store(true, Ordering::SeqCst);
        self.wake.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn it_goes_on_when_space_returns_and_gives_up_when_told() {
        let full = || Error::new(ErrorKind::DiskFull, "no space");
        let disk = FullDisk::default();
        let mut tries = 0;
        let outcome = disk.wait_out("test", || {
            tries += 1;
            if tries < 3 { Err(full()) } else { Ok(tries) }
        });
        assert_eq!(outcome.unwrap(), 3);
        disk.give_up();
        assert_eq!(disk.wait_out::<()>("test", || Err(full())).unwrap_err().kind(), ErrorKind::DiskFull);
    }
}
