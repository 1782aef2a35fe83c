//! The state: the entries that changed, written at fixed distances in the input.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;

use super::log::{FRAME_HEADER, frame_header};

/// The length of a state frame, about.
pub(super) const STATE_FRAME_BYTES: usize = 1 << 20;

/// Entries, after room for the header of the frame.
pub(super) struct StateFrame {
    pub(super) bytes: Vec<u8>,
    pub(super) entries: u64,
}

impl StateFrame {
    pub(super) fn new() -> Self {
        let mut bytes = Vec::with_capacity(STATE_FRAME_BYTES + STATE_FRAME_BYTES / 16);
        bytes.extend_from_slice(&[0; FRAME_HEADER]);
        StateFrame { bytes, entries: 0 }
    }

    pub(super) fn push(&mut self, key: &[u8], count: u64) {
        // A key is shorter than a block, whose length fits.
        self.bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&count.to_le_bytes());
        self.bytes.extend_from_slice(key);
        self.entries += 1;
    }

    /// Fills in the header. The result is ready to be written.
    fn sealed(mut self) -> io::Result<Vec<u8>> {
        let header = frame_header(&self.bytes[FRAME_HEADER..])?;
        self.bytes[..FRAME_HEADER].copy_from_slice(&header);
        Ok(self.bytes)
    }
}

/// What counting threads send to the state writer.
pub(super) enum StateItem {
    Frame(StateFrame),
    /// This thread has sent all for the state at this input position.
    End(u64),
}

/// Writes one state at a time, from the frames of all counting threads.
pub(super) struct StateWriter {
    store: PathBuf,
    directory: File,
    threads: usize,
    states: u32,
}

impl StateWriter {
    pub(super) fn new(store: &Path, threads: usize) -> io::Result<Self> {
        Ok(StateWriter { store: store.to_owned(), directory: File::open(store)?, threads, states: 0 })
    }

    /// Ends when all senders are gone.
    ///
    /// No thread begins a state before all have ended the previous one (the
    /// hub hands out a point only when no task is left), so the items of two
    /// states never mix.
    pub(super) fn run(mut self, items: Receiver<StateItem>) -> io::Result<()> {
        let mut open: Option<File> = None;
        let mut entries = 0;
        let mut ended = 0;
        while let Ok(item) = items.recv() {
            let file = match &mut open {
                Some(file) => file,
                None => open.insert(File::create(self.unfinished())?),
            };
            match item {
                StateItem::Frame(frame) => {
                    entries += frame.entries;
                    file.write_all(&frame.sealed()?)?;
                }
                StateItem::End(position) => {
                    ended += 1;
                    if ended == self.threads {
                        self.finish(file, position, entries)?;
                        (open, entries, ended) = (None, 0, 0);
                    }
                }
            }
        }
        Ok(())
    }

    fn unfinished(&self) -> PathBuf {
        self.store.join("state-unfinished")
    }

    /// Gives a state its name only when its content is durable: a state file is
    /// complete or does not exist.
    fn finish(&mut self, file: &mut File, position: u64, entries: u64) -> io::Result<()> {
        let mut end = [0; FRAME_HEADER + 16];
        end[FRAME_HEADER..][..8].copy_from_slice(&position.to_le_bytes());
        end[FRAME_HEADER + 8..].copy_from_slice(&entries.to_le_bytes());
        let header = frame_header(&end[FRAME_HEADER..])?;
        end[..FRAME_HEADER].copy_from_slice(&header);
        file.write_all(&end)?;
        file.sync_data()?;
        let name = self.store.join(format!("state-{:06}", self.states));
        self.states += 1;
        fs::rename(self.unfinished(), name)?;
        self.directory.sync_all()
    }
}
