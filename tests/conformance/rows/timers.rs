//! State that goes by the times of batches: timeouts, timers and a time to live.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use millpond::{StateSpec, Timer};

use crate::lives::INTERVAL_MS;
use crate::rows::pairs::grouped;
use crate::suite::{BY_HASH, Input, Pair, Row};

fn batches(count: u64) -> Duration {
    Duration::from_millis(count * INTERVAL_MS)
}

/// What some operators begin with: keys that come up often, and one that seldom does.
const INITIAL: [Pair; 3] = [(1, 100), (7, 700), (60_000, -1)];

/// The batches with their times.
fn timed(input: &Input) -> impl Iterator<Item = (u64, &Vec<Pair>)> {
    input.left.iter().enumerate().map(|(index, batch)| (Input::batch_time(index), batch))
}

/// Sums that are forgotten two batches after a key's last values, and what each batch has.
fn expiring_sums(input: &Input, initial: &[Pair]) -> (BTreeMap<u16, i64>, Vec<Vec<Pair>>) {
    let (mut sums, mut last) = (BTreeMap::from_iter(initial.iter().copied()), BTreeMap::new());
    let mut all = Vec::new();
    last.extend(initial.iter().map(|(key, _)| (*key, INTERVAL_MS)));
    for (time, batch) in timed(input) {
        sums.retain(|key, _| last[key] + 2 * INTERVAL_MS > time);
        let mut emitted = Vec::new();
        for (key, values) in grouped(batch) {
            let sum = sums.entry(key).or_default();
            *sum += values.iter().sum::<i64>();
            emitted.push((key, *sum));
            last.insert(key, time);
        }
        all.push(emitted);
    }
    (sums, all)
}

/// The model of a key of [`TIMERS`]: how often it was visited, and its timers.
#[derive(Clone, Default)]
struct Visited {
    visits: Option<u32>,
    timers: BTreeSet<u64>,
}

/// When something was visited, as what, with which timers that were due.
type Visit = (u16, u64, Option<u32>, Vec<u64>);

/// The keys of [`TIMERS`] by plain code.
fn visits_of(input: &Input) -> (BTreeMap<u16, Visited>, Vec<Vec<Visit>>) {
    let mut keys = BTreeMap::<u16, Visited>::new();
    let mut all = Vec::new();
    for (now, batch) in timed(input) {
        let groups = grouped(batch);
        let due = |visited: &Visited| visited.timers.first().is_some_and(|first| *first <= now);
        let visited = keys.iter().filter(|(_, visited)| due(visited)).map(|(key, _)| *key);
        let visited: BTreeSet<u16> = visited.chain(groups.keys().copied()).collect();
        let mut emitted = Vec::new();
        for key in visited {
            let mut state = keys.remove(&key).unwrap_or_default();
            let later = state.timers.split_off(&(now + 1));
            let due = std::mem::replace(&mut state.timers, later);
            emitted.push((key, now, state.visits, due.into_iter().collect()));
            for value in groups.get(&key).into_iter().flatten() {
                match value {
                    0 => state.timers.clear(),
                    1.. => drop(state.timers.insert(now + *value as u64 * 700)),
                    _ => drop(state.timers.insert(now)),
                }
            }
            state.visits = state.visits.map_or(Some(1), |visits| (visits < 3).then_some(visits + 1));
            if state.visits.is_some() || !state.timers.is_empty() {
                keys.insert(key, state);
            }
        }
        all.push(emitted);
    }
    (keys, all)
}

