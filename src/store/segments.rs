//! The files of checkpointed state: pages of entries, then a directory, then a trailer.
//!
//! A segment belongs to one checkpoint and holds, for each operator and key group that changed, either a
//! delta or a base. It is written once and read in place: a restart reads the directory and checks every
//! page, and looks entries up in the pages only when their keys come up.

mod encoder;
mod lookup;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) use encoder::GroupEncoder;
pub(crate) use writer::SegmentWriter;
#[cfg(any(test, feature = "tool"))]
pub(crate) use writer::write_segment;

use crate::error::{Error, ErrorKind, Result};
use crate::format::frame::{FrameHeader, FrameKind, HEADER_BYTES, decode_frame};
use crate::format::records::{Directory, GroupDirectory, Record, SegmentHeader, SegmentRef};
use crate::format::segment::{Entry, TRAILER_PAYLOAD_BYTES, entries, parse_trailer};
use crate::id::SegmentId;
use crate::record::schema_hash;
use crate::store::disk::{open_to_read, read_at};
use crate::store::{Disk, StorePaths, numbered_entries};

const TRAILER_BYTES: u64 = (HEADER_BYTES + TRAILER_PAYLOAD_BYTES) as u64;

fn segment_path(paths: &StorePaths, segment: SegmentId) -> PathBuf {
    paths.root.join(segment_name(segment))
}

/// Where a segment is in its store.
pub(crate) fn segment_name(segment: SegmentId) -> PathBuf {
    PathBuf::from(format!("state/{}.segment", segment.0))
}

/// The segments on disk, ascending.
pub(crate) fn list_segments(paths: &StorePaths) -> Result<Vec<SegmentId>> {
    Ok(numbered_entries(&paths.state(), ".segment")?.into_iter().map(SegmentId).collect())
}

pub(crate) fn remove_segment(disk: &Disk, paths: &StorePaths, segment: SegmentId) -> Result<()> {
    disk.remove_file(&segment_path(paths, segment))
}

/// How much a key group holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LiveSize {
    pub(crate) keys: u64,
    /// As entries of a segment.
    pub(crate) bytes: u64,
}

/// One key group of one operator, laid out as pages; offsets count from its own start.
#[derive(Debug)]
pub(crate) struct EncodedGroup {
    directory: GroupDirectory,
    bytes: Vec<u8>,
}

impl EncodedGroup {
    /// Lays out `entries`, which are ordered by (hash, key), of a group that then holds `live`.
    pub(crate) fn encode<'a>(
        group: usize,
        base: bool,
        live: LiveSize,
        entries: impl Iterator<Item = Entry<'a>>,
    ) -> Result<Self> {
        let mut encoder = GroupEncoder::new(group, base, live);
        for entry in entries {
            encoder.push(entry)?;
        }
        encoder.finish()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.directory.bytes
    }
}

/// What one checkpoint adds: per operator, the groups that changed.
#[cfg(any(test, feature = "tool"))]
#[derive(Debug, Default)]
pub(crate) struct EncodedState {
    pub(crate) operators: Vec<EncodedOperator>,
}

/// What a checkpoint adds of one operator.
#[cfg(any(test, feature = "tool"))]
#[derive(Debug)]
pub(crate) struct EncodedOperator {
    pub(crate) name: String,
    /// Of the archives in its values.
    pub(crate) schema: Arc<str>,
    pub(crate) groups: Vec<EncodedGroup>,
}

/// A segment open for reading.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    file: File,
    path: PathBuf,
    length: u64,
    operators: BTreeMap<String, StoredOperator>,
}

/// What a segment holds of one operator.
#[derive(Debug)]
struct StoredOperator {
    schema: Arc<str>,
    schema_hash: u64,
    groups: BTreeMap<u16, GroupDirectory>,
}

