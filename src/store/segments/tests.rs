use super::*;
use proptest::prelude::*;

const STORE: [u8; 16] = [9; 16];

type Rows = BTreeMap<(u64, Vec<u8>), Option<Vec<u8>>>;

fn write(paths: &StorePaths, rows: &Rows) -> SegmentRef {
    let entries = rows.iter().map(|((hash, key), value)| Entry { hash: *hash, key, value: value.as_deref() });
    let group = EncodedGroup::encode(5, true, LiveSize::default(), entries).unwrap();
    let state = EncodedState {
        operators: vec![EncodedOperator {
            name: "totals".into(),
            schema: "bytes".into(),
            groups: vec![group],
        }],
    };
    let header = SegmentHeader { store: STORE, checkpoint: 1 };
    write_segment(&Disk::default(), paths, SegmentId(4), &header, &state).unwrap()
}

fn store() -> (tempfile::TempDir, StorePaths) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("state")).unwrap();
    let paths = StorePaths::new(dir.path());
    (dir, paths)
}

fn rows(keys: u64, hash_of: impl Fn(u64) -> u64) -> Rows {
    let value = |key: u64| (!key.is_multiple_of(7)).then(|| vec![key as u8; (key % 50) as usize]);
    (0..keys).map(|key| ((hash_of(key), key.to_be_bytes().to_vec()), value(key))).collect()
}

#[test]
fn what_is_written_is_found_also_where_many_keys_share_a_hash() {
    for rows in [rows(3_000, |key| key * 0x9e37), rows(3_000, |key| key / 1_000), Rows::new()] {
        let (_dir, paths) = store();
        let written = write(&paths, &rows);
        let segment = Arc::new(Segment::open(&paths, STORE, &written).unwrap());
        segment.verify().unwrap();
        let source = segment.groups_of("totals").remove(0);
        let mut page = Vec::new();
        for ((hash, key), value) in &rows {
            assert_eq!(source.find(*hash, key, &mut page).unwrap().as_ref(), Some(value));
        }
        for step in [1, 7, 400] {
            let wanted: Vec<(u64, &[u8])> = rows
                .keys()
                .step_by(step)
                .flat_map(|(hash, key)| [(*hash, &b"absent"[..]), (*hash, key)])
                .collect();
            let mut found = Rows::new();
            let note = |at: usize, value: Option<&[u8]>| {
                let key = (wanted[at].0, wanted[at].1.to_vec());
                assert!(found.insert(key, value.map(<[u8]>::to_vec)).is_none());
            };
            source.find_sorted(&wanted, &mut page, note).unwrap();
            let expected = rows.iter().step_by(step).map(|(key, value)| (key.clone(), value.clone()));
            assert_eq!(found, expected.collect::<Rows>());
        }
        assert_eq!(source.find(u64::MAX, b"absent", &mut page).unwrap(), None);
        assert_eq!(source.find(500, b"absent", &mut page).unwrap(), None);
        assert!(segment.groups_of("other").is_empty());
    }
}

/// A segment with a filter, and where that is in its file.
fn filtered(paths: &StorePaths, rows: &Rows) -> (SegmentRef, std::ops::Range<usize>) {
    let written = write(paths, rows);
    let segment = Arc::new(Segment::open(paths, STORE, &written).unwrap());
    let group = segment.groups_of("totals").remove(0).group;
    assert!(group.filter_bytes > HEADER_BYTES as u32);
    let at = group.filter_offset as usize;
    (written, at..at + group.filter_bytes as usize)
}

