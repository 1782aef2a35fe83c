use crate::dstream::event_time::EventStream;
use crate::dstream::{DStream, KeyContext, StateSpec};
use crate::rdd::Record;
use crate::record::{Data, Key};

impl<K: Key, V: Data> EventStream<(K, V)> {
    /// State per key with timers in event time: as
    /// [`DStream::transform_with_state`], with [`Timer::EventTime`](crate::Timer::EventTime) as well, and each
    /// value with its time.
    ///
    /// Values come in the order of their records, late ones too: [`KeyContext::is_late`] tells them.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// use std::time::Duration;
    /// use millpond::Timer;
    ///
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let (pings, _queue) = context.queue_stream::<(String, u64)>("pings");
    /// # let watermarks = millpond::Watermarks::bounded("pings", Duration::from_secs(10));
    /// // Who was not heard of for a minute after some ping.
    /// let silent = pings.with_event_time(watermarks, |(_, time_ms)| *time_ms).transform_with_state(
    ///     "silent",
    ///     |host, pings: &[(u64, u64)]| {
    ///         let latest = pings.iter().map(|(time_ms, _)| *time_ms).chain(host.take()).max();
    ///         let Some(latest) = latest else { return };
    ///         if latest + 60_000 <= host.watermark() {
    ///             host.emit(host.key().clone());
    ///         } else {
    ///             host.update(latest);
    ///             host.set_timer(Timer::EventTime(latest + 60_000));
    ///         }
    ///     },
    /// );
    /// silent.print(10);
    /// # Ok(()) }
    /// ```
    pub fn transform_with_state<S: Data, U: Record>(
        &self,
        spec: impl Into<StateSpec>,
        each: impl Fn(&mut KeyContext<'_, '_, K, S, U>, &[(u64, V)]) + Send + Sync + 'static,
    ) -> DStream<U> {
        let watermark = Some(self.clock.watermark.clone());
        self.by_key().transform_with_state_at(spec.into(), watermark, move |context, values| {
            let values: Vec<(u64, V)> =
                values.iter().map(|(time_ms, value)| (*time_ms, value.0.clone())).collect();
            each(context, &values);
        })
    }
}
