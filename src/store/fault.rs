//! Counted disk steps, so that a test can stop the world at each of them.

#[cfg(feature = "testkit")]
pub use planned::{DiskStep, FaultKind};
#[cfg(any(test, feature = "testkit"))]
pub(super) use planned::{before_read, watch_reads};

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Which step on the disk fails, for tests of recovery.
///
/// Every operation that changes the disk is a step with a number, counted from 1; every opening and reading of a stored
/// file is one as well, counted apart. What happens at a step is one of
/// `FaultKind`: a **crash** leaves it half done (a write stops in its middle) and from then on every step fails, as if
/// the process had died there; the others fail the chosen steps alone, and the disk is well again after them.
///
/// ```
/// use millpond::testkit::FaultPlan;
///
/// let plan = FaultPlan::crash_at(3);
/// assert_eq!(plan.steps(), 0);
/// assert!(!plan.has_crashed());
/// ```
#[derive(Debug, Default)]
pub struct FaultPlan {
    steps: AtomicU64,
    #[cfg(any(test, feature = "testkit"))]
    planned: planned::Planned,
}

/// How a step goes.
#[derive(Debug)]
pub(crate) enum Step {
    Whole,
    /// A write leaves one half and fails with this.
    #[cfg_attr(not(any(test, feature = "testkit")), expect(dead_code, reason = "only a plan tears"))]
    Torn(Error),
}

impl FaultPlan {
    /// Counts a step and says how it goes.
    pub(crate) fn step(&self, what: &'static str, path: &Path) -> Result<Step> {
        let step = self.steps.fetch_add(1, Ordering::SeqCst) + 1;
        tracing::trace!(step, what, path = %path.display(), "disk step");
        #[cfg(any(test, feature = "testkit"))]
        return self.planned.step(step, what, path);
        #[cfg(not(any(test, feature = "testkit")))]
        Ok(Step::Whole)
    }

    /// Whether the sweep behind a start has to wait.
    pub(crate) fn holds_sweep(&self) -> bool {
        #[cfg(any(test, feature = "testkit"))]
        return self.planned.holds_sweep.load(Ordering::SeqCst);
        #[cfg(not(any(test, feature = "testkit")))]
        false
    }

    /// Whether a checkpoint is on the disk before the next batch begins, so that steps come in one order.
    pub(crate) fn is_in_order(&self) -> bool {
        #[cfg(any(test, feature = "testkit"))]
        return self.planned.in_order;
        #[cfg(not(any(test, feature = "testkit")))]
        false
    }
}

/// What a build without tests does before a stored file is read: nothing.
#[cfg(not(any(test, feature = "testkit")))]
#[inline]
pub(super) fn before_read(_: &'static str, _: &Path) -> std::io::Result<()> {
    Ok(())
}

