//! The keys and values of one operator in one checkpoint.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::format::records::{CheckpointRecord, OperatorRef};
use crate::format::shown::KeyShape;
use crate::format::shown::ValueType;
use crate::inspect::catalog::{Catalog, read_catalog};
use crate::inspect::key_text::{parse_key, parse_prefix};
use crate::inspect::open::{ReadStore, open};
use crate::inspect::report::{Finding, SCHEMA, judge};
use crate::inspect::settle::settled;
use crate::inspect::state::{Committed, Segments};
use crate::inspect::view::{find_checkpoint, hex, no_such};
use crate::record::{group_of, hash_of};
use crate::store::segments::GroupSource;

/// Which entries are wanted.
#[derive(Clone, Debug)]
pub struct StateQuery {
    /// Only this key: `0x` and hexadecimal digits, or as the key is shown.
    pub key: Option<String>,
    /// Only keys that begin with this: `0x` and hexadecimal digits, or text for keys that are text or bytes.
    pub prefix: Option<String>,
    /// At most so many entries are in the report, those with the smallest keys.
    pub limit: usize,
    /// The checkpoint, `None` for the newest sound one.
    pub at: Option<u64>,
}

/// State of one operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StateReport {
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
    /// Whether keys of this type can be shown as JSON.
    pub key_type_known: bool,
    /// The type of its values.
    pub value_type: String,
    /// The schema of its values, in the notation of the format; `null` when no segment has any of them.
    pub value_schema: Option<String>,
    /// Whether values of this type can be shown as JSON.
    pub value_type_known: bool,
    /// All keys of the operator.
    pub keys: u64,
    /// The keys that were asked for.
    pub matched: u64,
    /// The first of these, ordered by the bytes of their keys.
    pub entries: Vec<EntryReport>,
    /// Always true: a checkpoint that is damaged is an error.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EntryReport {
    /// The key; `null` when its type is the job's own.
    pub key: Option<Value>,
    /// The bytes of the key in hexadecimal digits.
    pub key_hex: String,
    /// The value; `null` when its type cannot be known without the job.
    pub value: Option<Value>,
    /// The bytes of the value in hexadecimal digits.
    pub value_hex: String,
}

/// Shows the state of `operator` in a checkpoint of the store in `dir`. Where one key is asked for, only its key
/// group is read and checked: damage to others is not seen.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect); [`ErrorKind::Corrupt`] when the checkpoint is damaged,
/// [`ErrorKind::InvalidConfig`] when there is no such checkpoint or operator, or the key is none of its type.
pub fn state(dir: &Path, operator: &str, query: &StateQuery) -> Result<StateReport> {
    let store = open(dir)?;
    settled(&store.paths, || read(&store, dir, operator, query), |report| &report.findings)
}

fn read(store: &ReadStore, dir: &Path, operator: &str, query: &StateQuery) -> Result<StateReport> {
    let catalog = read_catalog(store)?;
    let retained = catalog.retained(store)?;
    let mut segments = Segments::open(store, retained.iter().map(|(_, record)| record))?;
    let mut check = |record: &CheckpointRecord| match &query.key {
        None => segments.check(record),
        Some(key) => {
            let operator = find_operator(record, operator)?;
            let key = parse_key(&operator.key_type, key)?;
            segments.check_group(record, &operator.name, group_of(hash_of(&key)))
        }
    };
    let checkpoint = match query.at {
        Some(id) => {
            let (_, record) = find_checkpoint(&catalog, retained, id)?;
            check(record).map_err(|error| error.within(format!("checkpoint {id}")))?;
            record
        }
        None => newest_sound(&catalog, retained, check)?,
    };
    let operator = find_operator(checkpoint, operator)?;
    let wanted = Wanted::of(operator, query)?;
    let chains = segments.chains(checkpoint, &operator.name);
    let (matched, kept) = wanted.collect(&chains, query.limit)?;
    if let (Some(key), 0) = (&query.key, matched) {
        let message =
            format!("there is no key `{key}` in `{}` at checkpoint {}", operator.name, checkpoint.checkpoint);
        return Err(no_such(message));
    }
    let key_shape = KeyShape::of(&operator.key_type);
    let value_schema = segments.schema_of(checkpoint, operator);
    let value_type = value_schema.as_ref().and_then(|schema| ValueType::of(&operator.value_type, schema));
    let entry = |(key, value): (Vec<u8>, Vec<u8>)| EntryReport {
        key: key_shape.as_ref().and_then(|shape| shape.decode(&key)),
        key_hex: hex(&key),
        value: value_type.as_ref().and_then(|value_type| value_type.decode(&value)),
        value_hex: hex(&value),
    };
    let mut findings = Vec::new();
    Ok(StateReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: store.identity.job.clone(),
        checkpoint: checkpoint.checkpoint,
        batch: checkpoint.batch,
        operator: operator.name.clone(),
        key_type: operator.key_type.clone(),
        key_type_known: key_shape.is_some(),
        value_type: operator.value_type.clone(),
        value_schema: value_schema.map(|schema| schema.to_string()),
        value_type_known: value_type.is_some(),
        keys: operator.keys,
        matched,
        entries: kept.into_iter().map(entry).collect(),
        sound: judge(&mut findings),
        findings,
    })
}

