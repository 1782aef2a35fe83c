use std::ops::Deref;
use std::time::Duration;

use crate::dstream::event_time::{EventStream, event_timer, in_ms, is_late};
use crate::dstream::keyed::{KeyVisit, KeyedOperator, TimerDomain};
use crate::dstream::{DStream, OperatorName};
use crate::rdd::Record;
use crate::record::{Data, Key, Nested};

/// What [`deduplicate`](EventStream::deduplicate) makes: the records without their duplicates as an
/// [`EventStream`], which it can be used as, and those that came too late to tell.
pub struct Deduplicated<T> {
    unique: EventStream<T>,
    late: DStream<(u64, T)>,
}

impl<T> std::fmt::Debug for Deduplicated<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Deduplicated({:?})", self.unique)
    }
}

impl<T> Deref for Deduplicated<T> {
    type Target = EventStream<T>;

    fn deref(&self) -> &EventStream<T> {
        &self.unique
    }
}

impl<T: Record> Deduplicated<T> {
    /// The records that were before the watermark of the batches before, with their times: what they may repeat
    /// is no longer known, so they neither pass nor count as duplicates.
    pub fn late(&self) -> DStream<(u64, T)> {
        self.late.clone()
    }
}

impl<K: Key, V: Data> EventStream<(K, V)> {
    /// The first record of each key passes; another is dropped when its time is at most `within` before or after
    /// that of one that has passed. First is who comes first, not who has the earliest time. After Spark's
    /// dropDuplicatesWithinWatermark, with a bound that is not the watermark's.
    ///
    /// One shuffle. Kept for each key, under `name`: the times of those that passed, until the watermark is more
    /// than `within` beyond them. So duplicates are dropped exactly, whatever the order, but for late records,
    /// which go to [`Deduplicated::late`].
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// use std::time::Duration;
    ///
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let (payments, _queue) = context.queue_stream::<(u64, u64)>("payments");
    /// # let watermarks = millpond::Watermarks::bounded("payments", Duration::from_secs(10));
    /// # let payments = payments.with_event_time(watermarks, |(_, time_ms)| *time_ms);
    /// let once = payments.deduplicate("once", Duration::from_secs(3_600));
    /// once.records().print(10);
    /// once.late().count().print(1);
    /// # Ok(()) }
    /// ```
    pub fn deduplicate(&self, name: impl Into<OperatorName>, within: Duration) -> Deduplicated<(K, V)> {
        let operator = DeduplicateOperator { within_ms: in_ms(within) };
        let output = self.keyed_operator("deduplicate", name, operator);
        let unique = output.filter(|(is_late, _)| !is_late).map(|(_, record)| record);
        let late = output.filter(|(is_late, _)| *is_late).map(|(_, record)| record);
        Deduplicated { unique: self.with_timed(unique), late }
    }
}

impl<T: Data> EventStream<T> {
    /// [`deduplicate`](EventStream::deduplicate) by a key of each record.
    pub fn deduplicate_by<K: Key>(
        &self,
        name: impl Into<OperatorName>,
        within: Duration,
        key_of: impl Fn(&T) -> K + Send + Sync + 'static,
    ) -> Deduplicated<T> {
        let Deduplicated { unique, late } = self.key_by(key_of).deduplicate(name, within);
        let late = late.map(|(time_ms, (_, record))| (time_ms, record));
        Deduplicated { unique: unique.map(|(_, record)| record), late }
    }
}

struct DeduplicateOperator {
    within_ms: u64,
}

/// Whether a record was late, its time and itself.
type Decided<K, V> = (bool, (u64, (K, V)));

impl<K: Key, V: Data> KeyedOperator<K, (u64, Nested<V>), Vec<u64>, Decided<K, V>> for DeduplicateOperator {
    fn visit(
        &self,
        visit: &mut KeyVisit<'_, K, Vec<u64>>,
        values: &[(u64, Nested<V>)],
        out: &mut Vec<Decided<K, V>>,
    ) {
        let mut passed = visit.state.take().unwrap_or_default();
        for (time_ms, Nested(value)) in values {
            let is_late = is_late(*time_ms, &visit.clock);
            if !is_late {
                // In order of time: what is near is next to where it would be.
                let place = passed.partition_point(|other| other < time_ms);
                let near = &passed[place.saturating_sub(1)..passed.len().min(place + 1)];
                if near.iter().any(|other| other.abs_diff(*time_ms) <= self.within_ms) {
                    continue;
                }
                passed.insert(place, *time_ms);
            }
            out.push((is_late, (*time_ms, (visit.key.clone(), value.clone()))));
        }
        // A record at the watermark is not late yet.
        let over_at = |time_ms: &u64| time_ms.saturating_add(self.within_ms).saturating_add(1);
        passed.retain(|time_ms| over_at(time_ms) > visit.clock.watermark);
        visit.clear_timers(TimerDomain::Event);
        if let Some(first) = passed.first() {
            visit.set_timer(event_timer(over_at(first)));
        }
        visit.state = (!passed.is_empty()).then_some(passed);
    }

    fn has_timers(&self) -> bool {
        true
    }

    fn kept(&self) -> Option<String> {
        Some("times of unique records".to_owned())
    }
}
