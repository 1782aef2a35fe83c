//! millpond is a stream processor for jobs that must survive.
//!
//! A job is written with Spark Streaming's words ([`StreamingContext`], [`DStream`], [`Rdd`]), runs inside your
//! own process, and keeps everything it must not lose in one directory. After any crash it goes on as if
//! nothing had happened: the same state, the same outputs, nothing lost, nothing counted twice.
//!
//! ```text
//!  source ─block─▶ receive log ─plan─▶ batch ─lineage─▶ RDDs ─stages─▶ new state + outputs ─every N─▶ checkpoint
//!     ▲ ack: durable       inputs fixed and durable        a pure function of (plan, state before)
//!
//!  restart: newest sound checkpoint ─▶ state ─▶ plans after it ─▶ the same RDDs, by lineage ─▶ go on
//! ```
//!
//! ```no_run
//! # fn main() -> millpond::Result<()> {
//! use millpond::StreamingContext;
//!
//! let context = StreamingContext::builder("word-count").store("word-count-store").build()?;
//! context
//!     .socket_text_stream("lines", "127.0.0.1:9999")
//!     .flat_map(|line, out| line.words().for_each(|word| out.emit((word, 1u64))))
//!     .reduce_by_key(|a, b| a + b)
//!     .update_state_by_key("totals", |new, total: Option<u64>| {
//!         Some(total.unwrap_or(0) + new.iter().sum::<u64>())
//!     })
//!     .print(10);
//! context.start()?.await_termination()
//! # }
//! ```
//!
//! # Layout
//!
//! The modules below read in the order in which data flows; each uses only those before it.

// What the attribute writes speaks of `millpond`, also here.
extern crate self as millpond;

// -- ground --

mod error;

mod id;

mod time;

mod config;

mod record;

// -- bytes: what they mean, how they rest --

mod format;

mod store;

// -- computing one batch --

mod exec;

mod rdd;

mod state;

// -- where records come from --

mod receive_log;

mod source;

mod batch;

// -- where they go --

mod sink;

// -- describing a job --

mod dstream;

// -- surviving --

mod checkpoint;

// -- driving it --

mod driver;

mod context;

// -- looking into a store --

#[cfg(feature = "tool")]
pub mod inspect;

// -- changing one by hand --

#[cfg(feature = "tool")]
pub mod maintenance;

#[cfg(feature = "parquet")]
pub use arrow_array;
#[cfg(feature = "parquet")]
pub use arrow_schema;
pub use checkpoint::matching::StateMatch;
pub use config::{Backpressure, KEY_GROUPS, Settings};
pub use context::{ActiveOrStarted, ContextBuilder, RunningContext, StreamingContext};
pub use driver::{
    AuditReport, BatchCompleted, BatchStarted, BatchSubmitted, ChangedSetting, CheckpointFailed,
    CheckpointWritten, ContextState, Failure, Fork, JobHandle, KeyDifference, OperatorDifference,
    OutputOperationCompleted, OutputOperationStarted, PlannedState, PlannedStream, Progress, ReceiverFailed,
    ReceiverStarted, ReceiverStopped, RecoveryReport, ReplayDifference, RetainedCheckpoint, StatsListener,
    StopMode, StreamInput, StreamMatch, StreamingListener, StreamingStarted, StreamingStopped, UpgradePlan,
};
pub use driver::{CausePlace, KeyCause, KeyHistory, KeyTouch};
pub use dstream::{
    Accumulator, Broadcast, DStream, Dataset, Deduplicated, EventStream, EventWindows, Fallible,
    IntervalJoined, KeyContext, LoadError, MapWithState, OperatorName, Reload, Remembered, State, StateSpec,
    StateView, Timer, Visit, Watermarks, Windowed, WindowedEvents,
};
pub use error::{Error, ErrorKind, Result};
pub use format::{FORMAT_VERSION, FORMAT_VERSION_OLDEST};
pub use id::{BatchId, BatchTime, BlockId, CheckpointId, EpochId, ExtentId, SegmentId, StreamId};
pub use millpond_derive::{Described, data};
pub use rdd::{Emitter, FallibleRdd, ObjectFile, Rdd, Record, StorageLevel, read_object_file};
pub use record::{
    Data, DataBuffer, DeadLetter, Described, Fields, Key, Schema, Text, Variants, WindowResult, Words,
};
pub use rkyv;
#[cfg(feature = "sqlite")]
pub use rusqlite;
#[cfg(feature = "sqlite")]
pub use sink::SqliteSink;
pub use sink::{BatchInfo, Begin, FnSink, OutputError, Sink, SinkId, SinkStart};
pub use source::{
    BinaryRecordsSource, BlockStore, DirectorySource, FileSource, Offer, Position, Positions, Queue,
    RangeReader, Receiver, ReceiverError, ReplayableSource, SourceRange, encode_raw_frame,
};
pub use time::{Clock, ManualClock, SystemClock, WakeUp};

#[cfg(feature = "testkit")]
pub mod testkit;

/// Runs the examples in the documentation.
#[doc(hidden)]
pub mod doc {
    use std::sync::Arc;

    use crate::{Rdd, Result, Text, exec::Executor};

    /// Calls `example` with an RDD of `lines` in one partition.
    ///
    /// # Panics
    /// When the example fails.
    pub fn run_batch<const N: usize>(lines: [&str; N], example: impl FnOnce(Rdd<Text>) -> Result<()>) {
        let run = || {
            let executor = Arc::new(Executor::new(2, 1)?);
            let lines = lines.into_iter().map(Text::from).collect();
            example(Rdd::of_collection(&executor, vec![Arc::new(lines)]))
        };
        if let Err(error) = run() {
            panic!("{error:?}");
        }
    }
}

#[cfg(test)]
#[path = "../tests/support/cases.rs"]
mod cases;

/// Where the fuzz targets enter.
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;

/// Runs the program of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Runs the program of the page for users of Spark.
#[cfg(doctest)]
#[doc = include_str!("../docs/coming-from-spark.md")]
struct ComingFromSpark;
/// Runs the program of the page about audits and forks.
#[cfg(doctest)]
#[doc = include_str!("../docs/audit-and-fork.md")]
struct AuditAndFork;
/// Runs the program of the page about upgrades.
#[cfg(doctest)]
#[doc = include_str!("../docs/upgrading.md")]
struct Upgrading;

/// Runs the programs of the page about tests.
#[cfg(all(doctest, feature = "testkit"))]
#[doc = include_str!("../docs/testing-your-job.md")]
struct TestkitGuide;
