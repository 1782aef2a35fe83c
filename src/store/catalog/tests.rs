//! Tests of the catalog.

use std::sync::Arc;

use super::contents::read_copy;
use super::*;
use crate::format::records::{CatalogRecord, DoneRecord};
use crate::store::FaultPlan;

fn done(batch: u64) -> DoneRecord {
    DoneRecord {
        batch,
        records: 1,
        bytes: 2,
        processing_us: 3,
        outputs: vec!["x".repeat(300)],
        changes: vec![],
    }
}

fn start() -> EpochStart {
    let features = Features::default();
    EpochStart { store: [7; 16], epoch: EpochId(1), continues_after: 0, first_seq: 1, features, job: None }
}

fn begin(paths: &StorePaths) -> Catalog {
    Catalog::begin(Disk::default(), paths.clone(), start()).unwrap()
}

fn batches(contents: &EpochContents) -> Vec<u64> {
    let done = contents.records.iter().filter_map(|(_, record)| match record {
        CatalogRecord::Done(done) => Some(done.batch),
        _ => None,
    });
    done.collect()
}

#[test]
fn unknown_features_refuse_an_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    std::fs::create_dir(paths.epochs()).unwrap();
    let features = Features { compatible: 6, incompatible: 0 };
    let mut catalog =
        Catalog::begin(Disk::default(), paths.clone(), EpochStart { features, ..start() }).unwrap();
    catalog.rotate().unwrap();
    for epoch in [1, 2].map(EpochId) {
        let contents = read_epoch(&paths, [7; 16], epoch).unwrap();
        let CatalogRecord::Epoch(first) = &contents.records[0].1 else { panic!("{contents:?}") };
        assert_eq!((first.compatible, first.incompatible), (6, 0));
    }
    let features = Features { compatible: 0, incompatible: 4 };
    let unknown = EpochStart { epoch: EpochId(3), features, ..start() };
    drop(Catalog::begin(Disk::default(), paths.clone(), unknown).unwrap());
    let refused = read_epoch(&paths, [7; 16], EpochId(3)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Incompatible);
    assert!(refused.chain().contains("unsupported features 0x4"), "{}", refused.chain());
}

#[test]
fn records_are_read_back_while_the_catalog_is_open_and_epochs_never_outgrow_a_segment() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    let mut catalog = begin(&paths);
    for batch in 1..=1_500 {
        catalog.append(&done(batch)).unwrap();
    }
    let epochs = list_epochs(&paths).unwrap();
    assert!(epochs.len() > 1, "1,500 records fit one epoch");
    let mut read = Vec::new();
    for epoch in &epochs {
        let contents = read_epoch(&paths, [7; 16], *epoch).unwrap();
        assert_eq!(contents.damage, Vec::<String>::new());
        assert_eq!(contents.witness, contents.last_seq());
        read.extend(batches(&contents));
        let length = std::fs::metadata(epoch_dir(&paths, *epoch).join("db")).unwrap().len();
        assert!(length <= SEGMENT_BYTES as u64, "{epoch} is {length} bytes");
    }
    assert_eq!(read, (1..=1_500).collect::<Vec<_>>());
}

#[test]
fn the_longest_record_fits_a_fresh_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    let mut catalog = begin(&paths);
    let mut long = done(1);
    long.outputs = vec!["y".repeat(RECORD_BYTES_MAX - 1_000)];
    for batch in 1..=4 {
        long.batch = batch;
        catalog.append(&long).unwrap();
    }
    long.outputs = vec!["y".repeat(RECORD_BYTES_MAX)];
    assert_eq!(catalog.append(&long).unwrap_err().kind(), ErrorKind::InvalidGraph);
    let read: Vec<u64> = list_epochs(&paths)
        .unwrap()
        .iter()
        .flat_map(|epoch| batches(&read_epoch(&paths, [7; 16], *epoch).unwrap()))
        .collect();
    assert_eq!(read, [1, 2, 3, 4]);
}

