//! The catalog: every plan, completion and checkpoint in the order they were committed. The one module
//! that names sled.
//!
//! sled 0.34 is sound across a power cut only while it appends and we sync: what loses data is that it
//! reuses segments of its file. So an **epoch** is a fresh database that never outgrows its first segment,
//! and so can never free or reuse one; when there is no room left the next epoch is begun. A database is
//! never opened again for writing, and is read from a copy, because opening one writes to it.
//!
//! sled cannot be trusted to notice that its tail is gone. The **witness**, a small file beside it that is
//! overwritten after each commit, says how far the epoch reaches.

mod ahead;
mod direct;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::format::features::Features;
use crate::format::frame::{FrameKind, decode_frame, encode_frame};
use crate::format::records::{CatalogRecord, EpochRecord, JobRecord, Record};
use crate::id::EpochId;
use crate::store::disk::{open_options, read_small};
use crate::store::fault::before_read;
use crate::store::private::{make_below_private, private_tempdir};
use crate::store::{Disk, StorePaths, numbered_entries};
use ahead::Ahead;

/// sled's segment: an epoch's database never grows beyond its first.
const SEGMENT_BYTES: usize = 1 << 20;

/// What a record may take in the database, as a multiple of its length: sled rewrites a leaf when a value
/// joins it. Measured at 3.2 for small records; kept with a margin.
const GROWTH: u64 = 4;

/// Kept free for sled's own pages and for its last rewrite.
const RESERVE_BYTES: u64 = 256 << 10;

/// The longest record. Plans are cut so that they stay below. One of this length and the first records of its epoch
/// fit a database.
pub(crate) const RECORD_BYTES_MAX: usize = 160 << 10;

/// The longest description of a job.
pub(crate) const JOB_BYTES_MAX: usize = 24 << 10;

/// A record is stored in parts of this size. A leaf holds up to 16, and must stay well below the quarter of a
/// segment from which on sled puts a node into a file of its own, which it never syncs.
const PART_BYTES: usize = 8 << 10;

/// The catalog, open for appending.
#[derive(Debug)]
pub(crate) struct Catalog {
    disk: Disk,
    paths: StorePaths,
    store: [u8; 16],
    features: Features,
    job: Option<JobRecord>,
    next_seq: u64,
    epoch: OpenEpoch,
    /// A commit failed: what sled holds of it is unknown, so that the next one begins a new epoch.
    failed: bool,
    ahead: Ahead,
}

/// What an epoch begins with.
#[derive(Debug)]
pub(crate) struct EpochStart {
    /// The store's identity.
    pub(crate) store: [u8; 16],
    pub(crate) epoch: EpochId,
    /// The newest record that is known to be sound.
    pub(crate) continues_after: u64,
    /// The number of its first record.
    pub(crate) first_seq: u64,
    /// Of the whole store.
    pub(crate) features: Features,
    /// Repeated at the begin of each further epoch.
    pub(crate) job: Option<JobRecord>,
}

#[derive(Debug)]
struct OpenEpoch {
    id: EpochId,
    db: sled::Db,
    db_file: File,
    db_path: PathBuf,
    witness: Option<File>,
    witness_path: PathBuf,
    /// All but records and the witness is durable.
    settled: bool,
    /// Bytes given to sled.
    used: u64,
}

impl Catalog {
    /// Begins an epoch.
    pub(crate) fn begin(disk: Disk, paths: StorePaths, start: EpochStart) -> Result<Self> {
        let EpochStart { store, epoch, continues_after, first_seq, features, job } = start;
        let open = OpenEpoch::create(&disk, &paths, epoch)?;
        let (next_seq, epoch) = (first_seq, open);
        let ahead = Ahead::default();
        let mut catalog =
            Catalog { disk, paths, store, features, job, next_seq, epoch, failed: false, ahead };
        catalog.commit_first_records(continues_after)?;
        Ok(catalog)
    }

    /// Commits a record: when this returns it is durable. Returns its sequence number.
    ///
    /// # Errors
    /// [`ErrorKind::DiskFull`] leaves the catalog usable: the next call begins a new epoch. After any
    /// other error what was committed last is uncertain and only a restart tells.
    pub(crate) fn append(&mut self, record: &impl Record) -> Result<u64> {
        let mut frame = record.to_frame(self.next_seq)?;
        if frame.len() > RECORD_BYTES_MAX {
            let message = format!(
                "a record of {} bytes is over the limit of {RECORD_BYTES_MAX}; use fewer operators or shorter names",
                frame.len()
            );
            return Err(Error::new(ErrorKind::InvalidGraph, message));
        }
        if self.failed || !self.epoch.has_room_for(frame.len()) {
            self.rotate()?;
            frame = record.to_frame(self.next_seq)?;
        }
        let seq = self.commit(&frame)?;
        if self.epoch.is_half_full() {
            self.prepare_next();
        }
        Ok(seq)
    }

