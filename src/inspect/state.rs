//! Checkpointed state: segments, each read once however many checkpoints share it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::config::KEY_GROUPS;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::format::records::{CheckpointRecord, OperatorRef, POSITIONS_PREFIX, SegmentRef};
use crate::format::shown::ValueType;
use crate::id::EpochId;
use crate::inspect::open::{ReadStore, relative};
use crate::inspect::report::{Finding, OperatorReport, PositionsReport};
use crate::record::schema_hash;
use crate::state::check_schemas;
use crate::store::segments::{GroupSource, Segment, list_segments};

const REMEDY: &str = "put the file back from a copy; otherwise a start walks back to a checkpoint without it";

/// A checkpoint of the catalog.
pub(super) type Committed = (EpochId, CheckpointRecord);

/// What the value type of a source's positions is called, which no type of a job is.
const POSITIONS_TYPE: &str = "position";

/// Whether the state is how far a source is planned.
pub(super) fn is_positions(operator: &OperatorRef) -> bool {
    operator.value_type == POSITIONS_TYPE
}

/// A segment and what is wrong with it.
struct Checked {
    expected: SegmentRef,
    segment: Option<Arc<Segment>>,
    /// `None` until its pages were read.
    damage: Option<Vec<String>>,
}

/// The segments of some checkpoints.
pub(super) struct Segments<'a> {
    store: &'a ReadStore,
    executor: Executor,
    by_number: BTreeMap<u64, Checked>,
}

