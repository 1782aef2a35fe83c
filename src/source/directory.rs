//! A monitored directory: every file is taken exactly once.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Text;
use crate::source::ranges::{RANGE_BYTES, TextRangeReader, limited_range_end, stamp_of};
use crate::source::regular::{Links, open_regular};
use crate::source::replayable::{Offer, Position, Positions, RangeReader, ReplayableSource, SourceRange};

/// So many ranges at most in one batch, so that a plan stays small.
const RANGES_MAX: usize = 400;

/// The text files that appear in a directory, as lines.
///
/// * A file is known by its name. It is taken once, also across restarts and when it appeared while the job
///   was down. What is appended to it later, or put in its place, is not taken, and a warning says so; once
///   the job has seen that a name is gone, a file that comes back under it is new. When all names are gone at once, as when a file system is not
///   mounted, a file that comes back unchanged is still the one that was taken.
/// * A file is **complete**, and taken, once its size and modification time have not changed for the settle
///   time (default 1 s). With a settle time of zero it is taken at first sight, which is right when files are
///   only ever moved in by rename.
/// * Names that start with `.` or end in `.tmp`, and what is not a regular file, are passed over. Symbolic links are too,
///   unless [`follow_symlinks`](Self::follow_symlinks) says otherwise: who may put one there need not be allowed to read what
///   it leads to. The directory itself may be reached over links.
/// * An empty file is taken and has no lines. A line longer than 4 MiB is handed on in pieces.
/// * A directory that is not there is waited for.
/// * A file that was planned must stay as it is until the checkpoint after its batch. When it is gone or
///   changed and a batch has to be computed again, the job stops with an error that names it.
///
/// ```
/// use std::time::Duration;
///
/// let source = millpond::DirectorySource::new("/var/spool/orders").settle(Duration::ZERO);
/// ```
pub struct DirectorySource {
    dir: PathBuf,
    settle_ms: u64,
    cut: Cut,
    filter: Option<Box<NameFilter>>,
    new_files_only: bool,
    links: Links,
    /// Files seen and not yet complete: size, stamp, and since when they have not changed.
    settling: HashMap<String, (u64, u64, u64)>,
    missing: bool,
    /// The last listing was empty: the directory was emptied, or is not mounted.
    emptied: bool,
    /// Files that were changed after they were taken, and were warned of.
    changed: HashSet<String>,
}

/// Says which names are taken.
type NameFilter = dyn Fn(&str) -> bool + Send;

/// The partition whose stamp says since when files are new. No file has a name that starts with `.`.
const NEW_SINCE: &str = ".new since";

/// Where ranges may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// After a line.
    Lines,
    /// After a record of this many bytes.
    Records(u64),
}

struct Listed {
    name: String,
    size: u64,
    stamp: u64,
}

impl std::fmt::Debug for DirectorySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DirectorySource({})", self.dir.display())
    }
}

