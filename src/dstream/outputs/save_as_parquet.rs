use std::path::PathBuf;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;

use crate::dstream::DStream;
use crate::rdd::Record;
use crate::sink::OutputError;

impl<T: Record> DStream<T> {
    /// Writes every batch to a directory of its own, `PREFIX-TIME_MS.SUFFIX`: a file `part-00000.parquet` and so on
    /// per partition (feature `parquet`). `to_columns` turns some records into Arrow columns of the schema; see
    /// [`Rdd::save_as_parquet`](crate::Rdd::save_as_parquet). Exactly-once, as
    /// [`save_as_text_files`](DStream::save_as_text_files).
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// use std::sync::Arc;
    /// use millpond::arrow_array::{RecordBatch, UInt64Array};
    /// use millpond::arrow_schema::{DataType, Field, Schema};
    ///
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
    /// let schema = Arc::new(Schema::new(vec![Field::new("length", DataType::UInt64, false)]));
    /// let columns = schema.clone();
    /// lines.map(|line| line.len() as u64).save_as_parquet("out/lengths", "", schema, move |lengths| {
    ///     let lengths = UInt64Array::from_iter_values(lengths.iter().copied());
    ///     Ok(RecordBatch::try_new(columns.clone(), vec![Arc::new(lengths)])?)
    /// });
    /// # Ok(()) }
    /// ```
    pub fn save_as_parquet(
        &self,
        prefix: impl Into<PathBuf>,
        suffix: &str,
        schema: SchemaRef,
        to_columns: impl Fn(&[T]) -> Result<RecordBatch, OutputError> + Send + Sync + 'static,
    ) {
        self.add_file_output("save_as_parquet", prefix.into(), suffix, move |rdd, path| {
            rdd.save_as_parquet(path, schema.clone(), &to_columns)
        });
    }
}
