//! Output operations: what makes a batch's records leave the job.

mod for_each_rdd;
mod print;
mod save_as_text_files;

use crate::batch::Batch;
use crate::dstream::DStream;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{BatchId, BatchTime};
use crate::rdd::{Rdd, Record};

/// What user code in an output operation may fail with.
pub type OutputError = Box<dyn std::error::Error + Send + Sync>;

/// Which batch an output operation is given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchInfo {
    /// The job's name.
    pub job: String,
    /// The output's name: its number and operation, the same in every run of the same job.
    pub output: String,
    /// The batch.
    pub batch: BatchId,
    /// Its time.
    pub time: BatchTime,
}

impl BatchInfo {
    /// A key that is the same whenever this output of this batch is emitted, and that no other has: what a
    /// sink outside needs to take a repeated batch only once.
    ///
    /// For a partition of the RDD, add its number.
    pub fn idempotency_key(&self) -> String {
        format!("{}/{}/{}", self.job, self.output, self.batch.0)
    }
}

/// Emits one batch.
type Emit = dyn Fn(&Batch, &BatchInfo) -> Result<()> + Send + Sync;

/// An output operation of the job.
pub(crate) struct Output {
    pub(crate) name: String,
    emit: Box<Emit>,
}

impl Output {
    pub(crate) fn emit(&self, batch: &Batch, job: &str) -> Result<()> {
        let info =
            BatchInfo { job: job.to_owned(), output: self.name.clone(), batch: batch.id, time: batch.time };
        (self.emit)(batch, &info)
    }
}

impl<T: Record> DStream<T> {
    pub(super) fn add_output(
        &self,
        operation: &'static str,
        emit: impl Fn(Rdd<T>, &BatchInfo) -> Result<(), OutputError> + Send + Sync + 'static,
    ) {
        let parent = self.clone();
        let id = self.graph.add_node::<T>(operation, "", &[self.id], false);
        let name = format!("{id}-{operation}");
        let emit = move |batch: &Batch, info: &BatchInfo| {
            if !parent.is_due(batch) {
                return Ok(());
            }
            let emitted = emit(parent.rdd(batch)?, info);
            emitted.map_err(|cause| match cause.downcast::<Error>() {
                Ok(ours) => *ours,
                Err(cause) => Error::new(ErrorKind::UserCode, "the output operation failed").caused_by(cause),
            })
        };
        self.graph.add_output(Output { name, emit: Box::new(emit) });
    }
}
