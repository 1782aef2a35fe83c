//! The thread that lays out and commits checkpoints while batches go on, and prunes behind itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::checkpoint::layout::for_each_group;
use crate::checkpoint::protocol::{Retained, needed, retain};
use crate::config::KEY_GROUPS;
use crate::error::{Error, ErrorKind, Result};
use crate::format::records::{CheckpointRecord, SegmentHeader, SegmentRef};
use crate::id::{BatchId, CheckpointId, EpochId, SegmentId};
use crate::state::OperatorState;
use crate::store::catalog::{Catalog, list_epochs, remove_epoch};
use crate::store::extents::ExtentIndex;
use crate::store::retry::FullDisk;
use crate::store::segments::{SegmentWriter, list_segments, remove_segment};
use crate::store::{Disk, StorePaths};
use crate::time::{Clock, Stopwatch, WakeUp};

/// A checkpoint begins a new epoch when the current one has a checkpoint already and is this old.
const EPOCH_MS_MIN: u64 = 5_000;

/// A checkpoint of more state than this is not waited for when the next one is due: that begins after it.
const LARGE_BYTES: u64 = 1 << 20;

/// A checkpoint on its way to the disk: the record still without its segments' places.
pub(crate) struct CheckpointRequest {
    pub(crate) record: CheckpointRecord,
    /// The number of the new segment.
    pub(crate) segment: SegmentId,
    /// As they are frozen.
    pub(crate) states: Vec<Arc<OperatorState>>,
    /// The threads that lay them out: more than one where no batch needs the cores.
    pub(crate) threads: usize,
    /// What they will take.
    pub(crate) about_bytes: u64,
    /// The epoch in which the batches after it are planned, from this one on.
    pub(crate) plans_from: EpochId,
}

/// What the writer starts from.
pub(crate) struct WriterSetup {
    pub(crate) disk: Disk,
    pub(crate) paths: StorePaths,
    pub(crate) store: [u8; 16],
    pub(crate) catalog: Arc<Mutex<Catalog>>,
    pub(crate) extents: ExtentIndex,
    pub(crate) full_disk: FullDisk,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) retained: Vec<Retained>,
    pub(crate) retained_count: usize,
    /// Segments that pins need.
    pub(crate) pinned: BTreeSet<u64>,
    /// The segments that checkpoints refer to already.
    pub(crate) segments: Vec<SegmentRef>,
    /// Notified when a checkpoint is through, or has failed.
    pub(crate) done: Arc<WakeUp>,
}

/// What became of a checkpoint.
#[derive(Debug)]
pub(crate) struct CheckpointOutcome {
    pub(crate) checkpoint: CheckpointId,
    pub(crate) batch: BatchId,
    /// What it wrote of state.
    pub(crate) bytes: u64,
    pub(crate) took: Duration,
    /// Every segment that it refers to, ascending.
    pub(crate) segments: Vec<SegmentRef>,
    pub(crate) result: Result<()>,
}

/// Hands checkpoints to the writer, one at a time.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    requests: Option<Sender<CheckpointRequest>>,
    outcomes: Receiver<CheckpointOutcome>,
    in_progress: bool,
    is_large: bool,
    thread: Option<JoinHandle<()>>,
}

impl CheckpointWriter {
    pub(crate) fn start(setup: WriterSetup) -> Result<Self> {
        let (requests, queue) = channel::<CheckpointRequest>();
        let (report, outcomes) = channel();
        let mut work = Work {
            segments: setup.segments.iter().map(|segment| (segment.segment, *segment)).collect(),
            epoch_began_ms: setup.clock.now_ms(),
            epoch_checkpoints: 0,
            setup,
        };
        let done = work.setup.done.clone();
        let thread = std::thread::Builder::new().name("millpond-checkpoint".to_owned());
        let thread = thread.spawn(move || {
            for request in queue {
                if report.send(work.run(request)).is_err() {
                    return;
                }
                done.notify();
            }
        });
        let thread = thread.map_err(|cause| Error::io("start a thread", cause))?;
        Ok(CheckpointWriter {
            requests: Some(requests),
            outcomes,
            in_progress: false,
            is_large: false,
            thread: Some(thread),
        })
    }

    /// Begins to commit a checkpoint. The one before it must be [`finish`](Self::finish)ed.
    pub(crate) fn begin(&mut self, request: CheckpointRequest) -> Result<()> {
        let requests = self.requests.as_ref().ok_or_else(writer_is_gone)?;
        self.is_large = request.about_bytes > LARGE_BYTES;
        requests.send(request).map_err(|_| writer_is_gone())?;
        self.in_progress = true;
        Ok(())
    }

    /// Whether the checkpoint in progress is larger than what a batch should wait for.
    pub(crate) fn takes_long(&self) -> bool {
        self.in_progress && self.is_large
    }

    /// Waits for the checkpoint in progress; returns what became of it, `None` when there was none.
    pub(crate) fn finish(&mut self) -> Result<Option<CheckpointOutcome>> {
        if !self.in_progress {
            return Ok(None);
        }
        self.in_progress = false;
        self.outcomes.recv().map(Some).map_err(|_| writer_is_gone())
    }

