//! The machinery: what a row is, and how a job of several rows is run and compared with their oracles.

use std::any::{Any, TypeId};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use millpond::{BatchInfo, DStream, Data, Key, Record, Result, RunningContext, StreamingContext};

use crate::lives::{INTERVAL_MS, Life, Run, Scripted, live_through, range_start};

pub type Pair = (u16, i64);

/// What all rows read: as many batches of `right` as of `left`.
#[derive(Clone, Debug)]
pub struct Input {
    /// The records of [`Job::left`].
    pub left: Vec<Vec<Pair>>,
    /// The records of [`Job::right`].
    pub right: Vec<Vec<Pair>>,
    /// The event times of the records of `left`, which [`Job::events`] carries: milliseconds around the time of
    /// their batch, late ones and early ones.
    pub times: Vec<Vec<u64>>,
    /// Each batch of each stream has this many partitions.
    pub ranges: usize,
}

impl Input {
    /// Each batch of `left` in its partitions.
    pub fn left_partitions(&self) -> impl Iterator<Item = Vec<&[Pair]>> {
        self.left.iter().map(|batch| self.partitions(batch))
    }

    /// Each batch of `right` in its partitions.
    pub fn right_partitions(&self) -> impl Iterator<Item = Vec<&[Pair]>> {
        self.right.iter().map(|batch| self.partitions(batch))
    }

    fn partitions<'a>(&self, batch: &'a [Pair]) -> Vec<&'a [Pair]> {
        let bound = |part| range_start(batch.len(), part, self.ranges);
        (0..self.ranges).map(|part| &batch[bound(part)..bound(part + 1)]).collect()
    }

    /// The time of the batch at `index`, in milliseconds.
    pub fn batch_time(index: usize) -> u64 {
        (index as u64 + 1) * INTERVAL_MS
    }
}

/// Whether the order of the records in a batch is compared with the oracle's. It is never left open: the same
/// plan gives the same order, whatever the threads and the crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Exact,
    /// Compared sorted, because the documented order is one that an oracle cannot say without the engine; with why.
    Sorted(&'static str),
}

/// The order of what comes out of a shuffle by key.
pub const BY_HASH: Order = Order::Sorted("keys come by their hash");

/// An operation, or a few that belong together.
pub struct Row {
    pub name: &'static str,
    /// The methods that this row is the test of, as `Type::method`.
    pub covers: &'static [&'static str],
    /// Uses them, and names what is compared: streams, in this order, and states.
    pub describe: fn(&Job<'_>),
    /// Says the same by plain code: what each of the streams has in each batch, in this order, and what is in
    /// state at the end.
    pub oracle: fn(&Input, &mut Expected),
}

/// What the oracle of a row expects.
#[derive(Default)]
pub struct Expected {
    emitted: Vec<Vec<Option<Vec<String>>>>,
    states: BTreeMap<&'static str, Vec<String>>,
    keys: BTreeMap<&'static str, RangeInclusive<u64>>,
}

fn shown<T: Debug>(records: impl IntoIterator<Item = T>) -> Vec<String> {
    records.into_iter().map(|record| format!("{record:?}")).collect()
}

impl Expected {
    /// The next emitted stream has these records in each batch.
    pub fn emit<T: Debug, B: IntoIterator<Item = T>>(&mut self, batches: impl IntoIterator<Item = B>) {
        self.emit_some(batches.into_iter().map(Some));
    }

    /// The same for a stream that takes no part in some batches.
    pub fn emit_some<T: Debug, B: IntoIterator<Item = T>>(
        &mut self,
        batches: impl IntoIterator<Item = Option<B>>,
    ) {
        self.emitted.push(batches.into_iter().map(|batch| batch.map(shown)).collect());
    }

    /// The operator `name` holds these keys and states at the end.
    pub fn state<K: Debug, S: Debug>(&mut self, name: &'static str, pairs: impl IntoIterator<Item = (K, S)>) {
        self.states.insert(name, sorted(shown(pairs)));
    }

    /// The operator `name` holds exactly so many keys at the end.
    pub fn exact_keys(&mut self, name: &'static str, keys: usize) {
        self.keys(name, keys as u64..=keys as u64);
    }

    /// The operator `name` holds so many keys at the end.
    pub fn keys(&mut self, name: &'static str, keys: RangeInclusive<u64>) {
        self.keys.insert(name, keys);
    }
}

fn sorted(mut records: Vec<String>) -> Vec<String> {
    records.sort();
    records
}

/// A stream that a row emits, by the row's name and its number.
type Slot = (&'static str, usize);

type ReadState = Box<dyn Fn(&RunningContext) -> Vec<String> + Send>;

type ReadOutside = Box<dyn Fn(u64) -> Vec<String> + Send>;

/// What one batch of a stream emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Emission {
    key: String,
    records: Vec<String>,
    /// A batch that is emitted again by a job of other partitions may come in another order.
    partitions: usize,
}

