//! The hub: what the counting threads have to do.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::blocks::Block;
use super::words::Word;
use super::{lock, stopped};

/// Durable blocks waiting to be split.
const SPLIT_QUEUE: usize = 8;
/// Batches waiting for one owner before others stop splitting new blocks.
const BATCH_QUEUE: usize = 4;

/// Durable input, in order.
pub(super) enum Feed {
    Block(Block),
    /// All before this position is to be counted, and then the state written.
    Point(u64),
}

/// The words of one block that belong to one owner.
pub(super) struct Batch {
    pub(super) block: Arc<Block>,
    pub(super) words: Vec<Word>,
}

pub(super) enum Task {
    Split(Block),
    Count(Batch),
    WriteState(u64),
}

/// Hands tasks to the counting threads.
///
/// One lock is enough, because a task is about a megabyte of input. A thread
/// never waits while it holds a task: it starts a block only if all owners have
/// room for the words that will come out of it. So passing words on cannot
/// block, and threads that exchange words cannot deadlock.
pub(super) struct Hub {
    queues: Mutex<Queues>,
    changed: Condvar,
}

struct Queues {
    feed: VecDeque<Feed>,
    /// By owner.
    batches: Vec<VecDeque<Batch>>,
    /// Tasks handed out and not done, and batches not yet handed out.
    unfinished: usize,
    /// By thread: whether it has the state point at the front of `feed`.
    has_point: Vec<bool>,
    closed: bool,
    stopped: bool,
}

impl Hub {
    pub(super) fn new(threads: usize) -> Self {
        Hub {
            queues: Mutex::new(Queues {
                feed: VecDeque::new(),
                batches: (0..threads).map(|_| VecDeque::new()).collect(),
                unfinished: 0,
                has_point: vec![false; threads],
                closed: false,
                stopped: false,
            }),
            changed: Condvar::new(),
        }
    }

    fn wait<'a>(&self, queues: MutexGuard<'a, Queues>) -> MutexGuard<'a, Queues> {
        self.changed.wait(queues).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room.
    pub(super) fn feed(&self, item: Feed) -> io::Result<()> {
        let mut queues = lock(&self.queues);
        while queues.feed.len() >= SPLIT_QUEUE && !queues.stopped {
            queues = self.wait(queues);
        }
        if queues.stopped {
            return Err(stopped());
        }
        queues.feed.push_back(item);
        self.changed.notify_all();
        Ok(())
    }

    /// Nothing will be fed any more.
    pub(super) fn close(&self) {
        lock(&self.queues).closed = true;
        self.changed.notify_all();
    }

    /// Something failed: all threads are to end without finishing.
    fn stop(&self) {
        lock(&self.queues).stopped = true;
        self.changed.notify_all();
    }

    /// The next task of a thread. `None` at the end.
    pub(super) fn next(&self, thread: usize) -> Option<Task> {
        let mut queues = lock(&self.queues);
        loop {
            if queues.is_over() {
                return None;
            }
            if let Some(task) = queues.take(thread) {
                self.changed.notify_all();
                return Some(task);
            }
            queues = self.wait(queues);
        }
    }

    pub(super) fn send(&self, owner: usize, batch: Batch) {
        let mut queues = lock(&self.queues);
        queues.unfinished += 1;
        queues.batches[owner].push_back(batch);
        self.changed.notify_all();
    }

    /// A task taken from [`Hub::next`] is done.
    pub(super) fn done(&self) {
        let mut queues = lock(&self.queues);
        queues.unfinished -= 1;
        if queues.unfinished == 0 {
            self.changed.notify_all();
        }
    }
}

impl Queues {
    fn is_over(&self) -> bool {
        self.stopped || (self.closed && self.feed.is_empty() && self.unfinished == 0)
    }

    fn take(&mut self, thread: usize) -> Option<Task> {
        // Batches first: they hold memory, and others may wait for the room.
        if let Some(batch) = self.batches[thread].pop_front() {
            // `send` has already added it to `unfinished`.
            return Some(Task::Count(batch));
        }
        match self.feed.front()? {
            Feed::Point(position) => {
                let position = *position;
                self.take_point(thread).then_some(Task::WriteState(position))
            }
            Feed::Block(_) => self.take_block().map(Task::Split),
        }
    }

    fn take_block(&mut self) -> Option<Block> {
        if self.batches.iter().any(|batches| batches.len() >= BATCH_QUEUE) {
            return None;
        }
        match self.feed.pop_front() {
            Some(Feed::Block(block)) => {
                self.unfinished += 1;
                Some(block)
            }
            _ => None,
        }
    }

    /// Every thread takes a point once, and the point is in the way of what
    /// follows it until all have. The first needs everything before the point
    /// counted; the others then find it so, since nothing new can start.
    fn take_point(&mut self, thread: usize) -> bool {
        let first = !self.has_point.contains(&true);
        if self.has_point[thread] || (first && self.unfinished > 0) {
            return false;
        }
        self.has_point[thread] = true;
        self.unfinished += 1;
        if !self.has_point.contains(&false) {
            self.has_point.fill(false);
            self.feed.pop_front();
        }
        true
    }
}

/// Stops the hub when a stage ends early, be it by an error or a panic. A stage
/// that ends well forgets it.
pub(super) struct StopHubOnDrop<'a>(pub(super) &'a Hub);

impl Drop for StopHubOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
