//! Exports as lines of JSON.

use serde_json::{Map, Value};

use crate::error::Result;
use crate::inspect::export::{Out, Rows, Shown, write_error};

pub(super) struct JsonLines<'w> {
    pub(super) out: Out<'w>,
}

impl Rows for JsonLines<'_> {
    fn row(&mut self, key: Shown, value: Shown) -> Result<()> {
        let named = |name: &str, shown: Shown| match shown {
            Shown::Json(value) => (name.to_owned(), value),
            Shown::Hex(digits) => (format!("{name}_hex"), Value::String(digits)),
        };
        let line: Map<String, Value> = [named("key", key), named("value", value)].into_iter().collect();
        serde_json::to_writer(&mut self.out, &line).map_err(|cause| write_error(cause.into()))?;
        self.out.write_all(b"\n").map_err(write_error)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.out.flush().map_err(write_error)
    }
}
