//! Records that cannot be processed: each is tried on its own, and what becomes of those that fail is a
//! policy.

use std::fmt::{self, Display, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Executor, TaskContext, panic_text};
use crate::rdd::ops::collection::emit_slice;
use crate::rdd::{Chunks, Emitter, Lineage, NodeInfo, Parent, Rdd, RddNode, Record, WideDependency};
use crate::record::{Data, DeadLetter};

/// The longest error text that is kept of a record, in bytes.
const ERROR_BYTES_MAX: usize = 1_000;

/// What becomes of records that fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnFailure {
    /// The first one fails the task.
    Fail,
    /// They are counted.
    Skip,
    /// They are kept with their errors.
    DeadLetter,
}

/// Tries a chunk of records.
type TryChunk<T, U> = dyn Fn(&mut Vec<T>, &mut Tried<T, U>, OnFailure) + Send + Sync;

/// What has become of the records of a partition so far. Good records and failures are taken out chunk by
/// chunk where nobody needs them together.
struct Tried<T, U> {
    good: Vec<U>,
    failures: Vec<Failure<T>>,
    seen: u64,
    failed: u64,
}

struct Failure<T> {
    /// Among the records of the partition, counted from 1.
    position: u64,
    error: String,
    /// Kept for a dead letter.
    record: Option<T>,
}

impl<T, U> Tried<T, U> {
    fn new() -> Self {
        Tried { good: Vec::new(), failures: Vec::new(), seen: 0, failed: 0 }
    }
}

/// A fallible operation: what is tried with each record.
pub(crate) struct Attempt<T, U> {
    pub(crate) operation: &'static str,
    each_chunk: Arc<TryChunk<T, U>>,
}

impl<T, U> Clone for Attempt<T, U> {
    fn clone(&self) -> Self {
        Attempt { operation: self.operation, each_chunk: self.each_chunk.clone() }
    }
}

impl<T: Record, U: Record> Attempt<T, U> {
    /// Tries `each` with one record after the other. What a record emitted counts only once `each` returned.
    pub(crate) fn new<E: Display>(
        operation: &'static str,
        each: impl Fn(T, &mut Emitter<'_, U>) -> Result<(), E> + Send + Sync + 'static,
    ) -> Self {
        let each_chunk = move |chunk: &mut Vec<T>, tried: &mut Tried<T, U>, on_failure: OnFailure| {
            let mut buffer = Vec::new();
            for record in chunk.drain(..) {
                tried.seen += 1;
                let kept = (on_failure == OnFailure::DeadLetter).then(|| record.clone());
                let before = tried.good.len();
                let Some(error) = try_record(&each, record, &mut tried.good, &mut buffer, on_failure) else {
                    continue;
                };
                tried.good.truncate(before);
                tried.failed += 1;
                if on_failure != OnFailure::Skip {
                    tried.failures.push(Failure { position: tried.seen, error, record: kept });
                }
                if on_failure == OnFailure::Fail {
                    return;
                }
            }
        };
        Attempt { operation, each_chunk: Arc::new(each_chunk) }
    }
}

/// Calls `each` with one record. Returns the error's text when it failed, empty where nobody will read it.
#[inline]
fn try_record<T, U, E: Display>(
    each: &impl Fn(T, &mut Emitter<'_, U>) -> Result<(), E>,
    record: T,
    good: &mut Vec<U>,
    buffer: &mut Vec<U>,
    on_failure: OnFailure,
) -> Option<String> {
    let mut forward = |chunk: &mut Vec<U>| {
        good.append(chunk);
        Ok(())
    };
    let mut emitter = Emitter::with_buffer(std::mem::take(buffer), &mut forward);
    let text_of = |error: &dyn Display| match on_failure {
        OnFailure::Skip => String::new(),
        OnFailure::Fail | OnFailure::DeadLetter => bounded_text(error),
    };
    // What the closure leaves half done is dropped: what it emitted, and the record. The text of its error is
    // made by its code too.
    let outcome =
        catch_unwind(AssertUnwindSafe(|| each(record, &mut emitter).map_err(|error| text_of(&error))));
    match outcome {
        Ok(Ok(())) => {
            // It forwards to memory, which does not fail.
            *buffer = emitter.finish_with_buffer().unwrap_or_default();
            None
        }
        Ok(Err(error)) => Some(error),
        Err(payload) => Some(text_of(&format_args!("panicked: {}", panic_text(&*payload)))),
    }
}

/// The text of an error, cut where it gets too long. An error that cannot say all of what it is is cut there.
fn bounded_text(error: &dyn Display) -> String {
    struct Bounded {
        text: String,
        cut: bool,
    }

    impl Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            if self.cut {
                return Err(fmt::Error);
            }
            let room = ERROR_BYTES_MAX - self.text.len();
            if text.len() <= room {
                self.text.push_str(text);
                return Ok(());
            }
            let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= room).last();
            self.text.push_str(&text[..end.unwrap_or(0)]);
            self.cut = true;
            Err(fmt::Error)
        }
    }

    let mut bounded = Bounded { text: String::new(), cut: false };
    let written = write!(bounded, "{error}");
    if bounded.cut || written.is_err() {
        bounded.text.push_str("...");
    }
    bounded.text
}

