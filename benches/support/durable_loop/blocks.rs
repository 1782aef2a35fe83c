//! Blocks, and the reader that makes them.

use std::io::{self, Read};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};

use super::{lock, stopped};

/// Input per block, unless a single line is longer.
const BLOCK_BYTES: usize = 1 << 20;
/// The longest line accepted. Offsets in a block are `u32`, and a sender that
/// never sends a newline must not take all memory.
const MAX_LINE_BYTES: usize = 256 << 20;
/// Readable bytes after the content of a block, so that fixed-size loads near
/// its end stay inside the buffer. Their values are never used.
const PAD: usize = 64;

/// A run of whole lines (the last block of the input may lack its newline).
pub(super) struct Block {
    /// `len` bytes of content and at least `PAD` bytes more.
    pub(super) buffer: Vec<u8>,
    pub(super) len: usize,
}

impl Block {
    pub(super) fn content(&self) -> &[u8] {
        &self.buffer[..self.len]
    }
}

/// Buffers to use again. Fresh ones cost page faults and zeroing, which at one
/// buffer per block would show. The queues bound how many exist.
#[derive(Default)]
pub(super) struct Pool {
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl Pool {
    fn take(&self) -> Vec<u8> {
        let recycled = lock(&self.buffers).pop();
        recycled.unwrap_or_else(|| vec![0; BLOCK_BYTES + PAD])
    }

    /// Takes the buffer back if this was the last reference to the block.
    pub(super) fn release(&self, block: Arc<Block>) {
        if let Some(block) = Arc::into_inner(block) {
            // Buffers that grew for a long line are not worth keeping.
            if block.buffer.len() == BLOCK_BYTES + PAD {
                lock(&self.buffers).push(block.buffer);
            }
        }
    }
}

/// Reads to the end of the stream and passes its content on in blocks.
///
/// A block is passed on when it is full, not when the socket runs dry: the
/// loop is tuned for throughput and leaves latency aside.
pub(super) fn read_blocks(mut stream: impl Read, pool: &Pool, blocks: SyncSender<Block>) -> io::Result<()> {
    let mut buffer = pool.take();
    let mut filled = 0;
    loop {
        let room = buffer.len() - PAD;
        if filled == room {
            (buffer, filled) = cut(buffer, filled, pool, &blocks)?;
            continue;
        }
        let count = match stream.read(&mut buffer[filled..room]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += count;
    }
    if filled > 0 {
        let last = Block { buffer, len: filled };
        blocks.send(last).map_err(|_| stopped())?;
    }
    Ok(())
}

/// Passes the whole lines of a full buffer on. Returns the buffer to fill
/// next, which starts with the incomplete line, and how much of it is filled.
fn cut(
    mut buffer: Vec<u8>,
    filled: usize,
    pool: &Pool,
    blocks: &SyncSender<Block>,
) -> io::Result<(Vec<u8>, usize)> {
    let Some(newline) = memchr::memrchr(b'\n', &buffer[..filled]) else {
        if filled >= MAX_LINE_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "line too long"));
        }
        buffer.resize(2 * filled + PAD, 0);
        return Ok((buffer, filled));
    };
    let len = newline + 1;
    let rest = &buffer[len..filled];
    let mut next = pool.take();
    if next.len() < rest.len() + BLOCK_BYTES / 2 {
        next.resize(rest.len() + BLOCK_BYTES + PAD, 0);
    }
    next[..rest.len()].copy_from_slice(rest);
    let filled = rest.len();
    blocks.send(Block { buffer, len }).map_err(|_| stopped())?;
    Ok((next, filled))
}
