//! Opening the files of others.

use std::fs::File;
use std::io::{Error, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Whether a symbolic link is as good as the file that it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Links {
    Followed,
    /// Only the last part of a path is looked at: the directory is where the job's owner said.
    Refused,
}

/// Opens a regular file to read it. Looking first would not do: what has a name may be another thing by the time it
/// is opened. A pipe in a file's place is not waited for.
pub(super) fn open_regular(path: &Path, links: Links) -> Result<File> {
    let refused = if links == Links::Refused { libc::O_NOFOLLOW } else { 0 };
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | refused).open(path);
    let file = opened.map_err(|cause| match cause.raw_os_error() {
        Some(libc::ELOOP) if links == Links::Refused => Error::other("it is a symbolic link"),
        _ => cause,
    })?;
    if !file.metadata()?.is_file() {
        return Err(Error::other("it is not a regular file"));
    }
    Ok(file)
}