/// What has become of the records of one partition.
pub(crate) struct Outcome<T, U> {
    /// What was read for it, as [`TaskContext::origin`] says.
    origin: String,
    good: Vec<U>,
    dead: Vec<DeadLetter<T>>,
    pub(crate) failed: u64,
}

type ByPartition<T, U> = Arc<Vec<Arc<Outcome<T, U>>>>;

/// A stage that ends with the outcome of each partition, kept until the batch is over.
struct Outcomes<T, U> {
    input: Arc<dyn RddNode<T>>,
    attempt: Attempt<T, U>,
    on_failure: OnFailure,
    partitions: Mutex<Option<ByPartition<T, U>>>,
}

impl<T: Record, U: Record> Outcomes<T, U> {
    fn ready(&self) -> Option<ByPartition<T, U>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn compute(&self, task: &TaskContext, partition: usize) -> Result<Arc<Outcome<T, U>>> {
        let mut tried = Tried::new();
        let mut dead = Vec::new();
        self.input.compute(task, partition, &mut |chunk| {
            (self.attempt.each_chunk)(chunk, &mut tried, self.on_failure);
            dead.extend(tried.failures.drain(..).filter_map(|failure| {
                let origin = format!("{}, record {}", task.origin(), failure.position);
                let error = failure.error;
                failure.record.map(|record| DeadLetter { record, error, origin })
            }));
            Ok(())
        })?;
        Ok(Arc::new(Outcome { origin: task.origin(), good: tried.good, dead, failed: tried.failed }))
    }
}

impl<T: Record, U: Record> WideDependency for Outcomes<T, U> {
    fn prepare(&self, executor: &Executor) -> Result<()> {
        if self.ready().is_some() {
            return Ok(());
        }
        let stage = format!("outcome of {}", self.attempt.operation);
        let partitions = self.input.info().partitions;
        let outcomes =
            executor.run_stage(&stage, partitions, |task, partition| self.compute(task, partition))?;
        *self.partitions.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(outcomes));
        Ok(())
    }

    fn parent(&self) -> Arc<dyn Lineage> {
        self.input.clone()
    }

    fn describe(&self) -> String {
        format!("outcome of {}", self.attempt.operation)
    }
}

/// The outcomes as an RDD of one record per partition.
struct OutcomesNode<T, U> {
    info: NodeInfo,
    outcomes: Arc<Outcomes<T, U>>,
}

impl<T: Record, U: Record> Lineage for OutcomesNode<T, U> {
    fn info(&self) -> &NodeInfo {
        &self.info
    }

    fn parents(&self) -> Vec<Parent> {
        vec![Parent::Wide(self.outcomes.clone())]
    }
}

impl<T: Record, U: Record> RddNode<Arc<Outcome<T, U>>> for OutcomesNode<T, U> {
    fn compute(
        &self,
        task: &TaskContext,
        partition: usize,
        out: &mut Chunks<'_, Arc<Outcome<T, U>>>,
    ) -> Result<()> {
        let ready = self.outcomes.ready();
        let outcomes = ready.ok_or_else(|| Error::corrupt("an outcome was read before its stage ran"))?;
        task.set_origin(outcomes[partition].origin.clone());
        out(&mut vec![outcomes[partition].clone()])
    }
}

impl<T: Record, U: Record> Rdd<Arc<Outcome<T, U>>> {
    /// The records that went through.
    pub(crate) fn good(&self) -> Rdd<U> {
        self.each_outcome("good records", |outcome| &outcome.good)
    }

    pub(crate) fn dead_letters(&self) -> Rdd<DeadLetter<T>> {
        self.each_outcome("dead letters", |outcome| &outcome.dead)
    }

    fn each_outcome<R: Record>(
        &self,
        operation: &'static str,
        records: impl Fn(&Outcome<T, U>) -> &[R] + Send + Sync + 'static,
    ) -> Rdd<R> {
        self.narrow(operation, move |task, partition, parent, out| {
            parent.compute(task, partition, &mut |outcomes| {
                outcomes.iter().try_for_each(|outcome| {
                    emit_slice(records(outcome), &mut |chunk| {
                        chunk.drain(..).for_each(|record| out.emit(record));
                        out.check()
                    })
                })
            })
        })
    }
}

/// A fallible operation on an [`Rdd`] that still has to be told what becomes of the records that fail; what
/// [`Fallible`](crate::Fallible) is for streams.
///
/// ```
/// # millpond::doc::run_batch(["1", "x", "3"], |lines| {
/// let parsed = lines.try_map(|line| line.to_string().parse::<u64>());
/// let (numbers, dead) = parsed.or_dead_letters();
/// assert_eq!(numbers.collect()?, [1, 3]);
/// assert_eq!(dead.collect()?[0].error, "invalid digit found in string");
/// # Ok(()) });
/// ```
#[must_use = "say what becomes of the records that fail: `or_fail`, `or_skip` or `or_dead_letters`"]
pub struct FallibleRdd<T, U> {
    rdd: Rdd<T>,
    attempt: Attempt<T, U>,
}

