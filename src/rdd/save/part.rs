//! The file of one partition.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::rdd::save::directory::PART;
use crate::store::Disk;

/// Where the partition's file is.
pub(super) fn part_path(dir: &Path, partition: usize, extension: &str) -> PathBuf {
    dir.join(format!("{PART}{partition:05}{extension}"))
}

/// A file that is being written, through a buffer.
pub(super) struct PartFile {
    steps: BufWriter<Steps>,
}

struct Steps {
    disk: Disk,
    file: File,
    path: PathBuf,
}

impl PartFile {
    /// An attempt before this one may have left a file: it is begun anew.
    pub(super) fn create(disk: &Disk, path: PathBuf) -> Result<Self> {
        disk.step("create file", &path)?;
        let file = File::create(&path);
        let file = file.map_err(|cause| Error::io(format!("create {}", path.display()), cause))?;
        Ok(PartFile { steps: BufWriter::new(Steps { disk: disk.clone(), file, path }) })
    }

    /// An error met while writing, as the crate's own.
    pub(super) fn error(&self, cause: io::Error) -> Error {
        own_error(cause, &self.steps.get_ref().path)
    }

    /// Makes the file durable.
    pub(super) fn finish(mut self) -> Result<()> {
        self.steps.flush().map_err(|cause| self.error(cause))?;
        let Steps { disk, file, path } = self.steps.get_ref();
        disk.sync(file, path)
    }
}

/// What the disk reported passes through `io::Write` as a cause.
fn own_error(cause: io::Error, path: &Path) -> Error {
    cause.downcast::<Error>().unwrap_or_else(|cause| Error::io(format!("write to {}", path.display()), cause))
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.steps.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.steps.flush()
    }
}

impl Write for Steps {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.disk.write(&mut self.file, bytes, &self.path).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