    /// Begins to make the next epoch, which will be needed soon, and does not wait for it.
    pub(crate) fn prepare_next(&mut self) {
        if !self.disk.is_in_order() {
            self.ahead.make(&self.disk, &self.paths, self.epoch.id.next());
        }
    }

    /// Leaves no thread and no epoch without records behind.
    pub(crate) fn end(&mut self) {
        self.ahead.end(&self.disk, &self.paths);
    }

    /// Begins the next epoch.
    pub(crate) fn rotate(&mut self) -> Result<()> {
        let next = self.epoch.id.next();
        let begun = match self.ahead.take(next) {
            Some(made) => made,
            None => ahead::make(&self.disk, &self.paths, next)?,
        };
        let (before, next_seq) = (std::mem::replace(&mut self.epoch, begun), self.next_seq);
        let committed = self.commit_first_records(self.next_seq - 1);
        if committed.is_err() {
            // The next attempt begins the same epoch again: a disk that stays full collects none.
            (self.epoch, self.next_seq) = (before, next_seq);
        } else {
            self.ahead.close_epoch(before);
        }
        committed
    }

    /// The epoch that records are committed to.
    pub(crate) fn epoch(&self) -> EpochId {
        self.epoch.id
    }

    /// Every epoch says again what the job is, so that it stays known when older ones are pruned.
    fn commit_first_records(&mut self, continues_after: u64) -> Result<()> {
        let Features { compatible, incompatible } = self.features;
        let record = EpochRecord { store: self.store, continues_after, compatible, incompatible };
        self.commit(&record.to_frame(self.next_seq)?)?;
        if let Some(job) = &self.job {
            let frame = job.to_frame(self.next_seq)?;
            self.commit(&frame)?;
        }
        Ok(())
    }

    fn commit(&mut self, frame: &[u8]) -> Result<u64> {
        let seq = self.next_seq;
        let done = self.epoch.write(&self.disk, seq, frame).and_then(|()| self.epoch.attest(&self.disk, seq));
        if let Err(error) = done {
            self.failed = true;
            return Err(error);
        }
        self.failed = self.epoch.is_full();
        self.next_seq += 1;
        Ok(seq)
    }
}

impl Drop for Catalog {
    fn drop(&mut self) {
        self.end();
    }
}

impl OpenEpoch {
    fn create(disk: &Disk, paths: &StorePaths, id: EpochId) -> Result<Self> {
        let dir = epoch_dir(paths, id);
        disk.create_dir(&dir)?;
        disk.step("create database", &dir)?;
        let db = open_sled(dir.clone())?;
        let db_path = dir.join("db");
        // sled makes its files as it likes; until here the directory alone kept others away.
        make_below_private(&dir)?;
        let db_file = open_options().read(true).write(true).open(&db_path);
        let db_file = db_file.map_err(|cause| Error::io(format!("open {}", db_path.display()), cause))?;
        let witness_path = dir.join("witness");
        Ok(OpenEpoch { id, db, db_file, db_path, witness: None, witness_path, settled: false, used: 0 })
    }

    fn dir(&self) -> &Path {
        self.db_path.parent().unwrap_or(Path::new("."))
    }

    /// Makes the epoch itself durable.
    fn settle(&mut self, disk: &Disk) -> Result<()> {
        let conf = self.dir().join("conf");
        let conf_file =
            File::open(&conf).map_err(|cause| Error::io(format!("open {}", conf.display()), cause))?;
        disk.sync(&conf_file, &conf)?;
        // Names become durable in any order: a witness must not be there without the database that it speaks of.
        disk.sync_dir(self.dir())?;
        if let Some(epochs) = self.dir().parent() {
            disk.sync_dir(epochs)?;
        }
        self.settled = true;
        Ok(())
    }

    fn is_half_full(&self) -> bool {
        let file = self.db_file.metadata().map_or(u64::MAX, |data| data.len());
        file.max(self.used) > (SEGMENT_BYTES as u64 - RESERVE_BYTES) / 2
    }

    fn has_room_for(&self, length: usize) -> bool {
        let length = length as u64;
        let file = self.db_file.metadata().map_or(u64::MAX, |data| data.len());
        file.max(self.used).saturating_add(length * GROWTH + RESERVE_BYTES) <= SEGMENT_BYTES as u64
    }

    fn write(&mut self, disk: &Disk, seq: u64, frame: &[u8]) -> Result<()> {
        let context = |cause| sled_error(&self.db_path, cause);
        disk.step("insert record", &self.db_path)?;
        for (part, bytes) in frame.chunks(PART_BYTES).enumerate() {
            self.db.insert(record_key(seq, part), bytes).map_err(context)?;
        }
        self.used += frame.len() as u64;
        disk.step("flush database", &self.db_path)?;
        self.db.flush().map_err(context)?;
        disk.sync(&self.db_file, &self.db_path)
    }

    /// Whether the database has used up its first segment: what is in it is durable, but it must take no more.
    fn is_full(&self) -> bool {
        self.db_file.metadata().map_or(true, |data| data.len() > SEGMENT_BYTES as u64)
    }

