//! A copy of a store.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// A store directory as it was at one moment, held in memory: to go back to it, to begin several jobs from it, or to
/// compare. Take it of a store on which no job runs.
///
/// ```
/// # fn main() -> millpond::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// use millpond::testkit::{ManualClock, StoreSnapshot};
/// use millpond::{StopMode, StreamingContext};
///
/// let count_to = |store: &std::path::Path, numbers: Vec<u64>| -> millpond::Result<Option<u64>> {
///     let context = StreamingContext::builder("doc").store(store).clock(ManualClock::at(0)).build()?;
///     let (stream, queue) = context.queue_stream::<u64>("numbers");
///     let _sums = stream.map(|n| ((), n)).update_state_by_key("sum", |new, sum: Option<u64>| {
///         Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
///     });
///     let job = context.start()?;
///     queue.push(numbers)?;
///     job.stop(StopMode::Graceful)?;
///     job.state::<(), u64>("sum")?.get(&())
/// };
/// let (store, other) = (dir.path().join("store"), dir.path().join("other"));
/// assert_eq!(count_to(&store, vec![1, 2])?, Some(3));
/// let snapshot = StoreSnapshot::take(&store)?;
/// assert_eq!(count_to(&store, vec![10])?, Some(13));
/// snapshot.restore(&other)?;
/// assert_eq!(count_to(&other, vec![100])?, Some(103));
/// assert!(!snapshot.differences(&StoreSnapshot::take(&store)?).is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSnapshot {
    /// A directory has no bytes.
    entries: BTreeMap<PathBuf, Option<Vec<u8>>>,
}

impl StoreSnapshot {
    /// Copies everything below `store`.
    ///
    /// # Errors
    /// When the directory or a file in it cannot be read.
    pub fn take(store: &Path) -> Result<Self> {
        let mut entries = BTreeMap::new();
        let mut dirs = vec![PathBuf::new()];
        while let Some(dir) = dirs.pop() {
            let path = store.join(&dir);
            let failed = |cause| Error::io(format!("copy {}", path.display()), cause);
            for entry in fs::read_dir(&path).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name = dir.join(entry.file_name());
                if entry.file_type().map_err(failed)?.is_dir() {
                    entries.insert(name.clone(), None);
                    dirs.push(name);
                } else {
                    entries.insert(name, Some(fs::read(entry.path()).map_err(failed)?));
                }
            }
        }
        Ok(StoreSnapshot { entries })
    }

    /// Puts the store in place of whatever is in `store`.
    ///
    /// # Errors
    /// When something there cannot be removed or written.
    pub fn restore(&self, store: &Path) -> Result<()> {
        let restored = || {
            if store.exists() {
                fs::remove_dir_all(store)?;
            }
            let make_dir = |dir: &Path| fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            make_dir(store)?;
            for (name, bytes) in &self.entries {
                let path = store.join(name);
                match bytes {
                    None => make_dir(&path)?,
                    Some(bytes) => {
                        let mut file =
                            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
                        std::io::Write::write_all(&mut file, bytes)?;
                    }
                }
            }
            Ok(())
        };
        restored().map_err(|cause| Error::io(format!("restore {}", store.display()), cause))
    }

    /// What is in one of two copies alone or differs, a line for each.
    pub fn differences(&self, other: &StoreSnapshot) -> Vec<String> {
        let names: std::collections::BTreeSet<_> = self.entries.keys().chain(other.entries.keys()).collect();
        let told = |name: &PathBuf| {
            let what = match (self.entries.get(name), other.entries.get(name)) {
                (Some(_), None) => "is only in the first".to_owned(),
                (None, _) => "is only in the second".to_owned(),
                (Some(one), Some(two)) if one == two => return None,
                (Some(one), Some(two)) => {
                    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
                    format!("differs: {} and {} bytes", length(one), length(two))
                }
            };
            Some(format!("{} {what}", name.display()))
        };
        names.into_iter().filter_map(told).collect()
    }
}