fn change(paths: &StorePaths, change: impl FnOnce(&mut [u8])) {
    let path = segment_path(paths, SegmentId(4));
    let mut bytes = std::fs::read(&path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_key_that_is_not_there_costs_no_page() {
    let (_dir, paths) = store();
    let rows = rows(700, |key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (written, _) = filtered(&paths, &rows);
    let segment = Arc::new(Segment::open(&paths, STORE, &written).unwrap());
    let source = segment.groups_of("totals").remove(0);
    // No page can be read any more.
    let pages = source.group.pages[0].offset as usize;
    change(&paths, |bytes| bytes[pages..pages + source.group.bytes as usize].fill(0));
    let mut page = Vec::new();
    let absent = |key: u64| (key + 1_000_000).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let read = (0..1_000).filter(|key| source.find(absent(*key), b"absent", &mut page).is_err()).count();
    assert!(read < 30, "a page was read for {read} of 1,000 absent keys");
    for ((hash, key), _) in rows {
        assert_eq!(source.find(hash, &key, &mut page).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn a_damaged_filter_is_never_used() {
    let (_dir, paths) = store();
    let (written, filter) = filtered(&paths, &rows(700, |key| key * 0x9e37));
    for at in filter {
        change(&paths, |bytes| bytes[at] ^= 1);
        let segment = Arc::new(Segment::open(&paths, STORE, &written).unwrap());
        let source = segment.groups_of("totals").remove(0);
        let found = source.find(5, b"absent", &mut Vec::new()).unwrap_err();
        assert!(matches!(found.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible), "byte {at}: {found}");
        assert!(found.chain().contains("filter at byte"), "{}", found.chain());
        change(&paths, |bytes| bytes[at] ^= 1);
    }
}

/// Clears a bit of a filter, under a sound checksum.
fn leave_out_a_key(paths: &StorePaths, filter: std::ops::Range<usize>) {
    change(paths, |bytes| {
        let (head, payload) = bytes[filter].split_at_mut(HEADER_BYTES);
        let set = payload.iter_mut().find(|byte| **byte != 0).unwrap();
        *set &= *set - 1;
        head.copy_from_slice(&FrameHeader::for_payload(FrameKind::Filter, 5, &[payload]).unwrap().to_bytes());
    });
}

#[test]
fn a_filter_that_leaves_out_a_key_is_damage() {
    let (_dir, paths) = store();
    let (written, filter) = filtered(&paths, &rows(700, |key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let segment = Arc::new(Segment::open(&paths, STORE, &written).unwrap());
    segment.verify().unwrap();
    leave_out_a_key(&paths, filter);
    let segment = Arc::new(Segment::open(&paths, STORE, &written).unwrap());
    let found = segment.verify().unwrap_err();
    assert_eq!(found.kind(), ErrorKind::Corrupt);
    assert!(found.chain().contains("leaves out a key"), "{}", found.chain());
}

/// The part that awaits a check, with who is told of damage in it.
fn awaited(paths: &StorePaths, written: &SegmentRef) -> (GroupSource, Arc<LateDamage>) {
    let segment = Arc::new(Segment::open(paths, STORE, written).unwrap());
    let damage = Arc::<LateDamage>::default();
    segment.watch(&damage);
    let part = segment.groups_of("totals").remove(0);
    part.await_check();
    (part, damage)
}

fn load(part: &GroupSource) -> Result<Rows> {
    let mut rows = Rows::new();
    let row = |entry: &Entry<'_>| ((entry.hash, entry.key.to_vec()), entry.value.map(<[u8]>::to_vec));
    part.load(&mut Vec::new(), |page| {
        rows.extend(page.iter().map(row));
        Ok(())
    })?;
    Ok(rows)
}

#[test]
fn a_part_that_was_read_whole_awaits_no_check() {
    for rows in [rows(700, |key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15)), rows(5, |key| key), Rows::new()] {
        let (_dir, paths) = store();
        let written = write(&paths, &rows);
        let (part, damage) = awaited(&paths, &written);
        // Not by looking keys up, nor by a read that ends early.
        for (hash, key) in rows.keys() {
            part.find(*hash, key, &mut Vec::new()).unwrap();
        }
        let early = part.load(&mut Vec::new(), |_| Err(Error::new(ErrorKind::Stopped, "early")));
        assert_eq!((early.is_err(), part.awaits_check()), (!rows.is_empty(), !rows.is_empty()));
        part.await_check();
        assert_eq!(load(&part).unwrap(), rows);
        assert!(!part.awaits_check() && damage.found().is_none());
        let checked = part.segment().checked();
        assert_eq!(load(&part).unwrap(), rows);
        assert_eq!(part.segment().checked(), checked);
    }
}

/// Also damage that a read of the keys need not see.
#[test]
fn whoever_reads_a_part_whole_that_awaits_a_check_finds_all_that_is_wrong_with_it() {
    let (_dir, paths) = store();
    let (written, filter) = filtered(&paths, &rows(700, |key| key.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let pages = awaited(&paths, &written).0.group.pages[0].offset as usize;
    for at in (pages..filter.end).step_by(97).chain([filter.start + 4, filter.end - 1]) {
        change(&paths, |bytes| bytes[at] ^= 1);
        let (part, damage) = awaited(&paths, &written);
        let found = load(&part).unwrap_err();
        assert!(matches!(found.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible), "byte {at}: {found}");
        assert!(part.awaits_check() && damage.found().is_some(), "byte {at}: {found}");
        change(&paths, |bytes| bytes[at] ^= 1);
    }
    leave_out_a_key(&paths, filter);
    let (part, damage) = awaited(&paths, &written);
    assert!(load(&part).unwrap_err().chain().contains("leaves out a key"));
    assert!(part.awaits_check() && damage.found().is_some_and(|what| what.contains("leaves out a key")));
    // What awaits no check has been checked, or was written by this process: its filter is not read again.
    let part = Arc::new(Segment::open(&paths, STORE, &written).unwrap()).groups_of("totals").remove(0);
    assert_eq!(load(&part).unwrap().len(), 700);
}

#[test]
fn values_of_another_schema_are_refused() {
    let (_dir, paths) = store();
    let written = write(&paths, &rows(10, |key| key));
    let segment = Segment::open(&paths, STORE, &written).unwrap();
    segment.expect_schema("totals", schema_hash("bytes")).unwrap();
    segment.expect_schema("other", schema_hash("u64")).unwrap();
    let refused = segment.expect_schema("totals", schema_hash("u64")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert!(refused.to_string().contains("of the schema bytes"), "{refused}");
}

proptest! {
    #![proptest_config(crate::cases::cases(200))]
    #[test]
    fn any_damage_is_a_typed_error(at in any::<prop::sample::Index>(), bit in 0u8..8, cut in any::<bool>()) {
        let (_dir, paths) = store();
        let written = write(&paths, &rows(700, |key| key * 0x9e37));
        let path = segment_path(&paths, SegmentId(4));
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= 1 << bit;
        }
        std::fs::write(&path, bytes).unwrap();
        let checked = Segment::open(&paths, STORE, &written).and_then(|segment| Arc::new(segment).verify());
        let kind = checked.unwrap_err().kind();
        prop_assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::Incompatible), "{kind:?}");
    }
}
