use std::sync::Arc;
use std::time::Duration;

use crate::dstream::event_time::arrivals::Arriving;
use crate::dstream::event_time::folds::{Aggregate, Collect, Count, Fold, Reduce};
use crate::dstream::event_time::panes::{PaneOperator, Panes};
use crate::dstream::event_time::sessions::SessionOperator;
use crate::dstream::event_time::{EventStream, in_ms};
use crate::dstream::{DStream, Graph, OperatorName};
use crate::rdd::Record;
use crate::record::{Data, Key, WindowResult};

/// Which windows a stream is cut into. A window holds times from its start up to, not including, its end.
///
/// ```
/// use std::time::Duration;
/// use millpond::EventWindows;
///
/// let minute = Duration::from_secs(60);
/// let per_minute = EventWindows::tumbling(minute);
/// let hourly_every_minute = EventWindows::sliding(60 * minute, minute).allowed_lateness(5 * minute);
/// let sessions = EventWindows::session(30 * minute);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct EventWindows {
    kind: Kind,
    lateness_ms: u64,
    offset_ms: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Sliding { size_ms: u64, slide_ms: u64 },
    Session { gap_ms: u64 },
}

impl EventWindows {
    fn of(kind: Kind) -> Self {
        EventWindows { kind, lateness_ms: 0, offset_ms: None }
    }

    /// Windows of one size, each begun where the one before ends; they begin at multiples of the size.
    pub fn tumbling(size: Duration) -> Self {
        EventWindows::sliding(size, size)
    }

    /// Windows of one size that begin at multiples of `slide`, which is at most the size. One that would begin
    /// before the Unix epoch begins with it.
    pub fn sliding(size: Duration, slide: Duration) -> Self {
        EventWindows::of(Kind::Sliding { size_ms: in_ms(size), slide_ms: in_ms(slide) })
    }

    /// Windows that follow the records: two records of a key are in one session when less than `gap` lies
    /// between them, or between them and others. A session begins with its first record and ends `gap` after
    /// its last.
    pub fn session(gap: Duration) -> Self {
        EventWindows::of(Kind::Session { gap_ms: in_ms(gap) })
    }

    /// For how much longer than until its end, in event time, a window is kept for late records. Default: not
    /// at all.
    #[must_use]
    pub fn allowed_lateness(mut self, lateness: Duration) -> Self {
        self.lateness_ms = in_ms(lateness);
        self
    }

    /// Moves where tumbling and sliding windows begin, such as to the midnight of a time zone.
    #[must_use]
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset_ms = Some(in_ms(offset));
        self
    }

    fn check(&self, graph: &Graph, name: &str) {
        let refuse = |problem: &str| graph.add_problem(format!("the windows of `{name}`: {problem}"));
        match self.kind {
            Kind::Sliding { size_ms: 0, .. } => refuse("their size must be at least 1 ms"),
            Kind::Sliding { slide_ms: 0, .. } => refuse("their slide must be at least 1 ms"),
            Kind::Sliding { size_ms, slide_ms } if slide_ms > size_ms => refuse(&format!(
                "a slide of {slide_ms} ms leaves records between windows of {size_ms} ms out: slide by the size at \
                 most"
            )),
            Kind::Session { gap_ms: 0 } => refuse("their gap must be at least 1 ms"),
            Kind::Session { .. } if self.offset_ms.is_some() => {
                refuse("sessions begin with their first record and know no offset")
            }
            Kind::Sliding { .. } | Kind::Session { .. } => {}
        }
    }
}

impl<K: Key, V: Data> EventStream<(K, V)> {
    /// Cuts the values of each key into windows of event time. What becomes of the values in one is said next:
    /// [`reduce`](WindowedEvents::reduce), [`aggregate`](WindowedEvents::aggregate),
    /// [`collect`](WindowedEvents::collect), [`count`](WindowedEvents::count).
    ///
    /// A window is emitted in the first batch in which the watermark has reached its end: a record of its last
    /// millisecond, `end_ms - 1`, is late from then on. It is emitted again, with a higher revision, in each batch
    /// in which a late record has changed it, until the allowed lateness has passed as well; then nothing is left
    /// of it. A record that is late for all of its windows, which is one whose window's end plus the allowed
    /// lateness was not after the watermark of the batches before, goes to [`Windowed::late`]. For sessions
    /// that is the session of this record alone, and one that lies between the first and the last record of a
    /// session that is not over is not late: it joins it. A record whose windows would all end after the last
    /// time there is, `u64::MAX`, is in none and goes there as well.
    ///
    /// One shuffle, which of tumbling and sliding windows is crossed by one value for each key and window, or
    /// pane where windows overlap (the greatest common divisor of size and slide), of a partition, and by the late
    /// records; sessions send every record. The same is kept for each key, under `name`: one value for each window,
    /// pane or session. A start refuses the state of windows of another size, slide, offset or gap: change the name
    /// with them. A replay calls the functions again.
    ///
    /// ```
    /// # fn main() -> millpond::Result<()> {
    /// use std::time::Duration;
    /// use millpond::EventWindows;
    ///
    /// # let context = millpond::StreamingContext::builder("doc").build()?;
    /// # let (clicks, _queue) = context.queue_stream::<(String, u64)>("clicks");
    /// # let watermarks = millpond::Watermarks::bounded("clicks", Duration::from_secs(10));
    /// # let clicks = clicks.with_event_time(watermarks, |(_, time_ms)| *time_ms);
    /// let sessions = clicks.window("sessions", EventWindows::session(Duration::from_secs(1_800))).count();
    /// sessions.results().map(|session| (session.key, session.end_ms - session.start_ms)).print(10);
    /// # Ok(()) }
    /// ```
    pub fn window(&self, name: impl Into<OperatorName>, windows: EventWindows) -> WindowedEvents<K, V> {
        let name = name.into();
        windows.check(&self.timed.graph, name.as_str());
        WindowedEvents { events: self.clone(), name, windows }
    }
}