    /// The outcome of the checkpoint in progress, if it is there.
    pub(crate) fn poll(&mut self) -> Result<Option<CheckpointOutcome>> {
        if !self.in_progress {
            return Ok(None);
        }
        match self.outcomes.try_recv() {
            Ok(outcome) => {
                self.in_progress = false;
                Ok(Some(outcome))
            }
            Err(std::sync::mpsc::TryRecvError::Empty) => Ok(None),
            Err(std::sync::mpsc::TryRecvError::Disconnected) => Err(writer_is_gone()),
        }
    }
}

impl CheckpointWriter {
    /// Ends the thread, after the checkpoint in progress.
    pub(crate) fn close(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint writer panicked");
        }
    }
}

impl Drop for CheckpointWriter {
    fn drop(&mut self) {
        self.close();
    }
}

pub(super) fn writer_is_gone() -> Error {
    Error::new(ErrorKind::Stopped, "the checkpoint writer is gone")
}

struct Work {
    setup: WriterSetup,
    segments: BTreeMap<u64, SegmentRef>,
    epoch_began_ms: u64,
    epoch_checkpoints: u64,
}

impl Work {
    fn run(&mut self, request: CheckpointRequest) -> CheckpointOutcome {
        let watch = Stopwatch::start();
        let (checkpoint, batch) = (CheckpointId(request.record.checkpoint), BatchId(request.record.batch));
        let segment = request.segment;
        if self.epoch_is_due() {
            lock(&self.setup.catalog).prepare_next();
        }
        let result = self.commit(request);
        let bytes = self.segments.get(&segment.0).map_or(0, |written| written.length);
        let segments = self.segments.values().copied().collect();
        CheckpointOutcome { checkpoint, batch, bytes, took: watch.elapsed(), segments, result }
    }

    fn commit(&mut self, request: CheckpointRequest) -> Result<()> {
        let CheckpointRequest { mut record, segment, states, threads, plans_from, .. } = request;
        if states.iter().any(|state| state.is_frozen()) {
            let header = SegmentHeader { store: self.setup.store, checkpoint: record.checkpoint };
            let written = self.setup.full_disk.wait_out("write a checkpoint", || {
                let place = (&self.setup.paths, segment);
                write_frozen(&self.setup.disk, place, &header, &states, threads)
            })?;
            self.segments.insert(segment.0, written);
        }
        let needed: BTreeSet<u64> = states.iter().flat_map(|state| state.segments()).collect();
        self.segments.retain(|segment, _| needed.contains(segment));
        record.segments = self.segments.values().copied().collect();
        let epoch = self.append(&record)?;
        tracing::debug!(checkpoint = record.checkpoint, batch = record.batch, "checkpoint committed");
        self.setup.retained.push(Retained::of(epoch, plans_from, &record));
        retain(&mut self.setup.retained, self.setup.retained_count);
        self.prune()
    }

    fn epoch_is_due(&self) -> bool {
        let age_ms = self.setup.clock.now_ms().saturating_sub(self.epoch_began_ms);
        self.epoch_checkpoints > 0 && age_ms >= EPOCH_MS_MIN
    }

    /// Commits the record, in a new epoch if the current one has had its time.
    fn append(&mut self, record: &CheckpointRecord) -> Result<EpochId> {
        let mut rotate = self.epoch_is_due();
        let mut catalog = lock(&self.setup.catalog);
        let before = catalog.epoch();
        self.setup.full_disk.wait_out("commit a checkpoint", || {
            if rotate {
                catalog.rotate()?;
                rotate = false;
            }
            catalog.append(record)
        })?;
        let epoch = catalog.epoch();
        if epoch != before {
            self.epoch_began_ms = self.setup.clock.now_ms();
            self.epoch_checkpoints = 0;
        }
        self.epoch_checkpoints += 1;
        Ok(epoch)
    }

    /// Removes what no retained checkpoint needs. Files that are not ours to know stay.
    fn prune(&self) -> Result<()> {
        let WriterSetup { disk, paths, extents, retained, pinned, .. } = &self.setup;
        let Some(needed) = needed(retained) else { return Ok(()) };
        for segment in list_segments(paths)? {
            if !needed.segments.contains(&segment.0) && !pinned.contains(&segment.0) {
                remove_segment(disk, paths, segment)?;
            }
        }
        extents.trim(disk, paths, needed.block)?;
        // Oldest first, so that an interrupted clean-up never leaves a gap in the history.
        for epoch in list_epochs(paths)? {
            if epoch < needed.epoch {
                remove_epoch(disk, paths, epoch)?;
            }
        }
        Ok(())
    }
}

