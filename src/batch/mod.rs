//! A batch: inputs that are fixed for one batch time, and the RDDs made from them.

pub(crate) mod input;
pub(crate) mod tick;

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use input::BatchInput;

use crate::error::{Error, ErrorKind, Result};
use crate::exec::Executor;
use crate::id::{BatchId, BatchTime, StreamId};
use crate::rdd::{Rdd, Record};
use crate::store::StorePaths;

/// One batch while it is computed. Every node of the job makes its RDD once per batch.
pub(crate) struct Batch {
    pub(crate) id: BatchId,
    pub(crate) time: BatchTime,
    /// The batch interval of the job when it planned the batch: a replay goes by it, whatever it is by then.
    pub(crate) interval_ms: u64,
    pub(crate) executor: Arc<Executor>,
    paths: Arc<StorePaths>,
    inputs: BTreeMap<StreamId, Arc<BatchInput>>,
    made: Mutex<HashMap<u32, Box<dyn Any + Send>>>,
}

impl Batch {
    pub(crate) fn new(
        id: BatchId,
        (time, interval_ms): (BatchTime, u64),
        executor: Arc<Executor>,
        paths: Arc<StorePaths>,
        inputs: BTreeMap<StreamId, Arc<BatchInput>>,
    ) -> Self {
        Batch { id, time, interval_ms, executor, paths, inputs, made: Mutex::default() }
    }

    /// What this batch has of a stream; empty when nothing of it was planned.
    pub(crate) fn input(&self, stream: StreamId) -> Arc<BatchInput> {
        self.inputs.get(&stream).cloned().unwrap_or_default()
    }

    pub(crate) fn paths(&self) -> &Arc<StorePaths> {
        &self.paths
    }

    /// Records read from the inputs so far.
    pub(crate) fn records_read(&self) -> u64 {
        self.inputs.values().map(|input| input.records_read()).sum()
    }

    /// The RDD of node `id`, made with `make` the first time it is asked for.
    pub(crate) fn rdd_of<T: Record>(&self, id: u32, make: impl FnOnce() -> Result<Rdd<T>>) -> Result<Rdd<T>> {
        if let Some(made) = self.lock().get(&id) {
            let made = made.downcast_ref::<Rdd<T>>().cloned();
            let mixed_up =
                || Error::new(ErrorKind::InvalidGraph, format!("node {id} has another record type"));
            return made.ok_or_else(mixed_up);
        }
        let rdd = self.executor.describe(id, make)?;
        self.lock().insert(id, Box::new(rdd.clone()));
        Ok(rdd)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Box<dyn Any + Send>>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