#[cfg(any(test, feature = "testkit"))]
mod planned {
    use std::fmt;
    use std::io;
    use std::ops::Range;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, PoisonError, Weak};

    use super::{FaultPlan, Step};
    use crate::error::{Error, ErrorKind, Result};
    use crate::time::ManualClock;

    /// What happens at a step on the disk.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum FaultKind {
        /// The process dies: a write stops in its middle, and nothing after it happens.
        Crash,
        /// The step fails with an input/output error (`EIO`) and does nothing.
        Io,
        /// There is no space (`ENOSPC`); nothing is done.
        Full,
        /// A write leaves its first half, then fails as [`Io`](FaultKind::Io); any other step is as with `Io`.
        ShortWrite,
    }

    /// A step that was begun.
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub struct DiskStep {
        /// The operation, such as `sync`.
        pub what: &'static str,
        /// What it is done to; empty where that is the whole store.
        pub path: PathBuf,
    }

    impl fmt::Display for DiskStep {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{} {}", self.what, self.path.display())
        }
    }

    /// The plans that want to know of what is read below a store: most readers know nothing of a disk.
    static WATCHED: Mutex<Vec<(PathBuf, Weak<FaultPlan>)>> = Mutex::new(Vec::new());

    /// From now on reads below `root` are steps of `plan`.
    pub(in crate::store) fn watch_reads(root: &Path, plan: &Arc<FaultPlan>) {
        let mut watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
        // Of two lives on one store, the later one.
        watched.retain(|(other, plan)| other != root && plan.strong_count() > 0);
        watched.push((root.to_owned(), Arc::downgrade(plan)));
    }

    /// Counts a read and fails it if a plan says so.
    pub(in crate::store) fn before_read(what: &'static str, path: &Path) -> io::Result<()> {
        let plan = {
            let watched = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
            watched.iter().find(|(root, _)| path.starts_with(root)).and_then(|(_, plan)| plan.upgrade())
        };
        plan.map_or(Ok(()), |plan| plan.planned.read(what, path))
    }

    /// What a plan has besides its count.
    #[derive(Debug, Default)]
    pub(super) struct Planned {
        pub(super) in_order: bool,
        pub(super) holds_sweep: AtomicBool,
        faults: Vec<(Range<u64>, FaultKind)>,
        slow: Option<(Arc<ManualClock>, u64)>,
        crashed_at: AtomicU64,
        has_failed: AtomicBool,
        #[cfg_attr(not(feature = "testkit"), expect(dead_code, reason = "the kit asks for it"))]
        started_at: AtomicU64,
        passed: Mutex<Vec<DiskStep>>,
        failing_reads: Range<u64>,
        reads: Mutex<Vec<DiskStep>>,
        reads_are_over: AtomicBool,
    }

    impl Planned {
        pub(super) fn step(&self, step: u64, what: &'static str, path: &Path) -> Result<Step> {
            if let Some((clock, ms)) = &self.slow {
                clock.advance(*ms);
            }
            let noted = DiskStep { what, path: path.to_owned() };
            self.passed.lock().unwrap_or_else(PoisonError::into_inner).push(noted);
            let crashed_at = self.crashed_at.load(Ordering::SeqCst);
            if crashed_at != 0 && step > crashed_at {
                return Err(crash(step, what));
            }
            let Some((_, kind)) = self.faults.iter().find(|(steps, _)| steps.contains(&step)) else {
                return Ok(Step::Whole);
            };
            self.has_failed.store(true, Ordering::SeqCst);
            let place = format!("{what} {} (injected at disk step {step})", path.display());
            let error = match kind {
                FaultKind::Crash => {
                    self.crashed_at.store(step, Ordering::SeqCst);
                    crash(step, what)
                }
                FaultKind::Full => Error::io(place, io::Error::from(io::ErrorKind::StorageFull)),
                FaultKind::Io | FaultKind::ShortWrite => {
                    Error::io(place, io::Error::other("input/output error"))
                }
            };
            match kind {
                FaultKind::Crash | FaultKind::ShortWrite if what == "write" => Ok(Step::Torn(error)),
                _ => Err(error),
            }
        }
    }

    impl Planned {
        fn read(&self, what: &'static str, path: &Path) -> io::Result<()> {
            if self.reads_are_over.load(Ordering::SeqCst) {
                return Ok(());
            }
            let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
            reads.push(DiskStep { what, path: path.to_owned() });
            let read = reads.len() as u64;
            if !self.failing_reads.contains(&read) {
                return Ok(());
            }
            self.has_failed.store(true, Ordering::SeqCst);
            Err(io::Error::other(format!("input/output error (injected at read {read})")))
        }
    }

    fn crash(step: u64, what: &str) -> Error {
        Error::new(ErrorKind::Io, format!("injected crash at disk step {step} ({what})"))
    }

    impl FaultPlan {
        /// Only counts the steps.
        pub fn never() -> Arc<Self> {
            Arc::default()
        }

        /// Crashes at the `step`-th step.
        pub fn crash_at(step: u64) -> Arc<Self> {
            Self::of([(step..step + 1, FaultKind::Crash)])
        }

        /// The disk is full from step `steps.start` on, up to and without `steps.end`.
        pub fn full_during(steps: Range<u64>) -> Arc<Self> {
            Self::of([(steps, FaultKind::Full)])
        }

        /// Every step in a range goes as said; where ranges overlap, as the first of them says.
        ///
        /// ```
        /// use millpond::testkit::{FaultKind, FaultPlan};
        ///
        /// // A write that stops short, then a disk that is full for a while.
        /// let plan = FaultPlan::of([(7..8, FaultKind::ShortWrite), (20..24, FaultKind::Full)]);
        /// assert!(!plan.has_crashed());
        /// ```
        pub fn of(faults: impl IntoIterator<Item = (Range<u64>, FaultKind)>) -> Arc<Self> {
            let planned = Planned { faults: faults.into_iter().collect(), ..Planned::default() };
            Arc::new(FaultPlan { planned, ..FaultPlan::default() })
        }

        /// Openings and reads of stored files in this range, counted from 1, fail with an input/output error.
        ///
        /// ```
        /// use millpond::testkit::FaultPlan;
        ///
        /// let plan = FaultPlan::failing_reads(2..3);
        /// assert!(plan.reads().is_empty());
        /// ```
        pub fn failing_reads(reads: Range<u64>) -> Arc<Self> {
            let planned = Planned { failing_reads: reads, ..Planned::default() };
            Arc::new(FaultPlan { planned, ..FaultPlan::default() })
        }

        /// What a start leaves unchecked of the state stays so until [`release_sweep`](FaultPlan::release_sweep), or until
        /// a checkpoint cannot wait for it any more.
        ///
        /// ```
        /// use millpond::testkit::FaultPlan;
        ///
        /// let plan = FaultPlan::holding_sweep();
        /// plan.release_sweep();
        /// ```
        pub fn holding_sweep() -> Arc<Self> {
            let planned = Planned { holds_sweep: AtomicBool::new(true), ..Planned::default() };
            Arc::new(FaultPlan { planned, ..FaultPlan::default() })
        }

        /// Lets the check of the state go on.
        pub fn release_sweep(&self) {
            self.planned.holds_sweep.store(false, Ordering::SeqCst);
        }

        /// The openings and reads of stored files that were begun, in their order.
        pub fn reads(&self) -> Vec<DiskStep> {
            self.planned.reads.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }

        /// A slow disk: each step takes `ms_per_step` of the job's manual clock. It is counted, not timed, so that
        /// a run is late by the same in every repetition.
        ///
        /// ```
        /// use millpond::ManualClock;
        /// use millpond::testkit::FaultPlan;
        ///
        /// let clock = ManualClock::at(0);
        /// let _plan = FaultPlan::slow(&clock, 20);
        /// ```
        pub fn slow(clock: &Arc<ManualClock>, ms_per_step: u64) -> Arc<Self> {
            let planned = Planned { slow: Some((clock.clone(), ms_per_step)), ..Planned::default() };
            Arc::new(FaultPlan { planned, ..FaultPlan::default() })
        }

        /// A plan under which checkpoints are written before the next batch begins.
        #[cfg(feature = "testkit")]
        pub(crate) fn in_order(faults: impl IntoIterator<Item = (Range<u64>, FaultKind)>) -> Arc<Self> {
            let planned =
                Planned { faults: faults.into_iter().collect(), in_order: true, ..Planned::default() };
            Arc::new(FaultPlan { planned, ..FaultPlan::default() })
        }

        /// The job has ended: whoever reads the store from now on is not its disk's affair.
        #[cfg(feature = "testkit")]
        pub(crate) fn note_end(&self) {
            self.planned.reads_are_over.store(true, Ordering::SeqCst);
        }

        /// Remembers that what was stepped through so far was the start of the job.
        #[cfg(feature = "testkit")]
        pub(crate) fn note_start(&self) {
            self.planned.started_at.store(self.steps(), Ordering::SeqCst);
        }

        /// The steps of the start: opening, replay and the checkpoint after it; all, when it did not come further.
        #[cfg(feature = "testkit")]
        pub(crate) fn passed_in_start(&self) -> Vec<DiskStep> {
            let mut passed = self.passed();
            match self.planned.started_at.load(Ordering::SeqCst) {
                0 => {}
                steps => passed.truncate(steps as usize),
            }
            passed
        }

        /// How many steps were begun.
        pub fn steps(&self) -> u64 {
            self.steps.load(Ordering::SeqCst)
        }

        /// The steps that were begun, in their order: the first is step 1.
        pub fn passed(&self) -> Vec<DiskStep> {
            self.planned.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }

        /// Whether a step went otherwise than it should.
        pub fn has_failed(&self) -> bool {
            self.planned.has_failed.load(Ordering::SeqCst)
        }

        /// Whether the crash happened.
        pub fn has_crashed(&self) -> bool {
            self.planned.crashed_at.load(Ordering::SeqCst) != 0
        }
    }
}