/// What outlives the job.
#[derive(Default)]
struct Recorded {
    orders: BTreeMap<Slot, Order>,
    emitted: BTreeMap<Slot, BTreeMap<u64, Emission>>,
    outside: BTreeMap<Slot, ReadOutside>,
    states: BTreeMap<(&'static str, &'static str), ReadState>,
    keys: BTreeSet<(&'static str, &'static str)>,
    kept: BTreeMap<(&'static str, TypeId), Arc<dyn Any + Send + Sync>>,
    problems: Vec<String>,
}

#[derive(Clone, Default)]
struct Recording(Arc<Mutex<Recorded>>);

impl Recording {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Takes what a stream emits, for rows that test an output operation themselves.
#[derive(Clone)]
pub struct Collector {
    recording: Arc<Mutex<Recorded>>,
    slot: Slot,
    partitions: usize,
}

impl Collector {
    /// What was emitted for a batch; again only if it is the same again.
    pub fn put<T: Debug>(&self, info: &BatchInfo, records: impl IntoIterator<Item = T>) {
        let now =
            Emission { key: info.idempotency_key(), records: shown(records), partitions: self.partitions };
        let mut recorded = self.recording.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let exact = recorded.orders[&self.slot] == Order::Exact;
        let before = recorded.emitted.entry(self.slot).or_default().insert(info.batch.0, now.clone());
        let Some(before) = before else { return };
        let same = match exact || before.partitions == now.partitions {
            true => before.records == now.records,
            false => sorted(before.records.clone()) == sorted(now.records.clone()),
        };
        if !same || before.key != now.key {
            let (row, stream) = self.slot;
            recorded.problems.push(format!(
                "row `{row}`, stream {stream}, batch {} was emitted again with another content or key\n  \
                 before: {before:?}\n  again:  {now:?}",
                info.batch
            ));
        }
    }
}

/// What a row describes itself with.
pub struct Job<'a> {
    /// Where the streams come from.
    pub context: &'a StreamingContext,
    /// One input.
    pub left: DStream<Pair>,
    /// Another.
    pub right: DStream<Pair>,
    /// `left` with event times.
    pub events: DStream<(u64, Pair)>,
    /// A directory that the row has for itself; it outlives crashes.
    pub dir: PathBuf,
    row: &'static str,
    streams: Cell<usize>,
    partitions: usize,
    recording: Recording,
}

impl Job<'_> {
    fn next_slot(&self, order: Order) -> Slot {
        let slot = (self.row, self.streams.replace(self.streams.get() + 1));
        self.recording.lock().orders.insert(slot, order);
        slot
    }

    /// Compares the stream's records in each batch with what the oracle emits.
    pub fn emit<T: Record + Debug>(&self, stream: &DStream<T>, order: Order) {
        let collector = self.collector(order);
        stream.for_each_rdd(move |rdd, info| {
            collector.put(info, rdd.collect()?);
            Ok(())
        });
    }

    /// The same for what an action on the stream's RDDs returns.
    pub fn act<T: Record, R: Debug>(
        &self,
        stream: &DStream<T>,
        order: Order,
        action: impl Fn(&millpond::Rdd<T>) -> Result<Vec<R>> + Send + Sync + 'static,
    ) {
        let collector = self.collector(order);
        stream.for_each_rdd(move |rdd, info| {
            collector.put(info, action(&rdd)?);
            Ok(())
        });
    }

    /// Takes what the row's own output operation emits.
    pub fn collector(&self, order: Order) -> Collector {
        let slot = self.next_slot(order);
        Collector { recording: self.recording.0.clone(), slot, partitions: self.partitions }
    }

    /// Compares what an output left outside: `read` is called when all is over, with each batch's time.
    pub fn emitted_outside(&self, order: Order, read: impl Fn(u64) -> Vec<String> + Send + 'static) {
        let slot = self.next_slot(order);
        self.recording.lock().outside.insert(slot, Box::new(read));
    }

    /// Compares the final state of the operator `name` with what the oracle says.
    pub fn keeps<K: Key + Debug, S: Data + Debug>(&self, name: &'static str) {
        let read = move |job: &RunningContext| {
            let mut pairs = Vec::new();
            let state = job.state::<K, S>(name).unwrap();
            state.for_each(|key, value| pairs.push(format!("{:?}", (key, value)))).unwrap();
            assert_eq!(state.len(), pairs.len() as u64, "the number of keys of `{name}`");
            pairs
        };
        self.recording.lock().states.insert((self.row, name), Box::new(read));
    }

