//! The sweep: what a start did not check of the state is read and checked behind it, at low priority.
//!
//! Until it has found everything sound no checkpoint is taken, and so nothing is pruned: whatever a walk back needs that was
//! there at the start is still there when damage comes to light, and no checkpoint refers to what nobody has looked at.
//!
//! A batch that reads all of a part checks it as the sweep would, so that the sweep need not read it again.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::store::Disk;
use crate::store::segments::{GroupSource, Segment};
use crate::time::{Stopwatch, WakeUp};

/// How nice the sweep is to other threads.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// A sweep that waits looks again after this.
const PAUSE: Duration = Duration::from_millis(1);

/// Checks what is left of the state while batches run.
#[derive(Debug)]
pub(crate) struct Sweep {
    work: Arc<Work>,
    /// They tell whether others read parts whole; the thread has them once it has begun.
    segments: Vec<Arc<Segment>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Work {
    /// Last first, each with its operator.
    parts: Mutex<Vec<(String, GroupSource)>>,
    /// How many were not found sound yet.
    left: AtomicUsize,
    is_told_to_stop: AtomicBool,
    /// What it ended with, but for damage: the segments tell of that themselves.
    failure: OnceLock<(ErrorKind, String)>,
}

impl Work {
    fn parts(&self) -> MutexGuard<'_, Vec<(String, GroupSource)>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns whether it had to be read.
    fn verify(&self, (operator, part): &(String, GroupSource)) -> Result<bool> {
        let awaits_check = part.awaits_check();
        if awaits_check {
            part.verify(operator, || self.is_told_to_stop.load(Ordering::Relaxed))?;
        }
        self.left.fetch_sub(1, Ordering::SeqCst);
        Ok(awaits_check)
    }

    fn run(&self, disk: &Disk, segments: &[Arc<Segment>]) -> Result<()> {
        let pause = WakeUp::new();
        let checked = || segments.iter().map(|segment| segment.checked()).sum::<usize>();
        let mut known = checked();
        loop {
            let is_held = disk.holds_sweep() && !self.is_told_to_stop.load(Ordering::Relaxed);
            // While others read parts whole, which checks them, going on would have them read twice.
            let before = std::mem::replace(&mut known, checked());
            if (is_held || before < known) && !self.parts().is_empty() {
                pause.wait_for(pause.seen(), PAUSE);
                continue;
            }
            let next = self.parts().pop();
            let Some(part) = next else { return Ok(()) };
            known += usize::from(self.verify(&part)?);
        }
    }
}

impl Sweep {
    /// The sweep of these segments, which is not begun.
    pub(crate) fn of(segments: &[Arc<Segment>]) -> Self {
        let mut parts: Vec<_> = segments.iter().flat_map(Segment::parts).collect();
        parts.iter().for_each(|(_, part)| part.await_check());
        parts.reverse();
        let left = AtomicUsize::new(parts.len());
        let work = Work {
            parts: Mutex::new(parts),
            left,
            is_told_to_stop: AtomicBool::new(false),
            failure: OnceLock::new(),
        };
        Sweep { work: Arc::new(work), segments: segments.to_vec(), thread: None }
    }

    /// Begins in a thread of its own, which wakes the driver at its end, unless it has begun.
    pub(crate) fn begin(&mut self, disk: &Disk, wake: &Arc<WakeUp>) -> Result<()> {
        if self.is_over() || self.thread.is_some() {
            return Ok(());
        }
        let (work, disk, wake) = (self.work.clone(), disk.clone(), wake.clone());
        let segments = std::mem::take(&mut self.segments);
        let thread = std::thread::Builder::new().name("millpond-sweep".to_owned());
        let thread = thread.spawn(move || {
            be_nice();
            let watch = Stopwatch::start();
            match work.run(&disk, &segments) {
                Ok(()) => tracing::info!(took = ?watch.elapsed(), "all of the state was read and is sound"),
                Err(error) if error.kind() == ErrorKind::Stopped => {}
                Err(error) => drop(work.failure.set((error.kind(), error.chain()))),
            }
            wake.notify();
        });
        self.thread = Some(thread.map_err(|cause| Error::io("start a thread", cause))?);
        Ok(())
    }

    /// Whether everything was found sound.
    pub(crate) fn is_over(&self) -> bool {
        self.work.left.load(Ordering::SeqCst) == 0
    }

    /// What it failed with.
    pub(crate) fn check(&self) -> Result<()> {
        let Some((kind, what)) = self.work.failure.get() else { return Ok(()) };
        Err(Error::new(*kind, format!("the state cannot be checked: {what}")))
    }

