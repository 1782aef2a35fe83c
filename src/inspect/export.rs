//! All keys and values of one operator, for other programs.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::format::records::{CheckpointRecord, OperatorRef};
use crate::format::shown::KeyShape;
use crate::format::shown::ValueType;
use crate::inspect::catalog::read_catalog;
use crate::inspect::entries::{find_operator, live_entries, newest_sound};
use crate::inspect::export_csv::CsvRows;
use crate::inspect::export_json::JsonLines;
use crate::inspect::key_text::parse_prefix;
use crate::inspect::open::{ReadStore, open};
use crate::inspect::report::SCHEMA;
use crate::inspect::settle::settled;
use crate::inspect::state::Segments;
use crate::inspect::view::{find_checkpoint, hex, no_such};
use crate::store::disk::open_options;
use crate::store::segments::GroupSource;

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExportFormat {
    /// A JSON object with `key` and `value` per line; what `import` reads.
    Json,
    /// RFC 4180 with a header; fields of structures and tuples are columns with dotted names, lists and maps are JSON.
    Csv,
    /// Apache Parquet with the same columns, typed and compressed with Snappy: with the feature `parquet` only.
    Parquet,
}

/// What is exported.
#[derive(Clone, Debug)]
pub struct ExportQuery {
    /// How it is written.
    pub format: ExportFormat,
    /// Only keys that begin with this: `0x` and hexadecimal digits, or text for keys that are text or bytes.
    pub prefix: Option<String>,
    /// The checkpoint, `None` for the newest sound one.
    pub at: Option<u64>,
}

/// State of one operator that was exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExportReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The checkpoint that was read.
    pub checkpoint: u64,
    /// The last batch whose changes are in it.
    pub batch: u64,
    /// The operator.
    pub operator: String,
    /// The type of its keys.
    pub key_type: String,
    /// The type of its values.
    pub value_type: String,
    /// All keys of the operator.
    pub keys: u64,
    /// The keys that were exported.
    pub exported: u64,
    /// The file, `null` when it went elsewhere.
    pub file: Option<String>,
    /// Always true: a checkpoint that is damaged is an error.
    pub sound: bool,
}

/// A key or a value.
pub(super) enum Shown {
    Json(Value),
    /// The bytes of a type that is not known, in hexadecimal digits.
    Hex(String),
}

impl Shown {
    pub(super) fn into_value(self) -> Value {
        match self {
            Shown::Json(value) => value,
            Shown::Hex(digits) => Value::String(digits),
        }
    }
}

/// Keys and values that are being written.
pub(super) trait Rows {
    fn row(&mut self, key: Shown, value: Shown) -> Result<()>;

    /// Writes what is left.
    fn finish(self: Box<Self>) -> Result<()>;
}

/// Where an export goes.
pub(super) type Out<'w> = &'w mut (dyn Write + Send);

/// Writes the state of `operator` in a checkpoint of the store in `dir` to `out`, as the store's own schema has it.
///
/// The checkpoint is read and checked before anything is written, and then once more, one key group at a time, so
/// that no more than that is in memory (with Parquet, 16 384 rows more). The order is by key group, then by the bytes
/// of the keys: it depends on nothing but the keys. Types that are not known are columns `key_hex` and `value_hex`, of
/// hexadecimal digits.
///
/// # Errors
/// As [`state`](crate::inspect::state()); [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) for Parquet in a
/// build without it; [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when a key or value is none of its type, and
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when `out` fails: part of the rows is written then.
pub fn export(
    dir: &Path,
    operator: &str,
    query: &ExportQuery,
    out: &mut (dyn Write + Send),
) -> Result<ExportReport> {
    let store = open(dir)?;
    let prepared = settled(&store.paths, || Prepared::read(&store, operator, query), |_| &[])?;
    let exported = prepared.write(&store, query.format, out)?;
    let Prepared { checkpoint, operator, .. } = prepared;
    Ok(ExportReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        checkpoint: checkpoint.checkpoint,
        batch: checkpoint.batch,
        operator: operator.name,
        key_type: operator.key_type,
        value_type: operator.value_type,
        keys: operator.keys,
        exported,
        file: None,
        sound: true,
    })
}

/// The same to a file, which is written aside, under the same name and `.tmp`, and renamed when it is complete and
/// durable. A file that is there is replaced then.
///
/// # Errors
/// As [`export`]; [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when `to` is inside of `dir`.
pub fn export_file(dir: &Path, operator: &str, query: &ExportQuery, to: &Path) -> Result<ExportReport> {
    // Before anything is made: a store that cannot be read leaves no file.
    open(dir)?;
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let find = |path: &Path| {
        path.canonicalize().map_err(|cause| Error::io(format!("find {}", path.display()), cause))
    };
    if find(parent)?.starts_with(find(dir)?) {
        return Err(no_such(format!("{} is inside of the store: nothing is written there", to.display())));
    }
    let Some(name) = to.file_name().filter(|_| !to.is_dir()) else {
        return Err(no_such(format!("{} is no name for a file", to.display())));
    };
    let mut aside = name.to_owned();
    aside.push(".tmp");
    let aside = Aside(to.with_file_name(aside));
    let io = |cause| Error::io(format!("write {}", aside.0.display()), cause);
    let file = open_options().write(true).create(true).truncate(true).open(&aside.0).map_err(io)?;
    let mut out = BufWriter::new(file);
    let report = export(dir, operator, query, &mut out)?;
    out.into_inner().map_err(|failed| io(failed.into_error()))?.sync_all().map_err(io)?;
    std::fs::rename(&aside.0, to).map_err(io)?;
    let synced = std::fs::File::open(parent).and_then(|dir| dir.sync_all());
    synced.map_err(|cause| Error::io(format!("sync directory {}", parent.display()), cause))?;
    Ok(ExportReport { file: Some(to.display().to_string()), ..report })
}

