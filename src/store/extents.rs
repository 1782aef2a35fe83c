//! The receive log's files: block frames, one after the other, never changed once written.
//!
//! A new extent is begun at every start, when one is full, and after a failed write; its header records how
//! far the one before is durable, so that a torn tail is told from a lost one. For the newest extent the
//! witness says it.

use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::format::block::{BLOCK_HEADER_BYTES, BlockEncoding, BlockHeader};
use crate::format::frame::{FrameHeader, FrameKind, HEADER_BYTES, decode_frame, encode_frame};
use crate::format::records::{BlockRef, ExtentHeader, Record};
use crate::id::{ExtentId, StreamId};
use crate::store::disk::{open_options, read_at, read_small};
use crate::store::{Disk, StorePaths, numbered_entries};

/// Where the records of a block start in its buffer: after the frame's and the block's own header.
pub(crate) const BLOCK_DATA_AT: usize = HEADER_BYTES + BLOCK_HEADER_BYTES;

/// A new extent is begun when the current one holds this much.
const EXTENT_BYTES: u64 = 64 << 20;

/// The longest header frame of an extent.
const EXTENT_HEADER_BYTES_MAX: usize = 4096;

fn extent_path(paths: &StorePaths, extent: ExtentId) -> PathBuf {
    paths.log().join(format!("{}.extent", extent.0))
}

fn witness_path(paths: &StorePaths) -> PathBuf {
    paths.log().join("witness")
}

/// The extents on disk, ascending.
#[cfg(feature = "tool")]
pub(crate) fn list_extents(paths: &StorePaths) -> Result<Vec<ExtentId>> {
    Ok(numbered_entries(&paths.log(), ".extent")?.into_iter().map(ExtentId).collect())
}