    /// Does what is left at once, on all cores.
    pub(crate) fn finish(&mut self, executor: &Executor) -> Result<()> {
        if self.is_over() {
            return Ok(());
        }
        let rest = std::mem::take(&mut *self.work.parts());
        executor
            .run_stage("check the state", rest.len(), |_, at| self.work.verify(&rest[rest.len() - 1 - at]))?;
        self.segments.clear();
        self.join();
        self.check()?;
        match self.is_over() {
            true => Ok(()),
            false => Err(Error::new(ErrorKind::Stopped, "the check of the state did not come to its end")),
        }
    }

    /// Ends the thread; what it did not get to stays unchecked.
    pub(crate) fn stop(&mut self) {
        self.work.is_told_to_stop.store(true, Ordering::Relaxed);
        self.join();
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            let panicked = "the thread that checks it panicked".to_owned();
            drop(self.work.failure.set((ErrorKind::Io, panicked)));
        }
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Lets other threads go first. Where that is refused the sweep takes its share.
#[cfg(target_os = "linux")]
fn be_nice() {
    // Linux counts niceness by thread.
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "the sweep runs at the usual priority");
    }
}

#[cfg(not(target_os = "linux"))]
fn be_nice() {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::records::SegmentHeader;
    use crate::format::segment::Entry;
    use crate::id::SegmentId;
    use crate::store::StorePaths;
    use crate::store::late_damage::LateDamage;
    use crate::store::segments::{EncodedGroup, EncodedOperator, EncodedState, LiveSize, write_segment};

    /// A segment of three parts.
    fn segment(paths: &StorePaths) -> (Arc<Segment>, Arc<LateDamage>) {
        std::fs::create_dir(paths.state()).unwrap();
        let group = |group: usize| {
            let keys: Vec<_> = (0..1_000_u64).map(u64::to_be_bytes).collect();
            let entries =
                keys.iter().map(|key| Entry { hash: u64::from_be_bytes(*key), key, value: Some(b"value") });
            EncodedGroup::encode(group, true, LiveSize::default(), entries).unwrap()
        };
        let groups = (0..3).map(group).collect();
        let operator = EncodedOperator { name: "totals".into(), schema: "bytes".into(), groups };
        let (header, state) =
            (SegmentHeader { store: [1; 16], checkpoint: 1 }, EncodedState { operators: vec![operator] });
        let written = write_segment(&Disk::default(), paths, SegmentId(1), &header, &state).unwrap();
        let (segment, damage) =
            (Segment::open(paths, [1; 16], &written).unwrap(), Arc::<LateDamage>::default());
        segment.watch(&damage);
        (Arc::new(segment), damage)
    }

    fn damage(paths: &StorePaths, part: &GroupSource) {
        let path = paths.state().join("1.segment");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[part.group.pages[1].offset as usize + 100] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    /// What was read whole before is damaged after that, and nobody sees it.
    #[test]
    fn what_a_batch_has_read_whole_is_not_read_again() {
        for at_once in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let paths = StorePaths::new(dir.path());
            let (segment, found) = segment(&paths);
            let parts = segment.groups_of("totals");
            let mut sweep = Sweep::of(std::slice::from_ref(&segment));
            for part in &parts[..2] {
                part.load(&mut Vec::new(), |_| Ok(())).unwrap();
                damage(&paths, part);
            }
            assert!(!sweep.is_over());
            if at_once {
                sweep.finish(&Executor::new(2, 1).unwrap()).unwrap();
            } else {
                sweep.begin(&Disk::default(), &WakeUp::new()).unwrap();
                sweep.join();
            }
            assert!(sweep.is_over() && sweep.check().is_ok() && found.found().is_none());
            assert!(parts.iter().all(|part| !part.awaits_check()));
            // Nothing holds the file any longer.
            drop((sweep, parts));
            assert_eq!(Arc::strong_count(&segment), 1);
        }
    }

    #[test]
    fn what_a_batch_has_read_in_part_is_read_all_the_same() {
        for at_once in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let paths = StorePaths::new(dir.path());
            let (segment, found) = segment(&paths);
            let parts = segment.groups_of("totals");
            let mut sweep = Sweep::of(&[segment]);
            damage(&paths, &parts[2]);
            assert!(parts[2].find(0, &0_u64.to_be_bytes(), &mut Vec::new()).unwrap().is_some());
            assert!(parts[2].load(&mut Vec::new(), |_| Ok(())).is_err());
            for part in &parts[..2] {
                part.load(&mut Vec::new(), |_| Ok(())).unwrap();
            }
            if at_once {
                assert_eq!(
                    sweep.finish(&Executor::new(2, 1).unwrap()).unwrap_err().kind(),
                    ErrorKind::Corrupt
                );
            } else {
                sweep.begin(&Disk::default(), &WakeUp::new()).unwrap();
                sweep.join();
            }
            assert!(!sweep.is_over() && found.found().is_some());
        }
    }
}
