//! The receive log's files: block frames, one after the other, never changed once written.
//!
//! A new extent is begun at every start, when one is full, and after a failed write; its header records how
//! far the one before is durable, so that a torn tail is told from a lost one. For the newest extent the
//! witness says it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::format::block::{BLOCK_HEADER_BYTES, BlockHeader};
use crate::format::frame::{FrameHeader, FrameKind, HEADER_BYTES, decode_frame, encode_frame};
use crate::format::records::{BlockRef, ExtentHeader, Record};
use crate::id::ExtentId;
use crate::store::disk::{open_options, open_to_read, read_at};
use crate::store::{Disk, StorePaths};

/// Where the records of a block start in its buffer: after the frame's and the block's own header.
pub(crate) const BLOCK_DATA_AT: usize = HEADER_BYTES + BLOCK_HEADER_BYTES;

/// A new extent is begun when the current one holds this much.
const EXTENT_BYTES: u64 = 64 << 20;

pub(super) fn extent_path(paths: &StorePaths, extent: ExtentId) -> PathBuf {
    paths.root.join(extent_name(extent))
}

/// Where an extent is in its store.
pub(crate) fn extent_name(extent: ExtentId) -> PathBuf {
    PathBuf::from(format!("log/{}.extent", extent.0))
}

pub(super) fn witness_path(paths: &StorePaths) -> PathBuf {
    paths.log().join("witness")
}

/// Removes an extent that holds nothing.
pub(crate) fn remove_extent(disk: &Disk, paths: &StorePaths, extent: ExtentId) -> Result<()> {
    disk.remove_file(&extent_path(paths, extent))
}

/// Makes durable what is in an extent of an earlier run.
pub(crate) fn sync_extent(disk: &Disk, paths: &StorePaths, extent: ExtentId) -> Result<()> {
    disk.sync_existing(&extent_path(paths, extent))
}

/// Which blocks are in which extent, shared between who appends and who trims.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExtentIndex(Arc<Mutex<Vec<(ExtentId, u64)>>>);

impl ExtentIndex {
    /// `(extent, the number of its first block)`, ascending.
    pub(crate) fn new(extents: Vec<(ExtentId, u64)>) -> Self {
        ExtentIndex(Arc::new(Mutex::new(extents)))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(ExtentId, u64)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `extent` has a block below `next_block`.
    fn holds(&self, extent: ExtentId, next_block: u64) -> bool {
        self.lock().iter().any(|(id, first)| *id == extent && *first < next_block)
    }

    /// The extents that [`trim`](Self::trim) would remove.
    #[cfg(feature = "tool")]
    pub(crate) fn below(&self, needed: u64) -> Vec<ExtentId> {
        let extents = self.lock();
        let next = extents.iter().skip(1).map(|(_, first)| *first);
        extents
            .iter()
            .zip(next)
            .take_while(|(_, next)| *next <= needed)
            .map(|((extent, _), _)| *extent)
            .collect()
    }

    /// Removes the extents that hold only blocks below `needed`. The newest always stays: the next one's
    /// header refers to it.
    pub(crate) fn trim(&self, disk: &Disk, paths: &StorePaths, needed: u64) -> Result<()> {
        let oldest_below = || match self.lock()[..] {
            [(oldest, _), (_, next_first), ..] => (next_first <= needed).then_some(oldest),
            _ => None,
        };
        while let Some(oldest) = oldest_below() {
            // Not under the lock: who appends must not wait until a large file is gone.
            disk.remove_file(&extent_path(paths, oldest))?;
            self.lock().retain(|(extent, _)| *extent != oldest);
        }
        Ok(())
    }
}

/// Appends blocks to the log.
#[derive(Debug)]
pub(crate) struct ExtentWriter {
    disk: Disk,
    paths: StorePaths,
    store: [u8; 16],
    index: ExtentIndex,
    current: Option<OpenExtent>,
    witness: Option<File>,
    next_extent: ExtentId,
    /// The newest extent and how far it is durable.
    previous: (u64, u64),
    next_block: u64,
    durable_block: u64,
}

#[derive(Debug)]
struct OpenExtent {
    id: ExtentId,
    file: File,
    path: PathBuf,
    length: u64,
    durable: u64,
    /// The newest extent before this one and how far it is durable.
    before: (u64, u64),
}

/// Where the log of a store ends: what its next writer goes on from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogEnd {
    pub(crate) next_extent: ExtentId,
    pub(crate) previous: (u64, u64),
    pub(crate) next_block: u64,
}

