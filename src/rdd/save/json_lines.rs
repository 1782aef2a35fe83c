use std::io::Write;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::rdd::{Rdd, Record};

impl<T: Record + Serialize> Rdd<T> {
    /// Writes the RDD to the directory `path`: a file `part-00000.jsonl` and so on per partition, a JSON value per
    /// line. An action, of the feature `json`; the directory is replaced as by
    /// [`save_as_text_file`](Rdd::save_as_text_file).
    ///
    /// The bytes are the same each time as long as your type serializes to the same: a `HashMap` in it does not.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("counts");
    /// # millpond::doc::run_batch(["a", "bc"], |lines| {
    /// lines.map(|line| (line.to_string(), line.len())).save_as_json_lines(&path)?;
    /// # Ok(()) });
    /// assert_eq!(std::fs::read_to_string(path.join("part-00000.jsonl")).unwrap(), "[\"a\",1]\n[\"bc\",2]\n");
    /// ```
    ///
    /// # Errors
    /// * [`ErrorKind::UserCode`] when a record cannot be serialized.
    /// * As [`save_as_text_file`](Rdd::save_as_text_file).
    pub fn save_as_json_lines(&self, path: impl AsRef<Path>) -> Result<()> {
        self.save_parts("save_as_json_lines", path.as_ref(), ".jsonl", |_, mut part, compute| {
            let mut line = Vec::new();
            compute(&mut |chunk| {
                for record in chunk.iter() {
                    line.clear();
                    serde_json::to_writer(&mut line, record).map_err(|cause| {
                        Error::new(ErrorKind::UserCode, "a record is no JSON").caused_by(cause)
                    })?;
                    line.push(b'\n');
                    part.write_all(&line).map_err(|cause| part.error(cause))?;
                }
                Ok(())
            })?;
            part.finish()
        })
    }
}