    /// Says in the witness that the epoch reaches `seq`.
    fn attest(&mut self, disk: &Disk, seq: u64) -> Result<()> {
        let frame = encode_frame(FrameKind::Witness, seq, &[])?;
        if let Some(witness) = &self.witness {
            return disk.write_at(witness, &frame, &self.witness_path);
        }
        if !self.settled {
            self.settle(disk)?;
        }
        disk.publish(&self.witness_path, &frame)?;
        let witness = open_options().write(true).open(&self.witness_path);
        self.witness =
            Some(witness.map_err(|cause| Error::io(format!("open {}", self.witness_path.display()), cause))?);
        Ok(())
    }
}

fn epoch_dir(paths: &StorePaths, epoch: EpochId) -> PathBuf {
    paths.root.join(epoch_name(epoch))
}

/// Where an epoch is in its store.
pub(crate) fn epoch_name(epoch: EpochId) -> PathBuf {
    PathBuf::from(format!("epochs/{}", epoch.0))
}

fn record_key(seq: u64, part: usize) -> [u8; 10] {
    let mut key = [0; 10];
    key[..8].copy_from_slice(&seq.to_be_bytes());
    key[8..].copy_from_slice(&(part as u16).to_be_bytes());
    key
}

fn sled_error(path: &Path, cause: sled::Error) -> Error {
    let what = format!("commit to {}", path.display());
    match cause {
        sled::Error::Io(cause) => Error::io(what, cause),
        other => Error::new(ErrorKind::Io, what).caused_by(other),
    }
}

/// Opens a database in a thread of its own: sled panics on damage.
fn open_sled(dir: PathBuf) -> Result<sled::Db> {
    let shown = dir.display().to_string();
    isolated(&shown, move || {
        let config = sled::Config::new().path(&dir).segment_size(SEGMENT_BYTES).cache_capacity(8 << 20);
        config.flush_every_ms(None).open().map_err(|cause| sled_error(&dir, cause))
    })
}

fn isolated<T: Send + 'static>(shown: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let thread = std::thread::Builder::new().name("millpond-catalog".to_owned());
    let spawned = thread.spawn(move || catch_unwind(AssertUnwindSafe(work)));
    let spawned = spawned.map_err(|cause| Error::io("start a thread", cause))?;
    match spawned.join() {
        Ok(Ok(result)) => result,
        Ok(Err(_)) | Err(_) => {
            Err(Error::corrupt(format!("the database in {shown} is damaged (sled panicked)")))
        }
    }
}

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

/// The epochs of a store, oldest first.
pub(crate) fn list_epochs(paths: &StorePaths) -> Result<Vec<EpochId>> {
    Ok(numbered_entries(&paths.epochs(), "")?.into_iter().map(EpochId).collect())
}

/// Removes a whole epoch that nothing needs.
pub(crate) fn remove_epoch(disk: &Disk, paths: &StorePaths, epoch: EpochId) -> Result<()> {
    let dir = epoch_dir(paths, epoch);
    if !dir.exists() {
        return Ok(());
    }
    // First, and durably: a witness that outlives its database would tell of records that are lost.
    disk.remove_file(&dir.join("witness"))?;
    disk.sync_dir(&dir)?;
    disk.remove_dir_all(&dir)?;
    // The next one goes only when this one surely has: no gap in the history.
    disk.sync_dir(&paths.epochs())
}

/// Makes durable what is in an epoch of an earlier run.
pub(crate) fn sync_epoch(disk: &Disk, paths: &StorePaths, epoch: EpochId) -> Result<()> {
    disk.sync_existing(&epoch_dir(paths, epoch).join("db"))
}

/// An epoch's witness as it is on disk, `None` when it is not there or cannot be read.
#[cfg(feature = "tool")]
pub(crate) fn witness_bytes(paths: &StorePaths, epoch: EpochId) -> Option<Vec<u8>> {
    read_small(&epoch_dir(paths, epoch).join("witness"), 64).ok()?
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
type Parts = Vec<([u8; 10], Vec<u8>)>;

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

fn read_copy(dir: &Path) -> Result<Parts> {
    let scratch = private_tempdir("millpond-")?;
    if !copy_database(dir, scratch.path())? {
        return Ok(Vec::new());
    }
    let copy = scratch.path().to_owned();
    isolated(&dir.display().to_string(), move || {
        let damaged = |cause: sled::Error| Error::corrupt("the database is damaged").caused_by(cause);
        let config = sled::Config::new().path(&copy).segment_size(SEGMENT_BYTES).cache_capacity(8 << 20);
        let db = config.flush_every_ms(None).open().map_err(damaged)?;
        let mut parts = Vec::new();
        for entry in db.iter() {
            let (key, value) = entry.map_err(damaged)?;
            if let Ok(key) = <[u8; 10]>::try_from(&key[..]) {
                parts.push((key, value.to_vec()));
            }
        }
        Ok(parts)
    })
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

#[cfg(test)]
mod tests;
