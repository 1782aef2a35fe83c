//! Changing state by hand: one key, or all those of a file.

use std::fs;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::inspect::{SCHEMA, parse_key, shortened};
use crate::maintenance::change::{Changes, Target, invalid};
use crate::maintenance::open::Opened;
use crate::maintenance::{BatchSpan, Maintenance};

/// A key whose value was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EditReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// Whether it was done; otherwise nothing was changed.
    pub done: bool,
    /// The operator.
    pub operator: String,
    /// The key; `null` when its type is the job's own.
    pub key: Option<Value>,
    /// The bytes of the key in hexadecimal digits.
    pub key_hex: String,
    /// The value before, `null` when there was none.
    pub before: Option<Value>,
    /// The value from now on, `null` when the key goes.
    pub after: Option<Value>,
    /// The checkpoint that it is changed in.
    pub checkpoint: u64,
    /// The last batch whose changes are in it.
    pub batch: u64,
    /// The number of the checkpoint with the change; `null` when the key has this value already.
    pub becomes: Option<u64>,
    /// The batches that the next start computes again on top of the change, with the job's code; `null` for none.
    pub replay: Option<BatchSpan>,
    /// How many of them are done: their outputs were emitted without the change, and are not emitted again.
    pub replayed_done: u64,
}

/// Keys and values that were read from a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// Whether it was done; otherwise nothing was changed.
    pub done: bool,
    /// The operator.
    pub operator: String,
    /// The file.
    pub file: String,
    /// Its lines, one for each key.
    pub lines: u64,
    /// Keys that were not there.
    pub added: u64,
    /// Keys that had another value.
    pub changed: u64,
    /// Keys that have the value already.
    pub unchanged: u64,
    /// All keys of the operator from now on.
    pub keys: u64,
    /// The checkpoint that they are changed in.
    pub checkpoint: u64,
    /// The last batch whose changes are in it.
    pub batch: u64,
    /// The number of the checkpoint with the changes; `null` when there are none.
    pub becomes: Option<u64>,
    /// The batches that the next start computes again on top of the changes, with the job's code; `null` for none.
    pub replay: Option<BatchSpan>,
    /// How many of them are done: their outputs were emitted without the changes, and are not emitted again.
    pub replayed_done: u64,
}

impl Maintenance {
    /// Gives a key of an operator another value, as JSON like `state` shows it, or removes it, for `None`. The change is
    /// made in the newest checkpoint, whose successor has it; the next start begins there, and computes the batches
    /// after it again on top of the change. The old checkpoint stays as long as any other.
    ///
    /// Of keys with timers state and timers are both given. Positions of a source can be set too. Accumulators and
    /// broadcast variables are set, never removed; of an accumulator that is what it had at the checkpoint, to which the
    /// batches after it add.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when there is no such operator, the key or the value
    /// is none of its type (what was expected, and where), the key is to be removed and not there, or the state is one
    /// that must not be changed: of windows, datasets, and types that only the job can write;
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when the newest checkpoint is damaged;
    /// [`ErrorKind::Locked`](crate::ErrorKind::Locked) when the job runs.
    pub fn edit(&self, operator: &str, key: &str, value: Option<&Value>) -> Result<EditReport> {
        self.carry_out(|store| self.set(store, operator, key, value))
    }

    fn set(&self, store: &Opened, operator: &str, key: &str, value: Option<&Value>) -> Result<EditReport> {
        let target = Target::find(store, operator)?;
        let bytes = parse_key(&target.operator.key_type, key)?;
        let shown_key = target.key_shape.as_ref().map(|shape| {
            shape
                .decode(&bytes)
                .ok_or_else(|| invalid(&format!("`{key}` is no key of type {}", target.operator.key_type)))
        });
        let shown_key = shown_key.transpose()?;
        let before = target.value_of(&bytes)?;
        let after = value.map(|value| target.encode(value)).transpose()?;
        if after.is_none() && target.is_shared_variable() {
            return Err(invalid(&format!("`{operator}` always has a value: set it to another one")));
        }
        if after.is_none() && before.is_none() {
            return Err(invalid(&format!("there is no key `{key}` in `{operator}`")));
        }
        let shown =
            |bytes: &Option<Vec<u8>>| bytes.as_ref().and_then(|bytes| target.value_type.decode(bytes));
        let mut report = EditReport {
            schema: SCHEMA,
            directory: self.dir.display().to_string(),
            job: store.job.clone(),
            done: self.is_confirmed,
            operator: operator.to_owned(),
            key: shown_key,
            key_hex: bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
            before: shown(&before),
            after: shown(&after),
            checkpoint: target.record.checkpoint,
            batch: target.record.batch,
            becomes: None,
            replay: None,
            replayed_done: 0,
        };
        let mut changes = Changes::default();
        changes.insert(bytes, after);
        let difference = target.compare(&changes)?;
        if let Some(outlook) = target.carry_out(difference, self.is_confirmed)? {
            report.becomes = Some(outlook.checkpoint);
            (report.replay, report.replayed_done) = (outlook.replay, outlook.replayed_done);
        }
        Ok(report)
    }