impl ExtentWriter {
    pub(crate) fn new(
        disk: Disk,
        paths: StorePaths,
        store: [u8; 16],
        index: ExtentIndex,
        end: LogEnd,
    ) -> Self {
        ExtentWriter {
            disk,
            paths,
            store,
            index,
            current: None,
            witness: None,
            next_extent: end.next_extent,
            previous: end.previous,
            next_block: end.next_block,
            durable_block: end.next_block,
        }
    }

    /// Completes a block's headers in the space that its buffer reserves for them, and appends it. It is
    /// durable after the next [`sync`](Self::sync).
    pub(crate) fn append(&mut self, buffer: &mut [u8], header: BlockHeader) -> Result<BlockRef> {
        let (frame, payload) = buffer.split_at_mut(HEADER_BYTES);
        payload[..BLOCK_HEADER_BYTES].copy_from_slice(&header.to_bytes());
        let frame_header = FrameHeader::for_payload(FrameKind::Block, self.next_block, &[payload])?;
        frame.copy_from_slice(&frame_header.to_bytes());
        // Only between two commits: what fails is appended again as a whole, and must not be durable in part.
        let full = |extent: &OpenExtent| extent.durable >= EXTENT_BYTES && extent.durable == extent.length;
        if self.current.as_ref().is_some_and(full) {
            self.seal();
        }
        self.open_extent()?;
        let Some(extent) = self.current.as_mut() else {
            return Err(Error::new(ErrorKind::Stopped, "the receive log has no open extent"));
        };
        self.disk.write(&mut extent.file, buffer, &extent.path)?;
        let block = BlockRef {
            block: self.next_block,
            extent: extent.id.0,
            offset: extent.length,
            length: frame_header.length,
            crc: frame_header.crc,
        };
        extent.length += buffer.len() as u64;
        self.next_block += 1;
        Ok(block)
    }

    /// Begins an extent, whether a block follows or not.
    #[cfg(feature = "tool")]
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.open_extent()
    }

    /// Makes everything appended durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let Some(extent) = self.current.as_mut() else {
            return Ok(());
        };
        self.disk.sync(&extent.file, &extent.path)?;
        let frame = encode_frame(FrameKind::Witness, extent.id.0, &extent.length.to_le_bytes())?;
        let path = witness_path(&self.paths);
        let witness = match self.witness.take() {
            Some(witness) => witness,
            None => {
                let opened = open_options().create(true).truncate(false).write(true).open(&path);
                opened.map_err(|cause| Error::io(format!("open {}", path.display()), cause))?
            }
        };
        let written = self.disk.write_at(&witness, &frame, &path);
        self.witness = Some(witness);
        written?;
        // Not before the witness says so: what is committed anew after a failure must not count twice.
        extent.durable = extent.length;
        self.durable_block = self.next_block;
        self.previous = (extent.id.0, extent.durable);
        Ok(())
    }

    /// Forgets what was appended but is not durable; the next block begins a new extent. Only right when
    /// the write itself failed: after a failed sync nothing more may be appended.
    pub(crate) fn abandon(&mut self) {
        self.next_block = self.durable_block;
        let Some(extent) = self.current.take() else { return };
        let holds_blocks = self.index.holds(extent.id, self.next_block);
        if !holds_blocks && self.disk.remove_file(&extent.path).is_ok() {
            // A disk that stays full is tried again and again: an extent without a block is not kept.
            self.index.lock().retain(|(id, _)| *id != extent.id);
            self.previous = extent.before;
        }
    }

    fn seal(&mut self) {
        self.current = None;
    }

    fn open_extent(&mut self) -> Result<()> {
        if self.current.is_some() {
            return Ok(());
        }
        let id = self.next_extent;
        self.next_extent = id.next();
        let path = extent_path(&self.paths, id);
        let header = ExtentHeader {
            store: self.store,
            previous: self.previous.0,
            previous_length: self.previous.1,
            first_block: self.next_block,
        };
        let frame = header.to_frame(id.0)?;
        let file = self.create_extent(&path, &frame).inspect_err(|_| {
            // What is left of it names no block and is passed over; removing it may fail as creating it did.
            let _ = self.disk.remove_file(&path);
        })?;
        self.index.lock().push((id, self.next_block));
        let length = frame.len() as u64;
        let before = std::mem::replace(&mut self.previous, (id.0, length));
        self.current = Some(OpenExtent { id, file, path, length, durable: length, before });
        Ok(())
    }

    fn create_extent(&self, path: &Path, header: &[u8]) -> Result<File> {
        let mut file = self.disk.create_file(path)?;
        self.disk.write(&mut file, header, path)?;
        self.disk.sync(&file, path)?;
        self.disk.sync_dir(&self.paths.log())?;
        Ok(file)
    }
}

