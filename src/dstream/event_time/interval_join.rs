use std::ops::{Deref, RangeInclusive};

use crate::dstream::DStream;
use crate::dstream::event_time::union::meet;
use crate::dstream::event_time::{EventStream, event_timer, is_late};
use crate::dstream::keyed::{KeyVisit, KeyedOperator, KeyedSetup, TimerDomain};
use crate::rdd::Record;
use crate::record::{Data, Key, Nested};

/// What [`interval_join`](EventStream::interval_join) makes: the pairs as an [`EventStream`], which it can be
/// used as, and the late records of both sides.
pub struct IntervalJoined<K, V, W> {
    pairs: EventStream<(K, (V, W))>,
    late_left: DStream<(u64, (K, V))>,
    late_right: DStream<(u64, (K, W))>,
}

impl<K, V, W> std::fmt::Debug for IntervalJoined<K, V, W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IntervalJoined({:?})", self.pairs)
    }
}

impl<K, V, W> Deref for IntervalJoined<K, V, W> {
    type Target = EventStream<(K, (V, W))>;

    fn deref(&self) -> &EventStream<(K, (V, W))> {
        &self.pairs
    }
}

impl<K: Key, V: Data, W: Data> IntervalJoined<K, V, W> {
    /// The records of this side that were before the watermark of the batches before, with their times.
    pub fn late_left(&self) -> DStream<(u64, (K, V))> {
        self.late_left.clone()
    }

    /// The same for the other side.
    pub fn late_right(&self) -> DStream<(u64, (K, W))> {
        self.late_right.clone()
    }
}

impl<K: Key, V: Data> EventStream<(K, V)> {
    /// Every value with every value of the other stream that has the same key and a time within the bounds:
    /// `left.time + start <= right.time <= left.time + end`, in milliseconds. A pair is emitted in the batch in
    /// which the second of the two comes, and has the later of their times.
    ///
    /// The watermark is that of the [`union`](EventStream::union) of both. One shuffle. Kept under `name`: each
    /// record until the watermark says that none can come any more that it would be paired with. A record that
    /// is before the watermark of the batches before is late: it is paired with nothing.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// # use std::time::Duration;
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let (views, _views) = context.queue_stream::<(u64, u64)>("views");
    /// # let (clicks, _clicks) = context.queue_stream::<(u64, u64)>("clicks");
    /// # let watermarks = |name| millpond::Watermarks::bounded(name, Duration::from_secs(10));
    /// # let views = views.with_event_time(watermarks("views"), |(_, time_ms)| *time_ms);
    /// # let clicks = clicks.with_event_time(watermarks("clicks"), |(_, time_ms)| *time_ms);
    /// // Clicks up to ten minutes after the view of the same advertisement.
    /// let clicked = views.interval_join("clicked", &clicks, 0..=600_000);
    /// clicked.records().print(10);
    /// clicked.late_right().count().print(1);
    /// # Ok(()) }
    /// ```
    pub fn interval_join<W: Data>(
        &self,
        name: &str,
        other: &EventStream<(K, W)>,
        bounds_ms: RangeInclusive<i64>,
    ) -> IntervalJoined<K, V, W> {
        let graph = &self.timed.graph;
        if bounds_ms.is_empty() {
            let (start, end) = (bounds_ms.start(), bounds_ms.end());
            graph.add_problem(format!(
                "`{name}` joins nothing: its bounds begin at {start} ms, after their end at {end} ms"
            ));
        }
        let clock = meet(graph, &format!("{name} watermark"), &self.clock, &other.clock);
        let left = self.timed.map(|(time_ms, (key, value))| (key, (time_ms, Some(Nested(value)), None)));
        let right = other.timed.map(|(time_ms, (key, value))| (key, (time_ms, None, Some(Nested(value)))));
        let operator =
            JoinOperator { start_ms: i128::from(*bounds_ms.start()), end_ms: i128::from(*bounds_ms.end()) };
        let setup = KeyedSetup {
            operation: "interval_join",
            name: name.to_owned(),
            initial: None,
            watermark: Some(clock.watermark.clone()),
        };
        let output = left.union(&right).keyed_operator(setup, operator).output;
        IntervalJoined {
            pairs: EventStream { timed: select(&output, JoinOutput::pair), clock },
            late_left: select(&output, JoinOutput::late_left),
            late_right: select(&output, JoinOutput::late_right),
        }
    }
}

fn select<T: Record, U: Record>(output: &DStream<T>, of: fn(T) -> Option<U>) -> DStream<U> {
    output.flat_map(move |record, out| {
        if let Some(record) = of(record) {
            out.emit(record);
        }
    })
}

