//! Blocks of a damaged receive log.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::format::block::BlockHeader;
use crate::format::frame::{FrameKind, HEADER_BYTES, decode_frame, encode_frame};
use crate::id::ExtentId;
use crate::store::disk::read_small;
use crate::store::extents::{ExtentIndex, ExtentWriter, extent_name, remove_extent};
use crate::store::log_scan::{LogContents, list_extents, salvage_blocks, scan_log, with_header, witness_of};
use crate::store::quarantine::copy_there;
use crate::store::{Disk, StorePaths};

use super::Account;

/// What becomes of the log.
pub(super) struct LogRescue {
    contents: LogContents,
    /// Blocks that wait for a batch and are logged again, by their old number. `None` where the log is sound.
    saved: Option<BTreeMap<u64, Vec<u8>>>,
    /// Extents that get a new header.
    headers: Vec<(ExtentId, Vec<u8>)>,
    /// Every block number below this one was used.
    pub(super) next_block: u64,
    writes_witness: bool,
}

/// Names the first extent that a repair writes and the number of its first block, until the catalog knows of them.
fn marker(paths: &StorePaths) -> PathBuf {
    paths.log().join("repair.mark")
}

fn marked(paths: &StorePaths) -> Result<Option<(ExtentId, u64)>> {
    let Some(bytes) = read_small(&marker(paths), 64)? else { return Ok(None) };
    let (header, payload) = decode_frame(&bytes)?;
    let first = payload.try_into().map_err(|_| Error::corrupt("log/repair.mark has no block number"))?;
    Ok(Some((ExtentId(header.id), u64::from_le_bytes(first))))
}

impl LogRescue {
    /// `from` is the first block that waits for a batch. With a disk, what a repair that was interrupted has written
    /// is removed first.
    pub(super) fn plan(
        paths: &StorePaths,
        store: [u8; 16],
        from: u64,
        disk: Option<&Disk>,
        account: &mut Account,
    ) -> Result<Self> {
        let begun = marked(paths)?.filter(|(_, first)| from < *first).map(|(extent, _)| extent);
        if let (Some(begun), Some(disk)) = (begun, disk) {
            for extent in list_extents(paths)?.into_iter().filter(|extent| *extent >= begun) {
                remove_extent(disk, paths, extent)?;
            }
        }
        let contents = scan_log(paths, store, from)?;
        let writes_witness = needs_witness(paths, &contents)?;
        if writes_witness {
            account.steps.push("log/witness is written again".to_owned());
            let unknown = "whether blocks after the last readable one were acknowledged is not known";
            account.lost.push(unknown.to_owned());
        }
        let mut rescue = LogRescue {
            next_block: contents.end.next_block,
            contents,
            saved: None,
            headers: Vec::new(),
            writes_witness,
        };
        if !rescue.contents.damage.is_empty() {
            rescue.save(paths, store, (from, begun), account)?;
        }
        Ok(rescue)
    }

    fn save(
        &mut self,
        paths: &StorePaths,
        store: [u8; 16],
        (from, begun): (u64, Option<ExtentId>),
        account: &mut Account,
    ) -> Result<()> {
        let saved = salvage_blocks(paths, from, begun)?;
        self.next_block = saved.keys().next_back().map_or(from, |last| last + 1).max(self.next_block);
        let missing = (from..self.next_block).filter(|block| !saved.contains_key(block));
        let missing: Vec<String> = missing.map(|block| block.to_string()).collect();
        for damage in &self.contents.damage {
            account.lost.push(format!("received blocks that were in no batch yet: {damage}"));
        }
        if !missing.is_empty() {
            account.lost.push(format!("blocks {}", missing.join(", ")));
        }
        let (count, first) = (saved.len(), self.next_block);
        account
            .steps
            .push(format!("{count} blocks that wait for a batch are logged again, from block {first} on"));
        for extent in list_extents(paths)? {
            if self.contents.unfinished.contains(&extent) {
                continue;
            }
            if let Some(bytes) = with_header(paths, store, extent)? {
                account.steps.push(format!("{} gets a new header", extent_name(extent).display()));
                self.headers.push((extent, bytes));
            }
        }
        // An extent of which nothing is left says nothing, and every start would ask for it.
        for extent in list_extents(paths)? {
            let is_known = self.contents.extents.iter().any(|(known, _)| *known == extent)
                || self.contents.unfinished.contains(&extent)
                || self.headers.iter().any(|(known, _)| *known == extent);
            if !is_known {
                account.quarantine.push(extent_name(extent));
            }
        }
        self.saved = Some(saved);
        Ok(())
    }

    /// Whether blocks get new numbers.
    pub(super) fn renumbers(&self) -> bool {
        self.saved.is_some()
    }

    pub(super) fn is_sound(&self) -> bool {
        self.saved.is_none() && !self.writes_witness
    }

    /// Logs the saved blocks again. They count once the catalog says so.
    pub(super) fn write(&self, disk: &Disk, paths: &StorePaths, store: [u8; 16]) -> Result<()> {
        for (extent, bytes) in &self.headers {
            copy_there(disk, paths, &extent_name(*extent))?;
            disk.publish(&paths.root.join(extent_name(*extent)), bytes)?;
        }
        if self.writes_witness {
            let (extent, length) = self.contents.end.previous;
            let frame = encode_frame(FrameKind::Witness, extent, &length.to_le_bytes())?;
            disk.publish(&paths.log().join("witness"), &frame)?;
        }
        let Some(saved) = &self.saved else { return Ok(()) };
        let mut end = self.contents.end;
        end.next_block = self.next_block;
        let mark = encode_frame(FrameKind::Witness, end.next_extent.0, &end.next_block.to_le_bytes())?;
        disk.publish(&marker(paths), &mark)?;
        let index = ExtentIndex::new(Vec::new());
        let mut writer = ExtentWriter::new(disk.clone(), paths.clone(), store, index, end);
        // Also without a block: the damaged extent is then not the newest.
        writer.begin()?;
        for payload in saved.values() {
            let (header, _) = BlockHeader::parse(payload)?;
            let mut buffer = vec![0; HEADER_BYTES];
            buffer.extend_from_slice(payload);
            writer.append(&mut buffer, header)?;
        }
        writer.sync()
    }

    /// The catalog knows of the blocks now.
    pub(super) fn settle(&self, disk: &Disk, paths: &StorePaths) -> Result<()> {
        if marker(paths).exists() {
            disk.remove_file(&marker(paths))?;
            disk.sync_dir(&paths.log())?;
        }
        Ok(())
    }
}

fn needs_witness(paths: &StorePaths, contents: &LogContents) -> Result<bool> {
    match witness_of(paths) {
        Ok(None) => Ok(contents.end.previous.0 > 0 && contents.end.next_block > 1),
        Ok(Some(_)) => Ok(false),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(true),
        Err(error) => Err(error),
    }
}