pub const ROWS: &[Row] = &[
    Row {
        // A value of 0 removes its key, whose next value begins anew.
        name: "map_with_state",
        covers: &[
            "DStream::map_with_state",
            "MapWithState::state_snapshots",
            "State::exists",
            "State::get",
            "State::update",
            "State::remove",
        ],
        describe: |job| {
            let mapped = job.left.map_with_state("mapped", |key, value, list| {
                let value = value?;
                let existed = list.exists();
                match value {
                    0 => list.remove(),
                    _ => list.update([list.get().cloned().unwrap_or_default(), vec![value]].concat()),
                }
                (*key % 5 != 4).then(|| (*key, value, existed, list.get().cloned()))
            });
            job.emit(&mapped, BY_HASH);
            job.emit(&mapped.state_snapshots(), BY_HASH);
            job.keeps::<u16, Vec<i64>>("mapped");
        },
        oracle: |input, expected| {
            let mut state = BTreeMap::<u16, Vec<i64>>::new();
            let (mut mapped, mut snapshots) = (Vec::new(), Vec::new());
            for batch in &input.left {
                let mut emitted = Vec::new();
                for (key, value) in batch {
                    let existed = state.contains_key(key);
                    match value {
                        0 => drop(state.remove(key)),
                        value => state.entry(*key).or_default().push(*value),
                    }
                    emitted.push((*key, *value, existed, state.get(key).cloned()));
                }
                emitted.retain(|(key, ..)| key % 5 != 4);
                mapped.push(emitted);
                snapshots.push(state.clone());
            }
            expected.emit(mapped);
            expected.emit(snapshots);
            expected.state("mapped", state);
        },
    },
    Row {
        // A key that times out says so once, with its last state; a value of 5 removes its key before.
        name: "map_with_state, timeout and initial state",
        covers: &["DStream::map_with_state", "State::is_timing_out", "State::batch_time"],
        describe: |job| {
            let spec = StateSpec::named("timed out").timeout(batches(2)).initial_state(INITIAL);
            let mapped = job.left.map_with_state(spec, |key, value, sum| {
                let before = sum.get().copied();
                match value {
                    Some(5) => sum.remove(),
                    Some(value) => sum.update(before.unwrap_or(0) + value),
                    None => assert!(sum.is_timing_out() && sum.exists(), "visited for nothing"),
                }
                Some((*key, value, before, sum.is_timing_out(), sum.batch_time().0))
            });
            job.emit(&mapped, BY_HASH);
            job.emit(&mapped.state_snapshots().count(), crate::suite::Order::Exact);
            job.keeps::<u16, i64>("timed out");
        },
        oracle: |input, expected| {
            let initial = INITIAL.map(|(key, sum)| (key, (INTERVAL_MS, sum)));
            let mut state = BTreeMap::<u16, (u64, i64)>::from(initial);
            let (mut mapped, mut counts) = (Vec::new(), Vec::new());
            for (now, batch) in timed(input) {
                let mut emitted = Vec::new();
                for (key, value) in batch {
                    let before = state.get(key).map(|(_, sum)| *sum);
                    emitted.push((*key, Some(*value), before, false, now));
                    match value {
                        5 => drop(state.remove(key)),
                        value => drop(state.insert(*key, (now, before.unwrap_or(0) + value))),
                    }
                }
                state.retain(|key, (last, sum)| {
                    let is_over = *last + 2 * INTERVAL_MS <= now;
                    emitted.extend(is_over.then_some((*key, None, Some(*sum), true, now)));
                    !is_over
                });
                mapped.push(emitted);
                counts.push([state.len()]);
            }
            expected.emit(mapped);
            expected.emit(counts);
            expected.state("timed out", state.into_iter().map(|(key, (_, sum))| (key, sum)));
        },
    },
    Row {
        // The same three ways; keys that an operator began with live as long as those that came.
        name: "a time to live",
        covers: &["DStream::map_with_state", "DStream::transform_with_state", "DStream::update_state_by_key"],
        describe: |job| {
            let spec = |name| StateSpec::named(name).time_to_live(batches(2));
            let add = |sum: Option<i64>, new: &[i64]| sum.unwrap_or(0) + new.iter().sum::<i64>();
            let updated = spec("updated to live").initial_state(INITIAL);
            let updated = job.left.update_state_by_key(updated, move |new: &[i64], sum| Some(add(sum, new)));
            job.emit(&updated, BY_HASH);
            job.keeps::<u16, i64>("updated to live");
            let visited = job.left.transform_with_state(spec("visited to live"), move |key, new: &[i64]| {
                let sum = add(key.take(), new);
                key.update(sum);
                key.emit((*key.key(), sum));
            });
            job.emit(&visited, BY_HASH);
            job.keeps::<u16, i64>("visited to live");
            let mapped = spec("mapped to live").initial_state(INITIAL).timeout(batches(5));
            let mapped = job.left.reduce_by_key(|a, b| a + b).map_with_state(mapped, |key, new, sum| {
                sum.update(sum.get().unwrap_or(&0) + new?);
                Some((*key, *sum.get()?))
            });
            job.emit(&mapped, BY_HASH);
            job.keeps::<u16, i64>("mapped to live");
        },
        oracle: |input, expected| {
            let operators =
                [("updated to live", &INITIAL[..]), ("visited to live", &[]), ("mapped to live", &INITIAL)];
            for (name, initial) in operators {
                let (sums, emitted) = expiring_sums(input, initial);
                expected.emit(emitted);
                expected.state(name, sums);
            }
        },
    },
    Row {
        // What ends by a timer or a timeout leaves nothing that waits for the end of its time to live.
        name: "an end before the end of a time to live",
        covers: &["DStream::map_with_state", "DStream::transform_with_state"],
        describe: |job| {
            let spec = |name| StateSpec::named(name).time_to_live(batches(50));
            let visited = job.left.transform_with_state(spec("ended by timers"), |key, new: &[i64]| {
                let sum = key.take().unwrap_or(0) + new.iter().sum::<i64>();
                let now = key.batch_time().0;
                if new.is_empty() {
                    return key.emit((*key.key(), sum));
                }
                key.delete_timer(Timer::ProcessingTime(now + INTERVAL_MS));
                key.set_timer(Timer::ProcessingTime(now + 2 * INTERVAL_MS));
                key.update(sum);
            });
            job.emit(&visited, BY_HASH);
            job.keeps::<u16, i64>("ended by timers");
            let timed_out = spec("ended by timeouts").timeout(batches(2));
            let timed_out = job.left.map_with_state(timed_out, |key, new, sum| match new {
                Some(new) => {
                    sum.update(sum.get().unwrap_or(&0) + new);
                    None
                }
                None => Some((*key, *sum.get()?)),
            });
            job.emit(&timed_out, BY_HASH);
            job.keeps::<u16, i64>("ended by timeouts");
        },
        oracle: |input, expected| {
            let mut state = BTreeMap::<u16, (u64, i64)>::new();
            let mut all = Vec::new();
            for (now, batch) in timed(input) {
                for (key, value) in batch {
                    let (last, sum) = state.entry(*key).or_default();
                    (*last, *sum) = (now, *sum + value);
                }
                let is_over = |(last, _): &(u64, i64)| *last + 2 * INTERVAL_MS <= now;
                all.push(
                    state
                        .iter()
                        .filter(|(_, kept)| is_over(kept))
                        .map(|(key, (_, sum))| (*key, *sum))
                        .collect::<Vec<_>>(),
                );
                state.retain(|_, kept| !is_over(kept));
            }
            let left: Vec<Pair> = state.into_iter().map(|(key, (_, sum))| (key, sum)).collect();
            for name in ["ended by timers", "ended by timeouts"] {
                expected.emit(&all);
                expected.state(name, left.iter().copied());
            }
        },
    },
    Row {
        // Each value sets a timer, deletes all, or sets one that has come already. A key's state counts its
        // visits and goes with every fourth, so that some keys have timers only.
        name: "transform_with_state",
        covers: &[
            "DStream::transform_with_state",
            "KeyContext::batch_time",
            "KeyContext::delete_timer",
            "KeyContext::due",
            "KeyContext::emit",
            "KeyContext::key",
            "KeyContext::set_timer",
            "KeyContext::state",
            "KeyContext::take",
            "KeyContext::update",
            "KeyContext::watermark",
        ],
        describe: |job| {
            let visits = job.left.transform_with_state("visited", |key, values: &[i64]| {
                assert!(!(values.is_empty() && key.due().is_empty()), "visited for nothing");
                assert_eq!(key.watermark(), 0);
                let now = key.batch_time().0;
                let time_of = |timer: &Timer| match timer {
                    Timer::ProcessingTime(time_ms) => *time_ms,
                    Timer::EventTime(time_ms) => panic!("a timer at the event time {time_ms}"),
                };
                let due: Vec<u64> = key.due().iter().map(time_of).collect();
                key.emit((*key.key(), now, key.state().copied(), due));
                for value in values {
                    let after = Timer::ProcessingTime(now + value.unsigned_abs() * 700);
                    match value {
                        // Every time at which a timer can be, before and after this one.
                        0 => (0..=now / 100 + 40)
                            .for_each(|n| key.delete_timer(Timer::ProcessingTime(n * 100))),
                        1.. => key.set_timer(after),
                        _ => key.set_timer(Timer::ProcessingTime(now)),
                    }
                }
                match key.take() {
                    None => key.update(1),
                    Some(visits) if visits < 3 => key.update(visits + 1u32),
                    Some(_) => {}
                }
            });
            job.emit(&visits, BY_HASH);
            job.counts_keys_of("visited");
        },
        oracle: |input, expected| {
            let (keys, visits) = visits_of(input);
            expected.emit(visits);
            expected.keys("visited", keys.len() as u64..=keys.len() as u64);
        },
    },
    Row {
        // What an operator begins with waits for its first batch, over checkpoints before it.
        name: "initial state behind a window",
        covers: &["DStream::map_with_state", "DStream::window"],
        describe: |job| {
            let spec = StateSpec::named("behind a window").initial_state(INITIAL).timeout(batches(6));
            let windows = job.left.window("in front of state", batches(3), batches(3));
            let sums = windows.map_with_state(spec, |key, value: Option<i64>, sum| {
                match value {
                    Some(value) => sum.update(sum.get().unwrap_or(&0) + value),
                    None => return Some((*key, *sum.get()?, sum.batch_time().0)),
                }
                None
            });
            job.emit(&sums, BY_HASH);
            job.emit(&sums.state_snapshots(), BY_HASH);
            job.keeps::<u16, i64>("behind a window");
        },
        oracle: |input, expected| {
            let first = INTERVAL_MS;
            let mut state = BTreeMap::from(INITIAL.map(|(key, sum)| (key, (first, sum))));
            let (mut timed_out, mut snapshots) = (Vec::new(), Vec::new());
            for (index, (now, _)) in timed(input).enumerate() {
                if index % 3 != 2 {
                    timed_out.push(None);
                    snapshots.push(None);
                    continue;
                }
                for (key, value) in input.left[index - 2..=index].concat() {
                    let (last, sum) = state.entry(key).or_default();
                    (*last, *sum) = (now, *sum + value);
                }
                let mut emitted = Vec::new();
                state.retain(|key, (last, sum)| {
                    let is_over = *last + 6 * INTERVAL_MS <= now;
                    emitted.extend(is_over.then_some((*key, *sum, now)));
                    !is_over
                });
                timed_out.push(Some(emitted));
                snapshots.push(Some(state.clone().into_iter().map(|(key, (_, sum))| (key, sum))));
            }
            expected.emit_some(timed_out);
            expected.emit_some(snapshots);
            let kept = state.into_iter().map(|(key, (_, sum))| (key, sum));
            expected.state("behind a window", kept);
        },
    },
    Row {
        // State that is fed by state that is fed by state, all by the time of batches.
        name: "stateful operators in a chain",
        covers: &["DStream::map_with_state", "DStream::transform_with_state"],
        describe: |job| {
            let spec = StateSpec::named("chained sums").timeout(batches(2));
            let ended = job.left.map_with_state(spec, |key, value, sum| match value {
                Some(value) => {
                    sum.update(sum.get().unwrap_or(&0) + value);
                    None
                }
                None => Some((*key % 4, *sum.get()?)),
            });
            let delayed = ended.transform_with_state("chained delays", |key, sums: &[i64]| {
                let mut waiting: Vec<i64> = key.take().unwrap_or_default();
                if !key.due().is_empty() {
                    let sum: i64 = waiting.drain(..).sum();
                    key.emit((*key.key(), sum));
                }
                if !sums.is_empty() {
                    key.set_timer(Timer::ProcessingTime(key.batch_time().0 + INTERVAL_MS));
                    waiting.extend(sums);
                    key.update(waiting);
                }
            });
            let totals = delayed.update_state_by_key("chained totals", |new, total: Option<i64>| {
                Some(total.unwrap_or(0) + new.iter().sum::<i64>())
            });
            job.emit(&totals, BY_HASH);
            job.keeps::<u16, i64>("chained sums");
            job.counts_keys_of("chained delays");
            job.keeps::<u16, i64>("chained totals");
        },
        oracle: |input, expected| {
            let mut sums = BTreeMap::<u16, (u64, i64)>::new();
            let (mut waiting, mut totals) = (BTreeMap::<u16, i64>::new(), BTreeMap::<u16, i64>::new());
            let mut all = Vec::new();
            for (now, batch) in timed(input) {
                for (key, value) in batch {
                    let (last, sum) = sums.entry(*key).or_default();
                    (*last, *sum) = (now, *sum + value);
                }
                let mut emitted = Vec::new();
                for (key, sum) in std::mem::take(&mut waiting) {
                    let total = totals.entry(key).or_default();
                    *total += sum;
                    emitted.push((key, *total));
                }
                sums.retain(|key, (last, sum)| {
                    let is_over = *last + 2 * INTERVAL_MS <= now;
                    if is_over {
                        *waiting.entry(key % 4).or_default() += *sum;
                    }
                    !is_over
                });
                all.push(emitted);
            }
            expected.emit(all);
            expected.state("chained sums", sums.into_iter().map(|(key, (_, sum))| (key, sum)));
            expected.keys("chained delays", waiting.len() as u64..=waiting.len() as u64);
            expected.state("chained totals", totals);
        },
    },
];
