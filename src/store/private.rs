//! A store is its owner's alone: nobody else can read it, and no symbolic link in it leads elsewhere.

use std::fs::{self, File, Metadata, Permissions};
use std::io::ErrorKind::NotFound;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

use crate::error::{Error, ErrorKind, Result};
use crate::store::StorePaths;

/// What the group and everybody else may do.
const OTHERS: u32 = 0o077;

/// Takes from everything in a store what others are allowed, as after it was copied or restored; what sled makes
/// has the permissions of the process. The path of the store itself may be a link, nothing in it may.
///
/// # Errors
/// [`ErrorKind::Incompatible`] when there is a symbolic link, which somebody put there.
pub(crate) fn make_private(paths: &StorePaths) -> Result<()> {
    make_below_private(&paths.root)
}

/// As [`make_private`] for one directory.
pub(super) fn make_below_private(root: &Path) -> Result<()> {
    let io = |path: &Path, cause| Error::io(format!("look at {}", path.display()), cause);
    // The directory itself first: from then on nobody else gets at what is in it.
    tighten(root, &fs::metadata(root).map_err(|cause| io(root, cause))?)?;
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = match fs::read_dir(&dir) {
            // A running job, whose lock is asked for next, has removed it.
            Err(cause) if cause.kind() == NotFound && dir != root => continue,
            entries => entries.map_err(|cause| io(&dir, cause))?,
        };
        for entry in entries {
            let path = entry.map_err(|cause| io(&dir, cause))?.path();
            let found = match path.symlink_metadata() {
                Err(cause) if cause.kind() == NotFound => continue,
                found => found.map_err(|cause| io(&path, cause))?,
            };
            if found.is_symlink() {
                let message = format!("{} is a symbolic link: a store has none in it", path.display());
                return Err(Error::new(ErrorKind::Incompatible, message));
            }
            tighten(&path, &found)?;
            if found.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(())
}

fn tighten(path: &Path, found: &Metadata) -> Result<()> {
    let mode = found.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(mode & 0o7777 & !OTHERS)) {
        Err(cause) if cause.kind() == NotFound => Ok(()),
        tightened => {
            tightened.map_err(|cause| Error::io(format!("keep {} from other users", path.display()), cause))
        }
    }
}

/// A temporary directory that nobody else can look into; gone when it is dropped.
pub(crate) fn private_tempdir(prefix: &str) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let made = builder.prefix(prefix).permissions(Permissions::from_mode(0o700)).tempdir();
    made.map_err(|cause| Error::io("make a temporary directory", cause))
}

/// A temporary file without a name, which is nobody else's either; gone when it is dropped.
pub(crate) fn private_tempfile() -> std::io::Result<File> {
    let file = tempfile::tempfile()?;
    // It comes with the permissions of the process.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}
