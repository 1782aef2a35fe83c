//! The executor: a stage is one task per partition, run on the machine's cores, retried, and named when it
//! fails.
//!
//! Results come back by partition, never by arrival, so that nothing depends on threads.

pub(crate) mod tally;

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};

use crate::error::{Error, ErrorKind, Result};
use crate::store::Disk;
use tally::{Parts, Scope, Tally};

/// Runs stages on a pool of its own.
#[derive(Debug)]
pub(crate) struct Executor {
    pool: rayon::ThreadPool,
    attempts_max: u32,
    cancelled: AtomicBool,
    next_rdd: AtomicU64,
    disk: Disk,
    tally: Arc<Tally>,
}

/// Vectors up to this many bytes are taken from what earlier ones left.
const REUSED_BYTES: usize = 8 << 20;

/// Makes glibc's allocator keep what one batch frees for the next. By itself it gives vectors of more than 128 KiB back to
/// the system at once, and to get them again from there took a quarter of a batch's CPU time. It raises that bound to the size of
/// what is freed (`mallopt(3)`, `M_MMAP_THRESHOLD`): here, to a vector that nobody writes to. What a large batch needed may stay
/// with the process then.
pub(crate) fn keep_memory_for_reuse() {
    if cfg!(all(target_os = "linux", target_env = "gnu")) {
        drop(std::hint::black_box(Vec::<u8>::with_capacity(REUSED_BYTES)));
    }
}

/// What a task is, for errors.
#[derive(Debug)]
pub(crate) struct TaskContext {
    /// What the task reads, for errors: a block, a range.
    origin: RefCell<String>,
}

impl TaskContext {
    fn new() -> Self {
        TaskContext { origin: RefCell::default() }
    }

    pub(crate) fn set_origin(&self, origin: String) {
        *self.origin.borrow_mut() = origin;
    }

    /// What the task reads, empty when nothing has said so yet.
    pub(crate) fn origin(&self) -> String {
        self.origin.borrow().clone()
    }
}

impl Executor {
    pub(crate) fn new(threads: usize, attempts_max: u32) -> Result<Self> {
        let named = |thread| format!("millpond-task-{thread}");
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(named).build();
        let pool =
            pool.map_err(|cause| Error::new(ErrorKind::Io, "start the compute threads").caused_by(cause))?;
        let next_rdd = AtomicU64::new(1);
        Ok(Executor {
            pool,
            attempts_max,
            cancelled: AtomicBool::new(false),
            next_rdd,
            disk: Disk::default(),
            tally: Arc::default(),
        })
    }

    /// What its tasks write to, so that a test can stop at their steps too.
    #[must_use]
    pub(crate) fn with_disk(self, disk: Disk) -> Self {
        Executor { disk, ..self }
    }

    pub(crate) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// A number for a new RDD.
    pub(crate) fn next_rdd_id(&self) -> u64 {
        self.next_rdd.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the thread that calls is one that runs tasks.
    pub(crate) fn runs_here(&self) -> bool {
        self.pool.current_thread_index().is_some()
    }

    /// Makes every task that has not begun fail with [`ErrorKind::Stopped`].
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }

    /// Runs `task` for partitions `0..partitions` and returns the results in that order.
    ///
    /// # Errors
    /// That of the lowest partition that failed on every attempt, with stage, partition and input named.
    pub(crate) fn run_stage<R: Send>(
        &self,
        stage: &str,
        partitions: usize,
        task: impl Fn(&TaskContext, usize) -> Result<R> + Sync,
    ) -> Result<Vec<R>> {
        let number = self.tally.next_stage();
        let results: Vec<Result<(R, Parts)>> = self.pool.install(|| {
            let partitions = (0..partitions).into_par_iter().with_max_len(1);
            partitions.map(|partition| self.run_task(stage, partition, &task)).collect()
        });
        let results = results.into_iter().collect::<Result<Vec<_>>>()?;
        let hand_in = |(partition, (result, parts))| {
            self.tally.hand_in(Scope::Task { stage: number, partition }, parts);
            result
        };
        Ok(results.into_iter().enumerate().map(hand_in).collect())
    }

    /// Runs one task, as partition `partition` of a stage.
    ///
    /// # Errors
    /// When it failed on every attempt, with stage, partition and input named.
    pub(crate) fn run_one<R: Send>(
        &self,
        stage: &str,
        partition: usize,
        task: impl Fn(&TaskContext) -> Result<R> + Sync,
    ) -> Result<R> {
        let number = self.tally.next_stage();
        let run = || self.run_task(stage, partition, &|context: &TaskContext, _| task(context));
        let (result, parts) = self.pool.install(run)?;
        self.tally.hand_in(Scope::Task { stage: number, partition }, parts);
        Ok(result)
    }

    fn run_task<R>(
        &self,
        stage: &str,
        partition: usize,
        task: &(impl Fn(&TaskContext, usize) -> Result<R> + Sync),
    ) -> Result<(R, Parts)> {
        let mut attempt = 1;
        loop {
            if self.cancelled.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorKind::Stopped, "the job was told to stop"));
            }
            let context = TaskContext::new();
            // A task leaves nothing behind when it unwinds: what it changes is handed back only at its end.
            let outcome = catch_unwind(AssertUnwindSafe(|| self.tally.frame(|| task(&context, partition))));
            let error = match outcome {
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(error)) => error,
                Err(payload) => {
                    Error::new(ErrorKind::UserCode, format!("panicked: {}", panic_text(&*payload)))
                }
            };
            let origin = context.origin.take();
            let reading = if origin.is_empty() { String::new() } else { format!(", reading {origin}") };
            let error = error.within(format!("stage `{stage}`, partition {partition}{reading}"));
            if attempt >= self.attempts_max || error.kind() == ErrorKind::Stopped {
                return Err(error);
            }
            tracing::warn!(attempt, error = %error.chain(), "a task failed and is tried again");
            attempt += 1;
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back_in_partition_order() {
        let executor = Executor::new(3, 1).unwrap();
        let squares = executor.run_stage("square", 100, |_, partition| Ok(partition * partition)).unwrap();
        assert_eq!(squares, (0..100).map(|n| n * n).collect::<Vec<_>>());
    }

    #[test]
    fn a_task_is_tried_again_and_then_named() {
        let executor = Executor::new(2, 3).unwrap();
        let tries = AtomicU64::new(0);
        let flaky = executor.run_stage("flaky", 1, |_, _| match tries.fetch_add(1, Ordering::SeqCst) {
            0 => panic!("first"),
            1 => Err(Error::new(ErrorKind::Io, "second")),
            _ => Ok("third"),
        });
        assert_eq!(flaky.unwrap(), ["third"]);
        let failed = executor.run_stage("broken", 4, |task, partition| {
            task.set_origin(format!("block {partition}"));
            if partition >= 2 { panic!("bad record") } else { Ok(()) }
        });
        let error = failed.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UserCode);
        assert_eq!(error.to_string(), "stage `broken`, partition 2, reading block 2: panicked: bad record");
    }
}