/// A stream cut into windows, made by [`EventStream::window`].
#[derive(Debug)]
#[must_use = "windows do nothing until it is said what becomes of their values"]
pub struct WindowedEvents<K, V> {
    events: EventStream<(K, V)>,
    name: OperatorName,
    windows: EventWindows,
}

impl<K: Key, V: Data> WindowedEvents<K, V> {
    /// The values of each window merged into one. As with [`reduce_by_key`](DStream::reduce_by_key) values meet
    /// within each partition of a batch first, then in the order of the partitions and of the batches: `merge` must be
    /// associative. It need not be commutative in tumbling windows; where windows overlap, panes meet in order of time,
    /// and in sessions the values of a batch do.
    pub fn reduce(self, merge: impl Fn(V, V) -> V + Send + Sync + 'static) -> Windowed<K, V, V> {
        self.fold(Reduce(merge))
    }

    /// The values of each window added up from `zero`. `merge` puts two parts of a window together: what partitions
    /// and batches have of it, where windows overlap, and where sessions meet, in the order that
    /// [`reduce`](WindowedEvents::reduce) keeps to. It must be associative, and parts begun from `zero` each have to
    /// come to the same as one.
    pub fn aggregate<A: Data>(
        self,
        zero: A,
        add: impl Fn(A, V) -> A + Send + Sync + 'static,
        merge: impl Fn(A, A) -> A + Send + Sync + 'static,
    ) -> Windowed<K, V, A> {
        self.fold(Aggregate { zero, add, merge })
    }

    /// The values of each window in the order of their times, those of one time in the order of their records.
    pub fn collect(self) -> Windowed<K, V, Vec<V>> {
        self.fold(Collect)
    }

    /// How many values each window has.
    pub fn count(self) -> Windowed<K, V, u64> {
        self.fold(Count)
    }

    fn fold<F: Fold<V>>(self, fold: F) -> Windowed<K, V, F::Value> {
        let WindowedEvents { events, name, windows } = self;
        let lateness_ms = windows.lateness_ms;
        let output = match windows.kind {
            Kind::Sliding { size_ms, slide_ms } => {
                let panes = Panes::new(size_ms, slide_ms, windows.offset_ms.unwrap_or(0), lateness_ms);
                let fold = Arc::new(fold);
                let operator = PaneOperator { panes, fold: fold.clone() };
                events.combining_operator("window", name, operator, move |clock| Arriving {
                    panes,
                    fold: fold.clone(),
                    watermark_before: clock.watermark_before,
                })
            }
            Kind::Session { gap_ms } => {
                events.keyed_operator("session_window", name, SessionOperator { gap_ms, lateness_ms, fold })
            }
        };
        Windowed { output }
    }
}

/// What goes out of a window operator.
#[derive(Clone)]
pub(super) enum WindowOutput<K, V, A> {
    Result(WindowResult<K, A>),
    Late(u64, K, V),
}

/// What windows came to, and which records came too late for them.
pub struct Windowed<K, V, A> {
    output: DStream<WindowOutput<K, V, A>>,
}

impl<K, V, A> std::fmt::Debug for Windowed<K, V, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Windowed({:?})", self.output)
    }
}

impl<K: Key, V: Data, A: Record> Windowed<K, V, A> {
    /// The windows that were completed or changed in each batch: by key, those with new values first, and within
    /// a key by start.
    pub fn results(&self) -> DStream<WindowResult<K, A>> {
        self.output.flat_map(|output, out| {
            if let WindowOutput::Result(result) = output {
                out.emit(result);
            }
        })
    }

    /// The records that were late for all of their windows, with their times. With the results they account for
    /// every record.
    pub fn late(&self) -> DStream<(u64, (K, V))> {
        self.output.flat_map(|output, out| {
            if let WindowOutput::Late(time_ms, key, value) = output {
                out.emit((time_ms, (key, value)));
            }
        })
    }
}
