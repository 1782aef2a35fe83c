//! Computing batches again without being the job.

use crate::context::StreamingContext;
use crate::driver::{self, AuditReport, Fork, KeyHistory, RetainedCheckpoint};
use crate::error::Result;
use crate::id::CheckpointId;
use crate::record::Key;

impl StreamingContext {
    /// The checkpoints in the store from which all batches after them can still be computed again, oldest first: what
    /// [`audit`](StreamingContext::audit) and [`fork`](StreamingContext::fork) can begin at. Nothing is written, and
    /// the job may run.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when there is no store yet,
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when it is another job's.
    pub fn checkpoints(&self) -> Result<Vec<RetainedCheckpoint>> {
        driver::retained_checkpoints(&self.components.settings)
    }

    /// Proves checkpoint `to`: restores checkpoint `from` in memory (0 is the beginning of the store, as long as its
    /// first records are there), computes the batches between them again from the retained plans and input, with this
    /// job's code, and compares every key. Each batch's changes are compared on the way with those that it recorded
    /// when it was done, so that the report names the first batch, operator and key that came out otherwise.
    ///
    /// Nothing is written, emitted or received, and no lock is taken: the job may run, or be dead. Closures of
    /// transformations are called, outputs are not; accumulators take what is recorded. All of the state is
    /// brought into memory, twice. Positions that a source let go of are not compared. Returns when it is done.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use millpond::{CheckpointId, ManualClock, Queue, StopMode, StreamingContext};
    /// # let clock = ManualClock::at(0);
    /// let describe = || -> millpond::Result<(StreamingContext, Queue<u64>)> {
    ///     let builder = StreamingContext::builder("doc").store(dir.path().join("store")).clock(clock.clone());
    ///     let context = builder.build()?;
    ///     let (numbers, queue) = context.queue_stream::<u64>("numbers");
    ///     let _sums = numbers.map(|n| (n % 2, n)).update_state_by_key("sums", |new, sum: Option<u64>| {
    ///         Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
    ///     });
    ///     Ok((context, queue))
    /// };
    /// let (context, queue) = describe()?;
    /// let job = context.start()?;
    /// queue.push([1, 2, 3])?;
    /// clock.advance(1_000);
    /// job.stop(StopMode::Graceful)?;
    ///
    /// let (context, _) = describe()?;
    /// let newest = context.checkpoints()?.pop().expect("a graceful stop takes one").checkpoint;
    /// let report = context.audit(CheckpointId(0), newest)?;
    /// assert!(report.is_clean(), "{report}");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`plan`](StreamingContext::plan);
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when a checkpoint or input is not there, or not any
    /// more, since a running job prunes; [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when the job has
    /// other operators or partitions than the one that ran; [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when a checkpoint
    /// or block is damaged; what a batch failed with.
    pub fn audit(self, from: CheckpointId, to: CheckpointId) -> Result<AuditReport> {
        driver::audit(&self.components.settings, self.graph.into_job()?, from, to)
    }

    /// What touched `key` in the state of `operator`: computes the retained batches again with this job's code, from the
    /// beginning of the store or the oldest checkpoint that everything after it is retained of, notes which of them give
    /// the operator something for the key or change its state, and takes the input of these apart to the blocks, ranges and
    /// records that have a part in it.
    ///
    /// As with [`audit`](StreamingContext::audit), nothing is written, emitted or received, and the job may run. A batch
    /// that has something for the key is computed once more for each of its blocks and, by halves, for their records, up
    /// to the operator and no further. Closures are called for each of these. Returns when it is done.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use millpond::{CausePlace, ManualClock, Queue, StopMode, StreamingContext};
    /// # let clock = ManualClock::at(0);
    /// let describe = || -> millpond::Result<(StreamingContext, Queue<u64>)> {
    ///     let builder = StreamingContext::builder("doc").store(dir.path().join("store")).clock(clock.clone());
    ///     let context = builder.build()?;
    ///     let (numbers, queue) = context.queue_stream::<u64>("numbers");
    ///     let _sums = numbers.map(|n| (n % 10, n)).update_state_by_key("sums", |new, sum: Option<u64>| {
    ///         Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
    ///     });
    ///     Ok((context, queue))
    /// };
    /// let (context, queue) = describe()?;
    /// let job = context.start()?;
    /// queue.push([1, 2, 32])?;
    /// clock.advance(1_000);
    /// job.stop(StopMode::Graceful)?;
    ///
    /// let (context, _) = describe()?;
    /// let history = context.why("sums", &2u64)?;
    /// let [touch] = &history.touches[..] else { panic!("{history:?}") };
    /// let CausePlace::Block { records, .. } = &touch.causes[0].place else { panic!("{touch:?}") };
    /// assert_eq!(records[..], [1..2, 2..3]);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// Those of [`plan`](StreamingContext::plan), and [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) with
    /// that plan where a start from there would be refused;
    /// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) when the job has no such operator, or no retained checkpoint
    /// has everything after it; what a batch failed with.
    pub fn why<K: Key>(self, operator: &str, key: &K) -> Result<KeyHistory> {
        let mut bytes = Vec::new();
        key.encode_key(&mut bytes);
        driver::why(&self.components.settings, &self.graph.into_job()?, operator, &bytes)
    }

    /// What would have become of the store with this job's code: begins at checkpoint `from` as a start would (0 is the
    /// beginning of the store), with [`was`](crate::StateSpec::was) and
    /// [`migrate_from`](crate::StateSpec::migrate_from), computes the retained batches up to the newest sound
    /// checkpoint, and compares every key with it.
    ///
    /// As with [`audit`](StreamingContext::audit), nothing is written, emitted or received, and the original may run.
    /// State that the code no longer has is dropped, input of streams that it no longer has is passed over, and streams and
    /// data sets that are new have nothing. Accumulators take what the original recorded. Batches have the times that
    /// they had.
    ///
    /// # Errors
    /// Those of [`audit`](StreamingContext::audit), but that the code may be other code: it is refused only where the
    /// state of `from` cannot be taken over.
    pub fn fork(self, from: CheckpointId) -> Result<Fork> {
        driver::fork(self.components.settings, self.graph.into_job()?, from)
    }
}
