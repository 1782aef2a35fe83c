//! The operations that change the disk, each a step that a [`FaultPlan`] can stop at.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::store::fault::{FaultPlan, Step, before_read};

/// The file system, through which every change of the store goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    faults: Option<Arc<FaultPlan>>,
}

/// Options for files that only their owner may read.
pub(crate) fn open_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

impl Disk {
    pub(crate) fn with_faults(faults: Option<Arc<FaultPlan>>) -> Self {
        Disk { faults }
    }

    /// Counts a step of something that is not a plain file operation.
    pub(crate) fn step(&self, what: &'static str, path: &Path) -> Result<()> {
        match self.faults.as_ref().map(|faults| faults.step(what, path)).transpose()? {
            None | Some(Step::Whole) => Ok(()),
            Some(Step::Torn(error)) => Err(error),
        }
    }

    /// What is read below `root` counts too.
    #[cfg(any(test, feature = "testkit"))]
    pub(crate) fn watch_reads(&self, root: &Path) {
        if let Some(faults) = &self.faults {
            crate::store::fault::watch_reads(root, faults);
        }
    }

    /// Whether a test wants the sweep behind a start to wait.
    pub(crate) fn holds_sweep(&self) -> bool {
        self.faults.as_ref().is_some_and(|faults| faults.holds_sweep())
    }

    /// Whether a test wants checkpoints written before the next batch begins.
    pub(crate) fn is_in_order(&self) -> bool {
        self.faults.as_ref().is_some_and(|faults| faults.is_in_order())
    }

    pub(crate) fn create_dir(&self, path: &Path) -> Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        self.step("create directory", path)?;
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(path);
        made.map_err(|cause| Error::io(format!("create directory {}", path.display()), cause))?;
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => self.sync_dir(parent),
            _ => Ok(()),
        }
    }

    /// A new file; it must not exist.
    pub(crate) fn create_file(&self, path: &Path) -> Result<File> {
        self.step("create file", path)?;
        let file = open_options().write(true).read(true).create_new(true).open(path);
        file.map_err(|cause| Error::io(format!("create {}", path.display()), cause))
    }

    pub(crate) fn write(&self, file: &mut File, bytes: &[u8], path: &Path) -> Result<()> {
        let context = |cause| Error::io(format!("write to {}", path.display()), cause);
        if let Some(faults) = &self.faults
            && let Step::Torn(error) = faults.step("write", path)?
        {
            file.write_all(&bytes[..bytes.len() / 2]).map_err(context)?;
            return Err(error);
        }
        file.write_all(bytes).map_err(context)
    }

    /// Overwrites a few bytes that fit one sector.
    pub(crate) fn write_at(&self, file: &File, bytes: &[u8], path: &Path) -> Result<()> {
        self.step("overwrite", path)?;
        file.write_all_at(bytes, 0).map_err(|cause| Error::io(format!("write to {}", path.display()), cause))
    }

    /// Makes the file's bytes and length durable.
    pub(crate) fn sync(&self, file: &File, path: &Path) -> Result<()> {
        self.step("sync", path)?;
        file.sync_data().map_err(|cause| Error::io(format!("sync {}", path.display()), cause))
    }

    /// Makes the bytes of a file that an earlier process wrote durable; one that is not there is no error.
    pub(crate) fn sync_existing(&self, path: &Path) -> Result<()> {
        match File::open(path) {
            Ok(file) => self.sync(&file, path),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(cause) => Err(Error::io(format!("open {}", path.display()), cause)),
        }
    }

    /// Makes the names in a directory durable.
    pub(crate) fn sync_dir(&self, path: &Path) -> Result<()> {
        self.step("sync directory", path)?;
        let synced = File::open(path).and_then(|dir| dir.sync_all());
        synced.map_err(|cause| Error::io(format!("sync directory {}", path.display()), cause))
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.step("rename", to)?;
        fs::rename(from, to)
            .map_err(|cause| Error::io(format!("rename {} to {}", from.display(), to.display()), cause))
    }

    /// Writes `bytes` aside, makes them durable and renames them to `path`.
    pub(crate) fn publish(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let aside = path.with_extension("tmp");
        self.remove_file(&aside)?;
        let mut file = self.create_file(&aside)?;
        self.write(&mut file, bytes, &aside)?;
        self.sync(&file, &aside)?;
        self.rename(&aside, path)?;
        self.sync_dir(path.parent().unwrap_or(Path::new(".")))
    }

    /// Removes a file; one that is not there is no error.
    pub(crate) fn remove_file(&self, path: &Path) -> Result<()> {
        self.step("remove file", path)?;
        match fs::remove_file(path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove {}", path.display()), cause))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn remove_dir_all(&self, path: &Path) -> Result<()> {
        self.step("remove directory", path)?;
        match fs::remove_dir_all(path) {
            Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove directory {}", path.display()), cause))
            }
            _ => Ok(()),
        }
    }
}

/// Opens a stored file to read it.
pub(crate) fn open_to_read(path: &Path) -> std::io::Result<File> {
    before_read("open", path)?;
    File::open(path)
}

/// Reads exactly `length` bytes at `offset`; the caller has checked them against the file's length.
pub(crate) fn read_at(file: &File, offset: u64, length: usize, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let read = read_into(file, offset, &mut bytes, path);
    read.map_err(|cause| Error::io(format!("read {length} bytes at {offset} of {}", path.display()), cause))?;
    Ok(bytes)
}

/// Reads at `offset` as many bytes as there is room for.
pub(crate) fn read_into(file: &File, offset: u64, bytes: &mut [u8], path: &Path) -> std::io::Result<()> {
    before_read("read", path)?;
    file.read_exact_at(bytes, offset)
}

/// Reads a file that must be at most `most` bytes long; `None` when it is not there.
pub(crate) fn read_small(path: &Path, most: u64) -> Result<Option<Vec<u8>>> {
    let file = match open_to_read(path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::io(format!("open {}", path.display()), cause)),
    };
    let mut bytes = Vec::new();
    let read = before_read("read", path).and_then(|()| file.take(most + 1).read_to_end(&mut bytes));
    read.map_err(|cause| Error::io(format!("read {}", path.display()), cause))?;
    if bytes.len() as u64 > most {
        return Err(Error::corrupt(format!("{} is longer than {most} bytes", path.display())));
    }
    Ok(Some(bytes))
}