impl Segment {
    /// Opens the segment that a checkpoint refers to and checks its header, trailer and directory.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] naming the file when it is missing, cut or damaged,
    /// [`ErrorKind::Incompatible`] when it belongs to another store or version.
    pub(crate) fn open(paths: &StorePaths, store: [u8; 16], expected: &SegmentRef) -> Result<Self> {
        let id = SegmentId(expected.segment);
        let path = segment_path(paths, id);
        let file = match open_to_read(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::corrupt(format!("{} is missing", path.display())));
            }
            Err(cause) => return Err(Error::io(format!("open {}", path.display()), cause)),
        };
        let length =
            file.metadata().map_err(|cause| Error::io(format!("look at {}", path.display()), cause))?.len();
        if length != expected.length {
            let message = format!("{} has {length} bytes, not {}", path.display(), expected.length);
            return Err(Error::corrupt(message));
        }
        let mut segment = Segment { id, file, path, length, operators: BTreeMap::new() };
        let read = segment.read_directory(store, expected.directory_crc);
        let directory = read.map_err(|error| error.within(segment.path.display()))?;
        for operator in directory.operators {
            let listed = operator.groups.len();
            let stored = StoredOperator {
                schema_hash: schema_hash(&operator.schema),
                schema: operator.schema.into(),
                groups: operator.groups.into_iter().map(|group| (group.group, group)).collect(),
            };
            if stored.groups.len() < listed || segment.operators.contains_key(&operator.name) {
                let message = format!("its directory has a key group of `{}` twice", operator.name);
                return Err(Error::corrupt(message).within(segment.path.display()));
            }
            segment.operators.insert(operator.name, stored);
        }
        Ok(segment)
    }

    fn read_directory(&self, store: [u8; 16], directory_crc: u32) -> Result<Directory> {
        let (id, header) = SegmentHeader::from_frame(&self.read_frame(0)?)?;
        if header.store != store {
            return Err(Error::new(ErrorKind::Incompatible, "it belongs to another store"));
        }
        if id != self.id.0 {
            return Err(Error::corrupt(format!("it is segment {id} under another name")));
        }
        let trailer_at =
            self.length.checked_sub(TRAILER_BYTES).ok_or_else(|| Error::corrupt("it has no trailer"))?;
        let trailer = self.read_frame(trailer_at)?;
        let (header, payload) = decode_frame(&trailer)?;
        header.expect(FrameKind::Trailer)?;
        let (at, length) = parse_trailer(payload)?;
        let directory = self.read_frame(at)?;
        if directory.len() as u64 != length || FrameHeader::parse(&directory)?.crc != directory_crc {
            return Err(Error::corrupt("its directory is not the one that was committed"));
        }
        Ok(Directory::from_frame(&directory)?.1)
    }

    /// A whole frame; its length is checked against the file before anything is allocated for it.
    fn read_frame(&self, at: u64) -> Result<Vec<u8>> {
        let cut = || Error::corrupt(format!("the frame at byte {at} runs over the end of the file"));
        if at.checked_add(HEADER_BYTES as u64).is_none_or(|end| end > self.length) {
            return Err(cut());
        }
        let header = FrameHeader::parse(&read_at(&self.file, at, HEADER_BYTES, &self.path)?)
            .map_err(|error| error.within(format!("frame at byte {at}")))?;
        if at.checked_add(header.frame_bytes()).is_none_or(|end| end > self.length) {
            return Err(cut());
        }
        read_at(&self.file, at, header.frame_bytes() as usize, &self.path)
    }

    /// The store that a segment says it belongs to, `None` when its header is damaged or gone.
    #[cfg(feature = "tool")]
    pub(crate) fn store_of(paths: &StorePaths, id: SegmentId) -> Option<[u8; 16]> {
        let path = segment_path(paths, id);
        let file = File::open(&path).ok()?;
        let length = file.metadata().ok()?.len();
        let segment = Segment { id, file, path, length, operators: BTreeMap::new() };
        Some(SegmentHeader::from_frame(&segment.read_frame(0).ok()?).ok()?.1.store)
    }

    /// The parts of this segment that hold `operator`, by key group.
    pub(crate) fn groups_of(self: &Arc<Self>, operator: &str) -> Vec<GroupSource> {
        let groups = self.operators.get(operator).into_iter().flat_map(|operator| operator.groups.values());
        groups.map(|group| GroupSource { segment: self.clone(), group: group.clone() }).collect()
    }

    /// The part of this segment that holds a key group of `operator`.
    pub(crate) fn group_of(self: &Arc<Self>, operator: &str, group: usize) -> Option<GroupSource> {
        let group = self.operators.get(operator)?.groups.get(&u16::try_from(group).ok()?)?;
        Some(GroupSource { segment: self.clone(), group: group.clone() })
    }

    /// The schema of the values of `operator` in this segment, `None` when it has none of it.
    #[cfg(feature = "tool")]
    pub(crate) fn schema_of(&self, operator: &str) -> Option<&Arc<str>> {
        self.operators.get(operator).map(|operator| &operator.schema)
    }

    /// Refuses values of another schema than a checkpoint says.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] naming the file.
    pub(crate) fn expect_schema(&self, operator: &str, expected: u64) -> Result<()> {
        match self.operators.get(operator) {
            Some(stored) if stored.schema_hash != expected => Err(Error::corrupt(format!(
                "{} holds values of `{operator}` of the schema {} ({:016x}), the checkpoint says {expected:016x}",
                self.path.display(),
                stored.schema,
                stored.schema_hash
            ))),
            _ => Ok(()),
        }
    }

    /// Checks every page.
    ///
    /// # Errors
    /// The first damaged page, as [`ErrorKind::Corrupt`] naming file, place, operator and key group.
    pub(crate) fn verify(self: &Arc<Self>) -> Result<()> {
        self.all_groups().try_for_each(|(name, group)| self.verify_group(name, group))
    }

    /// Checks every page and says what is wrong with each key group, one line each. `read` is told the bytes
    /// of each.
    ///
    /// # Errors
    /// What is no damage: another version, or reading is refused.
    #[cfg(feature = "tool")]
    pub(crate) fn damage(self: &Arc<Self>, read: impl Fn(u64)) -> Result<Vec<String>> {
        let mut damage = Vec::new();
        for (name, group) in self.all_groups() {
            read(group.bytes);
            match self.verify_group(name, group) {
                Err(error) if error.kind() == ErrorKind::Corrupt => damage.push(error.chain()),
                outcome => outcome?,
            }
        }
        Ok(damage)
    }

    /// What all pages take, as far as the directory can be believed.
    #[cfg(feature = "tool")]
    pub(crate) fn pages_bytes(&self) -> u64 {
        self.all_groups().fold(0, |sum, (_, group)| sum.saturating_add(group.bytes))
    }

    fn all_groups(&self) -> impl Iterator<Item = (&String, &GroupDirectory)> {
        self.operators
            .iter()
            .flat_map(|(name, stored)| stored.groups.values().map(move |group| (name, group)))
    }

    fn verify_group(self: &Arc<Self>, name: &str, group: &GroupDirectory) -> Result<()> {
        let source = GroupSource { segment: self.clone(), group: group.clone() };
        let mut found = 0;
        source
            .for_each(|_| {
                found += 1;
                Ok(())
            })
            .map_err(|error| error.within(format!("state of `{name}`")))?;
        if found != group.entries {
            let message = format!(
                "{}: key group {} of `{name}` has {found} entries, not {}",
                self.path.display(),
                group.group,
                group.entries
            );
            return Err(Error::corrupt(message));
        }
        Ok(())
    }
}