    /// Compares how many keys the operator `name` has at the end, for state whose types are the operator's own.
    pub fn counts_keys_of(&self, name: &'static str) {
        self.recording.lock().keys.insert((self.row, name));
    }

    /// Something outside of the job that the row has for itself; it outlives crashes.
    pub fn outside<T: Default + Send + Sync + 'static>(&self) -> Arc<T> {
        let place = (self.row, TypeId::of::<T>());
        let kept = self.recording.lock().kept.entry(place).or_insert_with(|| Arc::new(T::default())).clone();
        kept.downcast().unwrap()
    }
}

fn describe(
    rows: &[&Row],
    input: &Input,
    dir: &Path,
    recording: &Recording,
    context: &StreamingContext,
    run: &Run,
) {
    let events = input.times.iter().zip(&input.left);
    let events = events.map(|(times, pairs)| times.iter().copied().zip(pairs.iter().copied()).collect());
    let (ranges, flaky) = (input.ranges, run.flaky);
    let events =
        context.replayable_stream("events", Scripted { chunks: Arc::new(events.collect()), ranges, flaky });
    let left = events.map(|(_, pair)| pair);
    let right =
        context.replayable_stream("right", Scripted { chunks: Arc::new(input.right.clone()), ranges, flaky });
    for row in rows {
        let job = Job {
            context,
            left: left.clone(),
            right: right.clone(),
            events: events.clone(),
            dir: dir.join(row.name),
            row: row.name,
            streams: Cell::new(0),
            partitions: run.partitions,
            recording: recording.clone(),
        };
        std::fs::create_dir_all(&job.dir).unwrap();
        (row.describe)(&job);
    }
}

/// Whether a row names state that it keeps.
pub fn keeps_state(row: &Row) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let context = StreamingContext::builder("never started").build().unwrap();
    let input = Input { left: Vec::new(), right: Vec::new(), times: Vec::new(), ranges: 1 };
    let recording = Recording::default();
    describe(&[row], &input, dir.path(), &recording, &context, &Run::default());
    let recorded = recording.lock();
    !recorded.states.is_empty() || !recorded.keys.is_empty()
}

/// What a job of several rows did.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    emitted: BTreeMap<Slot, Vec<Option<Vec<String>>>>,
    states: BTreeMap<(&'static str, &'static str), Vec<String>>,
    keys: BTreeMap<(&'static str, &'static str), u64>,
}

/// Runs a job of these rows over its input and compares every batch with the rows' oracles.
pub fn run_and_check(rows: &[&Row], input: &Input, lives: &[Life], last: &Run) -> Result<Outcome, String> {
    let (outcome, orders) = run(rows, input, lives, last)?;
    for row in rows {
        let mut expected = Expected::default();
        (row.oracle)(input, &mut expected);
        check_row(row.name, &expected, &outcome, &orders)?;
    }
    Ok(outcome)
}

type Orders = BTreeMap<Slot, Order>;

fn run(rows: &[&Row], input: &Input, lives: &[Life], last: &Run) -> Result<(Outcome, Orders), String> {
    let dir = tempfile::tempdir().unwrap();
    let (recording, store) = (Recording::default(), dir.path().join("store"));
    let batches = input.left.len() as u64;
    let job = live_through(&store, batches, lives, last, &|context, run| {
        describe(rows, input, dir.path(), &recording, context, run)
    })
    .map_err(|error| format!("the job of {:?}: {error}", names(rows)))?;
    let mut recorded = recording.lock();
    if !recorded.problems.is_empty() {
        return Err(recorded.problems.join("\n"));
    }
    let mut emitted = BTreeMap::new();
    for slot in recorded.orders.keys() {
        let of_batch = |batch| match recorded.outside.get(slot) {
            Some(read) => Some(read(batch * INTERVAL_MS)),
            None => Some(recorded.emitted.get(slot)?.get(&batch)?.records.clone()),
        };
        emitted.insert(*slot, (1..=batches).map(of_batch).collect());
    }
    let states = recorded.states.iter().map(|(name, read)| (*name, read(&job))).collect();
    drop(job);
    let keys = live_keys(&store, &recorded.keys);
    let orders = std::mem::take(&mut recorded.orders);
    Ok((Outcome { emitted, states, keys }, orders))
}

/// How many keys these operators have in the store of a job that has stopped.
fn live_keys(
    store: &Path,
    operators: &BTreeSet<(&'static str, &'static str)>,
) -> BTreeMap<(&'static str, &'static str), u64> {
    if operators.is_empty() {
        return BTreeMap::new();
    }
    let report = millpond::inspect::inspect(store).unwrap();
    assert!(report.sound, "{report:?}");
    let of_name = |name: &str| report.operators.iter().find(|operator| operator.name == name);
    operators.iter().filter_map(|place| Some((*place, of_name(place.1)?.keys))).collect()
}

