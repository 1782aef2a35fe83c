//! Checkpointed state: every entry of every part, and what the parts of a key group come to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::config::KEY_GROUPS;
use crate::error::{ErrorKind, Result};
use crate::format::frame::HEADER_BYTES;
use crate::format::records::{CheckpointRecord, OperatorRef};
use crate::format::segment::{Entry, entries, entry_bytes};
use crate::format::shown::KeyShape;
use crate::format::shown::ValueType;
use crate::format::shown::hex;
use crate::inspect::deep::Violations;
use crate::inspect::open::ReadStore;
use crate::inspect::report::DeepReport;
use crate::inspect::state::{Committed, Segments};
use crate::record::{group_of, hash_of};
use crate::store::segments::{GroupSource, LiveSize};

const PAGES_RULE: &str = "the pages of a part follow each other and come to its bytes";

/// So much of a key is shown.
const SHOWN_BYTES_MAX: usize = 32;

pub(super) fn check(
    store: &ReadStore,
    segments: &mut Segments<'_>,
    retained: &[Committed],
    report: &mut DeepReport,
    violations: &mut Violations,
) -> Result<()> {
    let mut sound = Vec::new();
    for (_, record) in retained {
        match segments.check(record) {
            Ok(()) => sound.push(record),
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            Err(error) => return Err(error),
        }
    }
    let names: BTreeSet<&str> =
        sound.iter().flat_map(|record| &record.operators).map(|operator| &*operator.name).collect();
    for name in names {
        check_operator(store, segments, &sound, name, report, violations)?;
    }
    for record in sound {
        check_parts_known(segments, record, violations);
    }
    Ok(())
}

/// What one checkpoint says about an operator, and its parts by key group.
struct Version<'c> {
    checkpoint: u64,
    operator: &'c OperatorRef,
    types: Types,
    chains: Vec<Vec<GroupSource>>,
}

fn check_operator(
    store: &ReadStore,
    segments: &Segments<'_>,
    checkpoints: &[&CheckpointRecord],
    name: &str,
    report: &mut DeepReport,
    violations: &mut Violations,
) -> Result<()> {
    let mut versions = Vec::new();
    for record in checkpoints {
        if let Some(operator) = record.operators.iter().find(|operator| operator.name == name) {
            versions.push(Version {
                checkpoint: record.checkpoint,
                operator,
                types: Types::of(segments, record, operator),
                chains: segments.chains(record, name),
            });
        }
    }
    let bytes =
        versions.iter().flat_map(|version| version.chains.iter().flatten()).map(|part| part.group.bytes);
    store.steps.begin(&format!("put together `{name}`"), bytes.fold(0, u64::saturating_add));
    let shared = Mutex::new((report, violations));
    let counts = segments.executor().run_stage("check key groups", KEY_GROUPS, |_, group| {
        let mut of_group = GroupCheck { group, ..GroupCheck::default() };
        let live = versions.iter().map(|version| {
            let bytes = version.chains[group].iter().map(|part| part.group.bytes);
            store.steps.advance(bytes.fold(0, u64::saturating_add));
            of_group.version(version)
        });
        let live = live.collect::<Result<Vec<LiveSize>>>()?;
        let mut shared = shared.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (report, violations) = &mut *shared;
        report.groups += of_group.report.groups;
        report.entries += of_group.report.entries;
        report.decoded += of_group.report.decoded;
        report.undecoded += of_group.report.undecoded;
        violations.merge(of_group.violations);
        Ok(live)
    })?;
    let (_, violations) = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    for (at, version) in versions.iter().enumerate() {
        let keys: u64 = counts.iter().map(|live| live[at].keys).sum();
        violations.check(keys == version.operator.keys, "epochs", "the number of keys is right", || {
            format!(
                "checkpoint {} says that `{name}` has {} keys; its segments come to {keys}",
                version.checkpoint, version.operator.keys
            )
        });
    }
    Ok(())
}

/// How keys and values are read.
#[derive(Debug)]
struct Types {
    key: Option<KeyShape>,
    value: Option<ValueType>,
}

impl Types {
    fn of(segments: &Segments<'_>, checkpoint: &CheckpointRecord, operator: &OperatorRef) -> Self {
        let value = segments.value_type(checkpoint, operator);
        Types { key: KeyShape::of(&operator.key_type), value }
    }
}

/// A chain of parts and how it is read: checkpoints in which nothing changed have the same.
type ChainKey = (Vec<u64>, String, String);

/// The same key group in one checkpoint after the other.
#[derive(Default)]
struct GroupCheck {
    group: usize,
    known: BTreeMap<ChainKey, LiveSize>,
    /// Parts of which every entry was checked.
    checked: BTreeSet<(u64, String, String)>,
    report: DeepReport,
    violations: Violations,
}

