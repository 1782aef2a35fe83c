//! Stores that are made wrong under sound checksums: each invariant is violated once.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::protocol::History;
use crate::format::frame::{FrameHeader, FrameKind, encode_frame};
use crate::format::records::{
    BlockRef, CheckpointRecord, Directory, DoneRecord, InputPlan, OperatorRef, PlanRecord, RangeRef, Record,
    SegmentHeader, SegmentRef, TalliesRecord, TallyDelta,
};
use crate::format::segment::{Entry, entry_bytes, parse_trailer, trailer};
use crate::id::{EpochId, SegmentId};
use crate::inspect::report::VerifyReport;
use crate::inspect::{verify, verify_deep};
use crate::record::{group_of, hash_of, schema_hash};
use crate::store::catalog::Catalog as CatalogWriter;
use crate::store::segments::{EncodedGroup, EncodedOperator, EncodedState, LiveSize, write_segment};
use crate::store::{Disk, Store, StorePaths};

type Row = (u64, Vec<u8>, Option<Vec<u8>>);

/// One part of a key group, before it is laid out.
#[derive(Clone)]
struct Part {
    base: bool,
    live: LiveSize,
    rows: Vec<Row>,
}

type ChangeDirectory = fn(&mut Directory);

/// A store of two checkpoints, one segment each: the second changes one key and removes another.
struct Made {
    segments: Vec<BTreeMap<usize, Part>>,
    plans: Vec<PlanRecord>,
    done: Vec<DoneRecord>,
    tallies: Vec<TallyDelta>,
    checkpoints: Vec<CheckpointRecord>,
    directory: ChangeDirectory,
}

fn row(key: &str, value: Option<u64>) -> Row {
    (hash_of(key.as_bytes()), key.as_bytes().to_vec(), value.map(|value| value.to_le_bytes().to_vec()))
}

fn live_of(keys: &BTreeMap<String, u64>, group: usize) -> LiveSize {
    let of_group = keys.keys().filter(|key| group_of(hash_of(key.as_bytes())) == group);
    of_group.fold(LiveSize::default(), |live, key| LiveSize {
        keys: live.keys + 1,
        bytes: live.bytes + entry_bytes(key.as_bytes(), Some(&[0; 8])) as u64,
    })
}

fn parts(rows: Vec<Row>, base: bool, keys: &BTreeMap<String, u64>) -> BTreeMap<usize, Part> {
    let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
    for row in rows {
        let group = group_of(row.0);
        let part = parts.entry(group).or_insert(Part { base, live: live_of(keys, group), rows: Vec::new() });
        part.rows.push(row);
    }
    parts.values_mut().for_each(|part| part.rows.sort());
    parts
}

impl Made {
    fn sound() -> Made {
        let mut keys: BTreeMap<String, u64> = (0..600).map(|key| (format!("key {key}"), key)).collect();
        let rows = keys.iter().map(|(key, value)| row(key, Some(*value))).collect();
        let base = parts(rows, true, &keys);
        keys.remove("key 7");
        let delta = parts(vec![row("key 7", None), row("key 8", Some(88))], false, &keys);
        let operator = |name: &str, keys| OperatorRef {
            name: name.into(),
            key_type: "utf8".into(),
            value_type: "u64".into(),
            value_width: 8,
            schema: schema_hash("u64"),
            keys,
        };
        let plan = |batch: u64| PlanRecord { batch, time_ms: batch * 1_000, next_block: 1, inputs: vec![] };
        let checkpoint = |checkpoint: u64, batch: u64, keys| CheckpointRecord {
            checkpoint,
            batch,
            time_ms: batch * 1_000,
            next_block: 1,
            fingerprint: 0,
            segments: vec![],
            operators: vec![operator("totals", keys), operator("accumulator seen", 0)],
        };
        let done = |batch| DoneRecord {
            batch,
            records: 0,
            bytes: 0,
            processing_us: 1_000,
            outputs: vec![],
            changes: vec![],
        };
        Made {
            segments: vec![base, delta],
            plans: (1..=5).map(plan).collect(),
            done: (1..=5).map(done).collect(),
            tallies: vec![],
            checkpoints: vec![checkpoint(1, 2, 600), checkpoint(2, 4, 599)],
            directory: |_| {},
        }
    }