/// The log's witness as it is on disk, `None` when it is not there.
#[cfg(feature = "tool")]
pub(crate) fn log_witness_bytes(paths: &StorePaths) -> Option<Vec<u8>> {
    read_small(&witness_path(paths), 64).ok()?
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

    /// Removes the extents that hold only blocks below `needed`. The newest always stays: the next one's
    /// header refers to it.
    pub(crate) fn trim(&self, disk: &Disk, paths: &StorePaths, needed: u64) -> Result<()> {
        let mut extents = self.lock();
        while let [(oldest, _), (_, next_first), ..] = extents[..]
            && next_first <= needed
        {
            disk.remove_file(&extent_path(paths, oldest))?;
            extents.remove(0);
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
        if self.current.as_ref().is_some_and(|extent| extent.length >= EXTENT_BYTES) {
            self.sync()?;
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

    /// Makes everything appended durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let Some(extent) = self.current.as_mut() else {
            return Ok(());
        };
        self.disk.sync(&extent.file, &extent.path)?;
        extent.durable = extent.length;
        self.durable_block = self.next_block;
        self.previous = (extent.id.0, extent.durable);
        let frame = encode_frame(FrameKind::Witness, extent.id.0, &extent.durable.to_le_bytes())?;
        let path = witness_path(&self.paths);
        let witness = match self.witness.take() {
            Some(witness) => witness,
            None => {
                let opened = open_options().create(true).truncate(false).write(true).open(&path);
                opened.map_err(|cause| Error::io(format!("open {}", path.display()), cause))?
            }
        };
        self.disk.write_at(&witness, &frame, &path)?;
        self.witness = Some(witness);
        Ok(())
    }

    /// Forgets what was appended but is not durable; the next block begins a new extent. Only right when
    /// the write itself failed: after a failed sync nothing more may be appended.
    pub(crate) fn abandon(&mut self) {
        self.next_block = self.durable_block;
        self.seal();
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
        let mut file = self.disk.create_file(&path)?;
        let frame = header.to_frame(id.0)?;
        self.disk.write(&mut file, &frame, &path)?;
        self.disk.sync(&file, &path)?;
        self.disk.sync_dir(&self.paths.log())?;
        self.index.lock().push((id, self.next_block));
        let length = frame.len() as u64;
        self.previous = (id.0, length);
        self.current = Some(OpenExtent { id, file, path, length, durable: length });
        Ok(())
    }
}

/// Reads a block that a plan or a scan refers to, headers included.
///
/// # Errors
/// [`ErrorKind::Corrupt`], naming the block, its file and place, when it is not what was logged.
pub(crate) fn read_block(paths: &StorePaths, block: &BlockRef) -> Result<Vec<u8>> {
    let path = extent_path(paths, ExtentId(block.extent));
    let place = || format!("block {} at byte {} of {}", block.block, block.offset, path.display());
    let file = match File::open(&path) {
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

/// A block found by reading the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoggedBlock {
    pub(crate) block: BlockRef,
    pub(crate) stream: StreamId,
    pub(crate) encoding: BlockEncoding,
}

/// What the log was found to hold from some block on.
#[derive(Debug)]
pub(crate) struct LogContents {
    pub(crate) blocks: Vec<LoggedBlock>,
    /// `(extent, first block)` of every extent, ascending.
    pub(crate) extents: Vec<(ExtentId, u64)>,
    pub(crate) end: LogEnd,
    /// What is wrong, one line each: acknowledged blocks that are no longer readable.
    pub(crate) damage: Vec<String>,
}

struct FoundExtent {
    id: ExtentId,
    file: File,
    path: PathBuf,
    header: ExtentHeader,
    data_at: u64,
    length: u64,
}

/// Reads every block numbered `from` or higher.
///
/// # Errors
/// [`ErrorKind::Incompatible`] for files of another store or version, [`ErrorKind::Io`] when reading is
/// refused. Damage is described in the result.
pub(crate) fn scan_log(paths: &StorePaths, store: [u8; 16], from: u64) -> Result<LogContents> {
    // Before the extents: beside a running job they only grow beyond what it says.
    let witness = witness_of(paths);
    let mut damage = Vec::new();
    let mut found = Vec::new();
    let numbers = numbered_entries(&paths.log(), ".extent")?;
    let newest = numbers.last().copied().unwrap_or(0);
    for number in numbers {
        match open_extent(paths, store, ExtentId(number)) {
            Ok(extent) => found.push(extent),
            Err(error) if error.kind() != ErrorKind::Corrupt => return Err(error),
            // Begun and not finished when the process died: nothing in it was acknowledged.
            Err(_) if number == newest && witness.is_none_or(|(extent, _)| extent != number) => {}
            Err(error) => damage.push(error.chain()),
        }
    }
    let mut blocks = Vec::new();
    let mut next_block = from;
    let mut previous = (0, 0);
    for (at, extent) in found.iter().enumerate() {
        let following = found.get(at + 1);
        let sealed = following
            .filter(|next| next.header.previous == extent.id.0)
            .map(|next| next.header.previous_length);
        let promised = match (sealed, witness) {
            (Some(length), _) => length,
            (None, Some((witness, length))) if witness == extent.id.0 => length,
            _ => extent.data_at,
        };
        let skip = following.is_some_and(|next| next.header.first_block <= from);
        let mut end = promised;
        if !skip {
            let limit = sealed.unwrap_or(extent.length).min(extent.length);
            end = scan_extent(extent, limit, from, &mut blocks)?;
            if end < promised {
                damage.push(format!(
                    "{}: blocks up to byte {promised} were acknowledged, they are readable up to {end}",
                    extent.path.display()
                ));
            }
        }
        next_block = next_block.max(extent.header.first_block);
        previous = (extent.id.0, end);
    }
    next_block = next_block.max(blocks.last().map_or(0, |last| last.block.block + 1));
    let extents = found.iter().map(|extent| (extent.id, extent.header.first_block)).collect();
    let end = LogEnd { next_extent: ExtentId(newest + 1), previous, next_block };
    Ok(LogContents { blocks, extents, end, damage })
}

pub(crate) fn witness_of(paths: &StorePaths) -> Option<(u64, u64)> {
    let bytes = read_small(&witness_path(paths), 64).ok()??;
    let (header, payload) = decode_frame(&bytes).ok()?;
    Some((header.id, u64::from_le_bytes(payload.try_into().ok()?)))
}

fn open_extent(paths: &StorePaths, store: [u8; 16], id: ExtentId) -> Result<FoundExtent> {
    let path = extent_path(paths, id);
    let file = File::open(&path).map_err(|cause| Error::io(format!("open {}", path.display()), cause))?;
    let length =
        file.metadata().map_err(|cause| Error::io(format!("look at {}", path.display()), cause))?.len();
    let start = read_at(&file, 0, length.min(EXTENT_HEADER_BYTES_MAX as u64) as usize, &path)?;
    let parse = || {
        let frame = FrameHeader::parse(&start)?;
        let bytes = start
            .get(..frame.frame_bytes() as usize)
            .ok_or_else(|| Error::corrupt("its header is cut off"))?;
        let (number, header) = ExtentHeader::from_frame(bytes)?;
        if number != id.0 {
            return Err(Error::corrupt(format!("it is extent {number} under another name")));
        }
        Ok((header, frame.frame_bytes()))
    };
    let (header, data_at) = parse().map_err(|error: Error| error.within(path.display()))?;
    if header.store != store {
        return Err(Error::new(
            ErrorKind::Incompatible,
            format!("{} belongs to another store", path.display()),
        ));
    }
    Ok(FoundExtent { id, file, path, header, data_at, length })
}

/// Collects the sound blocks of one extent; returns where they end.
fn scan_extent(extent: &FoundExtent, limit: u64, from: u64, blocks: &mut Vec<LoggedBlock>) -> Result<u64> {
    let mut at = extent.data_at;
    let mut expected = extent.header.first_block;
    while at + HEADER_BYTES as u64 <= limit {
        let bytes = read_at(&extent.file, at, HEADER_BYTES, &extent.path)?;
        let Ok(header) = FrameHeader::parse(&bytes) else { break };
        let end = at + header.frame_bytes();
        if end > limit || header.kind != FrameKind::Block || header.id != expected {
            break;
        }
        let payload = read_at(&extent.file, at + HEADER_BYTES as u64, header.length as usize, &extent.path)?;
        let Ok((block, _)) = header.check(&payload).and_then(|()| BlockHeader::parse(&payload)) else {
            break;
        };
        if header.id >= from {
            let place = BlockRef {
                block: header.id,
                extent: extent.id.0,
                offset: at,
                length: header.length,
                crc: header.crc,
            };
            blocks.push(LoggedBlock { block: place, stream: block.stream, encoding: block.encoding });
        }
        at = end;
        expected += 1;
    }
    Ok(at)
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

    const STORE: [u8; 16] = [3; 16];

    fn start(paths: &StorePaths) -> (ExtentWriter, LogContents) {
        let contents = scan_log(paths, STORE, 1).unwrap();
        let index = ExtentIndex::new(contents.extents.clone());
        (ExtentWriter::new(Disk::default(), paths.clone(), STORE, index, contents.end), contents)
    }

    fn append(writer: &mut ExtentWriter, text: &str) -> BlockRef {
        let mut buffer = block_buffer(text.len());
        buffer.extend_from_slice(text.as_bytes());
        let header = BlockHeader { stream: StreamId(1), encoding: BlockEncoding::Lines, records: 0 };
        writer.append(&mut buffer, header).unwrap()
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
