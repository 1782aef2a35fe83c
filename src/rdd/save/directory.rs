//! A directory that is there whole or not at all: written aside, made durable, and put in its place.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::store::Disk;

/// What the name of every file begins with that a save writes.
pub(super) const PART: &str = "part-";

/// Fills a directory aside with `fill`, makes it durable and puts it in the place of `target`, which may
/// be there from an earlier save.
pub(super) fn replace_directory(
    disk: &Disk,
    target: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let name = target.file_name().ok_or_else(|| {
        let message = format!("`{}` does not end in a name to save under", target.display());
        Error::new(ErrorKind::InvalidConfig, message)
    })?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    refuse_foreign(target)?;
    create_parents(disk, parent)?;
    let sibling = |mark: &str| {
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(mark);
        parent.join(hidden)
    };
    let (aside, replaced) = (sibling(".tmp"), sibling(".old"));
    disk.remove_dir_all(&aside)?;
    disk.remove_dir_all(&replaced)?;
    create(disk, &aside)?;
    let place = |cause| Error::io(format!("set the permissions of {}", aside.display()), cause);
    // What is not whole yet is nobody else's to read, nor to put links into.
    let shown = fs::metadata(&aside).map_err(place)?.permissions();
    fs::set_permissions(&aside, Permissions::from_mode(0o700)).map_err(place)?;
    fill(&aside)?;
    fs::set_permissions(&aside, shown).map_err(place)?;
    disk.sync_dir(&aside)?;
    if target.exists() {
        disk.rename(target, &replaced)?;
    }
    disk.rename(&aside, target)?;
    disk.sync_dir(parent)?;
    disk.remove_dir_all(&replaced)
}

/// What a save did not write is not its to replace.
fn refuse_foreign(target: &Path) -> Result<()> {
    let foreign = |what: String| {
        let message = format!("{} {what}: it is left alone, save under another name", target.display());
        Err(Error::new(ErrorKind::Incompatible, message))
    };
    if target.is_symlink() {
        return foreign("is a symbolic link".to_owned());
    }
    let listed = match fs::read_dir(target) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>(),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotADirectory && target.exists() => {
            return foreign("is a file".to_owned());
        }
        Err(cause) => Err(cause),
    };
    let entries = listed.map_err(|cause| Error::io(format!("list {}", target.display()), cause))?;
    let mut names = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned());
    match names.find(|name| !name.starts_with(PART)) {
        Some(name) => foreign(format!("holds `{name}`, which no save writes")),
        None => Ok(()),
    }
}

/// Makes the directories above durable one by one, the outermost first.
fn create_parents(disk: &Disk, parent: &Path) -> Result<()> {
    let missing: Vec<PathBuf> = parent
        .ancestors()
        .take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists())
        .map(Path::to_owned)
        .collect();
    for dir in missing.iter().rev() {
        create(disk, dir)?;
        match dir.parent() {
            Some(above) if !above.as_os_str().is_empty() => disk.sync_dir(above)?,
            _ => disk.sync_dir(Path::new("."))?,
        }
    }
    Ok(())
}

/// With the permissions that the process gives to what it makes: what is saved is for others to read.
fn create(disk: &Disk, dir: &Path) -> Result<()> {
    disk.step("create directory", dir)?;
    fs::create_dir(dir).map_err(|cause| Error::io(format!("create directory {}", dir.display()), cause))
}
