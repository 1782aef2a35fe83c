//! Telling whether a directory is a store at all.

use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::format::FORMAT_VERSION_OLDEST;
use crate::store::{Identity, StorePaths};

/// A store that is only read.
pub(crate) struct ReadStore {
    pub(crate) paths: StorePaths,
    pub(crate) identity: Identity,
    pub(crate) format_version: u16,
}

/// Opens the store in `dir`.
///
/// # Errors
/// [`ErrorKind::Incompatible`] when it is none or of a newer version, [`ErrorKind::Corrupt`] when its
/// identity is damaged or gone.
pub(crate) fn open(dir: &Path) -> Result<ReadStore> {
    let io = |cause| Error::io(format!("read {}", dir.display()), cause);
    let found = match std::fs::metadata(dir) {
        Ok(found) => found,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            return Err(no_store(dir, "it does not exist"));
        }
        Err(cause) => return Err(io(cause)),
    };
    if !found.is_dir() {
        return Err(no_store(dir, "it is no directory"));
    }
    let mut entries = std::fs::read_dir(dir).map_err(io)?;
    if entries.next().is_none() {
        return Err(no_store(dir, "it is empty"));
    }
    let paths = StorePaths::new(dir);
    match Identity::read(&paths)? {
        Some(identity) => {
            let format_version = Identity::format_version(&paths)?.unwrap_or(FORMAT_VERSION_OLDEST);
            Ok(ReadStore { paths, identity, format_version })
        }
        None if has_epochs(&paths) => {
            Err(Error::corrupt(format!("{} is missing: put it back from a copy", paths.identity().display())))
        }
        None => Err(no_store(dir, "it has no millpond.id")),
    }
}

fn no_store(dir: &Path, why: &str) -> Error {
    Error::new(ErrorKind::Incompatible, format!("{} is not a millpond store: {why}", dir.display()))
}

/// Whether there is something that only a store has.
fn has_epochs(paths: &StorePaths) -> bool {
    let begun = crate::store::catalog::list_epochs(paths).is_ok_and(|epochs| !epochs.is_empty());
    begun && paths.log().is_dir() && paths.state().is_dir()
}

impl ReadStore {
    /// The identity as hexadecimal digits.
    pub(crate) fn id(&self) -> String {
        self.identity.store.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A message with the paths in it made relative to the store.
pub(crate) fn relative(paths: &StorePaths, text: &str) -> String {
    let root = format!("{}{}", paths.root.display(), std::path::MAIN_SEPARATOR);
    text.replace(&root, "")
}
