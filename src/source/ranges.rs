//! Byte ranges of text files, cut at line ends when they are planned, so that each can be read on its own.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::rdd::Emitter;
use crate::record::Text;
use crate::source::emit_lines;
use crate::source::regular::{Links, open_regular};
use crate::source::replayable::{RangeReader, SourceRange};

/// The length that a range is cut to; also the longest line, beyond which it is handed on in pieces.
pub(super) const RANGE_BYTES: u64 = 4 << 20;

/// How much is read at a time when looking for the end of a line.
const SEARCH_BYTES: u64 = 64 << 10;

/// Where the range that starts at `start` ends: after the last line end within [`RANGE_BYTES`], at `end`
/// when that comes first, or after [`RANGE_BYTES`] when the line is longer.
pub(super) fn range_end(file: &File, start: u64, end: u64) -> std::io::Result<u64> {
    if end - start <= RANGE_BYTES {
        return Ok(end);
    }
    let most = start + RANGE_BYTES;
    Ok(last_line_end(file, start, most)?.unwrap_or(most))
}

/// Where the range that starts at `start` ends when `limit` bytes are left to be taken: as [`range_end`], but after
/// the last line end within the limit. When not even one line fits, `None`, or after that line if it is the
/// `first` to be taken, so that it is taken some time.
pub(super) fn limited_range_end(
    file: &File,
    start: u64,
    end: u64,
    limit: u64,
    first: bool,
) -> std::io::Result<Option<u64>> {
    let most = start.saturating_add(limit);
    if most >= end || limit >= RANGE_BYTES {
        return range_end(file, start, end).map(Some);
    }
    let line_end = last_line_end(file, start, most)?;
    if line_end.is_some() || !first {
        return Ok(line_end);
    }
    let furthest = end.min(start + RANGE_BYTES);
    Ok(Some(first_line_end(file, most, furthest)?.unwrap_or(furthest)))
}

/// The place after the first `\n` in `start..end`.
fn first_line_end(file: &File, start: u64, end: u64) -> std::io::Result<Option<u64>> {
    let mut buffer = vec![0; SEARCH_BYTES as usize];
    let mut from = start;
    while from < end {
        let part = &mut buffer[..(end - from).min(SEARCH_BYTES) as usize];
        file.read_exact_at(part, from)?;
        if let Some(at) = memchr::memchr(b'\n', part) {
            return Ok(Some(from + at as u64 + 1));
        }
        from += part.len() as u64;
    }
    Ok(None)
}

/// The place after the last `\n` in `start..end`.
pub(super) fn last_line_end(file: &File, start: u64, end: u64) -> std::io::Result<Option<u64>> {
    let mut buffer = vec![0; SEARCH_BYTES as usize];
    let mut upto = end;
    while upto > start {
        let from = upto.saturating_sub(SEARCH_BYTES).max(start);
        let part = &mut buffer[..(upto - from) as usize];
        file.read_exact_at(part, from)?;
        if let Some(at) = memchr::memrchr(b'\n', part) {
            return Ok(Some(from + at as u64 + 1));
        }
        upto = from;
    }
    Ok(None)
}

/// The modification time as a stamp: nanoseconds, never 0.
pub(super) fn stamp_of(metadata: &std::fs::Metadata) -> u64 {
    let nanos = metadata.mtime().wrapping_mul(1_000_000_000).wrapping_add(metadata.mtime_nsec());
    (nanos as u64).max(1)
}

/// Reads ranges of files under a directory, or of one file.
pub(super) struct TextRangeReader {
    /// The partition is a path below this.
    pub(super) base: PathBuf,
    pub(super) links: Links,
}

impl RangeReader<Text> for TextRangeReader {
    fn read(&self, range: &SourceRange, out: &mut Emitter<'_, Text>) -> Result<u64> {
        emit_lines(&Arc::new(read_planned(&self.base, range, self.links)?), 0, out)
    }
}

/// The bytes of a planned range of a file below `base`.
pub(super) fn read_planned(base: &Path, range: &SourceRange, links: Links) -> Result<Vec<u8>> {
    if range.start == range.end {
        return Ok(Vec::new());
    }
    let path = base.join(&range.partition);
    read_range(&path, range, links).map_err(|error| {
        let message = format!(
            "{} was planned from byte {} to {} and is needed to compute the batch (again): put it back as it was",
            path.display(),
            range.start,
            range.end
        );
        Error::new(ErrorKind::Source, message).caused_by(error)
    })
}

fn read_range(path: &Path, range: &SourceRange, links: Links) -> std::io::Result<Vec<u8>> {
    let file = open_regular(path, links)?;
    let metadata = file.metadata()?;
    if range.stamp != 0 && (metadata.len() != range.size || stamp_of(&metadata) != range.stamp) {
        return Err(std::io::Error::other("its size or modification time is another"));
    }
    if metadata.len() < range.end {
        return Err(std::io::Error::other(format!("it has only {} bytes", metadata.len())));
    }
    // Planned ranges are bounded, and the file is at least this long.
    let mut bytes = vec![0; (range.end - range.start) as usize];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_end_at_lines_and_cover_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        let mut content = Vec::new();
        for line in 0..200_000 {
            content.extend_from_slice(format!("line {line} {}\n", "x".repeat(line % 90)).as_bytes());
        }
        content.resize(content.len() + 3 * RANGE_BYTES as usize, b'y');
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        let (mut at, mut cut_in_line) = (0, 0);
        while at < content.len() as u64 {
            let end = range_end(&file, at, content.len() as u64).unwrap();
            assert!(end > at && end - at <= RANGE_BYTES);
            cut_in_line += u32::from(content[end as usize - 1] != b'\n');
            at = end;
        }
        assert_eq!(at, content.len() as u64);
        assert!((3..=4).contains(&cut_in_line), "only the one long line is cut: {cut_in_line}");
    }

    #[test]
    fn a_limited_range_ends_at_a_line_within_the_limit_or_after_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        let mut content = b"one\ntwo\n\n".to_vec();
        content.resize(content.len() + SEARCH_BYTES as usize, b'x');
        content.extend_from_slice(b"\nlast");
        std::fs::write(&path, &content).unwrap();
        let file = File::open(&path).unwrap();
        let length = content.len() as u64;
        let end = |start, limit| limited_range_end(&file, start, length, limit, true).unwrap().unwrap();
        assert_eq!([1, 3, 4, 7, 8, 9, 100].map(|limit| end(0, limit)), [4, 4, 4, 4, 8, 9, 9]);
        let after_long = length - 4;
        assert_eq!([1, 1_000, SEARCH_BYTES + 1].map(|limit| end(9, limit)), [after_long; 3]);
        assert_eq!([end(after_long, 1), end(after_long, 9)], [length; 2]);
        assert_eq!(end(9, u64::MAX), length);
        let next = |start, limit| limited_range_end(&file, start, length, limit, false).unwrap();
        assert_eq!([next(0, 3), next(0, 4), next(9, 1_000)], [None, Some(4), None]);
    }
}
