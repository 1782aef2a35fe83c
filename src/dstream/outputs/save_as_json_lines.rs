use std::path::PathBuf;

use serde::Serialize;

use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record + Serialize> DStream<T> {
    /// Writes every batch to a directory of its own, `PREFIX-TIME_MS.SUFFIX`: a file `part-00000.jsonl` and so on
    /// per partition, a JSON value per line (feature `json`). Exactly-once, as
    /// [`save_as_text_files`](DStream::save_as_text_files).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// lines.map(|line| (line.len(), line.to_string())).save_as_json_lines("out/lines", "json");
    /// # Ok(()) }
    /// ```
    pub fn save_as_json_lines(&self, prefix: impl Into<PathBuf>, suffix: &str) {
        self.add_file_output("save_as_json_lines", prefix.into(), suffix, |rdd, path| {
            rdd.save_as_json_lines(path)
        });
    }
}
