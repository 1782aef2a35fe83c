//! One file that may grow, read by byte ranges.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::record::Text;
use crate::source::ranges::{TextRangeReader, last_line_end, limited_range_end};
use crate::source::regular::{Links, open_regular};
use crate::source::replayable::{Offer, Positions, RangeReader, ReplayableSource, SourceRange};

/// So many ranges at most in one batch, so that a plan stays small.
const RANGES_MAX: usize = 400;

/// The lines of one file, from its start and on as it grows.
///
/// * Lines are taken when they are complete. A last line without an end is taken once the file has not
///   grown for the settle time (default 1 s); what is appended to it later begins a new line.
/// * A line longer than 4 MiB is handed on in pieces.
/// * A file that is not there is waited for. One that becomes shorter than what was taken stops the job.
/// * Nothing of the file is copied into the store: it must stay as it is up to the checkpoint after the
///   batches that read it.
///
/// ```
/// let source = millpond::FileSource::new("/var/log/requests.log");
/// ```
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    settle_ms: u64,
    /// The length last seen, and since when it is that.
    seen: Option<(u64, u64)>,
    missing: bool,
}

impl FileSource {
    /// Reads the file at `path`.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        FileSource { path: path.into(), settle_ms: 1_000, seen: None, missing: false }
    }

    /// How long the file must not have grown before a last line without an end is taken. Default 1 s.
    #[must_use]
    pub fn settle(mut self, settle: Duration) -> Self {
        self.settle_ms = settle.as_millis() as u64;
        self
    }

    fn partition(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    fn has_settled(&mut self, length: u64, now_ms: u64) -> bool {
        match self.seen {
            Some((seen, since)) if seen == length => now_ms.saturating_sub(since) >= self.settle_ms,
            _ => {
                self.seen = Some((length, now_ms));
                self.settle_ms == 0
            }
        }
    }

    /// The file and its length; `None` while it is not there.
    fn open(&mut self) -> Result<Option<(File, u64)>> {
        let opened = open_regular(&self.path, Links::Followed).and_then(|file| {
            let length = file.metadata()?.len();
            Ok((file, length))
        });
        match opened {
            Ok(opened) => {
                self.missing = false;
                Ok(Some(opened))
            }
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
                if !self.missing {
                    tracing::warn!(file = %self.path.display(), "the file is not there: waiting for it");
                    self.missing = true;
                }
                Ok(None)
            }
            Err(cause) => Err(self.unreadable(cause)),
        }
    }

    fn unreadable(&self, cause: std::io::Error) -> Error {
        Error::new(ErrorKind::Source, format!("cannot read {}", self.path.display())).caused_by(cause)
    }
}

impl ReplayableSource for FileSource {
    type Item = Text;

    fn poll(&mut self, positions: &Positions, limit: u64, now_ms: u64) -> Result<Offer> {
        let mut offer = Offer::default();
        let Some((file, length)) = self.open()? else {
            return Ok(offer);
        };
        let partition = self.partition();
        let start = positions.get(&partition)?.map_or(0, |position| position.offset);
        if length < start {
            let message =
                format!("{} has {length} bytes, but {start} were taken: it was cut", self.path.display());
            return Err(Error::new(ErrorKind::Source, message));
        }
        let settled = self.has_settled(length, now_ms);
        let mut complete = length;
        if !settled && start < length {
            let line_end = last_line_end(&file, start, length).map_err(|cause| self.unreadable(cause))?;
            complete = line_end.unwrap_or(start);
            offer.waiting = complete < length;
        }
        let mut at = start;
        while at < complete && at - start < limit && offer.ranges.len() < RANGES_MAX {
            let (left, first) = (limit - (at - start), offer.ranges.is_empty());
            let end = limited_range_end(&file, at, complete, left, first);
            let Some(end) = end.map_err(|cause| self.unreadable(cause))? else { break };
            offer.ranges.push(SourceRange {
                partition: partition.clone(),
                start: at,
                end,
                size: 0,
                stamp: 0,
            });
            at = end;
        }
        offer.waiting |= at < complete;
        Ok(offer)
    }

    fn reader(&self) -> Arc<dyn RangeReader<Text>> {
        // A partition is the whole path; joined to an empty base it stays that.
        Arc::new(TextRangeReader { base: PathBuf::new(), links: Links::Followed })
    }
}