/// Reads a block that a plan or a scan refers to, headers included.
///
/// # Errors
/// [`ErrorKind::Corrupt`], naming the block, its file and place, when it is not what was logged.
pub(crate) fn read_block(paths: &StorePaths, block: &BlockRef) -> Result<Vec<u8>> {
    let path = extent_path(paths, ExtentId(block.extent));
    let place = || format!("block {} at byte {} of {}", block.block, block.offset, path.display());
    let file = match open_to_read(&path) {
        Ok(file) => file,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::corrupt(format!("{}: the file is missing", place())));
        }
        Err(cause) => return Err(Error::io(format!("open {}", path.display()), cause)),
    };
    let length = HEADER_BYTES as u64 + u64::from(block.length);
    let file_length = file.metadata().map_or(0, |data| data.len());
    if block.offset.checked_add(length).is_none_or(|end| end > file_length) {
        return Err(Error::corrupt(format!("{}: the file ends at {file_length}", place())));
    }
    let bytes = read_at(&file, block.offset, length as usize, &path)?;
    let (header, _) = decode_frame(&bytes).map_err(|error| error.within(place()))?;
    if header.kind != FrameKind::Block || header.id != block.block || header.crc != block.crc {
        return Err(Error::corrupt(format!("{}: another frame is there", place())));
    }
    Ok(bytes)
}

