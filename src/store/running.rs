//! Telling whether a job runs on a store, without touching its lock.
//!
//! Trying the lock would take it for an instant, and a job that starts in that instant would be refused. Linux
//! lists who holds which lock; elsewhere, and where the list cannot be read, there is no answer.

use std::fs::{Metadata, metadata, read_to_string};
use std::os::unix::fs::MetadataExt;

use crate::store::StorePaths;

/// Whether a process of this machine holds the lock of the store; `None` when that cannot be told.
pub(crate) fn is_running(paths: &StorePaths) -> Option<bool> {
    match metadata(paths.lock()) {
        Ok(lock) => holds(&read_to_string("/proc/locks").ok()?, &lock),
        // A copy has no lock before it is started.
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Some(false),
        Err(_) => None,
    }
}

/// Whether a line such as `1: FLOCK  ADVISORY  WRITE 4711 08:01:7340052 0 EOF` speaks of the file.
fn holds(locks: &str, lock: &Metadata) -> Option<bool> {
    let (device, inode) = (device_of(lock.dev()), lock.ino().to_string());
    let held = locks.lines().filter_map(|line| line.split_whitespace().find_map(file_of));
    let mut same_inode = held.filter(|(_, held)| *held == inode).peekable();
    if same_inode.peek().is_none() {
        return Some(false);
    }
    // Some file systems show another device in their files' metadata: then it may be another's file.
    same_inode.any(|(on, _)| on == device).then_some(true)
}

/// Device and inode of `08:01:7340052`.
fn file_of(word: &str) -> Option<(&str, &str)> {
    let (device, inode) = word.rsplit_once(':')?;
    (device.contains(':') && !inode.is_empty()).then_some((device, inode))
}

/// Major and minor number as the list of locks shows them.
fn device_of(dev: u64) -> String {
    let major = (dev >> 8 & 0xfff) | (dev >> 32 & !0xfff);
    let minor = (dev & 0xff) | (dev >> 12 & 0xffff_ff00);
    format!("{major:02x}:{minor:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_locks_is_read_for_one_file() {
        let dir = tempfile::tempdir().unwrap();
        let lock = metadata(dir.path()).unwrap();
        let line = |device: &str, inode: u64| {
            format!(
                "1: POSIX  ADVISORY  READ 1 00:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 9 {device}:{inode} 0 EOF\n"
            )
        };
        let device = device_of(lock.dev());
        assert_eq!(holds(&line(&device, lock.ino()), &lock), Some(true));
        assert_eq!(holds(&line("fffff:00", lock.ino()), &lock), None);
        assert_eq!(holds(&line(&device, lock.ino() + 1), &lock), Some(false));
        assert_eq!(holds("", &lock), Some(false));
        assert_eq!(holds("nonsense: a:b :: 1:2:", &lock), Some(false));
    }

    #[test]
    fn devices_are_shown_as_the_kernel_does() {
        assert_eq!(device_of(0x801), "08:01");
        assert_eq!(device_of(0x2000_1233_4545), "2345:12345");
    }
}
