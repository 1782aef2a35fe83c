//! A counting thread: splits blocks, counts its own words, passes the others on.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::blocks::{Block, Pool};
use super::exchange::{Batch, Hub, StopHubOnDrop, Task};
use super::state::StateItem;
use super::table::Table;
use super::words::{Word, find_edges, hash_words};

/// Input that is split before its own words are counted: small enough for its
/// words to still be in the first-level caches then.
const STRETCH_BYTES: usize = 16 << 10;

pub(super) struct Counter {
    id: usize,
    table: Table,
    /// Where words begin and end, alternately.
    edges: Vec<u32>,
    /// By owner.
    words: Vec<Vec<Word>>,
    /// Vectors from counted batches, to be filled again.
    spare: Vec<Vec<Word>>,
}

impl Counter {
    pub(super) fn new(id: usize, threads: usize) -> Self {
        Counter {
            id,
            table: Table::new(),
            edges: Vec::with_capacity(STRETCH_BYTES + 2),
            words: (0..threads).map(|_| Vec::new()).collect(),
            spare: Vec::new(),
        }
    }

    pub(super) fn run(mut self, hub: &Hub, pool: &Pool, states: SyncSender<StateItem>) -> io::Result<Table> {
        let stop = StopHubOnDrop(hub);
        while let Some(task) = hub.next(self.id) {
            match task {
                Task::Split(block) => self.split(block, hub, pool),
                Task::Count(batch) => self.count(batch, pool),
                Task::WriteState(position) => self.table.write_changed(position, &states)?,
            }
            hub.done();
        }
        std::mem::forget(stop);
        Ok(self.table)
    }

    fn split(&mut self, block: Block, hub: &Hub, pool: &Pool) {
        let block = Arc::new(block);
        let mut in_word = 0;
        self.edges.clear();
        for start in (0..block.len).step_by(STRETCH_BYTES) {
            let end = block.len.min(start + STRETCH_BYTES);
            in_word = find_edges(&block.buffer, start..end, in_word, &mut self.edges);
            if end == block.len && in_word != 0 {
                self.edges.push(end as u32);
            }
            hash_words(&block.buffer, &mut self.edges, &mut self.words);
            let own = &mut self.words[self.id];
            self.table.add_all(&block.buffer, own);
            own.clear();
        }
        for owner in (0..self.words.len()).filter(|owner| *owner != self.id) {
            let spare = self.spare.pop().unwrap_or_default();
            let words = std::mem::replace(&mut self.words[owner], spare);
            hub.send(owner, Batch { block: Arc::clone(&block), words });
        }
        pool.release(block);
    }

    fn count(&mut self, batch: Batch, pool: &Pool) {
        let Batch { block, mut words } = batch;
        self.table.add_all(&block.buffer, &words);
        words.clear();
        self.spare.push(words);
        pool.release(block);
    }
}
