use std::fmt::Display;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::dstream::DStream;
use crate::error::{Error, Result};
use crate::rdd::{Rdd, Record};

impl<T: Record + Display> DStream<T> {
    /// Writes every batch to a directory of its own, `PREFIX-TIME_MS` or, with a suffix,
    /// `PREFIX-TIME_MS.SUFFIX`: a file `part-00000` and so on per partition, a line per record as it
    /// displays.
    ///
    /// Exactly-once: the directory is written aside, synced and renamed, and a batch that is emitted again
    /// replaces it by the same content. A directory under the final name is always complete.
    pub fn save_as_text_files(&self, prefix: impl Into<PathBuf>, suffix: &str) {
        let prefix = prefix.into();
        let suffix = if suffix.is_empty() { String::new() } else { format!(".{suffix}") };
        self.add_output("save_as_text_files", move |rdd, info| {
            let mut name = prefix.file_name().unwrap_or_default().to_os_string();
            name.push(format!("-{}{suffix}", info.time.0));
            let target = prefix.with_file_name(name);
            Ok(replace_directory(&target, |aside| write_parts(&rdd, aside))?)
        });
    }
}

fn io_error(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("{what} {}", path.display());
    |cause| Error::io(what, cause)
}

/// Fills a directory aside with `fill`, makes it durable and puts it in the place of `target`.
fn replace_directory(target: &Path, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let sibling = |mark: &str| {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        parent.join(format!(".{name}.{mark}"))
    };
    let (aside, replaced) = (sibling("tmp"), sibling("old"));
    for left_over in [&aside, &replaced] {
        remove_directory(left_over)?;
    }
    fs::create_dir_all(&aside).map_err(io_error("create directory", &aside))?;
    fill(&aside)?;
    sync_directory(&aside)?;
    if target.exists() {
        fs::rename(target, &replaced).map_err(io_error("rename", target))?;
    }
    fs::rename(&aside, target).map_err(io_error("rename", &aside))?;
    sync_directory(parent)?;
    remove_directory(&replaced)
}

fn remove_directory(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(io_error("remove", path)(cause)),
        _ => Ok(()),
    }
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_error("sync directory", path))
}

fn write_parts<T: Record + Display>(rdd: &Rdd<T>, dir: &Path) -> Result<()> {
    rdd.for_each_partition(|partition, records| {
        let path = dir.join(format!("part-{partition:05}"));
        let write = || {
            let mut file = BufWriter::new(File::create(&path)?);
            for record in &records {
                writeln!(file, "{record}")?;
            }
            file.into_inner().map_err(|error| error.into_error())?.sync_all()
        };
        write().map_err(io_error("write", &path))
    })
}
