//! Reading epochs without changing them.

use std::path::Path;

use super::{SEGMENT_BYTES, direct, epoch_dir, parts_of};
use crate::error::{Error, ErrorKind, Result};
use crate::format::features::Features;
use crate::format::frame::{FrameKind, decode_frame};
use crate::format::records::CatalogRecord;
use crate::id::EpochId;
use crate::store::StorePaths;
use crate::store::disk::read_small;
use crate::store::fault::before_read;
use crate::store::private::private_tempdir;

/// What an epoch was found to hold.
#[derive(Clone, Debug)]
pub(crate) struct EpochContents {
    pub(crate) epoch: EpochId,
    /// The newest record that the witness vouches for; `None` when there is no sound witness.
    pub(crate) witness: Option<u64>,
    /// The sound records, in sequence.
    pub(crate) records: Vec<(u64, CatalogRecord)>,
    /// What is wrong with it, one line each.
    pub(crate) damage: Vec<String>,
    /// What to say of its witness if that is not there and missed.
    pub(crate) without_witness: Option<String>,
    /// Its creation was interrupted before anything but its first record was committed to it.
    pub(crate) unfinished: bool,
}

impl EpochContents {
    /// Whether nothing but starts was recorded in it.
    pub(crate) fn holds_only_starts(&self) -> bool {
        let is_start = |record: &CatalogRecord| {
            matches!(record, CatalogRecord::Epoch(_) | CatalogRecord::Job(_) | CatalogRecord::Run(_))
        };
        self.records.iter().all(|(_, record)| is_start(record))
    }

    pub(crate) fn last_seq(&self) -> Option<u64> {
        self.records.last().map(|(seq, _)| *seq)
    }
}

/// Reads an epoch without changing it. Damage is described in the result; a newer format is an error.
///
/// # Errors
/// [`ErrorKind::Incompatible`] for records of another format version or store, [`ErrorKind::Io`] when
/// reading is refused.
pub(crate) fn read_epoch(paths: &StorePaths, store: [u8; 16], epoch: EpochId) -> Result<EpochContents> {
    let dir = epoch_dir(paths, epoch);
    let (records, damage) = (Vec::new(), Vec::new());
    let mut contents =
        EpochContents { epoch, witness: None, records, damage, without_witness: None, unfinished: false };
    let witness = read_witness(&dir.join("witness"));
    let has_witness = !matches!(witness, Ok(None));
    match witness {
        Ok(witness) => contents.witness = witness,
        Err(error) if error.kind() == ErrorKind::Corrupt => contents.damage.push(error.chain()),
        Err(error) => return Err(error),
    }
    match read_frames(&dir) {
        Ok(frames) => fold_frames(&mut contents, store, frames)?,
        Err(error) if error.kind() == ErrorKind::Corrupt => contents.damage.push(error.chain()),
        Err(error) => return Err(error),
    }
    if !has_witness && contents.records.len() <= 1 {
        // The witness is made last; without it nothing more was committed.
        contents.damage.clear();
        contents.unfinished = true;
        return Ok(contents);
    }
    let last = contents.last_seq();
    if let Some(witness) = contents.witness
        && last.is_none_or(|last| last < witness)
    {
        let reaches =
            last.map_or("nothing of it is readable".to_owned(), |last| format!("it ends at {last}"));
        let damage = format!("{}: records up to {witness} were committed, {reaches}", dir.display());
        contents.damage.push(damage);
    }
    if !has_witness {
        contents.without_witness = Some(format!("{}: the witness is missing", dir.display()));
    }
    Ok(contents)
}

/// The sound records in the bytes of a damaged database, and the store of its Epoch record if that is among them.
/// What is longer than a part is stored in pieces, and is not found.
#[cfg(feature = "tool")]
pub(crate) fn salvage_epoch(
    paths: &StorePaths,
    epoch: EpochId,
) -> Result<std::collections::BTreeMap<u64, CatalogRecord>> {
    let path = epoch_dir(paths, epoch).join("db");
    let bytes = read_small(&path, 64 << 20)?.unwrap_or_default();
    let starts = memchr::memmem::find_iter(&bytes, &crate::format::frame::MAGIC);
    let frame_at = |at: usize| {
        let header = crate::format::frame::FrameHeader::parse(&bytes[at..]).ok()?;
        let frame = bytes.get(at..at.checked_add(usize::try_from(header.frame_bytes()).ok()?)?)?;
        CatalogRecord::from_frame(frame).ok()
    };
    Ok(starts.filter_map(frame_at).collect())
}