/// Writes what is frozen, group by group: batches wait for a group that is being laid out, and for no other. What they
/// change meanwhile is kept until all of it is durable, so that a full disk can be tried again.
fn write_frozen(
    disk: &Disk,
    (paths, segment): (&StorePaths, SegmentId),
    header: &SegmentHeader,
    states: &[Arc<OperatorState>],
    threads: usize,
) -> Result<SegmentRef> {
    let mut writer = SegmentWriter::begin(disk, paths, segment, header)?;
    let mut written = Vec::with_capacity(states.len());
    for state in states.iter().filter(|state| state.is_frozen()) {
        writer.operator(state.name(), state.state_type().schema.text());
        let mut bytes = [0; KEY_GROUPS];
        let lay_out = |group| {
            let encoded = state.encode_frozen(group);
            encoded.map_err(|error| error.within(format!("checkpoint of `{}`", state.name())))
        };
        for_each_group(threads, lay_out, |group, encoded| {
            bytes[group] = encoded.bytes();
            writer.group(encoded)
        })?;
        written.push((state, bytes));
    }
    let place = writer.finish()?;
    written.iter().for_each(|(state, bytes)| state.thaw(segment.0, bytes));
    Ok(place)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::features::Features;
    use crate::record::{group_of, hash_of};
    use crate::state::StateType;
    use crate::store::catalog::EpochStart;
    use crate::store::segments::Segment;
    use crate::time::ManualClock;

    const STORE: [u8; 16] = [1; 16];

    fn setup(paths: &StorePaths) -> WriterSetup {
        let (epoch, features) = (EpochId(1), Features::default());
        let start = EpochStart { store: STORE, epoch, continues_after: 0, first_seq: 1, features, job: None };
        let catalog = Catalog::begin(Disk::default(), paths.clone(), start).unwrap();
        WriterSetup {
            disk: Disk::default(),
            paths: paths.clone(),
            store: STORE,
            catalog: Arc::new(Mutex::new(catalog)),
            extents: ExtentIndex::default(),
            full_disk: FullDisk::default(),
            clock: ManualClock::at(0),
            retained: Vec::new(),
            retained_count: 2,
            pinned: BTreeSet::new(),
            segments: Vec::new(),
            done: WakeUp::new(),
        }
    }

    fn record(state: &OperatorState) -> CheckpointRecord {
        CheckpointRecord {
            checkpoint: 1,
            batch: 7,
            time_ms: 0,
            next_block: 1,
            fingerprint: 0,
            segments: Vec::new(),
            operators: vec![state.describe()],
        }
    }

    fn key_outside(group: usize) -> [u8; 8] {
        (0..u64::MAX).map(u64::to_be_bytes).find(|key| group_of(hash_of(key)) != group).unwrap()
    }

    /// The thread is held up at a group that the test has locked: beginning has laid out nothing, and does not wait.
    #[test]
    fn batches_change_state_while_its_checkpoint_is_laid_out() {
        let dir = tempfile::tempdir().unwrap();
        let paths = StorePaths::new(dir.path());
        [paths.state(), paths.epochs(), paths.log()].iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        let setup = setup(&paths);
        let (done, seen) = (setup.done.clone(), setup.done.seen());
        let mut writer = CheckpointWriter::start(setup).unwrap();
        let state = OperatorState::new("counts", StateType::of::<u64, u64>());
        (0..1_000u64).for_each(|key| state.put(&key.to_be_bytes(), Some(b"before")).unwrap());
        state.freeze(1, 0);
        let record = record(&state);
        let held = state.group(0);
        let request = CheckpointRequest {
            record,
            segment: SegmentId(1),
            states: vec![state.clone()],
            threads: 1,
            about_bytes: LARGE_BYTES + 1,
            plans_from: EpochId(1),
        };
        writer.begin(request).unwrap();
        let key = key_outside(0);
        state.put(&key, Some(b"after")).unwrap();
        assert!(writer.poll().unwrap().is_none() && writer.takes_long());
        drop(held);
        let outcome = writer.finish().unwrap().unwrap();
        outcome.result.unwrap();
        assert!(!writer.takes_long());
        writer.close();
        assert!(done.seen() > seen, "nobody is told of its end");
        let length = std::fs::metadata(paths.state().join("1.segment")).unwrap().len();
        assert_eq!(outcome.bytes, length);
        assert_eq!(state.get(&key).unwrap().unwrap(), b"after");
        assert_eq!(restored(&paths, &key), b"before");
    }

    fn restored(paths: &StorePaths, key: &[u8]) -> Vec<u8> {
        let epoch = crate::store::catalog::read_epoch(paths, STORE, EpochId(1)).unwrap();
        let segment = epoch.records.iter().find_map(|(_, record)| match record {
            crate::format::records::CatalogRecord::Checkpoint(checkpoint) => checkpoint.segments.first(),
            _ => None,
        });
        let segment = Arc::new(Segment::open(paths, STORE, segment.unwrap()).unwrap());
        let state = OperatorState::new("counts", StateType::of::<u64, u64>());
        state.restore(&[segment]).unwrap();
        assert_eq!(state.live_keys(), 1_000);
        state.get(key).unwrap().unwrap()
    }
}
