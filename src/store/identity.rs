//! The file that says whose store this is.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::format::frame::{FrameKind, decode_frame, encode_frame};
use crate::store::StorePaths;
use crate::store::disk::{Disk, read_small};

/// A store's identity: 16 random bytes, repeated in every file so that files of another store are told
/// apart, and the name of its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) store: [u8; 16],
    pub(crate) job: String,
}

impl Identity {
    /// The identity of an existing store; `None` where there is none yet.
    pub(crate) fn read(paths: &StorePaths) -> Result<Option<Self>> {
        let path = paths.identity();
        let Some(bytes) = read_small(&path, 4096)? else {
            return Ok(None);
        };
        let parsed = decode_frame(&bytes).and_then(|(header, payload)| {
            header.expect(FrameKind::Identity)?;
            Identity::parse(payload).ok_or_else(|| Error::corrupt("no valid identity"))
        });
        parsed.map(Some).map_err(|error| error.within(path.display()))
    }

    /// The version of the format that the store was made with; `None` where there is none yet.
    #[cfg(feature = "tool")]
    pub(crate) fn format_version(paths: &StorePaths) -> Result<Option<u16>> {
        let bytes = read_small(&paths.identity(), 4096)?;
        Ok(bytes.and_then(|bytes| Some(u16::from_le_bytes(bytes.get(4..6)?.try_into().ok()?))))
    }

    fn parse(payload: &[u8]) -> Option<Self> {
        let (store, job) = payload.split_first_chunk::<16>()?;
        Some(Identity { store: *store, job: String::from_utf8(job.to_vec()).ok()? })
    }

    /// Writes the identity of a store that has lost its own.
    #[cfg(feature = "tool")]
    pub(crate) fn write_again(&self, paths: &StorePaths, disk: &Disk) -> Result<()> {
        let payload = [&self.store[..], self.job.as_bytes()].concat();
        disk.publish(&paths.identity(), &encode_frame(FrameKind::Identity, 0, &payload)?)
    }

    pub(crate) fn create(paths: &StorePaths, job: &str, disk: &Disk) -> Result<Self> {
        let half = || RandomState::new().hash_one(job).to_le_bytes();
        let mut store = [0; 16];
        store[..8].copy_from_slice(&half());
        store[8..].copy_from_slice(&half());
        let payload = [&store[..], job.as_bytes()].concat();
        disk.publish(&paths.identity(), &encode_frame(FrameKind::Identity, 0, &payload)?)?;
        Ok(Identity { store, job: job.to_owned() })
    }

    pub(crate) fn for_job(self, job: &str, root: &Path) -> Result<Self> {
        if self.job == job {
            return Ok(self);
        }
        let message = format!("{} is the store of job `{}`, not of `{job}`", root.display(), self.job);
        Err(Error::new(ErrorKind::Incompatible, message))
    }
}

/// A directory with anything in it but no identity is not ours, and nothing is put into it. What an
/// interrupted creation leaves behind is no obstacle.
pub(crate) fn refuse_foreign_directory(paths: &StorePaths) -> Result<()> {
    let root = &paths.root;
    if paths.identity().exists() || !root.exists() {
        return Ok(());
    }
    let entries =
        std::fs::read_dir(root).map_err(|cause| Error::io(format!("list {}", root.display()), cause))?;
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io(format!("list {}", root.display()), cause))?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let begun = matches!(&*name, "lock" | "millpond.tmp")
            || (matches!(&*name, "epochs" | "log" | "state") && is_empty_dir(&entry.path()));
        if !begun {
            let message =
                format!("{} is not a millpond store: it holds `{name}` but no millpond.id", root.display());
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
    }
    Ok(())
}

fn is_empty_dir(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn a_store_belongs_to_one_job_and_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        let store = Store::open(&root, "counts", Disk::default()).unwrap();
        let second = Store::open(&root, "counts", Disk::default()).unwrap_err();
        assert_eq!(second.kind(), ErrorKind::Locked);
        let identity = store.identity.clone();
        drop(store);
        assert_eq!(Store::open(&root, "counts", Disk::default()).unwrap().identity, identity);
        let other = Store::open(&root, "other", Disk::default()).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::Incompatible);
    }

    #[test]
    fn a_directory_that_is_not_ours_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("thesis.tex"), "precious").unwrap();
        let error = Store::open(dir.path(), "counts", Disk::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible);
        assert!(error.to_string().contains("thesis.tex"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_identity_is_told_from_a_newer_one() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("store");
        drop(Store::open(&root, "counts", Disk::default()).unwrap());
        let path = root.join("millpond.id");
        let good = std::fs::read(&path).unwrap();
        let mut newer = good.clone();
        newer[4] = 200;
        std::fs::write(&path, newer).unwrap();
        assert_eq!(
            Store::open(&root, "counts", Disk::default()).unwrap_err().kind(),
            ErrorKind::Incompatible
        );
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(Store::open(&root, "counts", Disk::default()).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
