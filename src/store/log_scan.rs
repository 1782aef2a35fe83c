//! Reading the receive log back: which blocks it holds, where it ends, and what is missing.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::format::block::BlockHeader;
use crate::format::frame::{FrameHeader, FrameKind, HEADER_BYTES, decode_frame};
use crate::format::records::{BlockRef, ExtentHeader, Record};
use crate::id::{ExtentId, StreamId};
use crate::store::disk::{read_at, read_small};
use crate::store::extents::{LogEnd, extent_path, witness_path};
use crate::store::{StorePaths, numbered_entries};

/// The longest header frame of an extent.
const EXTENT_HEADER_BYTES_MAX: usize = 4096;

/// A block found by reading the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoggedBlock {
    pub(crate) block: BlockRef,
    pub(crate) stream: StreamId,
}

/// What the log was found to hold from some block on.
#[derive(Debug)]
pub(crate) struct LogContents {
    pub(crate) blocks: Vec<LoggedBlock>,
    /// `(extent, first block)` of every extent, ascending.
    pub(crate) extents: Vec<(ExtentId, u64)>,
    pub(crate) end: LogEnd,
    /// Extents whose creation was interrupted: nothing in them was acknowledged.
    pub(crate) unfinished: Vec<ExtentId>,
    /// What is wrong, one line each: acknowledged blocks that are no longer readable.
    pub(crate) damage: Vec<String>,
    /// What is wrong and costs no block, one line each.
    pub(crate) notes: Vec<String>,
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
    scan(paths, store, from, from)
}

/// Reads every block that is there; extents that hold only blocks below `needed` may have been trimmed.
///
/// # Errors
/// As [`scan_log`].
#[cfg(feature = "tool")]
pub(crate) fn scan_whole_log(paths: &StorePaths, store: [u8; 16], needed: u64) -> Result<LogContents> {
    scan(paths, store, 0, needed)
}

fn scan(paths: &StorePaths, store: [u8; 16], from: u64, needed: u64) -> Result<LogContents> {
    let mut contents = LogContents {
        blocks: Vec::new(),
        extents: Vec::new(),
        end: LogEnd { next_extent: ExtentId(1), previous: (0, 0), next_block: from },
        unfinished: Vec::new(),
        damage: Vec::new(),
        notes: Vec::new(),
    };
    // Before the extents: beside a running job they only grow beyond what it says.
    let witness = match witness_of(paths) {
        Ok(witness) => witness,
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            contents
                .notes
                .push(format!("{}: how far the newest extent is durable is not known", error.chain()));
            None
        }
        Err(error) => return Err(error),
    };
    let found = open_extents(paths, store, witness, &mut contents)?;
    for (at, extent) in found.iter().enumerate() {
        read_extent(extent, found.get(at + 1), witness, from, &mut contents)?;
    }
    note_missing(paths, &found, witness, needed, &mut contents);
    contents.extents = found.iter().map(|extent| (extent.id, extent.header.first_block)).collect();
    Ok(contents)
}

/// Opens what is there. An extent that cannot be read and that nothing names was begun when the process died.
fn open_extents(
    paths: &StorePaths,
    store: [u8; 16],
    witness: Option<(u64, u64)>,
    contents: &mut LogContents,
) -> Result<Vec<FoundExtent>> {
    let mut found = Vec::new();
    let mut unreadable = Vec::new();
    for number in numbered_entries(&paths.log(), ".extent")? {
        contents.end.next_extent = ExtentId(number + 1);
        match open_extent(paths, store, ExtentId(number)) {
            Ok(extent) => found.push(extent),
            Err(error) if error.kind() == ErrorKind::Corrupt => unreadable.push((number, error)),
            Err(error) => return Err(error),
        }
    }
    let mut named: BTreeSet<u64> = found.iter().map(|extent| extent.header.previous).collect();
    named.extend(witness.map(|(extent, _)| extent));
    for (number, error) in unreadable {
        if named.contains(&number) {
            contents.damage.push(error.chain());
        } else {
            contents.unfinished.push(ExtentId(number));
        }
    }
    Ok(found)
}

