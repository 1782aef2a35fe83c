//! Output operations: what makes a batch's records leave the job.

mod files;
mod for_each_rdd;
mod print;
#[cfg(feature = "json")]
mod save_as_json_lines;
mod save_as_object_files;
#[cfg(feature = "parquet")]
mod save_as_parquet;
mod save_as_text_files;
mod write_to;

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::batch::Batch;
use crate::dstream::DStream;
use crate::error::{Error, ErrorKind, Result};
use crate::exec::panic_text;
use crate::rdd::{Rdd, Record};
use crate::sink::{BatchInfo, OutputError, SinkStart, from_user_code};

/// Emits one batch.
type Emit = dyn Fn(&Batch, &BatchInfo) -> Result<()> + Send + Sync;

/// Tells a sink that the job starts.
type Open = dyn Fn(&SinkStart) -> Result<()> + Send + Sync;

/// An output operation of the job.
pub(crate) struct Output {
    pub(crate) name: String,
    emit: Box<Emit>,
    open: Option<Box<Open>>,
}

impl Output {
    fn new(name: String, emit: impl Fn(&Batch, &BatchInfo) -> Result<()> + Send + Sync + 'static) -> Self {
        Output { name, emit: Box::new(emit), open: None }
    }

    /// Before the first batch of a start; `start` is filled in with the output's name.
    pub(crate) fn open(&self, start: &SinkStart) -> Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        let start = SinkStart { output: self.name.clone(), ..start.clone() };
        let opened = catch_unwind(AssertUnwindSafe(|| open(&start))).unwrap_or_else(|payload| {
            Err(Error::new(ErrorKind::UserCode, format!("panicked: {}", panic_text(&*payload))))
        });
        opened.map_err(|error| error.within(format!("output `{}`", self.name)))
    }

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
        self.graph.add_output(Output::new(format!("{id}-{operation}"), move |batch, info| {
            if !parent.is_due(batch) {
                return Ok(());
            }
            let rdd = parent.rdd(batch)?;
            batch.executor.attempt(|| emit(rdd, info).map_err(from_user_code))
        }));
    }
}
