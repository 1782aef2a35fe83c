//! The log: blocks are durable before they count.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use super::blocks::Block;
use super::exchange::{Feed, Hub, StopHubOnDrop};

/// Length and CRC-32.
pub(super) const FRAME_HEADER: usize = 8;
/// Most input made durable by one `fdatasync`.
const GROUP_BYTES: usize = 4 << 20;
/// A segment is closed rather than grown beyond this.
const SEGMENT_BYTES: u64 = 256 << 20;

pub(super) fn frame_header(payload: &[u8]) -> io::Result<[u8; FRAME_HEADER]> {
    let len = u32::try_from(payload.len()).map_err(|_| io::Error::other("frame too large"))?;
    let mut header = [0; FRAME_HEADER];
    header[..4].copy_from_slice(&len.to_le_bytes());
    header[4..].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
    Ok(header)
}

/// Segment files that only ever grow at the end of the last one.
pub(super) struct Log {
    store: PathBuf,
    /// To make the names of new files durable.
    directory: File,
    /// The segment being written and its length.
    segment: Option<(File, u64)>,
    segments: u32,
}

impl Log {
    pub(super) fn new(store: &Path) -> io::Result<Self> {
        Ok(Log { store: store.to_owned(), directory: File::open(store)?, segment: None, segments: 0 })
    }

    /// Returns when all blocks are durable.
    fn append(&mut self, blocks: &[Block]) -> io::Result<()> {
        let headers =
            blocks.iter().map(|block| frame_header(block.content())).collect::<io::Result<Vec<_>>>()?;
        let mut slices = Vec::with_capacity(2 * blocks.len());
        for (header, block) in headers.iter().zip(blocks) {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(block.content()));
        }
        let bytes = slices.iter().map(|slice| slice.len() as u64).sum();
        let segment = self.segment_for(bytes)?;
        write_all_vectored(segment, &mut slices)?;
        segment.sync_data()
    }

    /// The segment to append `bytes` to: a new one if they do not fit.
    fn segment_for(&mut self, bytes: u64) -> io::Result<&mut File> {
        let (file, len) = match self.segment.take() {
            Some((file, len)) if len + bytes <= SEGMENT_BYTES => (file, len),
            _ => (self.create_segment()?, 0),
        };
        let (file, _) = self.segment.insert((file, len + bytes));
        Ok(file)
    }

    fn create_segment(&mut self) -> io::Result<File> {
        let path = self.store.join(format!("log-{:06}", self.segments));
        self.segments += 1;
        let file = OpenOptions::new().write(true).create_new(true).open(path)?;
        self.directory.sync_all()?;
        Ok(file)
    }
}

fn write_all_vectored(file: &mut File, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    while !slices.is_empty() {
        match file.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut slices, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes blocks durable, group by group, and hands them to the hub with the
/// state points between them.
pub(super) fn log_blocks(
    mut log: Log,
    blocks: Receiver<Block>,
    hub: &Hub,
    state_every: u64,
) -> io::Result<()> {
    let stop = StopHubOnDrop(hub);
    let mut group = Vec::new();
    let mut position = 0;
    let mut last_point = 0;
    while let Ok(first) = blocks.recv() {
        let mut bytes = first.len;
        group.push(first);
        while bytes < GROUP_BYTES {
            let Ok(block) = blocks.try_recv() else { break };
            bytes += block.len;
            group.push(block);
        }
        log.append(&group)?;
        for block in group.drain(..) {
            position += block.len as u64;
            hub.feed(Feed::Block(block))?;
            if position - last_point >= state_every {
                hub.feed(Feed::Point(position))?;
                last_point = position;
            }
        }
    }
    hub.feed(Feed::Point(position))?;
    hub.close();
    std::mem::forget(stop);
    Ok(())
}
