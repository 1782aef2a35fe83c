//! Files of records that all have the same length.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::rdd::Emitter;
use crate::source::directory::Cut;
use crate::source::ranges::read_planned;
use crate::source::regular::Links;
use crate::source::{DirectorySource, Offer, Positions, RangeReader, ReplayableSource, SourceRange};

/// The records of the files that appear in a directory, each of the same number of bytes and each file taken
/// exactly once. What is said of files at [`DirectorySource`] holds here too, but of lines; a file whose size is
/// no multiple of the length stops the job with an error that names it.
///
/// ```
/// let source = millpond::BinaryRecordsSource::new("/var/spool/samples", 16).filter(|name| name.ends_with(".bin"));
/// ```
#[derive(Debug)]
pub struct BinaryRecordsSource {
    files: DirectorySource,
    length: usize,
}

impl BinaryRecordsSource {
    /// Monitors `dir` for files with records of `length` bytes (of 1, when 0 is given).
    pub fn new(dir: impl Into<PathBuf>, length: usize) -> Self {
        let length = length.max(1);
        BinaryRecordsSource { files: DirectorySource::new(dir).cut(Cut::Records(length as u64)), length }
    }

    /// As [`DirectorySource::settle`].
    #[must_use]
    pub fn settle(mut self, settle: Duration) -> Self {
        self.files = self.files.settle(settle);
        self
    }

    /// As [`DirectorySource::filter`].
    #[must_use]
    pub fn filter(mut self, keep: impl Fn(&str) -> bool + Send + 'static) -> Self {
        self.files = self.files.filter(keep);
        self
    }

    /// As [`DirectorySource::follow_symlinks`].
    #[must_use]
    pub fn follow_symlinks(mut self) -> Self {
        self.files = self.files.follow_symlinks();
        self
    }

    /// As [`DirectorySource::new_files_only`].
    #[must_use]
    pub fn new_files_only(mut self) -> Self {
        self.files = self.files.new_files_only();
        self
    }
}

impl ReplayableSource for BinaryRecordsSource {
    type Item = Vec<u8>;

    fn poll(&mut self, positions: &Positions, limit: u64, now_ms: u64) -> Result<Offer> {
        self.files.poll(positions, limit, now_ms)
    }

    fn reader(&self) -> Arc<dyn RangeReader<Vec<u8>>> {
        let (base, links) = (self.files.directory().to_owned(), self.files.links());
        Arc::new(BinaryRangeReader { base, links, length: self.length })
    }
}

struct BinaryRangeReader {
    base: PathBuf,
    links: Links,
    length: usize,
}

impl RangeReader<Vec<u8>> for BinaryRangeReader {
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, Vec<u8>>) -> Result<u64> {
        let bytes = read_planned(&self.base, range, self.links)?;
        let records = bytes.chunks_exact(self.length);
        let count = records.len() as u64;
        records.for_each(|record| out.emit(record.to_vec()));
        Ok(count)
    }
}
