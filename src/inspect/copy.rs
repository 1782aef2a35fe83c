//! A copy of a store that a job can be started on, made beside the job that runs on it.

use std::fs::{self, DirBuilder, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::checkpoint::tallies;
use crate::error::{Error, Result};
use crate::format::records::{CheckpointRecord, PlanRecord};
use crate::id::EpochId;
use crate::inspect::catalog::Catalog;
use crate::inspect::open::{ReadStore, open, relative};
use crate::inspect::report::{Finding, SCHEMA, VerifyReport, judge};
use crate::inspect::settle::settled;
use crate::inspect::summary::bytes_under;
use crate::inspect::verify::verify;
use crate::inspect::view::{View, find_checkpoint, no_such};
use crate::store::catalog::Catalog as CatalogWriter;
use crate::store::catalog::EpochStart;
use crate::store::disk::open_options;
use crate::store::log_scan::{log_witness_bytes, scan_log};
use crate::store::{Disk, StorePaths};

/// A copy that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CopyReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The copy, as it was named.
    pub copy: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The checkpoints in the copy, oldest first.
    pub checkpoints: Vec<u64>,
    /// The planned batches after the first of these, which are in the copy.
    pub batches: u64,
    /// The sound blocks in the copy's log.
    pub blocks: u64,
    /// The bytes of all its files.
    pub bytes: u64,
    /// Always true: a copy that is not sound is removed, and an error.
    pub sound: bool,
    /// What the verification of the copy noted.
    pub findings: Vec<Finding>,
}

/// Copies the store in `dir` to `to`, which must not exist, verifies the copy and makes it durable. Nothing in
/// `dir` is changed, and the job may be running.
///
/// The copy holds the retained checkpoints, or `checkpoint` alone, the batches after the oldest of them and the
/// received blocks from there on, those that wait included; batches further back are left out. A job started on
/// it goes on as a restart of the original would, or from `checkpoint` if that was given, and emits outputs that
/// the original emits too. Paths of files that the job reads are not changed.
///
/// A copy that is interrupted has no identity and is taken for no store.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect); [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when what has to be copied is damaged,
/// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when `to` exists or is inside of `dir`, or when there is no such checkpoint.
pub fn copy(dir: &Path, to: &Path, checkpoint: Option<u64>) -> Result<CopyReport> {
    let store = open(dir)?;
    claim(dir, to)?;
    let made = make(&store, dir, to, checkpoint);
    if made.is_err() {
        // The reason why there is no copy says more than why its remains are still there.
        drop(fs::remove_dir_all(to));
    }
    made
}

fn make(store: &ReadStore, dir: &Path, to: &Path, checkpoint: Option<u64>) -> Result<CopyReport> {
    let attempt = || {
        clear(to)?;
        let copied = fill(store, to, checkpoint)?;
        Ok((copied, verify(to)?))
    };
    let (copied, checked) = settled(&store.paths, attempt, |(_, checked)| &checked.findings)?;
    let damage = checked.findings.iter().find(|finding| finding.is_damage());
    let refusal = checked.restart.as_ref().and_then(|restart| restart.refused.clone());
    if let Some(what) = damage.map(|finding| format!("{}: {}", finding.place, finding.what)).or(refusal) {
        return Err(Error::corrupt(format!("the copy would be damaged: {what}")));
    }
    let VerifyReport { blocks, mut findings, .. } = checked;
    Ok(CopyReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        copy: to.display().to_string(),
        job: store.identity.job.clone(),
        checkpoints: copied.checkpoints,
        batches: copied.batches,
        blocks,
        bytes: bytes_under(to),
        sound: judge(&mut findings),
        findings,
    })
}

/// Makes the directory of the copy, outside of the store.
fn claim(dir: &Path, to: &Path) -> Result<()> {
    if to.symlink_metadata().is_ok() {
        return Err(no_such(format!("{} exists: a copy needs a place of its own", to.display())));
    }
    let parent = parent_of(to);
    let io = |path: &Path, cause| Error::io(format!("find {}", path.display()), cause);
    let source = dir.canonicalize().map_err(|cause| io(dir, cause))?;
    if parent.canonicalize().map_err(|cause| io(&parent, cause))?.starts_with(source) {
        return Err(no_such(format!("{} is inside of the store: nothing is written there", to.display())));
    }
    let made = DirBuilder::new().mode(0o700).create(to);
    made.map_err(|cause| Error::io(format!("create directory {}", to.display()), cause))
}

fn parent_of(path: &Path) -> PathBuf {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new(".")).to_owned()
}

/// Removes what an attempt left in the copy.
fn clear(to: &Path) -> Result<()> {
    let io = |cause| Error::io(format!("clear {}", to.display()), cause);
    for entry in fs::read_dir(to).map_err(io)? {
        let entry = entry.map_err(io)?;
        let is_dir = entry.file_type().map_err(io)?.is_dir();
        if is_dir { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }.map_err(io)?;
    }
    Ok(())
}

struct Copied {
    checkpoints: Vec<u64>,
    batches: u64,
}

