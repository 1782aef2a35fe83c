//! Exports as comma-separated values.

use csv::{Terminator, Writer, WriterBuilder};

use crate::error::Result;
use crate::format::shown::KeyShape;
use crate::format::shown::ValueType;
use crate::inspect::export::{Out, Rows, Shown, write_error};
use crate::inspect::export_table::{Column, cell_text, columns};

/// Rows as RFC 4180 has them. What is absent or null is an empty field.
pub(super) struct CsvRows<'w> {
    writer: Writer<Out<'w>>,
    columns: Vec<Column>,
}

impl<'w> CsvRows<'w> {
    pub(super) fn begin(
        out: Out<'w>,
        key: Option<&KeyShape>,
        value_type: Option<&ValueType>,
    ) -> Result<Self> {
        let mut writer = WriterBuilder::new().terminator(Terminator::CRLF).from_writer(out);
        let columns = columns(key, value_type);
        writer.write_record(columns.iter().map(|column| &column.name)).map_err(csv_error)?;
        Ok(CsvRows { writer, columns })
    }
}

impl Rows for CsvRows<'_> {
    fn row(&mut self, key: Shown, value: Shown) -> Result<()> {
        let (key, value) = (key.into_value(), value.into_value());
        let cells =
            self.columns.iter().map(|column| cell_text(column.cell(&key, &value)).unwrap_or_default());
        self.writer.write_record(cells).map_err(csv_error)
    }

    fn finish(mut self: Box<Self>) -> Result<()> {
        self.writer.flush().map_err(write_error)
    }
}

fn csv_error(cause: csv::Error) -> crate::error::Error {
    write_error(match cause.into_kind() {
        csv::ErrorKind::Io(cause) => cause,
        other => std::io::Error::other(format!("{other:?}")),
    })
}