/// A file that goes, unless it was renamed.
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        // The reason why it was not completed says more than why it is still there.
        drop(std::fs::remove_file(&self.0));
    }
}

/// A checkpoint that was checked, ready to be written.
struct Prepared {
    checkpoint: CheckpointRecord,
    operator: OperatorRef,
    chains: Vec<Vec<GroupSource>>,
    prefix: Vec<u8>,
    key_shape: Option<KeyShape>,
    value_type: Option<ValueType>,
}

impl Prepared {
    fn read(store: &ReadStore, operator: &str, query: &ExportQuery) -> Result<Self> {
        let catalog = read_catalog(store)?;
        let retained = catalog.retained(store)?;
        let mut segments = Segments::open(store, retained.iter().map(|(_, record)| record))?;
        let checkpoint = match query.at {
            Some(id) => {
                let (_, record) = find_checkpoint(&catalog, retained, id)?;
                segments.check(record).map_err(|error| error.within(format!("checkpoint {id}")))?;
                record
            }
            None => newest_sound(&catalog, retained, |record| segments.check(record))?,
        };
        let operator = find_operator(checkpoint, operator)?;
        let prefix =
            query.prefix.as_ref().map(|prefix| parse_prefix(&operator.key_type, prefix)).transpose()?;
        Ok(Prepared {
            chains: segments.chains(checkpoint, &operator.name),
            prefix: prefix.unwrap_or_default(),
            key_shape: KeyShape::of(&operator.key_type),
            value_type: segments.value_type(checkpoint, operator),
            checkpoint: checkpoint.clone(),
            operator: operator.clone(),
        })
    }

    /// Returns how many keys were written.
    fn write(&self, store: &ReadStore, format: ExportFormat, out: Out<'_>) -> Result<u64> {
        let (key_shape, value_type) = (self.key_shape.as_ref(), self.value_type.as_ref());
        let mut rows: Box<dyn Rows + '_> = match format {
            ExportFormat::Json => Box::new(JsonLines { out }),
            ExportFormat::Csv => Box::new(CsvRows::begin(out, key_shape, value_type)?),
            #[cfg(feature = "parquet")]
            ExportFormat::Parquet => {
                Box::new(crate::inspect::export_parquet::ParquetRows::begin(out, key_shape, value_type)?)
            }
            #[cfg(not(feature = "parquet"))]
            ExportFormat::Parquet => {
                let message = "this build cannot write Parquet: build it with the feature `parquet` too";
                return Err(no_such(message.to_owned()));
            }
        };
        let bytes = |chain: &Vec<GroupSource>| chain.iter().map(|part| part.group.bytes).sum::<u64>();
        store.steps.begin("export", self.chains.iter().map(bytes).sum());
        let mut exported = 0;
        for chain in &self.chains {
            let entries: BTreeMap<Vec<u8>, Vec<u8>> = live_entries(chain)?;
            for (key, value) in entries.iter().filter(|(key, _)| key.starts_with(&self.prefix)) {
                let (key, value) = self.shown(key, value)?;
                rows.row(key, value)?;
                exported += 1;
            }
            store.steps.advance(bytes(chain));
        }
        rows.finish()?;
        Ok(exported)
    }

    fn shown(&self, key: &[u8], value: &[u8]) -> Result<(Shown, Shown)> {
        let wrong = |what: &str, r#type: &str, of: &str| {
            let name = &self.operator.name;
            Error::corrupt(format!("{what} of `{name}` is no {type} (key 0x{of})"))
        };
        let digits = hex(key);
        let key = match &self.key_shape {
            Some(shape) => Shown::Json(
                shape.decode(key).ok_or_else(|| wrong("a key", &self.operator.key_type, &digits))?,
            ),
            None => Shown::Hex(digits.clone()),
        };
        let value = match &self.value_type {
            Some(value_type) => Shown::Json(
                value_type
                    .decode(value)
                    .ok_or_else(|| wrong("a value", &self.operator.value_type, &digits))?,
            ),
            None => Shown::Hex(hex(value)),
        };
        Ok((key, value))
    }
}

/// An error of who is written to.
pub(super) fn write_error(cause: std::io::Error) -> Error {
    Error::io("write the export", cause)
}