/// One key group of one operator in one segment.
#[derive(Clone, Debug)]
pub(crate) struct GroupSource {
    segment: Arc<Segment>,
    pub(crate) group: GroupDirectory,
}

impl GroupSource {
    pub(crate) fn segment(&self) -> &Arc<Segment> {
        &self.segment
    }

    pub(crate) fn segment_id(&self) -> SegmentId {
        self.segment.id
    }

    /// The checkpoint that wrote the segment.
    #[cfg(feature = "tool")]
    pub(crate) fn written_by(&self) -> Result<u64> {
        let header = self.segment.read_frame(0).and_then(|frame| SegmentHeader::from_frame(&frame));
        header.map(|(_, header)| header.checkpoint).map_err(|error| error.within(self.segment.path.display()))
    }

    fn page(&self, at: u64, page: &mut Vec<u8>) -> Result<()> {
        let segment = &self.segment;
        let place = |error: Error| {
            error.within(format!(
                "{}, page at byte {at} (key group {})",
                segment.path.display(),
                self.group.group
            ))
        };
        let cut = || place(Error::corrupt("it runs over the end of the file"));
        let mut header = [0; HEADER_BYTES];
        if at.checked_add(HEADER_BYTES as u64).is_none_or(|end| end > segment.length) {
            return Err(cut());
        }
        let io = |cause| Error::io(format!("read {}", segment.path.display()), cause);
        segment.file.read_exact_at(&mut header, at).map_err(io)?;
        let header = FrameHeader::parse(&header).map_err(place)?;
        if at + header.frame_bytes() > segment.length {
            return Err(cut());
        }
        page.resize(header.length as usize, 0);
        segment.file.read_exact_at(page, at + HEADER_BYTES as u64).map_err(io)?;
        header.expect(FrameKind::Page).and_then(|()| header.check(page)).map_err(place)?;
        if header.id != u64::from(self.group.group) {
            return Err(place(Error::corrupt(format!("it is of key group {}", header.id))));
        }
        Ok(())
    }

