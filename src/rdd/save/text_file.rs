use std::fmt::Display;
use std::io::Write;
use std::path::Path;

use crate::error::Result;
use crate::rdd::{Rdd, Record};

impl<T: Record + Display> Rdd<T> {
    /// Writes the RDD to the directory `path`: a file `part-00000` and so on per partition, a line per record as
    /// it displays. An action; partitions are written on the job's threads.
    ///
    /// The directory is written aside, synced and renamed: under `path` it is always complete. One that an
    /// earlier save left there is replaced, so that a replay that saves again changes nothing. Directories above
    /// it are made.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("lines");
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// lines.save_as_text_file(&path)?;
    /// # Ok(()) });
    /// assert_eq!(std::fs::read_to_string(path.join("part-00000")).unwrap(), "a\nb\n");
    /// ```
    ///
    /// # Errors
    /// * [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when there is something under `path` that no
    ///   save wrote; it is left alone.
    /// * [`ErrorKind::Io`](crate::ErrorKind::Io) or [`ErrorKind::DiskFull`](crate::ErrorKind::DiskFull), naming
    ///   the path.
    /// * When a task failed on every attempt.
    pub fn save_as_text_file(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_parts("save_as_text_file", path.as_ref(), "", |_, mut part, compute| {
            compute(&mut |chunk| {
                let mut lines = chunk.iter();
                lines.try_for_each(|record| writeln!(part, "{record}")).map_err(|cause| part.error(cause))
            })?;
            part.finish()
        })
    }
}