#[test]
fn a_lost_tail_is_noticed_by_the_witness() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    let mut catalog = begin(&paths);
    for batch in 1..=20 {
        catalog.append(&done(batch)).unwrap();
    }
    drop(catalog);
    let db = epoch_dir(&paths, EpochId(1)).join("db");
    let file = open_options().write(true).open(&db).unwrap();
    file.set_len(4_000).unwrap();
    for entry in std::fs::read_dir(epoch_dir(&paths, EpochId(1))).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with("snap.") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let contents = read_epoch(&paths, [7; 16], EpochId(1)).unwrap();
    assert!(batches(&contents).len() < 20);
    assert!(!contents.damage.is_empty());
}

#[test]
fn a_missing_witness_is_damage_only_where_no_newer_epoch_stands_in_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    let mut catalog = begin(&paths);
    catalog.append(&done(1)).unwrap();
    catalog.rotate().unwrap();
    catalog.append(&done(2)).unwrap();
    let epochs = [EpochId(1), EpochId(2)];
    epochs.iter().for_each(|epoch| {
        std::fs::remove_file(epoch_dir(&paths, *epoch).join("witness")).unwrap();
    });
    let mut contents = epochs.map(|epoch| read_epoch(&paths, [7; 16], epoch).unwrap());
    note_missing_witnesses(&mut contents);
    assert_eq!(contents.each_ref().map(|contents| contents.damage.len()), [0, 1]);
    // The first epoch has lost its last record, which the second one continues after.
    contents[0].records.pop();
    contents[0].without_witness = Some("missing".into());
    note_missing_witnesses(&mut contents);
    assert_eq!(contents[0].damage.len(), 1);
}

#[test]
fn a_database_is_never_removed_before_its_witness() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    drop(begin(&paths));
    // Steps: the witness is removed, its directory synced, and then the rest, which does not happen.
    let disk = Disk::with_faults(Some(crate::store::FaultPlan::crash_at(3)));
    remove_epoch(&disk, &paths, EpochId(1)).unwrap_err();
    assert!(!epoch_dir(&paths, EpochId(1)).join("witness").exists());
    assert!(epoch_dir(&paths, EpochId(1)).join("db").exists());
}

#[test]
fn an_epoch_of_another_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    drop(begin(&paths));
    let error = read_epoch(&paths, [8; 16], EpochId(1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
}

#[test]
fn the_next_epoch_is_there_before_it_is_needed_and_goes_when_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    let plan = crate::store::FaultPlan::never();
    let disk = Disk::with_faults(Some(plan.clone()));
    let mut catalog = Catalog::begin(disk, paths.clone(), start()).unwrap();
    let mut batch = 0;
    let mut commit = |catalog: &mut Catalog| {
        batch += 1;
        catalog.append(&done(batch)).unwrap();
    };
    while !catalog.ahead.is_under_way() {
        assert_eq!(catalog.epoch(), EpochId(1), "no epoch was made ahead");
        commit(&mut catalog);
    }
    catalog.ahead.wait_for_next();
    let steps = |what| plan.passed().iter().filter(|step| step.what == what).count();
    let made = steps("create database");
    assert_eq!(made, 2);
    while catalog.epoch() == EpochId(1) {
        commit(&mut catalog);
    }
    assert_eq!(steps("create database"), made, "the commit has made a database");
    catalog.prepare_next();
    catalog.end();
    assert_eq!(list_epochs(&paths).unwrap(), [1, 2].map(EpochId));
    let found = [1, 2].map(|epoch| batches(&read_epoch(&paths, [7; 16], EpochId(epoch)).unwrap())).concat();
    assert_eq!(found, (1..=batch).collect::<Vec<_>>());
}

/// A store of one epoch with records of all lengths, and the bytes of its database.
fn database() -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    let mut catalog = begin(&paths);
    for batch in 1..=150 {
        let outputs = vec!["x".repeat(batch as usize * if batch % 50 == 0 { 150 } else { 3 })];
        catalog.append(&DoneRecord { outputs, ..done(batch) }).unwrap();
    }
    assert_eq!(catalog.epoch(), EpochId(1));
    drop(catalog);
    let database = epoch_dir(&paths, EpochId(1));
    let bytes = std::fs::read(database.join("db")).unwrap();
    (dir, database, bytes)
}