    /// Writes it with the encoders that a job uses.
    fn write(mut self, root: &Path) {
        let store = Store::open(root, "counts", Disk::default()).unwrap();
        let id = store.identity.store;
        let mut written = Vec::new();
        for (number, parts) in (1..).zip(&self.segments) {
            let groups = parts.iter().map(|(group, part)| {
                let entries = part.rows.iter();
                let entries =
                    entries.map(|(hash, key, value)| Entry { hash: *hash, key, value: value.as_deref() });
                EncodedGroup::encode(*group, part.base, part.live, entries).unwrap()
            });
            let operator =
                EncodedOperator { name: "totals".into(), schema: "u64".into(), groups: groups.collect() };
            let state = EncodedState { operators: vec![operator] };
            let header = SegmentHeader { store: id, checkpoint: number };
            let mut segment =
                write_segment(&store.disk, &store.paths, SegmentId(number), &header, &state).unwrap();
            change_directory(&store.paths, &mut segment, self.directory);
            written.push(segment);
        }
        for (at, checkpoint) in self.checkpoints.iter_mut().enumerate() {
            if checkpoint.segments.is_empty() {
                checkpoint.segments = written[..=at].to_vec();
            } else {
                checkpoint.segments = written.iter().rev().copied().collect();
            }
        }
        let start = History::default().next_epoch(id, EpochId(0), None);
        let mut catalog = CatalogWriter::begin(Disk::default(), store.paths.clone(), start).unwrap();
        let mut checkpoints = self.checkpoints.into_iter().peekable();
        for plan in &self.plans {
            catalog.append(plan).unwrap();
            if plan.batch == 5 && !self.tallies.is_empty() {
                let deltas = std::mem::take(&mut self.tallies);
                catalog.append(&TalliesRecord { batch: 5, part: 0, parts: 1, deltas }).unwrap();
            }
            for done in self.done.iter().filter(|done| done.batch == plan.batch || done.batch > 90) {
                catalog.append(done).unwrap();
            }
            while let Some(record) = checkpoints.next_if(|record| record.batch <= plan.batch) {
                catalog.append(&record).unwrap();
            }
        }
    }
}

/// Writes the directory of a segment anew, under sound checksums.
fn change_directory(paths: &StorePaths, segment: &mut SegmentRef, change: ChangeDirectory) {
    let path = paths.state().join(format!("{}.segment", segment.segment));
    let mut bytes = std::fs::read(&path).unwrap();
    let (at, length) = parse_trailer(&bytes[bytes.len() - 16..]).unwrap();
    let (at, length) = (at as usize, length as usize);
    let (id, mut directory) = Directory::from_frame(&bytes[at..at + length]).unwrap();
    change(&mut directory);
    let listing = directory.to_frame(id).unwrap();
    bytes.truncate(at);
    bytes.extend_from_slice(&listing);
    let end = trailer(at as u64, listing.len() as u64);
    bytes.extend_from_slice(&encode_frame(FrameKind::Trailer, id, &end).unwrap());
    std::fs::write(&path, &bytes).unwrap();
    segment.length = bytes.len() as u64;
    segment.directory_crc = FrameHeader::parse(&listing).unwrap().crc;
}

/// What is found in a sound store after `change`.
fn checked(change: impl FnOnce(&mut Made)) -> (VerifyReport, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let mut made = Made::sound();
    change(&mut made);
    made.write(&root);
    let report = verify_deep(&root).unwrap();
    let found = report.findings.iter().filter(|finding| finding.is_damage());
    let found = found.map(|finding| format!("{}: {}", finding.place, finding.what)).collect();
    (report, found)
}