impl<T, U> fmt::Debug for FallibleRdd<T, U> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FallibleRdd({} of {:?})", self.attempt.operation, self.rdd)
    }
}

impl<T: Record, U: Record> FallibleRdd<T, U> {
    /// A record that fails fails its task, and with it the action. Lazy, narrow; nothing is kept.
    ///
    /// ```
    /// # millpond::doc::run_batch(["1", "x"], |lines| {
    /// let numbers = lines.try_map(|line| line.to_string().parse::<u64>()).or_fail();
    /// let error = numbers.collect().unwrap_err().to_string();
    /// assert!(error.ends_with("try_map of record 2: invalid digit found in string"), "{error}");
    /// # Ok(()) });
    /// ```
    pub fn or_fail(&self) -> Rdd<U> {
        let Attempt { operation, each_chunk } = self.attempt.clone();
        self.rdd.narrow(operation, move |task, partition, parent, out| {
            let mut tried = Tried::new();
            parent.compute(task, partition, &mut |chunk| {
                each_chunk(chunk, &mut tried, OnFailure::Fail);
                if let Some(Failure { position, error, .. }) = tried.failures.pop() {
                    let message = format!("{operation} of record {position}: {error}");
                    return Err(Error::new(ErrorKind::UserCode, message));
                }
                out.pass_on(&mut tried.good)
            })
        })
    }

    /// Records that fail are left out; the second RDD says how many they are, one number per partition.
    ///
    /// Lazy. Ends a stage, without a shuffle: the records that went through are kept in memory, so that they
    /// and the count come from one run of the closure.
    ///
    /// ```
    /// # millpond::doc::run_batch(["1", "x", "3"], |lines| {
    /// let (numbers, skipped) = lines.try_map(|line| line.to_string().parse::<u64>()).or_skip();
    /// assert_eq!(numbers.collect()?, [1, 3]);
    /// assert_eq!(skipped.reduce(|a, b| a + b)?, Some(1));
    /// # Ok(()) });
    /// ```
    pub fn or_skip(&self) -> (Rdd<U>, Rdd<u64>) {
        let outcomes = self.outcomes(OnFailure::Skip);
        (outcomes.good(), outcomes.map(|outcome| outcome.failed))
    }

    /// Runs the closure in a stage of its own that keeps what becomes of the records.
    pub(crate) fn outcomes(&self, on_failure: OnFailure) -> Rdd<Arc<Outcome<T, U>>> {
        let executor = &self.rdd.executor;
        let info = NodeInfo::new(executor, self.attempt.operation, self.rdd.partitions());
        let (input, attempt) = (self.rdd.node.clone(), self.attempt.clone());
        let outcomes = Outcomes { input, attempt, on_failure, partitions: Mutex::new(None) };
        Rdd::new(executor, OutcomesNode { info, outcomes: Arc::new(outcomes) })
    }
}

impl<T: Data, U: Record> FallibleRdd<T, U> {
    /// Records that fail go to the second RDD, each as it was given to the closure, with the error and its
    /// origin, in the order of the records.
    ///
    /// Lazy. Ends a stage, without a shuffle: what becomes of every record is kept in memory, so that the
    /// closure runs once per record whichever of the two RDDs are read. Every record is cloned once.
    ///
    /// ```
    /// # millpond::doc::run_batch(["1", "x"], |lines| {
    /// let (numbers, dead) = lines.try_map(|line| line.to_string().parse::<u64>()).or_dead_letters();
    /// assert_eq!(numbers.count()?, 1);
    /// assert_eq!(dead.collect()?[0].record, "x");
    /// # Ok(()) });
    /// ```
    pub fn or_dead_letters(&self) -> (Rdd<U>, Rdd<DeadLetter<T>>) {
        let outcomes = self.outcomes(OnFailure::DeadLetter);
        (outcomes.good(), outcomes.dead_letters())
    }
}

impl<T: Record> Rdd<T> {
    pub(crate) fn attempt<U: Record>(&self, attempt: Attempt<T, U>) -> FallibleRdd<T, U> {
        FallibleRdd { rdd: self.clone(), attempt }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_texts_are_cut_at_a_character() {
        assert_eq!(bounded_text(&"short"), "short");
        assert_eq!(bounded_text(&"x".repeat(ERROR_BYTES_MAX)).len(), ERROR_BYTES_MAX);
        for shift in 0..4 {
            let long = format!("{}{}", "x".repeat(shift), "\u{1f300}".repeat(1_000));
            let cut = bounded_text(&long);
            assert!(cut.len() <= ERROR_BYTES_MAX + 3 && cut.len() > ERROR_BYTES_MAX - 3, "{}", cut.len());
            assert!(long.starts_with(cut.strip_suffix("...").unwrap()));
        }
    }
}
