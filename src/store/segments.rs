//! The files of checkpointed state: pages of entries with filters, then a directory, then a trailer.
//!
//! A segment belongs to one checkpoint and holds, for each operator and key group that changed, either a
//! delta or a base. It is written once and read in place: a restart reads the directory and looks entries
//! up in the pages when their keys come up. A page is checked whenever it is read.

mod ahead;
mod encoder;
mod lookup;
mod source;
mod writer;

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use ahead::ReadAhead;
pub(crate) use encoder::GroupEncoder;
pub(crate) use source::GroupSource;
pub(crate) use writer::SegmentWriter;
#[cfg(any(test, feature = "tool"))]
pub(crate) use writer::write_segment;

use crate::error::{Error, ErrorKind, Result};
use crate::format::frame::{FrameHeader, FrameKind, HEADER_BYTES, decode_frame};
use crate::format::records::{Directory, GroupDirectory, Record, SegmentHeader, SegmentRef};
#[cfg(any(test, feature = "tool"))]
use crate::format::segment::Entry;
use crate::format::segment::{TRAILER_PAYLOAD_BYTES, parse_trailer};
use crate::id::SegmentId;
use crate::record::schema_hash;
use crate::store::disk::{open_to_read, read_at};
use crate::store::late_damage::LateDamage;
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
    /// The frame of its filter, if it has one.
    filter: Vec<u8>,
}

impl EncodedGroup {
    /// Lays out `entries`, which are ordered by (hash, key), of a group that then holds `live`.
    #[cfg(any(test, feature = "tool"))]
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

    #[cfg(test)]
    pub(crate) fn group(&self) -> usize {
        usize::from(self.directory.group)
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
    /// Who is told of damage that is found in a page.
    watch: OnceLock<Arc<LateDamage>>,
    filters: ReadAhead,
    /// How many parts that awaited a check were found sound.
    checked: AtomicUsize,
}

/// What a segment holds of one operator.
#[derive(Debug)]
struct StoredOperator {
    schema: Arc<str>,
    schema_hash: u64,
    groups: BTreeMap<u16, Arc<StoredGroup>>,
}

/// What the directory says of a key group, and what is known of it since.
#[derive(Debug)]
pub(crate) struct StoredGroup {
    directory: GroupDirectory,
    /// The job goes on from it, and nobody has read all of it yet.
    awaits_check: AtomicBool,
}

impl From<GroupDirectory> for StoredGroup {
    fn from(directory: GroupDirectory) -> Self {
        StoredGroup { directory, awaits_check: AtomicBool::new(false) }
    }
}

impl Deref for StoredGroup {
    type Target = GroupDirectory;

    fn deref(&self) -> &GroupDirectory {
        &self.directory
    }
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
        let mut segment = Segment::of(id, file, path, length);
        let read = segment.read_directory(store, expected.directory_crc);
        let directory = read.map_err(|error| error.within(segment.path.display()))?;
        for operator in directory.operators {
            let listed = operator.groups.len();
            let stored = StoredOperator {
                schema_hash: schema_hash(&operator.schema),
                schema: operator.schema.into(),
                groups: operator
                    .groups
                    .into_iter()
                    .map(|group| (group.group, Arc::new(group.into())))
                    .collect(),
            };
            if stored.groups.len() < listed || segment.operators.contains_key(&operator.name) {
                let message = format!("its directory has a key group of `{}` twice", operator.name);
                return Err(Error::corrupt(message).within(segment.path.display()));
            }
            segment.operators.insert(operator.name, stored);
        }
        Ok(segment)
    }

    /// One of which nothing was read yet.
    fn of(id: SegmentId, file: File, path: PathBuf, length: u64) -> Self {
        let (operators, watch, filters, checked) = Default::default();
        Segment { id, file, path, length, operators, watch, filters, checked }
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
        let segment = Segment::of(id, file, path, length);
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

    /// Checks every page and filter.
    ///
    /// # Errors
    /// The first damage, as [`ErrorKind::Corrupt`] naming file, place, operator and key group.
    #[cfg(test)]
    pub(crate) fn verify(self: &Arc<Self>) -> Result<()> {
        self.parts().iter().try_for_each(|(operator, part)| part.verify(operator, || false))
    }

    /// Checks every page and filter and says what is wrong with each key group, one line each. `read` is told the bytes
    /// of each.
    ///
    /// # Errors
    /// What is no damage: another version, or reading is refused.
    #[cfg(feature = "tool")]
    pub(crate) fn damage(self: &Arc<Self>, read: impl Fn(u64)) -> Result<Vec<String>> {
        let mut damage = Vec::new();
        for (operator, part) in self.parts() {
            read(part.group.stored_bytes());
            match part.verify(&operator, || false) {
                Err(error) if error.kind() == ErrorKind::Corrupt => damage.push(error.chain()),
                outcome => outcome?,
            }
        }
        Ok(damage)
    }

    /// From now on damage in a page is told to `watch`, whoever reads it.
    pub(crate) fn watch(&self, watch: &Arc<LateDamage>) {
        // A segment that is watched already has told the same one.
        let _ = self.watch.set(watch.clone());
    }

    /// How many of its parts were found sound since they [await](GroupSource::await_check) that.
    pub(crate) fn checked(&self) -> usize {
        self.checked.load(Ordering::SeqCst)
    }

    fn tell(&self, error: Error) -> Error {
        // A page of another version than its segment is damage too, as far as a job that runs is concerned.
        if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Incompatible)
            && let Some(watch) = self.watch.get()
        {
            watch.note(&error);
        }
        error
    }

    /// All that it holds, in the order in which it is in the file, each with its operator.
    pub(crate) fn parts(self: &Arc<Self>) -> Vec<(String, GroupSource)> {
        let source = |group: &Arc<StoredGroup>| GroupSource { segment: self.clone(), group: group.clone() };
        let mut parts: Vec<_> =
            self.all_groups().map(|(name, group)| (name.clone(), source(group))).collect();
        parts.sort_by_key(|(_, part)| part.group.pages.first().map_or(0, |page| page.offset));
        parts
    }

    /// What all pages and filters take, as far as the directory can be believed.
    pub(crate) fn state_bytes(&self) -> u64 {
        self.all_groups().fold(0, |sum, (_, group)| sum.saturating_add(group.stored_bytes()))
    }

    fn all_groups(&self) -> impl Iterator<Item = (&String, &Arc<StoredGroup>)> {
        self.operators
            .iter()
            .flat_map(|(name, stored)| stored.groups.values().map(move |group| (name, group)))
    }
}

#[cfg(test)]
mod tests;
