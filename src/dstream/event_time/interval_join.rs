use std::any::type_name;
use std::ops::{Deref, RangeInclusive};

use crate::dstream::event_time::union::meet;
use crate::dstream::event_time::{EventStream, event_timer, is_late};
use crate::dstream::keyed::{KeyVisit, KeyedOperator, KeyedSetup, TimerDomain};
use crate::dstream::{DStream, OperatorName};
use crate::rdd::Record;
use crate::record::{Data, Key, Nested};

/// What [`interval_join`](EventStream::interval_join) makes: the pairs as an [`EventStream`], which it can be
/// used as, and what was paired with nothing: the rest of an outer join, and late records.
pub struct IntervalJoined<K, V, W> {
    pairs: EventStream<(K, (V, W))>,
    output: DStream<JoinOutput<K, V, W>>,
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
    /// The records of this side, with their times, that were paired with nothing: each once, in the first batch
    /// in which the watermark says that nothing can come any more. With the pairs they are a left outer join.
    pub fn unpaired_left(&self) -> DStream<(u64, (K, V))> {
        select(&self.output, |output| match output {
            JoinOutput::Left(Alone::Unpaired, record) => Some(record),
            _ => None,
        })
    }

    /// The same for the other side.
    pub fn unpaired_right(&self) -> DStream<(u64, (K, W))> {
        select(&self.output, |output| match output {
            JoinOutput::Right(Alone::Unpaired, record) => Some(record),
            _ => None,
        })
    }

    /// The records of this side that were before the watermark of the batches before, with their times.
    pub fn late_left(&self) -> DStream<(u64, (K, V))> {
        select(&self.output, |output| match output {
            JoinOutput::Left(Alone::Late, record) => Some(record),
            _ => None,
        })
    }

    /// The same for the other side.
    pub fn late_right(&self) -> DStream<(u64, (K, W))> {
        select(&self.output, |output| match output {
            JoinOutput::Right(Alone::Late, record) => Some(record),
            _ => None,
        })
    }
}

impl<K: Key, V: Data> EventStream<(K, V)> {
    /// Every value with every value of the other stream that has the same key and a time within the bounds:
    /// `left.time + start <= right.time <= left.time + end`, in milliseconds. A pair is emitted in the batch in
    /// which the second of the two comes, and has the later of their times.
    ///
    /// The watermark is that of the [`union`](EventStream::union) of both. One shuffle. Kept under `name`: each
    /// record until the watermark says that none can come any more that it would be paired with. A record that
    /// is before the watermark of the batches before is late: it is paired with nothing. What is in no pair is
    /// not lost: see [`IntervalJoined`].
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
    /// clicked.unpaired_left().count().print(1);
    /// clicked.late_right().count().print(1);
    /// # Ok(()) }
    /// ```
    pub fn interval_join<W: Data>(
        &self,
        name: impl Into<OperatorName>,
        other: &EventStream<(K, W)>,
        bounds_ms: RangeInclusive<i64>,
    ) -> IntervalJoined<K, V, W> {
        let (graph, name) = (&self.timed.graph, name.into());
        if bounds_ms.is_empty() {
            let (start, end) = (bounds_ms.start(), bounds_ms.end());
            graph.add_problem(format!(
                "`{}` joins nothing: its bounds begin at {start} ms, after their end at {end} ms",
                name.as_str()
            ));
        }
        let clock = meet(graph, &name.part(" watermark"), &self.clock, &other.clock);
        let left = self.timed.map(|(time_ms, (key, value))| (key, (time_ms, Some(Nested(value)), None)));
        let right = other.timed.map(|(time_ms, (key, value))| (key, (time_ms, None, Some(Nested(value)))));
        let operator =
            JoinOperator { start_ms: i128::from(*bounds_ms.start()), end_ms: i128::from(*bounds_ms.end()) };
        let setup = KeyedSetup {
            operation: "interval_join",
            name: name.as_str().to_owned(),
            initial: None,
            upgrades: name.upgrades(),
            watermark: Some(clock.watermark.clone()),
        };
        let output = left.union(&right).keyed_operator(setup, operator).output;
        let pairs = select(&output, |output| match output {
            JoinOutput::Pair(pair) => Some(pair),
            _ => None,
        });
        IntervalJoined { pairs: EventStream { timed: pairs, clock }, output }
    }
}

fn select<T: Record, U: Record>(output: &DStream<T>, of: fn(T) -> Option<U>) -> DStream<U> {
    output.flat_map(move |record, out| {
        if let Some(record) = of(record) {
            out.emit(record);
        }
    })
}

/// Why a record was paired with nothing.
#[derive(Clone, Copy)]
enum Alone {
    Unpaired,
    Late,
}

#[derive(Clone)]
enum JoinOutput<K, V, W> {
    Pair((u64, (K, (V, W)))),
    Left(Alone, (u64, (K, V))),
    Right(Alone, (u64, (K, W))),
}

struct JoinOperator {
    start_ms: i128,
    end_ms: i128,
}