/// Notes as damage where a witness is missing, in epochs that were finished, oldest first. One that the next epoch
/// stands in for, by what it continues after, is not missed, nor is that of the newest if it holds only starts:
/// removing an epoch begins with its witness.
pub(crate) fn note_missing_witnesses(epochs: &mut [EpochContents]) {
    for at in 0..epochs.len() {
        let next = epochs.get(at + 1).and_then(|next| match next.records.first() {
            Some((_, CatalogRecord::Epoch(first))) => Some(first.continues_after),
            _ => None,
        });
        let epoch = &mut epochs[at];
        let missed = match next {
            Some(reaches) => epoch.last_seq().is_none_or(|last| last < reaches),
            None => !epoch.holds_only_starts(),
        };
        epoch.damage.extend(epoch.without_witness.take().filter(|_| missed));
    }
}

fn read_witness(path: &Path) -> Result<Option<u64>> {
    let Some(bytes) = read_small(path, 64)? else {
        return Ok(None);
    };
    let (header, _) = decode_frame(&bytes).map_err(|error| error.within(path.display()))?;
    header.expect(FrameKind::Witness)?;
    Ok(Some(header.id))
}

/// Parts of records, by the sequence number of the record and the number of the part.
pub(super) type Parts = Vec<([u8; 10], Vec<u8>)>;

/// The raw parts of a database: of its file, or where that leaves a doubt, of a copy that sled opens.
fn read_frames(dir: &Path) -> Result<Parts> {
    let is_there = dir.join("db").exists() && dir.join("conf").exists();
    if is_there
        && let Some(db) = read_database_file(&dir.join("db"))?
        && let Some(parts) = direct::read(&db)
    {
        return Ok(parts);
    }
    read_copy(dir)
}

/// `None` where it is larger than any that was written by these rules.
fn read_database_file(path: &Path) -> Result<Option<Vec<u8>>> {
    match read_small(path, 2 * SEGMENT_BYTES as u64) {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(None),
        read => read,
    }
}

pub(super) fn read_copy(dir: &Path) -> Result<Parts> {
    let scratch = private_tempdir("millpond-")?;
    if !copy_database(dir, scratch.path())? {
        return Ok(Vec::new());
    }
    parts_of(&dir.display().to_string(), scratch.path().to_owned())
}

/// Copies what sled needs; `false` when the directory holds no database. A snapshot that was being
/// written is left out: opening fails on it, and the log alone is complete.
fn copy_database(from: &Path, to: &Path) -> Result<bool> {
    if !from.join("db").exists() || !from.join("conf").exists() {
        return Ok(false);
    }
    let entries =
        std::fs::read_dir(from).map_err(|cause| Error::io(format!("list {}", from.display()), cause))?;
    for entry in entries {
        let entry = entry.map_err(|cause| Error::io(format!("list {}", from.display()), cause))?;
        let name = entry.file_name();
        let shown = name.to_string_lossy();
        let wanted = shown == "db"
            || shown == "conf"
            || (shown.starts_with("snap.") && !shown.ends_with(".generating"));
        let copied = || {
            before_read("open", &entry.path())?;
            std::fs::copy(entry.path(), to.join(&name))
        };
        if wanted && let Err(cause) = copied() {
            return Err(Error::io(format!("read {}", entry.path().display()), cause));
        }
    }
    Ok(true)
}

/// Joins parts to frames and keeps the longest sound sequence from the first record on.
fn fold_frames(contents: &mut EpochContents, store: [u8; 16], parts: Parts) -> Result<()> {
    let mut frames: Vec<(u64, Vec<u8>)> = Vec::new();
    for (key, part) in parts {
        let seq = u64::from_be_bytes([key[0], key[1], key[2], key[3], key[4], key[5], key[6], key[7]]);
        match frames.last_mut() {
            Some((last, frame)) if *last == seq => frame.extend_from_slice(&part),
            _ => frames.push((seq, part)),
        }
    }
    for (seq, frame) in frames {
        let expected = contents.last_seq().map(|last| last + 1);
        let record = match CatalogRecord::from_frame(&frame) {
            Ok((id, record)) if id == seq && expected.is_none_or(|expected| expected == seq) => record,
            Ok(_) => {
                contents.damage.push(format!("{}: record {seq} is out of sequence", contents.epoch));
                break;
            }
            Err(error) if error.kind() == ErrorKind::Incompatible => return Err(error.within(contents.epoch)),
            // A record that was being written when the process died fails its CRC and was never
            // committed; the witness tells when one that was is missing.
            Err(_) => break,
        };
        match (&record, contents.records.is_empty()) {
            (CatalogRecord::Epoch(first), true) if first.store == store => {
                Features::check(first).map_err(|error| error.within(contents.epoch))?;
            }
            (CatalogRecord::Epoch(_), true) => {
                let message = format!("{} belongs to another store", contents.epoch);
                return Err(Error::new(ErrorKind::Incompatible, message));
            }
            (_, true) => {
                contents.damage.push(format!("{}: its first record is missing", contents.epoch));
                break;
            }
            (_, false) => {}
        }
        contents.records.push((seq, record));
    }
    Ok(())
}
