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
mod contents;
mod direct;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::format::features::Features;
use crate::format::frame::{FrameKind, encode_frame};
use crate::format::records::{EpochRecord, JobRecord, Record, Unnumbered};
use crate::id::EpochId;
use crate::store::disk::open_options;
#[cfg(feature = "tool")]
use crate::store::disk::read_small;
use crate::store::private::make_below_private;
use crate::store::{Disk, StorePaths, numbered_entries};
use ahead::Ahead;
use contents::Parts;
#[cfg(feature = "tool")]
pub(crate) use contents::salvage_epoch;
pub(crate) use contents::{EpochContents, note_missing_witnesses, read_epoch};

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
    /// As [`append_all`](Self::append_all).
    pub(crate) fn append(&mut self, record: &impl Record) -> Result<u64> {
        self.append_all(&mut vec![record.unnumbered()?])?;
        Ok(self.next_seq - 1)
    }

    /// Commits records in their order, as many at a time as fit, and takes them out of `records` as they are: when this
    /// returns all are durable, and a crash keeps the first so many of them.
    ///
    /// # Errors
    /// [`ErrorKind::DiskFull`] leaves the catalog usable: the next call, with what is left in `records`, begins a new
    /// epoch. After any other error what was committed last is uncertain and only a restart tells.
    pub(crate) fn append_all(&mut self, records: &mut Vec<Unnumbered>) -> Result<()> {
        while !records.is_empty() {
            let (count, bytes) = fitting(records)?;
            if self.failed || !self.epoch.has_room_for(bytes) {
                self.rotate()?;
            }
            let numbered = (self.next_seq..).zip(&records[..count]);
            let frames = numbered.map(|(seq, record)| record.to_frame(seq)).collect::<Result<Vec<_>>>()?;
            self.commit(&frames)?;
            records.drain(..count);
        }
        if self.epoch.is_half_full() {
            self.prepare_next();
        }
        Ok(())
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
        self.commit(&[record.to_frame(self.next_seq)?])?;
        if let Some(job) = &self.job {
            let frame = job.to_frame(self.next_seq)?;
            self.commit(&[frame])?;
        }
        Ok(())
    }

    /// Commits frames with the next numbers.
    fn commit(&mut self, frames: &[Vec<u8>]) -> Result<()> {
        let (first, next) = (self.next_seq, self.next_seq + frames.len() as u64);
        let written = self.epoch.write(&self.disk, first, frames);
        if let Err(error) = written.and_then(|()| self.epoch.attest(&self.disk, next - 1)) {
            self.failed = true;
            return Err(error);
        }
        self.failed = self.epoch.is_full();
        self.next_seq = next;
        Ok(())
    }
}

/// How many of the first records are committed together, and their bytes: they take no more than one record may.
fn fitting(records: &[Unnumbered]) -> Result<(usize, usize)> {
    let (mut count, mut bytes) = (0, 0);
    for length in records.iter().map(Unnumbered::frame_bytes) {
        if length > RECORD_BYTES_MAX {
            let message = format!(
                "a record of {length} bytes is over the limit of {RECORD_BYTES_MAX}; use fewer operators or shorter names"
            );
            return Err(Error::new(ErrorKind::InvalidGraph, message));
        }
        if bytes + length > RECORD_BYTES_MAX {
            break;
        }
        (count, bytes) = (count + 1, bytes + length);
    }
    Ok((count, bytes))
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

    /// Makes frames durable, whose numbers are `first` and those after it.
    fn write(&mut self, disk: &Disk, first: u64, frames: &[Vec<u8>]) -> Result<()> {
        let context = |cause| sled_error(&self.db_path, cause);
        for (seq, frame) in (first..).zip(frames) {
            disk.step("insert record", &self.db_path)?;
            for (part, bytes) in frame.chunks(PART_BYTES).enumerate() {
                self.db.insert(record_key(seq, part), bytes).map_err(context)?;
            }
            self.used += frame.len() as u64;
        }
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

/// All parts in a database that is opened for nothing else.
fn parts_of(shown: &str, dir: PathBuf) -> Result<Parts> {
    isolated(shown, move || {
        let damaged = |cause: sled::Error| Error::corrupt("the database is damaged").caused_by(cause);
        let config = sled::Config::new().path(&dir).segment_size(SEGMENT_BYTES).cache_capacity(8 << 20);
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

#[cfg(test)]
mod tests;