/// The time of a record, and the record of the one side or the other.
type Either<V, W> = (u64, Option<Nested<V>>, Option<Nested<W>>);

/// The records of one side in the order of their times, each with whether it was paired.
type Side<V> = Vec<(u64, bool, Nested<V>)>;

/// Adds a record to its side.
fn insert<V: Data>(side: &mut Side<V>, time_ms: u64, is_paired: bool, value: &V) {
    let place = side.partition_point(|(other, ..)| *other <= time_ms);
    side.insert(place, (time_ms, is_paired, Nested(value.clone())));
}

/// Calls `each` with the records of the other side that are within the bounds. Returns whether there are any.
fn pair<V>(side: &mut Side<V>, from: i128, until: i128, mut each: impl FnMut(u64, &V)) -> bool {
    let start = side.partition_point(|(time_ms, ..)| i128::from(*time_ms) < from);
    let end = side.partition_point(|(time_ms, ..)| i128::from(*time_ms) <= until);
    for (time_ms, is_paired, value) in &mut side[start..end] {
        *is_paired = true;
        each(*time_ms, &value.0);
    }
    start < end
}

/// Removes those that nothing can come for any more, since the watermark is past their time and `reach_ms`, and
/// hands on those that were not paired.
fn prune<V>(side: &mut Side<V>, reach_ms: i128, watermark: u64, mut unpaired: impl FnMut(u64, V)) {
    let over = side.partition_point(|(time_ms, ..)| i128::from(*time_ms) + reach_ms < i128::from(watermark));
    for (time_ms, is_paired, value) in side.drain(..over) {
        if !is_paired {
            unpaired(time_ms, value.0);
        }
    }
}

/// When the next record of a side is to be removed.
fn next_over<V>(side: &Side<V>, reach_ms: i128) -> Option<u64> {
    let (first_ms, ..) = side.first()?;
    Some(u64::try_from(i128::from(*first_ms) + reach_ms + 1).unwrap_or(u64::MAX))
}

impl JoinOperator {
    fn add_left<K: Key, V: Data, W: Data>(
        &self,
        key: &K,
        (time_ms, left): (u64, &V),
        (lefts, rights): &mut (Side<V>, Side<W>),
        out: &mut Vec<JoinOutput<K, V, W>>,
    ) {
        let time = i128::from(time_ms);
        let is_paired = pair(rights, time + self.start_ms, time + self.end_ms, |other, right: &W| {
            let values = (left.clone(), right.clone());
            out.push(JoinOutput::Pair((time_ms.max(other), (key.clone(), values))));
        });
        insert(lefts, time_ms, is_paired, left);
    }

    fn add_right<K: Key, V: Data, W: Data>(
        &self,
        key: &K,
        (time_ms, right): (u64, &W),
        (lefts, rights): &mut (Side<V>, Side<W>),
        out: &mut Vec<JoinOutput<K, V, W>>,
    ) {
        let time = i128::from(time_ms);
        let is_paired = pair(lefts, time - self.end_ms, time - self.start_ms, |other, left: &V| {
            let values = (left.clone(), right.clone());
            out.push(JoinOutput::Pair((time_ms.max(other), (key.clone(), values))));
        });
        insert(rights, time_ms, is_paired, right);
    }
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
        let mut sides = visit.state.take().unwrap_or_default();
        let (key, clock) = (visit.key, visit.clock);
        for (time_ms, left, right) in values {
            let (time_ms, is_late) = (*time_ms, is_late(*time_ms, &clock));
            if let Some(Nested(left)) = left {
                if is_late {
                    out.push(JoinOutput::Left(Alone::Late, (time_ms, (key.clone(), left.clone()))));
                } else {
                    self.add_left(key, (time_ms, left), &mut sides, out);
                }
            }
            if let Some(Nested(right)) = right {
                if is_late {
                    out.push(JoinOutput::Right(Alone::Late, (time_ms, (key.clone(), right.clone()))));
                } else {
                    self.add_right(key, (time_ms, right), &mut sides, out);
                }
            }
        }
        let (mut lefts, mut rights) = sides;
        prune(&mut lefts, self.end_ms, clock.watermark, |time_ms, left| {
            out.push(JoinOutput::Left(Alone::Unpaired, (time_ms, (key.clone(), left))));
        });
        prune(&mut rights, -self.start_ms, clock.watermark, |time_ms, right| {
            out.push(JoinOutput::Right(Alone::Unpaired, (time_ms, (key.clone(), right))));
        });
        visit.clear_timers(TimerDomain::Event);
        let next = next_over(&lefts, self.end_ms).into_iter().chain(next_over(&rights, -self.start_ms));
        if let Some(time_ms) = next.min() {
            visit.set_timer(event_timer(time_ms));
        }
        visit.state = (!(lefts.is_empty() && rights.is_empty())).then_some((lefts, rights));
    }

    fn has_timers(&self) -> bool {
        true
    }

    fn kept(&self) -> Option<String> {
        Some(format!("{} to be joined with {}", type_name::<V>(), type_name::<W>()))
    }
}
