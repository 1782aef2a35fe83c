use std::sync::Arc;
use std::time::Duration;

use crate::batch::Batch;
use crate::dstream::event_time::{EventClock, EventStream, in_ms, read_row, write_row};
use crate::dstream::{DStream, OperatorName, StatefulNode};
use crate::error::Result;
use crate::rdd::Record;
use crate::state::{OperatorState, StateType};

/// How a stream's watermark follows from the times of its records.
#[derive(Clone, Debug)]
pub struct Watermarks {
    name: OperatorName,
    bound_ms: u64,
    idle_after_ms: Option<u64>,
}

impl Watermarks {
    /// Records come at most `max_out_of_orderness` of event time after one with a later time: the watermark is
    /// that far behind the latest time seen. It is kept in the store under `name`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use millpond::Watermarks;
    ///
    /// let watermarks = Watermarks::bounded("clicks", Duration::from_secs(10)).idle_after(Duration::from_secs(60));
    /// ```
    pub fn bounded(name: impl Into<OperatorName>, max_out_of_orderness: Duration) -> Self {
        Watermarks { name: name.into(), bound_ms: in_ms(max_out_of_orderness), idle_after_ms: None }
    }

    /// Where streams meet ([`EventStream::union`], [`EventStream::interval_join`]), one that had no record for
    /// this long does not hold the watermark back. Each batch without records counts one batch interval (one
    /// slide, on a stream of windows), however late it is: the time that a job was down is not the stream's.
    /// Default: it holds it back for ever. A watermark of one stream only moves with its records, idle or not.
    #[must_use]
    pub fn idle_after(mut self, duration: Duration) -> Self {
        self.idle_after_ms = Some(in_ms(duration));
        self
    }
}

/// Max event time seen, for how long there were no records (up to when that makes the stream idle), watermark.
type Row = (u64, u64, u64);

struct WatermarkNode<T> {
    timed: DStream<(u64, T)>,
    watermarks: Watermarks,
    state: Arc<OperatorState>,
    clock: Arc<EventClock>,
}

impl<T: Record> DStream<T> {
    /// Gives each record the time at which it happened, in milliseconds since the Unix epoch.
    ///
    /// `time_of` is called once per record and batch, and again in a replay. The records of a batch are kept in
    /// memory with their times until the batch is over, since the watermark has to be known before anything
    /// that goes by it can be computed. Narrow. The watermark is checkpointed under the name in `watermarks`.
    ///
    /// A time far ahead moves the watermark there for good, and makes what follows late: `time_of` is the place
    /// to refuse one.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// use std::time::Duration;
    /// use millpond::Watermarks;
    ///
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let (clicks, _queue) = context.queue_stream::<(String, u64)>("clicks");
    /// let watermarks = Watermarks::bounded("clicks", Duration::from_secs(10));
    /// let clicks = clicks.with_event_time(watermarks, |(_, time_ms)| *time_ms);
    /// clicks.with_times().print(10);
    /// # Ok(()) }
    /// ```
    pub fn with_event_time(
        &self,
        watermarks: Watermarks,
        time_of: impl Fn(&T) -> u64 + Send + Sync + 'static,
    ) -> EventStream<T> {
        let time_of = Arc::new(time_of);
        let timed = self.derive("with_event_time", move |rdd, _| {
            let time_of = time_of.clone();
            Ok(rdd.map(move |record| (time_of(&record), record)).cache())
        });
        let clock = Arc::new(EventClock::default());
        let name = watermarks.name.clone();
        let state = name.state(StateType::of::<(), Row>());
        let node = WatermarkNode { timed: timed.clone(), watermarks, state, clock: clock.clone() };
        self.graph.add_stateful(name.as_str(), Arc::new(node));
        EventStream { timed, clock }
    }
}

impl<T: Record> WatermarkNode<T> {
    /// The latest time in the batch.
    fn latest(&self, batch: &Batch) -> Result<Option<u64>> {
        let latest = self.timed.rdd(batch)?.run("watermark", |_, compute| {
            let mut latest = None;
            compute(&mut |chunk| {
                latest = latest.max(chunk.iter().map(|(time_ms, _)| *time_ms).max());
                Ok(())
            })?;
            Ok(latest)
        })?;
        Ok(latest.into_iter().flatten().max())
    }
}

impl<T: Record> StatefulNode for WatermarkNode<T> {
    fn state(&self) -> &Arc<OperatorState> {
        &self.state
    }

    fn advance(&self, batch: &Batch) -> Result<()> {
        let latest = self.latest(batch)?;
        let stored: Option<Row> = read_row(&self.state)?;
        let (max_ms, quiet_ms, before) = stored.unwrap_or((0, 0, 0));
        let max_ms = latest.map_or(max_ms, |latest| max_ms.max(latest));
        let idle_after_ms = self.watermarks.idle_after_ms;
        let quiet_ms = match latest {
            Some(_) => 0,
            // The stream's first batch begins its silence.
            None if stored.is_none() || !self.timed.is_due(batch) => quiet_ms,
            None => {
                let step_ms = self.timed.slide_or(batch.interval_ms);
                quiet_ms.saturating_add(step_ms).min(idle_after_ms.unwrap_or(0))
            }
        };
        let now = before.max(max_ms.saturating_sub(self.watermarks.bound_ms));
        let row = (max_ms, quiet_ms, now);
        if stored != Some(row) {
            write_row(&self.state, &row)?;
        }
        let is_idle = latest.is_none() && idle_after_ms.is_some_and(|after| quiet_ms >= after);
        self.clock.set(before, now, is_idle);
        Ok(())
    }

    fn finish_batch(&self) -> Result<()> {
        Ok(())
    }
}
