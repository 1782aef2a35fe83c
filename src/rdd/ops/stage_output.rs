use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{Error, Result};
use crate::exec::{Executor, TaskContext};
use crate::rdd::{Lineage, RddNode, Record, WideDependency};

/// Makes one partition's part of a stage's output.
type EachPartition<P, R> = dyn Fn(&TaskContext, usize, &dyn RddNode<P>) -> Result<R> + Send + Sync;

/// Makes something of all parts.
type Summarise<R, S> = dyn Fn(&[R]) -> S + Send + Sync;

/// What a stage leaves for the next one where that is not pairs by key: one part per partition of its input,
/// and a summary of all parts. Kept until the batch is over, like a shuffle's runs.
pub(super) struct StageOutput<P, R, S> {
    input: Arc<dyn RddNode<P>>,
    /// What it is and for which operation.
    description: &'static str,
    /// The first so many partitions of the input are looked at.
    partitions: usize,
    each: Box<EachPartition<P, R>>,
    summarise: Box<Summarise<R, S>>,
    made: Mutex<Option<Arc<Made<R, S>>>>,
}

/// The output of a stage that has run.
pub(super) struct Made<R, S> {
    pub(super) parts: Vec<R>,
    pub(super) summary: S,
}

impl<P: Record, R: Send + Sync, S: Send + Sync> StageOutput<P, R, S> {
    pub(super) fn new(
        description: &'static str,
        input: &Arc<dyn RddNode<P>>,
        partitions: usize,
        each: impl Fn(&TaskContext, usize, &dyn RddNode<P>) -> Result<R> + Send + Sync + 'static,
        summarise: impl Fn(&[R]) -> S + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(StageOutput {
            input: input.clone(),
            description,
            partitions,
            each: Box::new(each),
            summarise: Box::new(summarise),
            made: Mutex::default(),
        })
    }

    pub(super) fn made(&self) -> Result<Arc<Made<R, S>>> {
        let made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.clone().ok_or_else(|| Error::corrupt("the output of a stage was read before it ran"))
    }
}

impl<P: Record, R: Send + Sync, S: Send + Sync> WideDependency for StageOutput<P, R, S> {
    fn prepare(&self, executor: &Executor) -> Result<()> {
        if self.made().is_ok() {
            return Ok(());
        }
        let parts = executor.run_stage(self.description, self.partitions, |task, partition| {
            (self.each)(task, partition, &*self.input)
        })?;
        // A task too: it may call user code, such as a comparison.
        let summary = executor.run_one(self.description, 0, |_| Ok((self.summarise)(&parts)))?;
        let made = Some(Arc::new(Made { parts, summary }));
        *self.made.lock().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }

    fn parent(&self) -> Arc<dyn Lineage> {
        self.input.clone()
    }

    fn describe(&self) -> String {
        self.description.to_owned()
    }
}