/// Collects the blocks of one extent and notes where it ends.
fn read_extent(
    extent: &FoundExtent,
    following: Option<&FoundExtent>,
    witness: Option<(u64, u64)>,
    from: u64,
    contents: &mut LogContents,
) -> Result<()> {
    let sealed =
        following.filter(|next| next.header.previous == extent.id.0).map(|next| next.header.previous_length);
    let witnessed = witness.filter(|(named, _)| *named == extent.id.0).map(|(_, length)| length);
    let promised = sealed.or(witnessed).unwrap_or(extent.data_at);
    let mut end = promised;
    if following.is_none_or(|next| next.header.first_block > from) {
        let limit = sealed.unwrap_or(extent.length).min(extent.length);
        end = scan_extent(extent, limit, from, &mut contents.blocks)?;
        if end < promised {
            contents.damage.push(format!(
                "{}: blocks up to byte {promised} were acknowledged, they are readable up to {end}",
                extent.path.display()
            ));
        }
    }
    let last = contents.blocks.last().map_or(0, |last| last.block.block + 1);
    contents.end.next_block = contents.end.next_block.max(extent.header.first_block).max(last);
    contents.end.previous = (extent.id.0, end);
    Ok(())
}

/// Extents name the one before them, and the witness names the newest: what is named and not there is gone.
fn note_missing(
    paths: &StorePaths,
    found: &[FoundExtent],
    witness: Option<(u64, u64)>,
    needed: u64,
    contents: &mut LogContents,
) {
    let is_there = |extent: u64| {
        found.iter().any(|found| found.id.0 == extent) || extent_path(paths, ExtentId(extent)).exists()
    };
    let mut missing = BTreeSet::new();
    for extent in found {
        // An extent of which every block is below `needed` may have been trimmed.
        let previous = extent.header.previous;
        if previous > 0 && extent.header.first_block > needed && !is_there(previous) {
            missing.insert(previous);
        }
    }
    // A witness may lag behind after a power cut; where there are newer extents, they name those before them.
    let newest = found.last().map_or(0, |extent| extent.id.0);
    missing.extend(witness.map(|(extent, _)| extent).filter(|extent| *extent > newest && !is_there(*extent)));
    for extent in missing {
        let path = extent_path(paths, ExtentId(extent));
        contents
            .damage
            .push(format!("{}: it is missing, and blocks in it were acknowledged", path.display()));
    }
}

/// The newest extent and how far it is durable, `None` when nothing was logged yet.
///
/// # Errors
/// [`ErrorKind::Corrupt`] when the witness is damaged, [`ErrorKind::Incompatible`] for a newer version.
pub(crate) fn witness_of(paths: &StorePaths) -> Result<Option<(u64, u64)>> {
    let path = witness_path(paths);
    let bytes = match read_small(&path, 64)? {
        // It is created empty; until it is first written nothing was acknowledged. A power cut may leave the
        // length of that write and none of its bytes.
        Some(bytes) if bytes.iter().any(|byte| *byte != 0) => bytes,
        _ => return Ok(None),
    };
    let parsed = decode_frame(&bytes).and_then(|(header, payload)| {
        header.expect(FrameKind::Witness)?;
        let length = payload.try_into().map_err(|_| Error::corrupt("it has no length"))?;
        Ok(Some((header.id, u64::from_le_bytes(length))))
    });
    parsed.map_err(|error| error.within(path.display()))
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

/// Collects the sound blocks of one extent from `from` on; returns where they end. Blocks before that are
/// not needed, and so not read.
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
        if header.id >= from {
            let Some(block) = check_block(extent, at, &header)? else { break };
            blocks.push(block);
        }
        at = end;
        expected += 1;
    }
    Ok(at)
}