impl GroupCheck {
    /// What the group holds in one checkpoint.
    fn version(&mut self, version: &Version<'_>) -> Result<LiveSize> {
        let chain = &version.chains[self.group];
        let Some(newest) = chain.first() else { return Ok(LiveSize::default()) };
        let OperatorRef { name, key_type, value_type, .. } = version.operator;
        let ids = chain.iter().map(|part| part.segment_id().0).collect();
        let key = (ids, key_type.clone(), value_type.clone());
        if let Some(live) = self.known.get(&key) {
            return Ok(*live);
        }
        let mut sizes: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
        for (at, part) in chain.iter().enumerate().rev() {
            let is_new = self.checked.insert((part.segment_id().0, key_type.clone(), value_type.clone()));
            let oldest = at + 1 == chain.len();
            let mut check = PartCheck::new(version, part, oldest);
            let (mut next, mut bytes) = (None, 0_u64);
            part.for_each_page(|place, page| {
                let follows = next.is_none_or(|next| next == place.offset);
                self.violations.check(follows, &check.place, PAGES_RULE, || {
                    format!("the page at byte {} of {}", place.offset, check.shown)
                });
                let length = (HEADER_BYTES + page.len()) as u64;
                next = Some(place.offset + length);
                bytes += length;
                let mut first = true;
                for entry in entries(page) {
                    let entry = entry?;
                    if let Some(value) = entry.value {
                        sizes.insert(entry.key.to_vec(), entry_bytes(entry.key, Some(value)) as u64);
                    } else {
                        sizes.remove(entry.key);
                    }
                    if is_new {
                        check.entry(&entry, std::mem::take(&mut first).then_some(place.first_hash), self);
                    }
                }
                self.violations.check(!page.is_empty(), &check.place, "a page has entries", || {
                    format!("the page at byte {} of {} has none", place.offset, check.shown)
                });
                Ok(())
            })?;
            self.violations.check(bytes == part.group.bytes, &check.place, PAGES_RULE, || {
                format!("{} has {bytes} bytes, not {}", check.shown, part.group.bytes)
            });
        }
        self.report.groups += 1;
        let live = LiveSize { keys: sizes.len() as u64, bytes: sizes.values().sum() };
        let (group, place) = (&newest.group, place_of(newest));
        let rule = "live keys and bytes are right";
        self.violations.check((group.live_keys, group.live_bytes) == (live.keys, live.bytes), &place, rule, || {
            format!(
                "checkpoint {}: key group {} of `{name}` has {} keys in {} bytes, its directory says {} in {}",
                version.checkpoint, self.group, live.keys, live.bytes, group.live_keys, group.live_bytes
            )
        });
        self.known.insert(key, live);
        Ok(live)
    }
}

fn place_of(part: &GroupSource) -> String {
    format!("state/{}.segment", part.segment_id().0)
}

/// The entries of one part, in their order.
struct PartCheck<'v> {
    types: &'v Types,
    group: usize,
    base: bool,
    oldest: bool,
    place: String,
    /// The part, as findings name it.
    shown: String,
    before: Option<(u64, Vec<u8>)>,
}

impl<'v> PartCheck<'v> {
    fn new(version: &'v Version<'_>, part: &GroupSource, oldest: bool) -> Self {
        let group = usize::from(part.group.group);
        let kind = if part.group.base { "base" } else { "delta" };
        PartCheck {
            types: &version.types,
            group,
            base: part.group.base,
            oldest,
            place: place_of(part),
            shown: format!(
                "the {kind} of key group {group} of `{}` (checkpoint {})",
                version.operator.name, version.checkpoint
            ),
            before: None,
        }
    }

    /// `page_begins` is what the directory says of the hash, where the entry is the first of its page.
    fn entry(&mut self, entry: &Entry<'_>, page_begins: Option<u64>, of: &mut GroupCheck) {
        let (place, shown) = (&self.place, &self.shown);
        let violations = &mut of.violations;
        let key = || {
            let cut = if entry.key.len() > SHOWN_BYTES_MAX { "..." } else { "" };
            format!("key 0x{}{cut} in {shown}", hex(&entry.key[..entry.key.len().min(SHOWN_BYTES_MAX)]))
        };
        let (hash, expected) = (entry.hash, hash_of(entry.key));
        violations.check(hash == expected, place, "a hash is that of its key", || {
            format!("{} has {hash:016x}, not {expected:016x}", key())
        });
        violations.check(
            group_of(expected) == self.group,
            place,
            "a key is in the group of its hash",
            || format!("{} belongs to group {}", key(), group_of(expected)),
        );
        let ordered =
            self.before.as_ref().is_none_or(|(before, last)| (*before, &**last) < (hash, entry.key));
        violations.check(ordered, place, "entries are ordered by hash and key", || {
            format!("{} comes after a greater or equal one", key())
        });
        violations.check(
            page_begins.is_none_or(|begins| begins == hash),
            place,
            "a page begins with the hash that the directory says",
            || format!("the page of {} does not", key()),
        );
        let hides = !self.base && !self.oldest;
        violations.check(entry.value.is_some() || hides, place, "a removed key hides an older entry", || {
            format!("{} says that the key is gone, but there is nothing before it", key())
        });
        of.report.entries += 1;
        let known = self.types.key.as_ref().map(|shape| shape.decode(entry.key).is_some());
        count(&mut of.report, known);
        violations.check(known != Some(false), place, "a key is of its type", key);
        if let Some(value) = entry.value {
            let known = self.types.value.as_ref().map(|value_type| value_type.decode(value).is_some());
            count(&mut of.report, known);
            violations.check(known != Some(false), place, "a value is of its type", || {
                format!("that of {}", key())
            });
        }
        self.before = Some((hash, entry.key.to_vec()));
    }
}

fn count(report: &mut DeepReport, known: Option<bool>) {
    match known {
        Some(_) => report.decoded += 1,
        None => report.undecoded += 1,
    }
}

/// Parts that no chain can have, as there is no such key group.
fn check_parts_known(segments: &Segments<'_>, record: &CheckpointRecord, violations: &mut Violations) {
    for operator in &record.operators {
        let parts =
            record.segments.iter().flat_map(|segment| segments.parts(segment.segment, &operator.name));
        for part in parts {
            let group = usize::from(part.group.group);
            violations.check(group < KEY_GROUPS, &place_of(&part), "a key group exists", || {
                format!("`{}` has one of number {group} of {KEY_GROUPS}", operator.name)
            });
        }
    }
}
