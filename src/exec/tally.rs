//! What closures add to accumulators during a batch, each computation counted once however often it runs.
//!
//! A closure adds to the **frame** of what it computes: a partition of an RDD, a key group of a shuffle, a task
//! of an action. Whoever computes begins a frame of its own; the records that it pushes on meanwhile are taken
//! in the frame of whoever asked for them. A frame counts once what it belongs to is complete, and then stands
//! for that computation: a task that is tried again, a partition that two actions read or that a cache lost
//! replaces what it gave before. A frame that fails counts nothing.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::exec::Executor;

thread_local! {
    /// The frame of the closure that runs on this thread.
    static CURRENT: RefCell<Option<Rc<Frame>>> = const { RefCell::new(None) };
}

/// Numbers shuffles, which are made where no executor is at hand. The numbers only order what one job makes.
static NEXT_SHUFFLE: AtomicU64 = AtomicU64::new(1);

/// A number for a new shuffle.
pub(crate) fn next_shuffle_id() -> u64 {
    NEXT_SHUFFLE.fetch_add(1, Ordering::Relaxed)
}

/// What a frame belongs to. Frames are merged in the order of their scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scope {
    /// The description of a stream's RDD, by the stream's number.
    Described(u32),
    /// A partition of an RDD.
    Rdd { node: u64, partition: usize },
    /// What one map task sends.
    MapSide { shuffle: u64, partition: usize },
    /// A key group as it comes out of a shuffle.
    Reduced { shuffle: u64, group: usize },
    /// A task of an action or of a stateful operator.
    Task { stage: u64, partition: usize },
    /// An output, on the driver's thread, numbered like a stage.
    Output { stage: u64 },
}

/// Contributions by accumulator.
pub(crate) type Parts = Vec<(u64, Box<dyn Any + Send>)>;

#[derive(Debug)]
struct Frame {
    tally: Arc<Tally>,
    parts: RefCell<Parts>,
}

/// The frame that was current somewhere, to be entered again.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Option<Rc<Frame>>);

/// The frame of who calls.
pub(crate) fn caller() -> Caller {
    Caller(CURRENT.with_borrow(Clone::clone))
}

impl Caller {
    /// Makes the frame current until the result is dropped, by unwinding too.
    pub(crate) fn enter(&self) -> Inside {
        Inside { before: CURRENT.replace(self.0.clone()) }
    }
}

pub(crate) struct Inside {
    before: Option<Rc<Frame>>,
}

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

/// Runs `work` in a frame of its own, which counts when it succeeds. Outside of any frame it only runs.
pub(crate) fn collect<R>(scope: Scope, work: impl FnOnce() -> Result<R>) -> Result<R> {
    let Caller(Some(current)) = caller() else { return work() };
    let (result, parts) = current.tally.frame(work)?;
    current.tally.hand_in(scope, parts);
    Ok(result)
}

/// Runs `work` outside of any frame: what can be made again at any time counts nothing.
pub(crate) fn uncounted<R>(work: impl FnOnce() -> R) -> R {
    let _outside = Caller(None).enter();
    work()
}

/// Changes the current frame's contribution to an accumulator; `false` when there is no frame.
pub(crate) fn contribute<A: Send + 'static>(accumulator: u64, change: impl FnOnce(Option<A>) -> A) -> bool {
    let Caller(Some(frame)) = caller() else { return false };
    // Nothing is borrowed while `change` runs: it is user code, and may add too.
    let before = {
        let mut parts = frame.parts.borrow_mut();
        let at = parts.iter().position(|(id, _)| *id == accumulator);
        at.and_then(|at| parts.swap_remove(at).1.downcast::<A>().ok())
    };
    let after = change(before.map(|part| *part));
    frame.parts.borrow_mut().push((accumulator, Box::new(after)));
    true
}

/// What the batch in progress has collected.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Whether the job has accumulators: frames cost nothing where nothing can be added.
    enabled: AtomicBool,
    next_stage: AtomicU64,
    collected: Mutex<Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    by_scope: BTreeMap<Scope, Parts>,
    /// Where this batch begins: who computes an RDD of an earlier batch again adds nothing to this one.
    first: Mark,
}

/// A point in time, in numbers that are given from then on.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    rdd: u64,
    shuffle: u64,
    stage: u64,
}

impl Mark {
    fn is_before(&self, scope: &Scope) -> bool {
        match *scope {
            Scope::Described(_) => false,
            Scope::Rdd { node, .. } => node >= self.rdd,
            Scope::MapSide { shuffle, .. } | Scope::Reduced { shuffle, .. } => shuffle >= self.shuffle,
            Scope::Task { stage, .. } | Scope::Output { stage } => stage >= self.stage,
        }
    }
}

impl Tally {
    pub(crate) fn enable(&self) {
        self.enabled.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// A number for a stage or an output.
    pub(super) fn next_stage(&self) -> u64 {
        self.next_stage.fetch_add(1, Ordering::Relaxed)
    }

    /// Runs `work` in a new frame and returns what was added.
    pub(super) fn frame<R>(self: &Arc<Self>, work: impl FnOnce() -> Result<R>) -> Result<(R, Parts)> {
        if !self.is_enabled() {
            return Ok((work()?, Parts::new()));
        }
        let frame = Rc::new(Frame { tally: self.clone(), parts: RefCell::default() });
        let inside = Caller(Some(frame.clone())).enter();
        let result = work()?;
        drop(inside);
        Ok((result, frame.parts.take()))
    }

    pub(super) fn hand_in(&self, scope: Scope, parts: Parts) {
        if parts.is_empty() {
            return;
        }
        let mut collected = self.lock();
        if !matches!(scope, Scope::Described(_)) && !collected.first.is_before(&scope) {
            return;
        }
        collected.by_scope.insert(scope, parts);
    }

    /// Everything that counts, in the order of the scopes.
    pub(crate) fn take(&self) -> Vec<Parts> {
        std::mem::take(&mut self.lock().by_scope).into_values().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Executor {
    pub(crate) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    fn mark(&self) -> Mark {
        Mark {
            rdd: self.next_rdd.load(Ordering::Relaxed),
            shuffle: NEXT_SHUFFLE.load(Ordering::Relaxed),
            stage: self.tally.next_stage.load(Ordering::Relaxed),
        }
    }

    /// What is added from here on counts for a new batch.
    pub(crate) fn begin_batch(&self) {
        *self.tally.lock() = Collected { by_scope: BTreeMap::new(), first: self.mark() };
    }

    /// Runs the user's code that describes a stream's RDD.
    pub(crate) fn describe<R>(&self, stream: u32, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let (result, parts) = self.tally.frame(work)?;
        self.tally.hand_in(Scope::Described(stream), parts);
        Ok(result)
    }

    /// Runs one attempt of an output. When it fails, what its own actions added and what the RDDs added that
    /// it made itself does not count; RDDs that were there before are not computed again where a shuffle or a
    /// cache holds them.
    pub(crate) fn attempt<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<R> {
        let guard = Discard { tally: &self.tally, from: self.mark() };
        let stage = self.tally.next_stage();
        let (result, parts) = self.tally.frame(work)?;
        std::mem::forget(guard);
        self.tally.hand_in(Scope::Output { stage }, parts);
        Ok(result)
    }
}

/// Takes back, when dropped, what counts from a mark on.
struct Discard<'a> {
    tally: &'a Tally,
    from: Mark,
}

impl Drop for Discard<'_> {
    fn drop(&mut self) {
        self.tally.lock().by_scope.retain(|scope, _| !self.from.is_before(scope));
    }
}
