//! What a job is fed with.

use std::fmt::Debug;

use crate::context::StreamingContext;
use crate::dstream::DStream;
use crate::rdd::Record;
use crate::testkit::ScriptedSource;

/// The input of a test: one list of records per batch, or a tuple of up to four of these for a job with several
/// streams.
///
/// ```
/// use millpond::testkit::Input;
///
/// let orders = vec![vec![("ada", 20), ("bob", 7)], vec![], vec![("ada", 1)]];
/// let rates = vec![vec![("eur", 1.1)]];
/// assert_eq!((orders, rates).batches(), 3);
/// ```
pub trait Input: Debug + Sync {
    /// The streams that the job gets: one [`DStream`], or a tuple of them.
    type Streams;

    /// How many batches it has; of several streams, that with the most.
    fn batches(&self) -> usize;

    /// Adds the streams to a job; each batch is read in so many partitions. A single one is called `input`, those of
    /// a tuple `input-1`, `input-2` and so on.
    fn attach(&self, context: &StreamingContext, ranges: usize) -> Self::Streams;
}

fn stream<T: Record>(
    batches: &[Vec<T>],
    name: &str,
    context: &StreamingContext,
    ranges: usize,
) -> DStream<T> {
    context.replayable_stream(name, ScriptedSource::new(batches).ranges(ranges))
}

impl<T: Record + Debug> Input for Vec<Vec<T>> {
    type Streams = DStream<T>;

    fn batches(&self) -> usize {
        self.len()
    }

    fn attach(&self, context: &StreamingContext, ranges: usize) -> DStream<T> {
        stream(self, "input", context, ranges)
    }
}

macro_rules! tuple_inputs {
    ($($($part:ident $index:tt $name:literal),+;)*) => { $(
        impl<$($part: Record + Debug),+> Input for ($(Vec<Vec<$part>>,)+) {
            type Streams = ($(DStream<$part>,)+);

            fn batches(&self) -> usize {
                [$(self.$index.len()),+].into_iter().max().unwrap_or(0)
            }

            fn attach(&self, context: &StreamingContext, ranges: usize) -> Self::Streams {
                ($(stream(&self.$index, $name, context, ranges),)+)
            }
        }
    )* };
}

tuple_inputs! {
    A 0 "input-1", B 1 "input-2";
    A 0 "input-1", B 1 "input-2", C 2 "input-3";
    A 0 "input-1", B 1 "input-2", C 2 "input-3", D 3 "input-4";
}
