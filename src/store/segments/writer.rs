//! Writing a segment, group by group.

use std::fs::File;
use std::path::PathBuf;

use super::{EncodedGroup, segment_path};
#[cfg(any(test, feature = "tool"))]
use super::{EncodedOperator, EncodedState};
use crate::error::Result;
use crate::format::frame::{FrameHeader, FrameKind, encode_frame};
use crate::format::records::{Directory, OperatorDirectory, Record, SegmentHeader, SegmentRef};
use crate::format::segment::trailer;
use crate::id::SegmentId;
use crate::store::{Disk, StorePaths};

/// A segment is written and synced in pieces of about this size: who syncs another file meanwhile waits for a piece at
/// most, and no more than one is in memory.
const PIECE_BYTES: usize = 1 << 20;

/// A segment that is being written. One that is not finished is referred to by nothing and is removed at the next
/// start.
#[derive(Debug)]
pub(crate) struct SegmentWriter<'a> {
    disk: &'a Disk,
    paths: &'a StorePaths,
    segment: SegmentId,
    path: PathBuf,
    file: File,
    /// What is not written yet.
    piece: Vec<u8>,
    /// Where the piece will be.
    piece_at: u64,
    directory: Directory,
    /// The filters of the operator that was named last: they go behind all its pages.
    filters: Vec<u8>,
}

impl<'a> SegmentWriter<'a> {
    pub(crate) fn begin(
        disk: &'a Disk,
        paths: &'a StorePaths,
        segment: SegmentId,
        header: &SegmentHeader,
    ) -> Result<Self> {
        let path = segment_path(paths, segment);
        disk.remove_file(&path)?;
        let file = disk.create_file(&path)?;
        let piece = header.to_frame(segment.0)?;
        let directory = Directory::default();
        let filters = Vec::new();
        Ok(SegmentWriter { disk, paths, segment, path, file, piece, piece_at: 0, directory, filters })
    }

    /// The groups that follow are of this operator.
    pub(crate) fn operator(&mut self, name: &str, schema: &str) {
        self.place_filters();
        let (name, schema) = (name.to_owned(), schema.to_owned());
        self.directory.operators.push(OperatorDirectory { name, schema, groups: Vec::new() });
    }

    /// Adds a group of the operator that was named last.
    pub(crate) fn group(&mut self, group: &EncodedGroup) -> Result<()> {
        let at = self.piece_at + self.piece.len() as u64;
        let mut placed = group.directory.clone();
        placed.pages.iter_mut().for_each(|page| page.offset += at);
        placed.filter_offset = self.filters.len() as u64;
        self.filters.extend_from_slice(&group.filter);
        if let Some(operator) = self.directory.operators.last_mut() {
            operator.groups.push(placed);
        }
        self.piece.extend_from_slice(&group.bytes);
        if self.piece.len() < PIECE_BYTES {
            return Ok(());
        }
        self.write_piece()?;
        self.disk.sync(&self.file, &self.path)
    }

    fn place_filters(&mut self) {
        let at = self.piece_at + self.piece.len() as u64;
        let groups = self.directory.operators.last_mut().map(|operator| &mut operator.groups);
        for group in groups.into_iter().flatten() {
            group.filter_offset = if group.filter_bytes == 0 { 0 } else { group.filter_offset + at };
        }
        self.piece.append(&mut self.filters);
    }

    fn write_piece(&mut self) -> Result<()> {
        self.disk.write(&mut self.file, &self.piece, &self.path)?;
        self.piece_at += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }

    /// Makes all of it durable.
    pub(crate) fn finish(mut self) -> Result<SegmentRef> {
        self.place_filters();
        let listing_at = self.piece_at + self.piece.len() as u64;
        let listing = self.directory.to_frame(self.segment.0)?;
        let end = trailer(listing_at, listing.len() as u64);
        self.piece.extend_from_slice(&listing);
        self.piece.extend_from_slice(&encode_frame(FrameKind::Trailer, self.segment.0, &end)?);
        self.write_piece()?;
        self.disk.sync(&self.file, &self.path)?;
        self.disk.sync_dir(&self.paths.state())?;
        let directory_crc = FrameHeader::parse(&listing)?.crc;
        Ok(SegmentRef { segment: self.segment.0, length: self.piece_at, directory_crc })
    }
}

/// Writes a segment and makes it durable.
#[cfg(any(test, feature = "tool"))]
pub(crate) fn write_segment(
    disk: &Disk,
    paths: &StorePaths,
    segment: SegmentId,
    header: &SegmentHeader,
    state: &EncodedState,
) -> Result<SegmentRef> {
    let mut writer = SegmentWriter::begin(disk, paths, segment, header)?;
    for EncodedOperator { name, schema, groups } in &state.operators {
        writer.operator(name, schema);
        groups.iter().try_for_each(|group| writer.group(group))?;
    }
    writer.finish()
}
