//! The quarantine: damaged files that nothing refers to any more are moved there, not removed.

use std::path::{Path, PathBuf};

#[cfg(feature = "tool")]
use crate::error::Error;
use crate::error::Result;
use crate::store::{Disk, StorePaths};

/// What was moved, relative to the store: where it was and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) from: PathBuf,
    pub(crate) to: PathBuf,
}

/// Moves files or directories, named relative to the store, to the quarantine under the same names. One
/// that is not there is passed over: an earlier attempt moved it. A rename is one step, so that a crash leaves
/// each of them at one of its two places.
pub(crate) fn move_there(disk: &Disk, paths: &StorePaths, names: &[PathBuf]) -> Result<Vec<Moved>> {
    let mut moved = Vec::new();
    for name in names {
        let from = paths.root.join(name);
        if from.symlink_metadata().is_err() {
            continue;
        }
        let to = free_place(paths, name);
        for dir in [paths.quarantine(), parent_of(&to)] {
            disk.create_dir(&dir)?;
        }
        disk.rename(&from, &to)?;
        // The new name first: a power cut may show the file twice, never not at all.
        disk.sync_dir(&parent_of(&to))?;
        disk.sync_dir(&parent_of(&from))?;
        let to = to.strip_prefix(&paths.root).unwrap_or(&to).to_owned();
        tracing::warn!(from = %name.display(), to = %to.display(), "a damaged file is put into quarantine");
        moved.push(Moved { from: name.clone(), to });
    }
    Ok(moved)
}

/// Puts a copy there, of a file that is about to be replaced.
#[cfg(feature = "tool")]
pub(crate) fn copy_there(disk: &Disk, paths: &StorePaths, name: &Path) -> Result<()> {
    let from = paths.root.join(name);
    let bytes = std::fs::read(&from).map_err(|cause| Error::io(format!("read {}", from.display()), cause))?;
    let to = free_place(paths, name);
    for dir in [paths.quarantine(), parent_of(&to)] {
        disk.create_dir(&dir)?;
    }
    disk.publish(&to, &bytes)
}

/// `quarantine/state/7.segment`, or with a number behind it when there is one already.
fn free_place(paths: &StorePaths, name: &Path) -> PathBuf {
    let place = paths.quarantine().join(name);
    let numbered = |number: u32| PathBuf::from(format!("{}.{number}", place.display()));
    std::iter::once(place.clone())
        .chain((2..).map(numbered))
        .find(|place| place.symlink_metadata().is_err())
        .unwrap_or(place)
}

fn parent_of(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new(".")).to_owned()
}

/// The files in the quarantine, relative to the store, each with its length; in the order of their names.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when listing is refused.
#[cfg(feature = "tool")]
pub(crate) fn list(paths: &StorePaths) -> Result<Vec<(PathBuf, u64)>> {
    let mut files = Vec::new();
    let mut open = vec![paths.quarantine()];
    while let Some(dir) = open.pop() {
        let refused = |cause| Error::io(format!("list {}", dir.display()), cause);
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => continue,
            Err(cause) => return Err(refused(cause)),
        };
        for entry in entries {
            let entry = entry.map_err(refused)?;
            let found = entry.metadata().map_err(refused)?;
            let path = entry.path();
            if found.is_dir() {
                open.push(path);
            } else {
                let name = path.strip_prefix(&paths.root).unwrap_or(&path).to_owned();
                files.push((name, found.len()));
            }
        }
    }
    files.sort_unstable();
    Ok(files)
}