#[test]
fn the_file_says_what_sled_says() {
    let (_dir, database, bytes) = database();
    let parts = direct::read(&bytes).expect("nothing is left to sled");
    assert!(parts.len() > 150);
    assert_eq!(parts, read_copy(&database).unwrap());
}

#[test]
fn a_damaged_file_is_left_to_sled_and_a_cut_one_has_a_part() {
    let (_dir, _, bytes) = database();
    let sound = direct::read(&bytes).unwrap();
    for at in (20..bytes.len()).step_by(211) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (at % 8);
        let read = direct::read(&flipped);
        let is_padding = bytes[at..].iter().all(|byte| *byte == 0);
        assert!(read.is_none() || is_padding, "byte {at}");
        if let Some(cut) = direct::read(&bytes[..at]) {
            assert_eq!(cut, sound[..cut.len()], "cut at {at}");
        }
    }
}

/// Records that are committed together: whatever fails, the first so many are there, each once.
#[test]
fn of_records_that_are_committed_together_a_failure_keeps_the_first_ones() {
    let together = |batches: std::ops::RangeInclusive<u64>| -> Vec<Unnumbered> {
        batches.map(|batch| done(batch).unnumbered().unwrap()).collect()
    };
    let faults: [fn(u64) -> Arc<FaultPlan>; 2] =
        [FaultPlan::crash_at, |step| FaultPlan::full_during(step..step + 2)];
    for (fault, is_crash) in faults.into_iter().zip([true, false]) {
        for step in 1..30 {
            let dir = tempfile::tempdir().unwrap();
            let paths = StorePaths::new(dir.path());
            drop(begin(&paths));
            let plan = fault(step);
            let start = EpochStart { epoch: EpochId(2), continues_after: 1, first_seq: 2, ..start() };
            let disk = Disk::with_faults(Some(plan.clone()));
            let Ok(mut catalog) = Catalog::begin(disk, paths.clone(), start) else { continue };
            let (mut first, mut second) = (together(1..=3), together(4..=5));
            for records in [&mut first, &mut second] {
                // As long as the disk is full, and no longer.
                while catalog.append_all(records).is_err() && !is_crash {}
            }
            drop(catalog);
            let mut read = Vec::new();
            for epoch in list_epochs(&paths).unwrap() {
                let contents = read_epoch(&paths, [7; 16], epoch).unwrap();
                let CatalogRecord::Epoch(begun) = &contents.records[0].1 else { panic!("{contents:?}") };
                read.retain(|(seq, _)| *seq <= begun.continues_after);
                let done = contents.records.iter().filter_map(|(seq, record)| match record {
                    CatalogRecord::Done(done) => Some((*seq, done.batch)),
                    _ => None,
                });
                read.extend(done);
            }
            let read: Vec<u64> = read.into_iter().map(|(_, batch)| batch).collect();
            let all: Vec<u64> = (1..=5).collect();
            assert!(all.starts_with(&read), "step {step}: {read:?}");
            assert!(is_crash || read == all, "full at step {step}: {read:?}");
            let kept = 5 - (first.len() + second.len());
            assert!(read.len() >= kept, "step {step}: {kept} were committed, {read:?} are there");
        }
    }
}

#[test]
fn more_than_fits_one_commit_takes_several() {
    let dir = tempfile::tempdir().unwrap();
    let paths = StorePaths::new(dir.path());
    let mut catalog = begin(&paths);
    let large = |batch| DoneRecord { outputs: vec!["x".repeat(RECORD_BYTES_MAX / 2)], ..done(batch) };
    let mut records: Vec<Unnumbered> = (1..=5).map(|batch| large(batch).unnumbered().unwrap()).collect();
    catalog.append_all(&mut records).unwrap();
    assert!(records.is_empty());
    let mut read = Vec::new();
    for epoch in list_epochs(&paths).unwrap() {
        read.extend(batches(&read_epoch(&paths, [7; 16], epoch).unwrap()));
        let length = std::fs::metadata(epoch_dir(&paths, epoch).join("db")).unwrap().len();
        assert!(length <= SEGMENT_BYTES as u64, "{epoch} is {length} bytes");
    }
    assert_eq!(read, [1, 2, 3, 4, 5]);
}