/// An empty block buffer with room for its headers.
pub(crate) fn block_buffer(capacity: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(BLOCK_DATA_AT + capacity);
    buffer.resize(BLOCK_DATA_AT, 0);
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::block::BlockEncoding;
    use crate::id::StreamId;
    use crate::store::log_scan::{LogContents, scan_log};

    const STORE: [u8; 16] = [3; 16];

    fn start(paths: &StorePaths) -> (ExtentWriter, LogContents) {
        let contents = scan_log(paths, STORE, 1).unwrap();
        let index = ExtentIndex::new(contents.extents.clone());
        (ExtentWriter::new(Disk::default(), paths.clone(), STORE, index, contents.end), contents)
    }

    fn append(writer: &mut ExtentWriter, text: &str) -> BlockRef {
        try_append(writer, text).unwrap()
    }

    fn try_append(writer: &mut ExtentWriter, text: &str) -> Result<BlockRef> {
        let mut buffer = block_buffer(text.len());
        buffer.extend_from_slice(text.as_bytes());
        let header =
            BlockHeader { stream: StreamId(1), encoding: BlockEncoding::Lines, records: 0, schema: 0 };
        writer.append(&mut buffer, header)
    }

    fn store() -> (tempfile::TempDir, StorePaths) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("log")).unwrap();
        let paths = StorePaths::new(dir.path());
        (dir, paths)
    }

    #[test]
    fn synced_blocks_are_found_again_over_several_starts() {
        let (_dir, paths) = store();
        let mut expected = Vec::new();
        for round in 0..3 {
            let (mut writer, contents) = start(&paths);
            assert_eq!(contents.blocks.iter().map(|b| b.block).collect::<Vec<_>>(), expected);
            assert!(contents.damage.is_empty(), "{:?}", contents.damage);
            for block in 0..3 {
                expected.push(append(&mut writer, &format!("round {round} block {block}")));
            }
            writer.sync().unwrap();
        }
        assert_eq!(expected.last().unwrap().block, 9);
        let bytes = read_block(&paths, &expected[4]).unwrap();
        assert_eq!(&bytes[BLOCK_DATA_AT..], b"round 1 block 1");
    }

    #[test]
    fn a_torn_tail_is_no_damage_and_a_lost_one_is() {
        let (_dir, paths) = store();
        let (mut writer, _) = start(&paths);
        append(&mut writer, "kept");
        writer.sync().unwrap();
        let torn = append(&mut writer, "torn");
        drop(writer);
        let file = open_options().write(true).open(extent_path(&paths, ExtentId(torn.extent))).unwrap();
        file.set_len(torn.offset + 30).unwrap();
        let contents = scan_log(&paths, STORE, 1).unwrap();
        assert_eq!((contents.blocks.len(), contents.damage.len()), (1, 0));
        assert_eq!(contents.end.next_block, 2);
        file.set_len(torn.offset - 1).unwrap();
        let contents = scan_log(&paths, STORE, 1).unwrap();
        assert_eq!((contents.blocks.len(), contents.damage.len()), (0, 1));
    }

    #[test]
    fn a_witness_of_which_a_power_cut_left_only_the_length_is_as_if_it_were_not_there() {
        let (_dir, paths) = store();
        let (mut writer, _) = start(&paths);
        append(&mut writer, "kept");
        writer.sync().unwrap();
        for left in [vec![], vec![0; 32]] {
            std::fs::write(witness_path(&paths), left).unwrap();
            let contents = scan_log(&paths, STORE, 1).unwrap();
            assert_eq!((contents.blocks.len(), contents.damage.len(), contents.notes.len()), (1, 0, 0));
        }
    }

    #[test]
    fn a_flipped_bit_in_a_sealed_extent_is_damage() {
        let (_dir, paths) = store();
        let (mut writer, _) = start(&paths);
        let first = append(&mut writer, "first");
        writer.sync().unwrap();
        let (mut writer, _) = start(&paths);
        append(&mut writer, "second");
        writer.sync().unwrap();
        let path = extent_path(&paths, ExtentId(first.extent));
        let mut bytes = std::fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let contents = scan_log(&paths, STORE, 1).unwrap();
        assert_eq!((contents.blocks.len(), contents.damage.len()), (1, 1));
        assert_eq!(read_block(&paths, &first).unwrap_err().kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn an_extent_that_was_only_begun_is_passed_over_also_when_it_is_not_the_newest() {
        let (_dir, paths) = store();
        let (mut writer, _) = start(&paths);
        append(&mut writer, "first");
        writer.sync().unwrap();
        std::fs::write(extent_path(&paths, ExtentId(2)), b"MLPD").unwrap();
        for block in 2..5 {
            let (mut writer, contents) = start(&paths);
            assert_eq!((contents.unfinished, contents.damage.len()), (vec![ExtentId(2)], 0));
            assert_eq!(append(&mut writer, "more").block, block);
            writer.sync().unwrap();
        }
    }

    #[test]
    fn an_extent_that_is_gone_is_damage_unless_it_was_trimmed() {
        for gone in 1..=3 {
            let (_dir, paths) = store();
            for _ in 0..3 {
                let (mut writer, _) = start(&paths);
                append(&mut writer, "x");
                writer.sync().unwrap();
            }
            std::fs::remove_file(extent_path(&paths, ExtentId(gone))).unwrap();
            assert_eq!(scan_log(&paths, STORE, 1).unwrap().damage.len(), 1, "extent {gone}");
            assert_eq!(scan_log(&paths, STORE, gone + 1).unwrap().damage.len(), usize::from(gone == 3));
        }
    }

    #[test]
    fn damage_to_a_block_that_nobody_needs_does_not_hide_those_after_it() {
        let (_dir, paths) = store();
        let (mut writer, _) = start(&paths);
        let first = append(&mut writer, "not needed any more");
        append(&mut writer, "needed");
        writer.sync().unwrap();
        let path = extent_path(&paths, ExtentId(first.extent));
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[first.offset as usize + 45] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(scan_log(&paths, STORE, 1).unwrap().damage.len(), 1);
        let contents = scan_log(&paths, STORE, 2).unwrap();
        assert_eq!((contents.blocks.len(), contents.damage.len()), (1, 0));
    }

    #[test]
    fn what_a_failed_write_left_is_abandoned() {
        let (_dir, paths) = store();
        let (mut writer, _) = start(&paths);
        append(&mut writer, "durable");
        writer.sync().unwrap();
        append(&mut writer, "written but never synced");
        writer.abandon();
        let again = append(&mut writer, "again");
        writer.sync().unwrap();
        assert_eq!(again.block, 2);
        let contents = scan_log(&paths, STORE, 1).unwrap();
        assert_eq!(contents.blocks.iter().map(|b| b.block.block).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(contents.blocks[1].block, again);
        assert!(contents.damage.is_empty(), "{:?}", contents.damage);
    }

    /// Appends and syncs as one commit, again and again while the disk is full.
    fn commit(writer: &mut ExtentWriter, texts: &[&str]) -> Vec<BlockRef> {
        loop {
            let committed = texts.iter().map(|text| try_append(writer, text)).collect::<Result<Vec<_>>>();
            match committed.and_then(|blocks| writer.sync().map(|()| blocks)) {
                Ok(blocks) => return blocks,
                Err(error) => assert_eq!(error.kind(), ErrorKind::DiskFull),
            }
            writer.abandon();
        }
    }

    #[test]
    fn a_commit_that_a_full_disk_interrupts_anywhere_is_in_the_log_once() {
        for first in 1..14 {
            for steps in 1..4 {
                let (_dir, paths) = store();
                let (mut writer, _) = start(&paths);
                let full = crate::store::FaultPlan::full_during(first..first + steps);
                writer.disk = Disk::with_faults(Some(full));
                let mut expected = commit(&mut writer, &["a", "b"]);
                expected.extend(commit(&mut writer, &["c", "d", "e"]));
                drop(writer);
                let contents = scan_log(&paths, STORE, 1).unwrap();
                let found: Vec<_> = contents.blocks.iter().map(|block| block.block).collect();
                assert_eq!((found, contents.damage), (expected, vec![]), "full from {first} for {steps}");
            }
        }
    }

    #[test]
    fn a_commit_is_never_cut_by_the_end_of_an_extent() {
        let (_dir, paths) = store();
        let (mut writer, _) = start(&paths);
        append(&mut writer, "first");
        writer.sync().unwrap();
        // As if the extent were nearly full.
        let nearly = |writer: &mut ExtentWriter, length| {
            let extent = writer.current.as_mut().unwrap();
            (extent.length, extent.durable) = (length, length);
        };
        nearly(&mut writer, EXTENT_BYTES - 1);
        let group = [append(&mut writer, "second"), append(&mut writer, "third")];
        assert_eq!(group.map(|block| block.extent), [1, 1]);
        assert_eq!(writer.durable_block, 2, "nothing of the group is durable on its own");
        nearly(&mut writer, EXTENT_BYTES + 50);
        assert_eq!(append(&mut writer, "fourth").extent, 2);
    }

    /// The witness is not synced: after a power cut it may name an extent that was trimmed since.
    #[test]
    fn a_witness_that_lags_behind_is_no_damage() {
        let (_dir, paths) = store();
        let mut lagging = Vec::new();
        for round in 0..3 {
            let (mut writer, _) = start(&paths);
            append(&mut writer, "x");
            writer.sync().unwrap();
            if round == 0 {
                lagging = std::fs::read(witness_path(&paths)).unwrap();
            }
        }
        let index = ExtentIndex::new(scan_log(&paths, STORE, 1).unwrap().extents);
        index.trim(&Disk::default(), &paths, 3).unwrap();
        std::fs::write(witness_path(&paths), lagging).unwrap();
        let contents = scan_log(&paths, STORE, 3).unwrap();
        assert_eq!((contents.blocks.len(), contents.damage), (1, vec![]));
    }

    #[test]
    fn trimming_removes_whole_extents_below_the_needed_block() {
        let (_dir, paths) = store();
        for _ in 0..3 {
            let (mut writer, _) = start(&paths);
            append(&mut writer, "x");
            append(&mut writer, "y");
            writer.sync().unwrap();
        }
        let contents = scan_log(&paths, STORE, 1).unwrap();
        let index = ExtentIndex::new(contents.extents);
        index.trim(&Disk::default(), &paths, 4).unwrap();
        let left = scan_log(&paths, STORE, 4).unwrap();
        assert_eq!(left.blocks.iter().map(|b| b.block.block).collect::<Vec<_>>(), [4, 5, 6]);
        index.trim(&Disk::default(), &paths, 100).unwrap();
        assert_eq!(scan_log(&paths, STORE, 1).unwrap().extents.len(), 1);
    }
}