impl DirectorySource {
    /// Monitors `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        DirectorySource {
            dir: dir.into(),
            settle_ms: 1_000,
            cut: Cut::Lines,
            filter: None,
            new_files_only: false,
            links: Links::Refused,
            settling: HashMap::new(),
            missing: false,
            emptied: false,
            changed: HashSet::new(),
        }
    }

    /// How long a file must not have changed before it is taken. Default 1 s.
    #[must_use]
    pub fn settle(mut self, settle: Duration) -> Self {
        self.settle_ms = settle.as_millis() as u64;
        self
    }

    /// Takes only files for whose names `keep` holds. Default: all.
    #[must_use]
    pub fn filter(mut self, keep: impl Fn(&str) -> bool + Send + 'static) -> Self {
        self.filter = Some(Box::new(keep));
        self
    }

    /// Passes over files whose modification time is before the first batch of the stream's life in its store.
    /// Default: what is there at the first start is taken too.
    #[must_use]
    pub fn new_files_only(mut self) -> Self {
        self.new_files_only = true;
        self
    }

    /// Takes symbolic links that lead to regular files as if they were these, with what the process may read. For
    /// directories into which only those can write who may read all of that.
    /// Default: links are passed over, also those that take the place of a file while it is read.
    #[must_use]
    pub fn follow_symlinks(mut self) -> Self {
        self.links = Links::Followed;
        self
    }

    pub(super) fn links(&self) -> Links {
        self.links
    }

    pub(super) fn cut(mut self, cut: Cut) -> Self {
        self.cut = cut;
        self
    }

    pub(super) fn directory(&self) -> &Path {
        &self.dir
    }

    /// The files that might be taken; `None` while the directory is not there.
    fn list(&mut self) -> Result<Option<Vec<Listed>>> {
        let entries = match std::fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(cause) => {
                if !self.missing {
                    tracing::warn!(directory = %self.dir.display(), %cause, "cannot list the monitored directory: waiting for it");
                    self.missing = true;
                }
                return Ok(None);
            }
        };
        self.missing = false;
        let mut listed = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|cause| self.unreadable(&self.dir, cause))?;
            let Ok(name) = entry.file_name().into_string() else {
                tracing::warn!(file = %entry.path().display(), "a file whose name is not UTF-8 is passed over");
                continue;
            };
            let is_kept = |name: &str| self.filter.as_ref().is_none_or(|keep| keep(name));
            if name.starts_with('.') || name.ends_with(".tmp") || !is_kept(&name) {
                continue;
            }
            let found = match self.links {
                Links::Refused => entry.metadata(),
                Links::Followed => entry.path().metadata(),
            };
            match found {
                Ok(data) if data.is_file() => {
                    listed.push(Listed { name, size: data.len(), stamp: stamp_of(&data) })
                }
                Ok(_) => {}
                // It was moved away between the listing and the look at it.
                Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {}
                Err(cause) => return Err(self.unreadable(&entry.path(), cause)),
            }
        }
        listed.sort_by(|a, b| (a.stamp, &a.name).cmp(&(b.stamp, &b.name)));
        Ok(Some(listed))
    }

    fn unreadable(&self, path: &Path, cause: std::io::Error) -> Error {
        Error::new(ErrorKind::Source, format!("cannot read {}", path.display())).caused_by(cause)
    }

    /// What is done to a file after it was taken is not taken.
    fn warn_of_change(&mut self, file: &Listed, taken: Position) {
        if (file.size, file.stamp) != (taken.size, taken.stamp) && self.changed.insert(file.name.clone()) {
            let path = self.dir.join(&file.name);
            tracing::warn!(file = %path.display(), "a file was changed after it was taken; the change is not taken");
        }
    }

    /// Whether the file has settled; remembers it otherwise.
    fn is_complete(&mut self, file: &Listed, now_ms: u64) -> bool {
        let seen = self.settling.entry(file.name.clone()).or_insert((file.size, file.stamp, now_ms));
        if (seen.0, seen.1) != (file.size, file.stamp) {
            *seen = (file.size, file.stamp, now_ms);
        }
        now_ms.saturating_sub(seen.2) >= self.settle_ms
    }

    /// Adds the ranges of one file to the offer, until the limit.
    fn offer(&self, file: &Listed, from: u64, limit: &mut u64, offer: &mut Offer) -> Result<()> {
        let path = self.dir.join(&file.name);
        let open = match open_regular(&path, self.links) {
            Ok(open) => open,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            // It was put in the file's place since the listing: the next one passes over it.
            Err(cause) if cause.kind() == std::io::ErrorKind::Other => {
                tracing::warn!(file = %path.display(), %cause, "a file was replaced and is passed over");
                return Ok(());
            }
            Err(cause) => return Err(self.unreadable(&path, cause)),
        };
        let mut at = from;
        loop {
            let Some(end) = self.range_end(&open, &path, file, at, *limit, offer.ranges.is_empty())? else {
                *limit = 0;
                offer.waiting = true;
                return Ok(());
            };
            offer.ranges.push(SourceRange {
                partition: file.name.clone(),
                start: at,
                end,
                size: file.size,
                stamp: file.stamp,
            });
            *limit = limit.saturating_sub((end - at).max(1));
            at = end;
            if at >= file.size || *limit == 0 || offer.ranges.len() >= RANGES_MAX {
                offer.waiting |= at < file.size;
                return Ok(());
            }
        }
    }
}