/// Checksums are sound, and only the deep check finds exactly this.
fn violates(expected: &str, change: impl FnOnce(&mut Made)) {
    let (report, found) = checked(change);
    assert!(!report.sound, "nothing was found instead of: {expected}");
    assert!(found.iter().any(|what| what.contains(expected)), "{expected}: {found:#?}");
    assert!(report.deep.unwrap().violations >= 1);
}

/// A part that the second segment does not touch.
fn first_part(made: &mut Made) -> (usize, &mut Part) {
    let (base, delta) = made.segments.split_at_mut(1);
    let found = base[0].iter_mut().find(|(group, part)| part.rows.len() > 2 && !delta[0].contains_key(group));
    let (group, part) = found.unwrap();
    (*group, part)
}

/// Puts one more row where it belongs.
fn add_row(made: &mut Made, key: &[u8], value: Option<Vec<u8>>) {
    let hash = hash_of(key);
    let part = made.segments[0].get_mut(&group_of(hash)).unwrap();
    if let Some(value) = &value {
        part.live.keys += 1;
        part.live.bytes += entry_bytes(key, Some(value)) as u64;
        made.checkpoints.iter_mut().for_each(|record| record.operators[0].keys += 1);
    }
    part.rows.push((hash, key.to_vec(), value));
    part.rows.sort();
}

fn input(blocks: &[u64], ranges: &[(u64, u64)]) -> InputPlan {
    let block = |block: &u64| BlockRef { block: *block, extent: 1, offset: 64, length: 1, crc: 0 };
    let range = |(start, end): &(u64, u64)| RangeRef {
        partition: "a".into(),
        start: *start,
        end: *end,
        size: 0,
        stamp: 0,
    };
    InputPlan {
        stream: 1,
        blocks: blocks.iter().map(block).collect(),
        ranges: ranges.iter().map(range).collect(),
    }
}

#[test]
fn a_store_as_jobs_write_it_violates_nothing() {
    let (report, found) = checked(|_| {});
    assert_eq!(found, Vec::<String>::new());
    assert_eq!(report.findings, Vec::new());
    let deep = report.deep.unwrap();
    assert_eq!((deep.entries, deep.violations, deep.batches, deep.undecoded), (602, 0, 3, 0));
    assert_eq!(deep.decoded, 602 + 601);
}

#[test]
fn wrong_entries_are_named() {
    violates("entries are ordered by hash and key", |made| first_part(made).1.rows.swap(1, 2));
    violates("entries are ordered by hash and key", |made| {
        let part = first_part(made).1;
        let again = part.rows[0].clone();
        part.rows.insert(0, again);
    });
    violates("a hash is that of its key", |made| first_part(made).1.rows.last_mut().unwrap().0 += 1);
    violates("a key is in the group of its hash", |made| {
        let (group, part) = first_part(made);
        let part = part.clone();
        let free = (0..256).find(|free| !made.segments[0].contains_key(free)).unwrap();
        made.segments[0].remove(&group);
        made.segments[0].insert(free, part);
    });
    violates("a removed key hides an older entry", |made| add_row(made, b"key gone", None));
    violates("a key is of its type", |made| add_row(made, &[0xff, 0xfe], Some(vec![0; 8])));
    violates("a value is of its type", |made| add_row(made, b"key short", Some(vec![0; 7])));
}

#[test]
fn wrong_counts_and_places_in_segments_are_named() {
    violates("live keys and bytes are right", |made| first_part(made).1.live.bytes += 1);
    violates("live keys and bytes are right", |made| {
        made.segments[1].values_mut().next().unwrap().live.keys += 1;
    });
    violates("the number of keys is right", |made| made.checkpoints[0].operators[0].keys = 601);
    violates("a page begins with the hash that the directory says", |made| {
        made.directory = |directory| directory.operators[0].groups[0].pages[0].first_hash += 1;
    });
    violates("the pages of a part follow each other and come to its bytes", |made| {
        made.directory = |directory| directory.operators[0].groups[0].bytes += 1;
    });
    violates("a key group exists", |made| {
        made.directory = |directory| {
            let groups = &mut directory.operators[0].groups;
            let mut beyond = groups[0].clone();
            (beyond.group, beyond.entries, beyond.bytes) = (300, 0, 0);
            beyond.pages.clear();
            groups.push(beyond);
        };
    });
}

