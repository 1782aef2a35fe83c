//! Exports as Apache Parquet.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{ArrayRef, BinaryArray, BooleanArray, PrimitiveArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::format::shown::KeyShape;
use crate::format::shown::ValueType;
use crate::inspect::export::{Out, Rows, Shown, write_error};
use crate::inspect::export_table::{Cells, Column, cell_text, columns};
use crate::inspect::view::unhex;

/// So many rows become columns at once.
const BATCH_ROWS: usize = 1 << 14;

/// So many rows are a row group, which is in memory as encoded.
const GROUP_ROWS: usize = 1 << 17;

pub(super) struct ParquetRows<'w> {
    writer: ArrowWriter<Out<'w>>,
    schema: SchemaRef,
    columns: Vec<Column>,
    waiting: Vec<(Value, Value)>,
}

impl<'w> ParquetRows<'w> {
    pub(super) fn begin(
        out: Out<'w>,
        key: Option<&KeyShape>,
        value_type: Option<&ValueType>,
    ) -> Result<Self> {
        let columns = columns(key, value_type);
        let fields = columns.iter().map(|column| Field::new(&column.name, data_type(column.cells), true));
        let schema: SchemaRef = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_max_row_group_row_count(Some(GROUP_ROWS))
            .build();
        let writer = ArrowWriter::try_new(out, schema.clone(), Some(properties)).map_err(parquet_error)?;
        Ok(ParquetRows { writer, schema, columns, waiting: Vec::new() })
    }

    fn flush(&mut self) -> Result<()> {
        let arrays = self.columns.iter().map(|column| {
            let cells = self.waiting.iter().map(|(key, value)| column.cell(key, value));
            array(column.cells, &cells.collect::<Vec<_>>())
        });
        let batch = RecordBatch::try_new(self.schema.clone(), arrays.collect())
            .map_err(|cause| Error::new(ErrorKind::Io, "rows cannot be made columns").caused_by(cause))?;
        self.waiting.clear();
        self.writer.write(&batch).map_err(parquet_error)
    }
}

impl Rows for ParquetRows<'_> {
    fn row(&mut self, key: Shown, value: Shown) -> Result<()> {
        self.waiting.push((key.into_value(), value.into_value()));
        if self.waiting.len() < BATCH_ROWS { Ok(()) } else { self.flush() }
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.flush()?;
        let out = self.writer.into_inner().map_err(parquet_error)?;
        out.flush().map_err(write_error)
    }
}

fn data_type(cells: Cells) -> DataType {
    match cells {
        Cells::Unsigned(1) => DataType::UInt8,
        Cells::Unsigned(2) => DataType::UInt16,
        Cells::Unsigned(4) => DataType::UInt32,
        Cells::Unsigned(_) => DataType::UInt64,
        Cells::Signed(1) => DataType::Int8,
        Cells::Signed(2) => DataType::Int16,
        Cells::Signed(4) => DataType::Int32,
        Cells::Signed(_) => DataType::Int64,
        Cells::Float(4) => DataType::Float32,
        Cells::Float(_) => DataType::Float64,
        Cells::Bool => DataType::Boolean,
        Cells::Bytes => DataType::Binary,
        Cells::Text => DataType::Utf8,
    }
}

fn array(cells: Cells, values: &[Option<&Value>]) -> ArrayRef {
    match cells {
        Cells::Unsigned(1) => unsigned::<UInt8Type>(values),
        Cells::Unsigned(2) => unsigned::<UInt16Type>(values),
        Cells::Unsigned(4) => unsigned::<UInt32Type>(values),
        Cells::Unsigned(_) => unsigned::<UInt64Type>(values),
        Cells::Signed(1) => signed::<Int8Type>(values),
        Cells::Signed(2) => signed::<Int16Type>(values),
        Cells::Signed(4) => signed::<Int32Type>(values),
        Cells::Signed(_) => signed::<Int64Type>(values),
        Cells::Float(4) => numbers::<Float32Type>(values, |value| Some(float(value)? as f32)),
        Cells::Float(_) => numbers::<Float64Type>(values, float),
        Cells::Bool => Arc::new(values.iter().map(|value| (*value)?.as_bool()).collect::<BooleanArray>()),
        Cells::Bytes => Arc::new(values.iter().map(|value| bytes((*value)?)).collect::<BinaryArray>()),
        Cells::Text => Arc::new(values.iter().map(|value| cell_text(*value)).collect::<StringArray>()),
    }
}

fn unsigned<T: ArrowPrimitiveType<Native: TryFrom<u64>>>(values: &[Option<&Value>]) -> ArrayRef {
    numbers::<T>(values, |value| T::Native::try_from(value.as_u64()?).ok())
}

fn signed<T: ArrowPrimitiveType<Native: TryFrom<i64>>>(values: &[Option<&Value>]) -> ArrayRef {
    numbers::<T>(values, |value| T::Native::try_from(value.as_i64()?).ok())
}

fn numbers<T: ArrowPrimitiveType>(
    values: &[Option<&Value>],
    number: impl Fn(&Value) -> Option<T::Native>,
) -> ArrayRef {
    Arc::new(values.iter().map(|value| number((*value)?)).collect::<PrimitiveArray<T>>())
}

/// What JSON has no number for is text.
fn float(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str()?.parse().ok())
}

/// What is no text has hexadecimal digits.
fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        value => unhex(value.get("hex")?.as_str()?),
    }
}

fn parquet_error(cause: ParquetError) -> Error {
    match cause {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(cause) => write_error(*cause),
            Err(cause) => Error::new(ErrorKind::Io, "write Parquet").caused_by(cause),
        },
        cause => Error::new(ErrorKind::Io, "write Parquet").caused_by(cause),
    }
}