    /// Gives an operator the keys and values of a file of JSON lines, as `export` writes them; keys that are not in the
    /// file stay as they are. It is made as [`edit`](Self::edit) makes a change, all at once: when one line is wrong, or a
    /// key is there twice, nothing is changed. All of the file is in memory.
    ///
    /// # Errors
    /// Those of [`edit`](Self::edit), with the number of the line; [`ErrorKind::Io`](crate::ErrorKind::Io) when the file
    /// cannot be read.
    pub fn import(&self, operator: &str, file: impl AsRef<Path>) -> Result<ImportReport> {
        let file = file.as_ref();
        // Once, as it may be a pipe.
        let exported =
            fs::read(file).map_err(|cause| Error::io(format!("read {}", file.display()), cause))?;
        self.carry_out(|store| self.set_all(store, operator, file, &exported))
    }

    fn set_all(&self, store: &Opened, operator: &str, file: &Path, exported: &[u8]) -> Result<ImportReport> {
        let target = Target::find(store, operator)?;
        let (changes, lines) = read(&target, file, exported)?;
        let difference = target.compare(&changes)?;
        let mut report = ImportReport {
            schema: SCHEMA,
            directory: self.dir.display().to_string(),
            job: store.job.clone(),
            done: self.is_confirmed,
            operator: operator.to_owned(),
            file: file.display().to_string(),
            lines,
            added: difference.added,
            changed: difference.changed,
            unchanged: difference.unchanged,
            keys: target.operator.keys + difference.added,
            checkpoint: target.record.checkpoint,
            batch: target.record.batch,
            becomes: None,
            replay: None,
            replayed_done: 0,
        };
        if let Some(outlook) = target.carry_out(difference, self.is_confirmed)? {
            report.becomes = Some(outlook.checkpoint);
            (report.replay, report.replayed_done) = (outlook.replay, outlook.replayed_done);
        }
        Ok(report)
    }
}

/// Reads the lines of an export, and how many there are.
fn read(target: &Target<'_>, file: &Path, exported: &[u8]) -> Result<(Changes, u64)> {
    let (mut changes, mut count) = (Changes::default(), 0);
    for line in exported.split_inclusive(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        count += 1;
        let within = |error: Error| invalid(&format!("{}, line {count}: {}", file.display(), error.chain()));
        let (key, value) = entry(target, line).map_err(within)?;
        if !changes.insert(key, Some(value)) {
            return Err(within(invalid("its key is on an earlier line too")));
        }
    }
    Ok((changes, count))
}

/// One line.
fn entry(target: &Target<'_>, line: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let parsed: Value =
        serde_json::from_slice(line).map_err(|cause| invalid(&format!("it is no JSON: {cause}")))?;
    let expected = || {
        let found = shortened(&parsed);
        invalid(&format!("expected an object of `key` and `value`, as `export` writes it, found {found}"))
    };
    let fields = parsed.as_object().filter(|fields| fields.len() == 2).ok_or_else(expected)?;
    let value = fields.get("value").ok_or_else(expected)?;
    let r#type = &target.operator.key_type;
    let key = match (&target.key_shape, fields.get("key"), fields.get("key_hex")) {
        (Some(shape), Some(key), None) => {
            let mut bytes = Vec::new();
            let encoded = shape.encode(key, &mut bytes);
            encoded.ok_or_else(|| invalid(&format!("{} is no key of type {type}", shortened(key))))?;
            bytes
        }
        (None, None, Some(Value::String(digits))) => parse_key(r#type, &format!("0x{digits}"))?,
        _ => return Err(expected()),
    };
    let value = target.encode(value).map_err(|error| invalid(&format!("its value: {error}")))?;
    Ok((key, value))
}
