use std::path::PathBuf;

use crate::dstream::DStream;
use crate::rdd::Record;
use crate::record::Data;

impl<T: Record + Data> DStream<T> {
    /// Writes every batch to a directory of its own, `PREFIX-TIME_MS.SUFFIX`, which
    /// [`read_object_file`](crate::read_object_file) reads back: a file `part-00000.object` and so on per
    /// partition. Exactly-once, as [`save_as_text_files`](DStream::save_as_text_files).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.map(|line| (line, 1u64)).save_as_object_files("out/lines", "objects");
    /// # Ok(()) }
    /// ```
    pub fn save_as_object_files(&self, prefix: impl Into<PathBuf>, suffix: &str) {
        self.add_file_output("save_as_object_files", prefix.into(), suffix, |rdd, path| {
            rdd.save_as_object_file(path)
        });
    }
}
