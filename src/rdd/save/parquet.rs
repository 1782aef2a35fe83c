use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::error::{Error, ErrorKind, Result};
use crate::rdd::save::part::PartFile;
use crate::rdd::{Rdd, Record};

/// So many records become columns at once.
const COLUMN_RECORDS: usize = 1 << 14;

/// What a closure that makes columns may fail with.
type ColumnsError = Box<dyn std::error::Error + Send + Sync>;

impl<T: Record> Rdd<T> {
    /// Writes the RDD to the directory `path`: a file `part-00000.parquet` and so on per partition, compressed with
    /// Snappy. An action, of the feature `parquet`; the directory is replaced as by
    /// [`save_as_text_file`](Rdd::save_as_text_file).
    ///
    /// `to_columns` turns up to 16 384 records of a partition, in their order, into Arrow columns of the schema.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("lengths");
    /// use std::sync::Arc;
    /// use millpond::arrow_array::{RecordBatch, UInt64Array};
    /// use millpond::arrow_schema::{DataType, Field, Schema};
    ///
    /// let schema = Arc::new(Schema::new(vec![Field::new("length", DataType::UInt64, false)]));
    /// # millpond::doc::run_batch(["a", "bc"], |lines| {
    /// lines.save_as_parquet(&path, schema.clone(), |lines| {
    ///     let lengths = UInt64Array::from_iter_values(lines.iter().map(|line| line.len() as u64));
    ///     Ok(RecordBatch::try_new(schema.clone(), vec![Arc::new(lengths)])?)
    /// })?;
    /// # Ok(()) });
    /// assert!(path.join("part-00000.parquet").is_file());
    /// ```
    ///
    /// # Errors
    /// * [`ErrorKind::UserCode`] when `to_columns` fails, or its columns are not of the schema or not one value for
    ///   each record.
    /// * As [`save_as_text_file`](Rdd::save_as_text_file).
    pub fn save_as_parquet(
        &self,
        path: impl AsRef<Path>,
        schema: SchemaRef,
        to_columns: impl Fn(&[T]) -> Result<RecordBatch, ColumnsError> + Sync,
    ) -> Result<()> {
        self.save_parts("save_as_parquet", path.as_ref(), ".parquet", |_, part, compute| {
            let properties = WriterProperties::builder().set_compression(Compression::SNAPPY).build();
            let writer = ArrowWriter::try_new(part, schema.clone(), Some(properties)).map_err(own_error)?;
            let mut columns =
                Columns { writer, to_columns: &to_columns, schema: &schema, waiting: Vec::new() };
            compute(&mut |chunk| {
                columns.waiting.append(chunk);
                if columns.waiting.len() >= COLUMN_RECORDS { columns.flush() } else { Ok(()) }
            })?;
            columns.flush()?;
            columns.writer.into_inner().map_err(own_error)?.finish()
        })
    }
}

struct Columns<'a, T, F> {
    writer: ArrowWriter<PartFile>,
    to_columns: &'a F,
    schema: &'a SchemaRef,
    waiting: Vec<T>,
}

impl<T, F: Fn(&[T]) -> Result<RecordBatch, ColumnsError>> Columns<'_, T, F> {
    fn flush(&mut self) -> Result<()> {
        for records in self.waiting.chunks(COLUMN_RECORDS) {
            let wrong = |message: String| Error::new(ErrorKind::UserCode, message);
            let columns = (self.to_columns)(records)
                .map_err(|cause| wrong("records cannot be made columns".to_owned()).caused_by(cause))?;
            if columns.num_rows() != records.len() || columns.schema().fields() != self.schema.fields() {
                let message = format!("{} records became {} rows", records.len(), columns.num_rows());
                return Err(wrong(format!("{message}, or columns of another schema")));
            }
            self.writer.write(&columns).map_err(own_error)?;
        }
        self.waiting.clear();
        Ok(())
    }
}

/// What the disk reported comes through the library as a cause.
fn own_error(cause: ParquetError) -> Error {
    let other = |cause| Error::new(ErrorKind::Io, "write Parquet").caused_by(cause);
    match cause {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(cause) => match cause.downcast::<Error>() {
                Ok(ours) => ours,
                Err(cause) => Error::io("write Parquet", cause),
            },
            Err(cause) => other(cause),
        },
        cause => other(Box::new(cause)),
    }
}