/// One attempt. The catalog is read first: what is received or checkpointed later is in the files that are
/// copied, and hurts nothing.
fn fill(store: &ReadStore, to: &Path, checkpoint: Option<u64>) -> Result<Copied> {
    let view = View::read(store)?;
    let (restart, findings) = view.judged();
    let in_catalog = |finding: &&Finding| finding.is_damage() && finding.place.starts_with("epochs");
    if let Some(finding) = findings.iter().find(in_catalog) {
        return Err(Error::corrupt(format!("{}: {}", finding.place, finding.what)));
    }
    if let Some(refused) = restart.refused {
        return Err(Error::corrupt(refused));
    }
    let View { catalog, retained, mut segments, .. } = view;
    let kept = match checkpoint {
        Some(id) => vec![&find_checkpoint(&catalog, &retained, id)?.1],
        None => retained.iter().map(|(_, record)| record).collect(),
    };
    for record in &kept {
        segments.check(record).map_err(|error| error.within(format!("checkpoint {}", record.checkpoint)))?;
    }
    let after = kept.first().map_or(0, |record| record.batch);
    let plans: Vec<&PlanRecord> =
        catalog.history.plans.range(after.saturating_add(1)..).map(|(_, plan)| plan).collect();
    let from = kept.first().map_or(1, |record| record.next_block);
    let files = Files::open(store, &kept, from)?;
    let paths = StorePaths::new(to);
    let disk = Disk::default();
    for dir in [paths.epochs(), paths.log(), paths.state()] {
        disk.create_dir(&dir)?;
    }
    files.write(to)?;
    write_catalog(store, &catalog, &disk, &paths, &kept, &plans)?;
    for dir in [paths.log(), paths.state(), paths.epochs()] {
        disk.sync_dir(&dir)?;
    }
    // Last: without it the directory is no store.
    let identity = store.paths.identity();
    let bytes =
        fs::read(&identity).map_err(|cause| Error::io(format!("read {}", identity.display()), cause))?;
    disk.publish(&paths.identity(), &bytes)?;
    disk.sync_dir(&parent_of(to))?;
    let checkpoints = kept.iter().map(|record| record.checkpoint).collect();
    Ok(Copied { checkpoints, batches: plans.len() as u64 })
}

/// What is copied as it is. It is opened before anything is copied: a running job may remove the names.
struct Files {
    witness: Option<Vec<u8>>,
    open: Vec<(PathBuf, File)>,
}

impl Files {
    fn open(store: &ReadStore, kept: &[&CheckpointRecord], from: u64) -> Result<Self> {
        let paths = &store.paths;
        // Before the extents: they only grow beyond what it says.
        let witness = log_witness_bytes(paths);
        let log = scan_log(paths, store.identity.store, from)?;
        if let Some(damage) = log.damage.first() {
            return Err(Error::corrupt(relative(paths, damage)));
        }
        // An extent is needed unless the next one begins with a block that is.
        let next = log.extents.iter().skip(1).map(|(_, first)| Some(*first)).chain([None]);
        let needed = log.extents.iter().zip(next).filter(|(_, next)| next.is_none_or(|next| next > from));
        let extents = needed.map(|((extent, _), _)| format!("log/{}.extent", extent.0));
        let mut segments: Vec<u64> =
            kept.iter().flat_map(|record| &record.segments).map(|segment| segment.segment).collect();
        segments.sort_unstable();
        segments.dedup();
        let segments = segments.into_iter().map(|segment| format!("state/{segment}.segment"));
        let open = |name: String| {
            let path = paths.root.join(&name);
            let file =
                File::open(&path).map_err(|cause| Error::io(format!("open {}", path.display()), cause))?;
            Ok((PathBuf::from(name), file))
        };
        Ok(Files { witness, open: extents.chain(segments).map(open).collect::<Result<_>>()? })
    }

    fn write(self, to: &Path) -> Result<()> {
        for (name, from) in self.open {
            // Not further than it reaches now: a running job appends.
            let length = from
                .metadata()
                .map_err(|cause| Error::io(format!("look at {}", name.display()), cause))?
                .len();
            write_file(&to.join(name), &mut from.take(length))?;
        }
        self.witness.map_or(Ok(()), |witness| write_file(&to.join("log/witness"), &mut &witness[..]))
    }
}

fn write_file(path: &Path, from: &mut impl Read) -> Result<()> {
    let mut copied = || {
        let mut file = open_options().write(true).create_new(true).open(path)?;
        std::io::copy(from, &mut file)?;
        file.flush()?;
        file.sync_all()
    };
    copied().map_err(|cause| Error::io(format!("write {}", path.display()), cause))
}

/// Writes what the catalog of the copy has to say anew: the last run, and from the oldest checkpoint on the
/// checkpoints and batches in their order.
fn write_catalog(
    store: &ReadStore,
    catalog: &Catalog,
    disk: &Disk,
    paths: &StorePaths,
    kept: &[&CheckpointRecord],
    plans: &[&PlanRecord],
) -> Result<()> {
    let history = &catalog.history;
    let (disk, paths) = (disk.clone(), paths.clone());
    let start = EpochStart {
        store: store.identity.store,
        epoch: EpochId(1),
        continues_after: 0,
        first_seq: 1,
        features: history.features,
        job: history.job.clone(),
    };
    let mut writer = CatalogWriter::begin(disk, paths, start)?;
    if let Some(run) = history.runs.last() {
        writer.append(run)?;
    }
    let mut kept = kept.iter().peekable();
    if let Some(oldest) = kept.next() {
        writer.append(*oldest)?;
    }
    for plan in plans {
        writer.append(*plan)?;
        for record in tallies::records_of(plan.batch, history.tallies.get(&plan.batch).map_or(&[], |all| all))
        {
            writer.append(&record)?;
        }
        if let Some(done) = history.done.get(&plan.batch) {
            writer.append(done)?;
        }
        while let Some(record) = kept.next_if(|record| record.batch <= plan.batch) {
            writer.append(*record)?;
        }
    }
    kept.try_for_each(|record| writer.append(*record).map(drop))
}