impl<'a> Segments<'a> {
    /// Opens the segments of `checkpoints`. A running job may remove them from now on: they stay readable.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] for a newer version, [`ErrorKind::Io`] when reading is refused.
    pub(super) fn open<'c>(
        store: &'a ReadStore,
        checkpoints: impl Iterator<Item = &'c CheckpointRecord>,
    ) -> Result<Self> {
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let executor = Executor::new(threads, 1)?;
        let mut segments = Segments { store, executor, by_number: BTreeMap::new() };
        for reference in checkpoints.flat_map(|checkpoint| &checkpoint.segments) {
            segments.open_one(reference)?;
        }
        Ok(segments)
    }

    fn open_one(&mut self, expected: &SegmentRef) -> Result<()> {
        if self.by_number.contains_key(&expected.segment) {
            return Ok(());
        }
        let opened = Segment::open(&self.store.paths, self.store.identity.store, expected);
        let checked = match opened {
            Ok(segment) => Checked { expected: *expected, segment: Some(Arc::new(segment)), damage: None },
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                Checked { expected: *expected, segment: None, damage: Some(vec![error.chain()]) }
            }
            Err(error) => return Err(error),
        };
        self.by_number.insert(expected.segment, checked);
        Ok(())
    }

    /// Where many key groups are worked on at once.
    pub(super) fn executor(&self) -> &Executor {
        &self.executor
    }

    /// Reads every page of what `checkpoint` needs, and says what is wrong with it.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] with the first damage.
    pub(super) fn check(&mut self, checkpoint: &CheckpointRecord) -> Result<()> {
        for expected in &checkpoint.segments {
            self.open_one(expected)?;
        }
        let wanted = |number: &u64| checkpoint.segments.iter().any(|expected| expected.segment == *number);
        let unread: Vec<(u64, Arc<Segment>)> = self
            .by_number
            .iter()
            .filter(|(number, checked)| wanted(number) && checked.damage.is_none())
            .filter_map(|(number, checked)| Some((*number, checked.segment.clone()?)))
            .collect();
        let steps = &self.store.steps;
        if !unread.is_empty() {
            let bytes = |(_, segment): &(u64, Arc<Segment>)| segment.state_bytes();
            steps
                .begin(&format!("read checkpoint {}", checkpoint.checkpoint), unread.iter().map(bytes).sum());
        }
        let read = |bytes| steps.advance(bytes);
        let damage =
            self.executor.run_stage("read segments", unread.len(), |_, at| unread[at].1.damage(read))?;
        for ((number, _), damage) in unread.into_iter().zip(damage) {
            if let Some(checked) = self.by_number.get_mut(&number) {
                checked.damage = Some(damage);
            }
        }
        checkpoint.segments.iter().try_for_each(|expected| self.verdict(expected))?;
        let opened = checkpoint.segments.iter().filter_map(|expected| self.by_number.get(&expected.segment));
        let segments: Vec<_> = opened.filter_map(|checked| checked.segment.clone()).collect();
        check_schemas(&checkpoint.operators, &segments)
            .map_err(|error| Error::corrupt(relative(&self.store.paths, &error.chain())))
    }

    /// Reads the pages of one key group of `operator`, and no others, and says what is wrong with what was read
    /// of `checkpoint`.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub(super) fn check_group(
        &mut self,
        checkpoint: &CheckpointRecord,
        operator: &str,
        group: usize,
    ) -> Result<()> {
        for expected in &checkpoint.segments {
            self.open_one(expected)?;
        }
        checkpoint.segments.iter().try_for_each(|expected| self.verdict(expected))?;
        let chains = self.chains(checkpoint, operator);
        let read = chains.get(group).into_iter().flatten().try_for_each(|part| part.for_each(|_| Ok(())));
        read.map_err(|error| match error.kind() {
            ErrorKind::Corrupt => Error::corrupt(relative(&self.store.paths, &error.chain())),
            _ => error,
        })
    }

    fn verdict(&self, expected: &SegmentRef) -> Result<()> {
        let Some(checked) = self.by_number.get(&expected.segment) else { return Ok(()) };
        if self.is_another(expected) {
            let message = format!("state/{}.segment is not the one this checkpoint wrote", expected.segment);
            return Err(Error::corrupt(message));
        }
        match checked.damage.iter().flatten().next() {
            Some(damage) => Err(Error::corrupt(relative(&self.store.paths, damage))),
            None => Ok(()),
        }
    }

    /// Whether another checkpoint says something else about a segment of this number.
    fn is_another(&self, expected: &SegmentRef) -> bool {
        self.by_number.get(&expected.segment).is_some_and(|checked| checked.expected != *expected)
    }

    /// The chosen parts of `operator` in `checkpoint` by key group, newest first: a restart reads no others.
    pub(super) fn chains(&self, checkpoint: &CheckpointRecord, operator: &str) -> Vec<Vec<GroupSource>> {
        let mut chains: Vec<Vec<GroupSource>> = (0..KEY_GROUPS).map(|_| Vec::new()).collect();
        for part in checkpoint.segments.iter().flat_map(|segment| self.parts(segment.segment, operator)) {
            let Some(chain) = chains.get_mut(usize::from(part.group.group)) else { continue };
            if part.group.base {
                chain.clear();
            }
            chain.insert(0, part);
        }
        chains
    }

    /// The schema of an operator's values in `checkpoint`: that of its newest segment with the hash that the checkpoint
    /// says; `None` when no segment that can be opened has any of it.
    pub(super) fn schema_of(
        &self,
        checkpoint: &CheckpointRecord,
        operator: &OperatorRef,
    ) -> Option<Arc<str>> {
        let numbers = checkpoint.segments.iter().rev().map(|segment| segment.segment);
        let segments = numbers.filter_map(|number| self.by_number.get(&number)?.segment.as_ref());
        let schemas = segments.filter_map(|segment| segment.schema_of(&operator.name));
        schemas.into_iter().find(|schema| schema_hash(schema) == operator.schema).cloned()
    }

    /// How an operator's values in `checkpoint` are shown; `None` when they cannot be.
    pub(super) fn value_type(
        &self,
        checkpoint: &CheckpointRecord,
        operator: &OperatorRef,
    ) -> Option<ValueType> {
        ValueType::of(&operator.value_type, &self.schema_of(checkpoint, operator)?)
    }

    /// What one segment holds of `operator`; nothing where it cannot be opened.
    pub(super) fn parts(&self, segment: u64, operator: &str) -> Vec<GroupSource> {
        let checked = self.by_number.get(&segment).and_then(|checked| checked.segment.as_ref());
        checked.map(|segment| segment.groups_of(operator)).unwrap_or_default()
    }

    /// The first damage of one segment, `None` while it was not read.
    pub(super) fn damage_of(&self, segment: u64) -> Option<String> {
        let damage = self.by_number.get(&segment)?.damage.as_ref()?.first()?;
        Some(relative(&self.store.paths, damage))
    }

    /// How many segments had every page read.
    pub(super) fn read(&self) -> u64 {
        self.by_number.values().filter(|checked| checked.damage.is_some()).count() as u64
    }

    /// What is wrong with those segments of `checkpoints` that were read. A restart that finds none of them
    /// sound looks at older ones too, whose segments are gone for good reason.
    pub(super) fn findings(&self, checkpoints: &[Committed]) -> Vec<Finding> {
        let needed = segments_of(checkpoints);
        let damaged = |(number, checked): (&u64, &Checked)| {
            let place = format!("state/{number}.segment");
            let lines = checked.damage.iter().flatten();
            let lines =
                lines.map(|what| Finding::damage(place.clone(), relative(&self.store.paths, what), REMEDY));
            lines.collect::<Vec<_>>()
        };
        let mut findings: Vec<Finding> =
            self.by_number.iter().filter(|(number, _)| needed.contains(number)).flat_map(damaged).collect();
        let references = checkpoints.iter().flat_map(|(_, record)| &record.segments);
        findings.extend(references.filter(|expected| self.is_another(expected)).map(|expected| {
            let place = format!("state/{}.segment", expected.segment);
            Finding::damage(place, "two checkpoints disagree about its length or contents", REMEDY)
        }));
        findings
    }

    /// Segments on disk that none of `checkpoints` refers to.
    pub(super) fn leftovers(&self, checkpoints: &[Committed]) -> Result<Vec<Finding>> {
        let needed = segments_of(checkpoints);
        let newest_needed = needed.last().copied().unwrap_or(0);
        let on_disk = list_segments(&self.store.paths)?;
        let unneeded = on_disk.into_iter().filter(|segment| !needed.contains(&segment.0));
        Ok(unneeded
            .map(|segment| {
                let what = if segment.0 > newest_needed {
                    "no checkpoint refers to it: its checkpoint was not finished, or is being written"
                } else {
                    "no retained checkpoint refers to it"
                };
                let remedy = "nothing: the next checkpoint removes it";
                Finding::note(format!("state/{}.segment", segment.0), what, remedy)
            })
            .collect())
    }

    /// The bytes of whole key groups and of changes that a restart from `checkpoint` reads of `operator`.
    fn sizes(&self, checkpoint: &CheckpointRecord, operator: &str) -> (u64, u64) {
        let mut groups = vec![(0, 0); KEY_GROUPS];
        for expected in &checkpoint.segments {
            let segment = self.by_number.get(&expected.segment).and_then(|checked| checked.segment.as_ref());
            for part in segment.into_iter().flat_map(|segment| segment.groups_of(operator)) {
                let Some((base, delta)) = groups.get_mut(usize::from(part.group.group)) else { continue };
                if part.group.base {
                    (*base, *delta) = (part.group.stored_bytes(), 0);
                } else {
                    *delta += part.group.stored_bytes();
                }
            }
        }
        groups.iter().fold((0, 0), |(bases, deltas), (base, delta)| (bases + base, deltas + delta))
    }

    pub(super) fn operators(&self, checkpoint: &CheckpointRecord) -> Vec<OperatorReport> {
        let operators = checkpoint.operators.iter().filter(|operator| !is_positions(operator));
        let describe = |operator: &OperatorRef| {
            let (base_bytes, delta_bytes) = self.sizes(checkpoint, &operator.name);
            OperatorReport {
                name: operator.name.clone(),
                key_type: operator.key_type.clone(),
                value_type: operator.value_type.clone(),
                keys: operator.keys,
                base_bytes,
                delta_bytes,
            }
        };
        operators.map(describe).collect()
    }

    pub(super) fn positions(&self, checkpoint: &CheckpointRecord) -> Vec<PositionsReport> {
        let sources = checkpoint.operators.iter().filter(|operator| is_positions(operator));
        let describe = |source: &OperatorRef| {
            let (base, delta) = self.sizes(checkpoint, &source.name);
            let name = source.name.strip_prefix(POSITIONS_PREFIX).unwrap_or(&source.name);
            PositionsReport { source: name.to_owned(), partitions: source.keys, bytes: base + delta }
        };
        sources.map(describe).collect()
    }
}

fn segments_of(checkpoints: &[Committed]) -> BTreeSet<u64> {
    checkpoints.iter().flat_map(|(_, record)| &record.segments).map(|segment| segment.segment).collect()
}
