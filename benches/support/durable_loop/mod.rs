//! The durable loop: a word count over TCP written by hand, with no framework.
//!
//! It is the yardstick for anything that promises the same guarantees with
//! more generality: input is durable before it counts, counts are durable at
//! regular points, and memory is bounded between all stages.
//!
//! ```text
//! socket ─> reader ─> log writer ─> hub ─> counting threads ─> state writer
//!           1 MiB     append and           split, exchange,    changed entries,
//!           blocks    fdatasync            count               fdatasync
//! ```
//!
//! * **reader**: fills buffers from the socket and cuts them at a newline.
//! * **log writer**: frames every block (length, CRC-32), appends all that is
//!   waiting (up to 4 MiB) to the current segment file, calls `fdatasync`, and
//!   only then lets the blocks through to be counted.
//! * **counting threads**: each owns the keys whose hash falls to it. A thread
//!   splits a block into words, counts its own, and passes the others to their
//!   owners in one batch per block. A batch refers to the block, so a word is
//!   copied only when it is first seen.
//! * **state writer**: at fixed distances in the input, writes the entries that
//!   changed since the previous such point to a file of its own.
//!
//! A word is a maximal run of bytes other than ASCII whitespace (space, `\t`,
//! `\n`, `\x0b`, `\x0c`, `\r`). Nothing is decoded: keys are bytes.
//!
//! # Files
//!
//! `log-NNNNNN` is a sequence of frames, each a block of input. `state-NNNNNN`
//! is a sequence of frames of entries (`len: u32, count: u64, key`), closed by
//! a frame that holds the input position (`u64`) and the number of entries
//! (`u64`). A frame is `len: u32, crc32: u32, payload`. All integers are
//! little-endian. Reading the state files in order, last count wins, and then
//! the log from the last position on, restores the counts.
//!
//! Sizes in megabytes are 10^6 bytes, in mebibytes 2^20.

mod blocks;
mod counter;
mod exchange;
mod log;
mod state;
mod table;
mod words;

use std::fs;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ScopedJoinHandle};

use blocks::{Pool, read_blocks};
use counter::Counter;
use exchange::Hub;
use log::{Log, log_blocks};
use state::StateWriter;
use table::Table;

/// Blocks between the reader and the log writer.
const LOG_QUEUE: usize = 8;
/// State frames (of about `STATE_FRAME_BYTES`) waiting to be written.
const STATE_QUEUE: usize = 32;

/// What to count, and where to keep it.
#[derive(Debug, Clone)]
pub struct Options {
    /// `HOST:PORT` of the server that sends the input.
    pub address: String,
    /// An empty directory.
    pub store: PathBuf,
    /// Counting threads.
    pub threads: usize,
    /// Distance between two state points, in bytes of input.
    pub state_every: u64,
}

/// What one run did.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Words counted.
    pub words: u64,
    /// Words that are different.
    pub distinct: u64,
}

/// Counts the words of everything the server at `options.address` sends. Returns when all input is counted
/// and both the log and the final state are durable.
pub fn run(options: &Options) -> io::Result<Summary> {
    prepare_store(&options.store)?;
    let log = Log::new(&options.store)?;
    let states = StateWriter::new(&options.store, options.threads)?;
    let stream = TcpStream::connect(&options.address)?;

    let pool = Pool::default();
    let hub = Hub::new(options.threads);
    let (block_sender, block_receiver) = sync_channel(LOG_QUEUE);
    let (state_sender, state_receiver) = sync_channel(STATE_QUEUE);

    let (pool, hub) = (&pool, &hub);
    let tables = thread::scope(|scope| {
        let states = scope.spawn(move || states.run(state_receiver));
        let counters: Vec<_> = (0..options.threads)
            .map(|id| {
                let sender = state_sender.clone();
                scope.spawn(move || Counter::new(id, options.threads).run(hub, pool, sender))
            })
            .collect();
        // The state writer ends when the last counting thread drops its sender.
        drop(state_sender);
        let every = options.state_every;
        let log = scope.spawn(move || log_blocks(log, block_receiver, hub, every));
        let received = read_blocks(stream, pool, block_sender);

        // A stage that fails makes the stages before it stop with a secondary
        // error, so the results are examined from the last stage backwards.
        // All threads are joined first: leaving early would only hide who failed.
        let log = join(log);
        let tables: Vec<io::Result<Table>> = counters.into_iter().map(join).collect();
        join(states)?;
        let tables = tables.into_iter().collect::<io::Result<Vec<Table>>>()?;
        log?;
        received?;
        Ok::<_, io::Error>(tables)
    })?;

    Ok(Summary {
        words: tables.iter().map(|table| table.words).sum(),
        distinct: tables.iter().map(|table| table.entries.len as u64).sum(),
    })
}

/// A store belongs to one run. Files of an earlier one are never overwritten.
fn prepare_store(store: &Path) -> io::Result<()> {
    fs::create_dir_all(store)?;
    match fs::read_dir(store)?.next() {
        None => Ok(()),
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "the store directory is not empty")),
    }
}

fn join<T>(handle: ScopedJoinHandle<'_, io::Result<T>>) -> io::Result<T> {
    handle.join().unwrap_or_else(|_| Err(io::Error::other("a stage panicked")))
}

/// The error of a stage that ends because another one did.
fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "a later stage stopped")
}

/// Locks whether or not a holder panicked: a panic stops the run through
/// [`StopHubOnDrop`], and until then the queues are still consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