impl DirectorySource {
    /// Where the range that begins at `start` ends; `None` when the limit leaves nothing for it.
    fn range_end(
        &self,
        open: &File,
        path: &Path,
        file: &Listed,
        start: u64,
        limit: u64,
        first: bool,
    ) -> Result<Option<u64>> {
        match self.cut {
            Cut::Lines => limited_range_end(open, start, file.size, limit, first)
                .map_err(|cause| self.unreadable(path, cause)),
            Cut::Records(length) => {
                if !file.size.is_multiple_of(length) {
                    let message = format!(
                        "{} has {} bytes, which are no records of {length}",
                        path.display(),
                        file.size
                    );
                    return Err(Error::new(ErrorKind::Source, message));
                }
                let whole = |bytes: u64| bytes - bytes % length;
                let most = whole(limit.min(RANGE_BYTES)).max(if first { length } else { 0 });
                Ok((most > 0 || start == file.size).then(|| (start + most).min(file.size)))
            }
        }
    }

    /// The stamp before which files are passed over; asks to be told of it when it is not known yet.
    fn new_since(&self, positions: &Positions, now_ms: u64, offer: &mut Offer) -> Result<u64> {
        if !self.new_files_only {
            return Ok(0);
        }
        if let Some(position) = positions.get(NEW_SINCE)? {
            return Ok(position.stamp);
        }
        // Planned like a range, so that it is the same after any restart.
        let stamp = now_ms.saturating_mul(1_000_000).max(1);
        let partition = NEW_SINCE.to_owned();
        offer.ranges.push(SourceRange { partition, start: 0, end: 0, size: 0, stamp });
        Ok(stamp)
    }
}

impl ReplayableSource for DirectorySource {
    type Item = Text;

    fn poll(&mut self, positions: &Positions, limit: u64, now_ms: u64) -> Result<Offer> {
        let mut offer = Offer::default();
        let new_since = self.new_since(positions, now_ms, &mut offer)?;
        let Some(mut listed) = self.list()? else {
            return Ok(offer);
        };
        listed.retain(|file| file.stamp >= new_since);
        self.settling.retain(|name, _| listed.iter().any(|file| file.name == *name));
        if listed.is_empty() {
            // Nothing is forgotten yet: a file system that is not mounted looks like this, and the files that
            // come back with it were taken.
            self.emptied = true;
            return Ok(offer);
        }
        let emptied = std::mem::take(&mut self.emptied);
        offer.retired = self.retired(positions, &listed)?;
        let mut left = limit.max(1);
        for file in &listed {
            let mut position = positions.get(&file.name)?;
            if emptied && position.is_some_and(|taken| (taken.size, taken.stamp) != (file.size, file.stamp)) {
                offer.retired.push(file.name.clone());
                position = None;
            }
            let from = match position {
                // What was planned of it fixed its size: the rest of that, and no more.
                Some(position) if position.offset >= position.size => {
                    self.warn_of_change(file, position);
                    continue;
                }
                Some(position) if (position.size, position.stamp) != (file.size, file.stamp) => {
                    let message = format!(
                        "{} was changed after its first {} of {} bytes were taken",
                        self.dir.join(&file.name).display(),
                        position.offset,
                        position.size
                    );
                    return Err(Error::new(ErrorKind::Source, message));
                }
                Some(position) => position.offset,
                None if self.is_complete(file, now_ms) => 0,
                None => {
                    offer.waiting = true;
                    continue;
                }
            };
            if left == 0 || offer.ranges.len() >= RANGES_MAX {
                offer.waiting = true;
                break;
            }
            self.offer(file, from, &mut left, &mut offer)?;
            if offer.ranges.last().is_some_and(|range| range.partition == file.name) {
                self.settling.remove(&file.name);
            }
        }
        Ok(offer)
    }

    fn reader(&self) -> Arc<dyn RangeReader<Text>> {
        Arc::new(TextRangeReader { base: self.dir.clone(), links: self.links })
    }
}

impl DirectorySource {
    /// Names that have a position and are no longer there.
    fn retired(&self, positions: &Positions, listed: &[Listed]) -> Result<Vec<String>> {
        if positions.len() <= listed.len() as u64 {
            return Ok(Vec::new());
        }
        let there: HashSet<&str> = listed.iter().map(|file| file.name.as_str()).collect();
        let is_gone = |name: &String| name != NEW_SINCE && !there.contains(name.as_str());
        Ok(positions.partitions()?.into_iter().filter(is_gone).collect())
    }
}