#[derive(Clone)]
enum JoinOutput<K, V, W> {
    Pair(u64, K, V, W),
    LateLeft(u64, K, V),
    LateRight(u64, K, W),
}

impl<K, V, W> JoinOutput<K, V, W> {
    fn pair(self) -> Option<(u64, (K, (V, W)))> {
        if let Self::Pair(time_ms, key, left, right) = self {
            Some((time_ms, (key, (left, right))))
        } else {
            None
        }
    }

    fn late_left(self) -> Option<(u64, (K, V))> {
        if let Self::LateLeft(time_ms, key, value) = self { Some((time_ms, (key, value))) } else { None }
    }

    fn late_right(self) -> Option<(u64, (K, W))> {
        if let Self::LateRight(time_ms, key, value) = self { Some((time_ms, (key, value))) } else { None }
    }
}

struct JoinOperator {
    start_ms: i128,
    end_ms: i128,
}

/// The time of a record, and the record of the one side or the other.
type Either<V, W> = (u64, Option<Nested<V>>, Option<Nested<W>>);

/// The records of one side in the order of their times.
type Side<V> = Vec<(u64, Nested<V>)>;

/// Those of a side whose times are from `from` to `until`.
fn within<V>(side: &Side<V>, from: i128, until: i128) -> &[(u64, Nested<V>)] {
    let start = side.partition_point(|(time_ms, _)| i128::from(*time_ms) < from);
    let end = side.partition_point(|(time_ms, _)| i128::from(*time_ms) <= until);
    &side[start..end]
}

fn insert<V>(side: &mut Side<V>, time_ms: u64, value: Nested<V>) {
    let place = side.partition_point(|(other, _)| *other <= time_ms);
    side.insert(place, (time_ms, value));
}

/// Removes those that nothing can come for any more: the watermark is past their time and `reach_ms`. Returns when
/// the next one is to be removed.
fn prune<V>(side: &mut Side<V>, reach_ms: i128, watermark: u64) -> Option<u64> {
    side.retain(|(time_ms, _)| i128::from(*time_ms) + reach_ms >= i128::from(watermark));
    let (first_ms, _) = side.first()?;
    Some(u64::try_from(i128::from(*first_ms) + reach_ms + 1).unwrap_or(u64::MAX))
}

impl<K: Key, V: Data, W: Data> KeyedOperator<K, Either<V, W>, (Side<V>, Side<W>), JoinOutput<K, V, W>>
    for JoinOperator
{
    fn visit(
        &self,
        visit: &mut KeyVisit<'_, K, (Side<V>, Side<W>)>,
        values: &[Either<V, W>],
        out: &mut Vec<JoinOutput<K, V, W>>,
    ) {
        let (mut lefts, mut rights) = visit.state.take().unwrap_or_default();
        let key = || visit.key.clone();
        for (time_ms, left, right) in values {
            let (time_ms, is_late) = (*time_ms, is_late(*time_ms, &visit.clock));
            let time = i128::from(time_ms);
            match (left, right) {
                (Some(left), _) if is_late => out.push(JoinOutput::LateLeft(time_ms, key(), left.0.clone())),
                (None, Some(right)) if is_late => {
                    out.push(JoinOutput::LateRight(time_ms, key(), right.0.clone()));
                }
                (Some(left), _) => {
                    out.extend(within(&rights, time + self.start_ms, time + self.end_ms).iter().map(
                        |(other, right)| {
                            JoinOutput::Pair(time_ms.max(*other), key(), left.0.clone(), right.0.clone())
                        },
                    ));
                    insert(&mut lefts, time_ms, left.clone());
                }
                (None, Some(right)) => {
                    out.extend(within(&lefts, time - self.end_ms, time - self.start_ms).iter().map(
                        |(other, left)| {
                            JoinOutput::Pair(time_ms.max(*other), key(), left.0.clone(), right.0.clone())
                        },
                    ));
                    insert(&mut rights, time_ms, right.clone());
                }
                (None, None) => {}
            }
        }
        let watermark = visit.clock.watermark;
        let next_left = prune(&mut lefts, self.end_ms, watermark);
        let next_right = prune(&mut rights, -self.start_ms, watermark);
        visit.clear_timers(TimerDomain::Event);
        if let Some(time_ms) = next_left.into_iter().chain(next_right).min() {
            visit.set_timer(event_timer(time_ms));
        }
        visit.state = (!(lefts.is_empty() && rights.is_empty())).then_some((lefts, rights));
    }

    fn has_timers(&self) -> bool {
        true
    }
}
