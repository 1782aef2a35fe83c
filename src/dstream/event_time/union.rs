use std::sync::Arc;

use crate::batch::Batch;
use crate::dstream::event_time::{EventClock, EventStream, read_row, write_row};
use crate::dstream::{Graph, OperatorName, StatefulNode};
use crate::error::Result;
use crate::rdd::Record;
use crate::state::{OperatorState, StateType};

/// The watermark of streams that meet.
struct MeetingNode {
    inputs: [Arc<EventClock>; 2],
    state: Arc<OperatorState>,
    clock: Arc<EventClock>,
}

/// Adds the watermark of what two streams make together. Those of one watermark just have that.
pub(super) fn meet(
    graph: &Graph,
    name: &OperatorName,
    first: &Arc<EventClock>,
    second: &Arc<EventClock>,
) -> Arc<EventClock> {
    if Arc::ptr_eq(first, second) {
        return first.clone();
    }
    let clock = Arc::new(EventClock::default());
    let state = name.state(StateType::of::<(), u64>());
    let inputs = [first.clone(), second.clone()];
    graph.add_stateful(name.as_str(), Arc::new(MeetingNode { inputs, state, clock: clock.clone() }));
    clock
}

impl StatefulNode for MeetingNode {
    fn state(&self) -> &Arc<OperatorState> {
        &self.state
    }

    fn advance(&self, batch: &Batch) -> Result<()> {
        // It has to be kept: a stream that was idle and comes back may be far behind.
        let before: u64 = read_row(&self.state)?.unwrap_or(0);
        let slowest =
            self.inputs.iter().filter(|input| !input.is_idle()).map(|input| input.watermark(batch)).min();
        let furthest = self.inputs.iter().map(|input| input.watermark(batch)).max();
        let now = before.max(slowest.or(furthest).unwrap_or(0));
        if now != before {
            write_row(&self.state, &now)?;
        }
        self.clock.set(before, now, slowest.is_none());
        Ok(())
    }

    fn finish_batch(&self) -> Result<()> {
        Ok(())
    }
}

impl<T: Record> EventStream<T> {
    /// The records of both streams. The watermark is the lower one of the two; one that is idle (see
    /// [`Watermarks::idle_after`](crate::Watermarks::idle_after)) does not count, and when both are, it is the
    /// higher one. It never goes back: what comes from a stream that was idle and has stayed behind is late.
    ///
    /// Lazy, narrow. The watermark is checkpointed under `name`; streams that have the same watermark need none
    /// of their own and keep nothing.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// use std::time::Duration;
    /// use millpond::Watermarks;
    ///
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let (web, _web) = context.queue_stream::<u64>("web");
    /// # let (app, _app) = context.queue_stream::<u64>("app");
    /// let watermarks =
    ///     |name| Watermarks::bounded(name, Duration::from_secs(10)).idle_after(Duration::from_secs(60));
    /// let web = web.with_event_time(watermarks("web"), |time_ms| *time_ms);
    /// let app = app.with_event_time(watermarks("app"), |time_ms| *time_ms);
    /// web.union("both", &app).watermarks().print(1);
    /// # Ok(()) }
    /// ```
    pub fn union(&self, name: impl Into<OperatorName>, other: &EventStream<T>) -> EventStream<T> {
        let clock = meet(&self.timed.graph, &name.into(), &self.clock, &other.clock);
        EventStream { timed: self.timed.union(&other.timed), clock }
    }
}