#[test]
fn wrong_batches_are_named() {
    violates("batches have no gaps: after batch 3 comes the plan of batch 5", |made| {
        drop(made.plans.remove(3))
    });
    violates("the times of batches only grow", |made| made.plans[4].time_ms = 1);
    violates("the blocks of plans only grow", |made| made.plans[4].next_block = 0);
    violates("a block is in the one plan that it belongs to", |made| {
        made.plans[4].inputs = vec![input(&[9], &[])];
    });
    violates("a block is in a plan once", |made| {
        made.plans[4].next_block = 2;
        made.plans[4].inputs = vec![input(&[1, 1], &[])];
    });
    violates("a stream is in a plan once", |made| {
        made.plans[4].inputs = vec![input(&[], &[(0, 1)]), input(&[], &[(1, 2)])];
    });
    violates("a range ends after its start", |made| made.plans[4].inputs = vec![input(&[], &[(5, 4)])]);
    violates("a batch that is done was planned", |made| {
        made.done.push(DoneRecord { batch: 91, ..made.done[0].clone() });
    });
    violates("an amount is of its accumulator's type", |made| {
        made.tallies = vec![TallyDelta {
            name: "accumulator seen".into(),
            schema: "u64".into(),
            archive: vec![1, 2, 3],
        }];
    });
}

#[test]
fn wrong_checkpoints_are_named() {
    violates("a checkpoint is where its batch is", |made| made.checkpoints[1].time_ms += 1);
    violates("an operator is in a checkpoint once", |made| {
        let again = made.checkpoints[1].operators[1].clone();
        made.checkpoints[1].operators.push(again);
    });
    violates("the segments of a checkpoint are in order", |made| {
        made.checkpoints[1].segments = vec![SegmentRef { segment: 0, length: 0, directory_crc: 0 }];
    });
}

#[test]
fn what_a_restart_does_is_said_with_each_finding() {
    let (report, _) = checked(|made| first_part(made).1.rows.swap(1, 2));
    assert_eq!(report.restart.unwrap().checkpoint.unwrap().checkpoint, 2);
    let remedy = &report.findings[0].remedy;
    assert!(remedy.contains("begins with checkpoint 2 all the same and replays batches 5 to 5"), "{remedy}");
    assert!(report.findings[0].what.contains("checkpoint 1"), "{:?}", report.findings[0]);
}

#[test]
fn files_that_nothing_refers_to_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    Made::sound().write(&root);
    std::fs::write(root.join("notes.txt"), "mine").unwrap();
    std::fs::write(root.join("state/9.segment"), "unfinished").unwrap();
    std::fs::create_dir(root.join("log/old")).unwrap();
    let report = verify_deep(&root).unwrap();
    assert!(report.sound);
    let places: Vec<&str> = report.findings.iter().map(|finding| &*finding.place).collect();
    assert_eq!(places, ["log/old", "notes.txt", "state/9.segment"]);
    assert!(verify(&root).unwrap().deep.is_none());
}

#[test]
fn a_directory_that_names_a_group_twice_is_damage_to_everyone() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("store");
    let twice: ChangeDirectory = |directory| {
        let again = directory.operators[0].groups[0].clone();
        directory.operators[0].groups.push(again);
    };
    Made { directory: twice, ..Made::sound() }.write(&root);
    let report = verify(&root).unwrap();
    assert!(report.findings[0].what.contains("has a key group of `totals` twice"), "{report:?}");
    assert!(report.restart.unwrap().refused.is_some());
}