fn names(rows: &[&Row]) -> Vec<&'static str> {
    rows.iter().map(|row| row.name).collect()
}

fn check_row(
    row: &'static str,
    expected: &Expected,
    outcome: &Outcome,
    orders: &Orders,
) -> Result<(), String> {
    let of_row = || outcome.emitted.iter().filter(|((name, _), _)| *name == row);
    let streams = (of_row().count(), expected.emitted.len());
    if streams.0 != streams.1 {
        return Err(format!("row `{row}` emits {} streams, its oracle {}", streams.0, streams.1));
    }
    for ((slot, found), expected) in of_row().zip(&expected.emitted) {
        if found.len() != expected.len() {
            return Err(format!("row `{row}`: the oracle has {} batches of {}", expected.len(), found.len()));
        }
        for (batch, (found, expected)) in found.iter().zip(expected).enumerate() {
            let place = format!("row `{row}`, stream {}, batch {}", slot.1, batch + 1);
            let (found, expected) = match (found, expected) {
                (Some(found), Some(expected)) => (found.clone(), expected),
                (None, Some(_)) => return Err(format!("{place} was never emitted")),
                (Some(_), None) => return Err(format!("{place} was emitted, and takes no part")),
                (None, None) => continue,
            };
            match orders[slot] {
                Order::Exact => compare(&place, expected, &found)?,
                Order::Sorted(why) => {
                    let place = format!("{place} (sorted, since {why})");
                    compare(&place, &sorted(expected.clone()), &sorted(found))?;
                }
            }
        }
    }
    check_state(row, expected, outcome)
}

fn check_state(row: &'static str, expected: &Expected, outcome: &Outcome) -> Result<(), String> {
    for (name, expected) in &expected.keys {
        let found = outcome.keys.get(&(row, *name)).copied();
        if !found.is_some_and(|found| expected.contains(&found)) {
            return Err(format!("row `{row}`, state `{name}`: {found:?} keys instead of {expected:?}"));
        }
    }
    let counted = outcome.keys.keys().filter(|(name, _)| *name == row).count();
    if counted != expected.keys.len() {
        return Err(format!(
            "row `{row}`: its oracle says nothing about some of the {counted} counts of keys"
        ));
    }
    let kept = outcome.states.iter().filter(|((name, _), _)| *name == row);
    let mut kept: BTreeMap<_, _> = kept.map(|((_, name), pairs)| (*name, pairs)).collect();
    for (name, expected) in &expected.states {
        let found = kept.remove(name).ok_or_else(|| format!("row `{row}` does not keep `{name}`"))?;
        compare(&format!("row `{row}`, state `{name}`"), expected, &sorted(found.clone()))?;
    }
    match kept.keys().next() {
        Some(name) => Err(format!("row `{row}`: its oracle says nothing about the state `{name}`")),
        None => Ok(()),
    }
}

/// Says where two lists differ first, and shows both.
fn compare(place: &str, expected: &[String], found: &[String]) -> Result<(), String> {
    if expected == found {
        return Ok(());
    }
    let at = expected.iter().zip(found).take_while(|(expected, found)| expected == found).count();
    Err(format!(
        "{place} differs at record {at}\n  expected {} records: {}\n  found {} records: {}",
        expected.len(),
        excerpt(expected, at),
        found.len(),
        excerpt(found, at),
    ))
}

fn excerpt(records: &[String], at: usize) -> String {
    let from = at.saturating_sub(3);
    let shown: Vec<&str> = records.iter().skip(from).take(12).map(String::as_str).collect();
    format!("from {from} on [{}]", shown.join(", "))
}

/// Compares two runs of the same rows, order and all.
pub fn compare_outcomes(one: &Outcome, other: &Outcome) -> Result<(), String> {
    for ((slot, one), other) in one.emitted.iter().zip(other.emitted.values()) {
        for (batch, (one, other)) in one.iter().zip(other).enumerate() {
            let place = format!("row `{}`, stream {}, batch {}", slot.0, slot.1, batch + 1);
            let records = |found: &Option<Vec<String>>| found.clone().unwrap_or_default();
            compare(&format!("{place}, against the undisturbed run,"), &records(one), &records(other))?;
        }
    }
    for (((row, name), one), other) in one.states.iter().zip(other.states.values()) {
        compare(&format!("row `{row}`, state `{name}`, against the undisturbed run,"), one, other)?;
    }
    if one.keys != other.keys {
        return Err(format!(
            "other numbers of keys than in the undisturbed run: {:?}, {:?}",
            one.keys, other.keys
        ));
    }
    Ok(())
}
