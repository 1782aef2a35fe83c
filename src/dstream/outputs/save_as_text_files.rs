use std::fmt::Display;
use std::path::PathBuf;

use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record + Display> DStream<T> {
    /// Writes every batch to a directory of its own, `PREFIX-TIME_MS` or, with a suffix,
    /// `PREFIX-TIME_MS.SUFFIX`: a file `part-00000` and so on per partition, a line per record as it
    /// displays. Directories above it are made.
    ///
    /// Exactly-once: the directory is written aside, synced and renamed, and a batch that is emitted again
    /// replaces it by the same content. A directory under the final name is always complete; while it is being
    /// replaced it is gone for a moment.
    ///
    /// An output fails, is tried again and then stops the job when there is something under a final name that no
    /// save wrote, and when a directory cannot be written; a full disk is waited out.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.save_as_text_files("out/lines", "txt");
    /// # Ok(()) }
    /// ```
    pub fn save_as_text_files(&self, prefix: impl Into<PathBuf>, suffix: &str) {
        self.add_file_output("save_as_text_files", prefix.into(), suffix, |rdd, path| {
            rdd.save_as_text_file(path)
        });
    }
}
