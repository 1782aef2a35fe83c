//! DStreams: a job's description, from which every batch makes its RDDs.

mod batch_rows;
mod event_time;
mod graph;
mod keyed;
mod operator_name;
mod ops;
mod outputs;
mod shared;
mod state_spec;
mod state_view;
mod touching;
mod upgrades;
mod windows;

use std::sync::Arc;

pub use event_time::{
    Deduplicated, EventStream, EventWindows, IntervalJoined, Watermarks, Windowed, WindowedEvents,
};
pub(crate) use graph::{Graph, Input, InputKind, Job, Outline, PollSource, StatefulNode, Upstream};
pub use operator_name::OperatorName;
pub use ops::{Fallible, KeyContext, MapWithState, State, Timer};
pub(crate) use outputs::Output;
pub(crate) use shared::SharedVariables;
pub use shared::{Accumulator, Broadcast, Dataset, LoadError, Reload};
pub(crate) use state_spec::InitialState;
pub use state_spec::{StateSpec, Visit};
pub use state_view::StateView;
pub(crate) use state_view::{Boundary, stored_value};
pub(crate) use touching::inputs_without_state;
pub(crate) use upgrades::Upgrades;
pub use windows::Remembered;

use crate::batch::Batch;
use crate::error::Result;
use crate::rdd::{Rdd, Record};

/// A stream of records, one [`Rdd`] per batch.
///
/// A cheap handle on a description. Transformations make other descriptions; an output operation
/// ([`print`], [`for_each_rdd`], [`write_to`], [`save_as_text_files`]) makes the batches run what it is described by.
///
/// ```
/// # fn main() -> millpond::Result<()> {
/// let context = millpond::StreamingContext::builder("errors").build()?;
/// let lines = context.socket_text_stream("log", "127.0.0.1:9999");
/// let errors = lines.filter(|line| line.as_bytes().starts_with(b"ERROR"));
/// errors.count().print(1);
/// # Ok(()) }
/// ```
///
/// # Panics
/// Every operation does on a stream of a job that was started: it would never run.
///
/// [`print`]: DStream::print
/// [`for_each_rdd`]: DStream::for_each_rdd
/// [`save_as_text_files`]: DStream::save_as_text_files
/// [`write_to`]: DStream::write_to
#[must_use = "a DStream does nothing until an output operation uses it"]
pub struct DStream<T> {
    graph: Arc<Graph>,
    id: u32,
    /// Its batches have times that are multiples of this; 0 for every batch.
    slide_ms: u64,
    make: Arc<MakeRdd<T>>,
}

type MakeRdd<T> = dyn Fn(&Batch) -> Result<Rdd<T>> + Send + Sync;

impl<T> Clone for DStream<T> {
    fn clone(&self) -> Self {
        DStream { graph: self.graph.clone(), id: self.id, slide_ms: self.slide_ms, make: self.make.clone() }
    }
}

impl<T> std::fmt::Debug for DStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DStream({}: {})", self.id, self.graph.operation(self.id))
    }
}

impl<T: Record> DStream<T> {
    pub(crate) fn new(
        graph: &Arc<Graph>,
        id: u32,
        make: impl Fn(&Batch) -> Result<Rdd<T>> + Send + Sync + 'static,
    ) -> Self {
        DStream { graph: graph.clone(), id, slide_ms: 0, make: Arc::new(make) }
    }

    /// The same stream, with records only in batches whose times are multiples of `slide_ms`.
    fn sliding(mut self, slide_ms: u64) -> Self {
        self.slide_ms = slide_ms;
        self
    }

    /// Whether it takes part in a batch: a window of several batches only does at the end of each slide.
    pub(crate) fn is_due(&self, batch: &Batch) -> bool {
        self.slide_ms == 0 || batch.time.0.is_multiple_of(self.slide_ms)
    }

    /// The time between the batches in which it takes part.
    fn slide_or_interval_ms(&self) -> u64 {
        self.slide_or(self.graph.interval_ms())
    }

    /// The same where batches have this interval.
    fn slide_or(&self, interval_ms: u64) -> u64 {
        if self.slide_ms == 0 { interval_ms } else { self.slide_ms }
    }

    /// The RDD of this stream in a batch; empty in one in which it takes no part.
    pub(crate) fn rdd(&self, batch: &Batch) -> Result<Rdd<T>> {
        if !self.is_due(batch) {
            return Ok(Rdd::of_collection(&batch.executor, Vec::new()));
        }
        batch.rdd_of(self.id, || (self.make)(batch))
    }

    fn upstream(&self) -> Upstream<'_> {
        Upstream { graph: &self.graph, id: self.id, slide_ms: self.slide_ms }
    }

    /// A stream whose RDDs are made from those of this one.
    fn derive<U: Record>(
        &self,
        operation: &'static str,
        make: impl Fn(Rdd<T>, &Batch) -> Result<Rdd<U>> + Send + Sync + 'static,
    ) -> DStream<U> {
        let parent = self.clone();
        let id = self.graph.add_operation::<U>(operation, &[self.upstream()], false);
        DStream::new(&self.graph, id, move |batch| make(parent.rdd(batch)?, batch)).sliding(self.slide_ms)
    }

    /// The same for an operation that shuffles, from this and perhaps other streams.
    fn derive_wide<U: Record>(
        &self,
        operation: &'static str,
        others: &[Upstream<'_>],
        make: impl Fn(Rdd<T>, &Batch, usize) -> Result<Rdd<U>> + Send + Sync + 'static,
    ) -> DStream<U> {
        let parent = self.clone();
        let partitions = self.graph.partitions();
        let id = self.graph.add_operation::<U>(operation, &[&[self.upstream()], others].concat(), true);
        let make = move |batch: &Batch| make(parent.rdd(batch)?, batch, partitions);
        DStream::new(&self.graph, id, make).sliding(self.slide_ms)
    }

    /// The same from this and one other stream.
    fn derive_joined<W: Record, U: Record>(
        &self,
        operation: &'static str,
        other: &DStream<W>,
        make: impl Fn(Rdd<T>, Rdd<W>, usize) -> Rdd<U> + Send + Sync + 'static,
    ) -> DStream<U> {
        let right = other.clone();
        self.derive_wide(operation, &[other.upstream()], move |left, batch, partitions| {
            Ok(make(left, right.rdd(batch)?, partitions))
        })
    }

    /// A stream of the job `graph` whose RDDs are made from those of any number of others.
    fn of_streams<U: Record>(
        graph: &Arc<Graph>,
        operation: &'static str,
        streams: &[DStream<T>],
        make: impl Fn(Vec<Rdd<T>>, &Batch) -> Result<Rdd<U>> + Send + Sync + 'static,
    ) -> DStream<U> {
        let upstream: Vec<_> = streams.iter().map(DStream::upstream).collect();
        let id = graph.add_operation::<U>(operation, &upstream, false);
        let slide_ms = streams.first().map_or(0, |stream| stream.slide_ms);
        let streams = streams.to_vec();
        let make = move |batch: &Batch| {
            let rdds: Result<Vec<_>> = streams.iter().map(|stream| stream.rdd(batch)).collect();
            make(rdds?, batch)
        };
        DStream::new(graph, id, make).sliding(slide_ms)
    }
}