    /// Calls `each` with every page's place and payload.
    #[cfg(feature = "tool")]
    pub(crate) fn for_each_page(
        &self,
        mut each: impl FnMut(&crate::format::records::PageRef, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut page = Vec::new();
        self.group.pages.iter().try_for_each(|place| {
            self.page(place.offset, &mut page)?;
            each(place, &page)
        })
    }

    /// Calls `each` with every entry, ordered by (hash, key).
    pub(crate) fn for_each(&self, mut each: impl FnMut(Entry<'_>) -> Result<()>) -> Result<()> {
        let mut page = Vec::new();
        for place in &self.group.pages {
            self.page(place.offset, &mut page)?;
            for entry in entries(&page) {
                each(entry?)?;
            }
        }
        Ok(())
    }

    /// Calls `each` with every entry that can be read, in the same order. Returns how many pages cannot.
    ///
    /// # Errors
    /// What is no damage, and those of `each`.
    #[cfg(feature = "tool")]
    pub(crate) fn for_each_sound(&self, mut each: impl FnMut(Entry<'_>)) -> Result<u64> {
        let (mut page, mut damaged) = (Vec::new(), 0);
        for place in &self.group.pages {
            match self.page(place.offset, &mut page) {
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    damaged += 1;
                    continue;
                }
                read => read?,
            }
            let read: Result<Vec<Entry<'_>>> = entries(&page).collect();
            match read {
                Ok(entries) => entries.into_iter().for_each(&mut each),
                Err(_) => damaged += 1,
            }
        }
        Ok(damaged)
    }

    /// Looks a key up: `None` when this segment says nothing about it, `Some(None)` when it was removed.
    pub(crate) fn find(&self, hash: u64, key: &[u8], page: &mut Vec<u8>) -> Result<Option<Option<Vec<u8>>>> {
        // Entries of one hash may begin at the end of the page before the first that starts with it.
        let after = self.group.pages.partition_point(|place| place.first_hash < hash);
        for place in &self.group.pages[after.saturating_sub(1)..] {
            if place.first_hash > hash {
                break;
            }
            self.page(place.offset, page)?;
            for entry in entries(page) {
                let entry = entry?;
                if entry.hash == hash && entry.key == key {
                    return Ok(Some(entry.value.map(<[u8]>::to_vec)));
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STORE: [u8; 16] = [9; 16];

    type Rows = BTreeMap<(u64, Vec<u8>), Option<Vec<u8>>>;

    fn write(paths: &StorePaths, rows: &Rows) -> SegmentRef {
        let entries =
            rows.iter().map(|((hash, key), value)| Entry { hash: *hash, key, value: value.as_deref() });
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
}