/// The newest checkpoint that `check` has nothing to say against.
pub(super) fn newest_sound<'c>(
    catalog: &Catalog,
    retained: &'c [Committed],
    mut check: impl FnMut(&CheckpointRecord) -> Result<()>,
) -> Result<&'c CheckpointRecord> {
    let mut damage = None;
    for (_, record) in retained.iter().rev() {
        match check(record) {
            Ok(()) => return Ok(record),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                damage.get_or_insert(error.within(format!("checkpoint {}", record.checkpoint)));
            }
            Err(error) => return Err(error),
        }
    }
    match (damage, catalog.findings.iter().find(|finding| finding.is_damage())) {
        (Some(damage), _) => Err(damage),
        (None, Some(finding)) => Err(Error::corrupt(format!("{}: {}", finding.place, finding.what))),
        (None, None) => Err(no_such("there is no checkpoint yet, and so no stored state".to_owned())),
    }
}

pub(super) fn find_operator<'c>(checkpoint: &'c CheckpointRecord, name: &str) -> Result<&'c OperatorRef> {
    let found = checkpoint.operators.iter().find(|operator| operator.name == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = checkpoint.operators.iter().map(|operator| &*operator.name).collect();
        let message = format!(
            "there is no operator `{name}` in checkpoint {}: it has {}",
            checkpoint.checkpoint,
            known.join(", ")
        );
        no_such(message)
    })
}

/// The keys of one group with their values: of each key the newest part that has it decides.
pub(super) fn live_entries(chain: &[GroupSource]) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut entries = BTreeMap::new();
    for part in chain.iter().rev() {
        part.for_each(|entry| {
            match entry.value {
                Some(value) => drop(entries.insert(entry.key.to_vec(), value.to_vec())),
                None => drop(entries.remove(entry.key)),
            }
            Ok(())
        })?;
    }
    Ok(entries)
}

/// Values by their keys, in bytes.
type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// What was asked for, as bytes.
struct Wanted {
    key: Option<Vec<u8>>,
    prefix: Vec<u8>,
}

impl Wanted {
    fn of(operator: &OperatorRef, query: &StateQuery) -> Result<Self> {
        let key = query.key.as_ref().map(|key| parse_key(&operator.key_type, key)).transpose()?;
        let prefix =
            query.prefix.as_ref().map(|prefix| parse_prefix(&operator.key_type, prefix)).transpose()?;
        Ok(Wanted { key, prefix: prefix.unwrap_or_default() })
    }

    /// How many entries of an operator's key groups are wanted, and the `limit` of these with the smallest keys.
    fn collect(&self, chains: &[Vec<GroupSource>], limit: usize) -> Result<(u64, Entries)> {
        let (mut matched, mut kept) = (0, Entries::new());
        for (_, chain) in chains.iter().enumerate().filter(|(group, _)| self.may_be_in(*group)) {
            for (key, value) in live_entries(chain)?.into_iter().filter(|(key, _)| self.has(key)) {
                matched += 1;
                kept.insert(key, value);
                if kept.len() > limit {
                    kept.pop_last();
                }
            }
        }
        Ok((matched, kept))
    }

    fn may_be_in(&self, group: usize) -> bool {
        self.key.as_ref().is_none_or(|key| group_of(hash_of(key)) == group)
    }

    fn has(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix) && self.key.as_ref().is_none_or(|wanted| wanted == key)
    }
}
