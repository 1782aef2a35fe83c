//! Saving: an RDD as a directory with a file per partition.

mod directory;
#[cfg(feature = "json")]
mod json_lines;
mod object_file;
#[cfg(feature = "parquet")]
mod parquet;
mod part;
mod text_file;

use std::path::Path;

use crate::error::Result;
use crate::rdd::{Chunks, Rdd, Record};

pub use object_file::{ObjectFile, read_object_file};

use directory::replace_directory;
use part::{PartFile, part_path};

/// Computes a partition, chunk by chunk.
type Compute<'a, T> = dyn FnMut(&mut Chunks<'_, T>) -> Result<()> + 'a;

impl<T: Record> Rdd<T> {
    /// Writes each partition with `write` to a file of its own, in a directory that replaces `path`.
    fn save_parts(
        &self,
        action: &str,
        path: &Path,
        extension: &str,
        write: impl Fn(usize, PartFile, &mut Compute<'_, T>) -> Result<()> + Sync,
    ) -> Result<()> {
        let disk = self.executor.disk();
        replace_directory(disk, path, |aside| {
            self.run(action, |partition, compute| {
                let part = PartFile::create(disk, part_path(aside, partition, extension))?;
                write(partition, part, compute)
            })?;
            Ok(())
        })
    }
}