fn check_block(extent: &FoundExtent, at: u64, header: &FrameHeader) -> Result<Option<LoggedBlock>> {
    let payload = read_at(&extent.file, at + HEADER_BYTES as u64, header.length as usize, &extent.path)?;
    let checked = header.check(&payload).and_then(|()| BlockHeader::parse(&payload));
    let place = BlockRef {
        block: header.id,
        extent: extent.id.0,
        offset: at,
        length: header.length,
        crc: header.crc,
    };
    Ok(checked.ok().map(|(block, _)| LoggedBlock { block: place, stream: block.stream }))
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

/// The store that an extent says it belongs to, `None` when its header is damaged.
#[cfg(feature = "tool")]
pub(crate) fn store_of_extent(paths: &StorePaths, extent: ExtentId) -> Option<[u8; 16]> {
    let bytes = std::fs::read(extent_path(paths, extent)).ok()?;
    let length = usize::try_from(FrameHeader::parse(&bytes).ok()?.frame_bytes()).ok()?;
    Some(ExtentHeader::from_frame(bytes.get(..length)?).ok()?.1.store)
}

/// Every sound block from number `from` on, wherever it is in the extents, with its payload; of two with one number
/// the one in the newer extent. Only extents below `before` are looked at. What an extent's successor says was abandoned is left out.
#[cfg(feature = "tool")]
pub(crate) fn salvage_blocks(
    paths: &StorePaths,
    from: u64,
    before: Option<ExtentId>,
) -> Result<std::collections::BTreeMap<u64, Vec<u8>>> {
    let mut blocks = std::collections::BTreeMap::new();
    let mut extents = list_extents(paths)?;
    extents.retain(|extent| before.is_none_or(|before| *extent < before));
    for (at, extent) in extents.iter().enumerate() {
        let path = extent_path(paths, *extent);
        let bytes =
            std::fs::read(&path).map_err(|cause| Error::io(format!("read {}", path.display()), cause))?;
        let limit = extents.get(at + 1).and_then(|next| previous_of(paths, *next));
        let limit = limit.filter(|(named, _)| *named == extent.0).map_or(u64::MAX, |(_, length)| length);
        let limit = bytes.len().min(usize::try_from(limit).unwrap_or(usize::MAX));
        let mut at = 0;
        while let Some(found) = memchr::memmem::find(&bytes[at..limit], &crate::format::frame::MAGIC) {
            at += found;
            match block_at(&bytes[at..limit]) {
                Some((number, payload)) => {
                    if number >= from {
                        blocks.insert(number, payload.to_vec());
                    }
                    at += HEADER_BYTES + payload.len();
                }
                None => at += 1,
            }
        }
    }
    Ok(blocks)
}

/// The extent with its header written anew, if its header is damaged and it holds blocks. Every block stays at its
/// place.
#[cfg(feature = "tool")]
pub(crate) fn with_header(paths: &StorePaths, store: [u8; 16], extent: ExtentId) -> Result<Option<Vec<u8>>> {
    if open_extent(paths, store, extent).is_ok() {
        return Ok(None);
    }
    let path = extent_path(paths, extent);
    let bytes = std::fs::read(&path).map_err(|cause| Error::io(format!("read {}", path.display()), cause))?;
    let mut starts = memchr::memmem::find_iter(&bytes, &crate::format::frame::MAGIC);
    let Some((first_block, _)) = starts.find_map(|at| block_at(&bytes[at..])) else { return Ok(None) };
    let header = ExtentHeader { store, previous: 0, previous_length: 0, first_block }.to_frame(extent.0)?;
    let rest = bytes.get(header.len()..).unwrap_or_default();
    Ok(Some([&header[..], rest].concat()))
}

/// The block whose frame begins here, if it is sound.
#[cfg(feature = "tool")]
fn block_at(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let header = FrameHeader::parse(bytes).ok()?;
    header.expect(FrameKind::Block).ok()?;
    let payload = bytes.get(HEADER_BYTES..usize::try_from(header.frame_bytes()).ok()?)?;
    header.check(payload).ok()?;
    BlockHeader::parse(payload).ok()?;
    Some((header.id, payload))
}

/// The extent before this one and how far that was durable, if this one's header is sound.
#[cfg(feature = "tool")]
fn previous_of(paths: &StorePaths, extent: ExtentId) -> Option<(u64, u64)> {
    let bytes = std::fs::read(extent_path(paths, extent)).ok()?;
    let length = usize::try_from(FrameHeader::parse(&bytes).ok()?.frame_bytes()).ok()?;
    let header = ExtentHeader::from_frame(bytes.get(..length)?).ok()?.1;
    Some((header.previous, header.previous_length))
}
