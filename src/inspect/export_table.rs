//! Keys and values as rows of a table: which columns types come to, and what is in them.

use serde_json::Value;

use crate::format::shown::KeyShape;
use crate::format::shown::schema::{Field, Kind, Type};
use crate::format::shown::value::{Layout, ValueType};

/// A column.
pub(super) struct Column {
    pub(super) name: String,
    is_key: bool,
    /// The way to the cell in the JSON of the key or value.
    path: Vec<String>,
    #[cfg_attr(not(feature = "parquet"), allow(dead_code, reason = "CSV has no types"))]
    pub(super) cells: Cells,
}

/// What is in a column.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(not(feature = "parquet"), allow(dead_code, reason = "CSV has no types"))]
pub(super) enum Cells {
    /// The number of bytes, 8 at most.
    Unsigned(usize),
    Signed(usize),
    Float(usize),
    Bool,
    Bytes,
    /// Text, and whatever else as JSON.
    Text,
}

impl Column {
    /// The cell of a row; `None` where there is none.
    pub(super) fn cell<'v>(&self, key: &'v Value, value: &'v Value) -> Option<&'v Value> {
        let root = if self.is_key { key } else { value };
        let step = |from: &'v Value, step: &String| match from {
            Value::Array(all) => all.get(step.parse::<usize>().ok()?),
            from => from.get(step),
        };
        self.path.iter().try_fold(root, step).filter(|cell| !cell.is_null())
    }
}

/// Text as it is, anything else as JSON; `None` where there is nothing.
pub(super) fn cell_text(cell: Option<&Value>) -> Option<String> {
    let cell = cell?;
    Some(cell.as_str().map_or_else(|| cell.to_string(), str::to_owned))
}

/// The columns of keys and values of these types, `None` for types that are not known.
pub(super) fn columns(key: Option<&KeyShape>, value_type: Option<&ValueType>) -> Vec<Column> {
    let mut columns =
        Columns { all: Vec::new(), is_key: true, name: vec!["key".to_owned()], path: Vec::new() };
    match key {
        Some(shape) => columns.key(shape),
        None => columns.hex("key_hex"),
    }
    (columns.is_key, columns.name) = (false, vec!["value".to_owned()]);
    match value_type.map(|value_type| &value_type.layout) {
        Some(Layout::Archive(root)) => columns.value(root),
        Some(Layout::WithTimers(root)) => {
            columns.within("state", |columns| columns.value(root));
            columns.within("timers", |columns| columns.leaf(Cells::Text));
        }
        Some(Layout::Position) => {
            for word in ["offset", "size", "stamp"] {
                columns.within(word, |columns| columns.leaf(Cells::Unsigned(8)));
            }
        }
        Some(Layout::Chunk(_) | Layout::Pairs(..)) => columns.leaf(Cells::Text),
        None => columns.hex("value_hex"),
    }
    columns.all
}

struct Columns {
    all: Vec<Column>,
    is_key: bool,
    name: Vec<String>,
    path: Vec<String>,
}

impl Columns {
    fn leaf(&mut self, cells: Cells) {
        let column =
            Column { name: self.name.join("."), is_key: self.is_key, path: self.path.clone(), cells };
        self.all.push(column);
    }

    fn hex(&mut self, name: &str) {
        self.all.push(Column {
            name: name.to_owned(),
            is_key: self.is_key,
            path: Vec::new(),
            cells: Cells::Text,
        });
    }

    fn within(&mut self, name: &str, inner: impl FnOnce(&mut Self)) {
        self.name.push(name.to_owned());
        self.path.push(name.to_owned());
        inner(self);
        self.name.pop();
        self.path.pop();
    }

    fn key(&mut self, shape: &KeyShape) {
        match shape {
            KeyShape::Tuple(parts) => {
                for (at, part) in parts.iter().enumerate() {
                    self.within(&at.to_string(), |columns| columns.key(part));
                }
            }
            KeyShape::Unsigned(size @ 0..=8) => self.leaf(Cells::Unsigned(*size)),
            KeyShape::Signed(size @ 0..=8) => self.leaf(Cells::Signed(*size)),
            KeyShape::Bool => self.leaf(Cells::Bool),
            KeyShape::Bytes => self.leaf(Cells::Bytes),
            _ => self.leaf(Cells::Text),
        }
    }

    fn value(&mut self, r#type: &Type) {
        match &r#type.kind {
            Kind::Tuple(fields) => self.fields(fields),
            Kind::Struct(fields) => match &fields[..] {
                [] => self.leaf(Cells::Text),
                // It stands for itself, as in JSON.
                [only] if only.name == "0" => self.value(&only.r#type),
                fields => self.fields(fields),
            },
            Kind::Option(some) => self.leaf(cells_of(some)),
            _ => self.leaf(cells_of(r#type)),
        }
    }

    fn fields(&mut self, fields: &[Field]) {
        for field in fields {
            self.within(&field.name, |columns| columns.value(&field.r#type));
        }
    }
}

fn cells_of(r#type: &Type) -> Cells {
    match r#type.kind {
        Kind::Unsigned if r#type.size <= 8 => Cells::Unsigned(r#type.size),
        Kind::Signed if r#type.size <= 8 => Cells::Signed(r#type.size),
        Kind::Float => Cells::Float(r#type.size),
        Kind::Bool => Cells::Bool,
        Kind::Bytes => Cells::Bytes,
        _ => Cells::Text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(key_type: &str, schema: &str) -> Vec<(String, Cells)> {
        let (key, value) = (KeyShape::of(key_type), ValueType::of("T", schema));
        columns(key.as_ref(), value.as_ref()).into_iter().map(|column| (column.name, column.cells)).collect()
    }

    fn named(names: &[(&str, Cells)]) -> Vec<(String, Cells)> {
        names.iter().map(|(name, cells)| ((*name).to_owned(), *cells)).collect()
    }

    #[test]
    fn fields_are_columns() {
        assert_eq!(
            names("(utf8,i16)", "struct A<40,8>{who:string,at:(u64,option<f64>),tags:list<u8>}"),
            named(&[
                ("key.0", Cells::Text),
                ("key.1", Cells::Signed(2)),
                ("value.who", Cells::Text),
                ("value.at.0", Cells::Unsigned(8)),
                ("value.at.1", Cells::Float(8)),
                ("value.tags", Cells::Text),
            ])
        );
        assert_eq!(
            names("shop::Id", "struct Name<8,4>{0:bytes}"),
            named(&[("key_hex", Cells::Text), ("value", Cells::Bytes)])
        );
        assert_eq!(names("u128", ""), named(&[("key", Cells::Text), ("value_hex", Cells::Text)]));
    }

    #[test]
    fn cells_are_found() {
        let value = serde_json::json!({"who": "Ann", "at": [7, null], "tags": [1, 2]});
        let schema = "struct A<40,8>{who:string,at:(u64,option<f64>),tags:list<u8>}";
        let columns = columns(KeyShape::of("utf8").as_ref(), ValueType::of("T", schema).as_ref());
        let cells = columns.iter().map(|column| cell_text(column.cell(&"k".into(), &value)));
        let expected = [Some("k"), Some("Ann"), Some("7"), None, Some("[1,2]")];
        assert_eq!(cells.collect::<Vec<_>>(), expected.map(|cell| cell.map(str::to_owned)));
    }
}
