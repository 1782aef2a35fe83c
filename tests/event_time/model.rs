//! What the operators do, written once more by their definitions and without any of their machinery: nothing is
//! ever forgotten here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use millpond::WindowResult;

/// The records of one batch.
pub type Chunk = Vec<(u16, i64)>;

/// The key of a record that only moves the watermark.
pub const FLUSH: u16 = u16::MAX;

/// Rows by output and batch.
pub type Emitted = BTreeMap<String, String>;

/// A record's time is part of its value.
pub fn time_of(value: i64) -> u64 {
    (value / 1_000) as u64
}

/// The settings of the operators.
#[derive(Clone, Debug)]
pub struct Shape {
    pub size: u64,
    pub slide: u64,
    pub offset: u64,
    pub gap: u64,
    pub bound: u64,
    pub lateness: u64,
    /// In batches.
    pub idle_after: u64,
    pub within: u64,
    pub bounds: (i64, i64),
}

/// One batch: the records that arrive, and the watermarks before it and with it.
pub struct Step {
    batch: u64,
    left: Chunk,
    right: Chunk,
    before: u64,
    now: u64,
}

impl Step {
    fn both(&self) -> impl Iterator<Item = (u16, i64)> {
        self.left.iter().chain(&self.right).copied()
    }
}

fn add<T: Debug>(emitted: &mut Emitted, label: &str, batch: u64, rows: impl IntoIterator<Item = T>) {
    let rows: Vec<String> = rows.into_iter().map(|row| format!("{row:?}")).collect();
    emitted.insert(format!("{label} {batch:04}"), rows.join("\n"));
}

/// The watermark of one stream after each batch, and whether it is idle then.
fn watermarks(chunks: &[Chunk], shape: &Shape) -> Vec<(u64, bool)> {
    let (mut max, mut active) = (0, 1);
    let mut of_batch = |(at, chunk): (usize, &Chunk)| {
        let batch = at as u64 + 1;
        if !chunk.is_empty() {
            active = batch;
        }
        max = chunk.iter().map(|(_, value)| time_of(*value)).fold(max, u64::max);
        (max.saturating_sub(shape.bound), chunk.is_empty() && batch - active >= shape.idle_after)
    };
    chunks.iter().enumerate().map(&mut of_batch).collect()
}

/// What every operator on both streams goes by; adds their watermarks.
pub fn steps(left: &[Chunk], right: &[Chunk], shape: &Shape, emitted: &mut Emitted) -> Vec<Step> {
    let marks = watermarks(left, shape).into_iter().zip(watermarks(right, shape));
    let mut before = 0;
    let mut steps = Vec::new();
    for (at, ((left_mark, left_idle), (right_mark, right_idle))) in marks.enumerate() {
        let batch = at as u64 + 1;
        let both = match (left_idle, right_idle) {
            (false, true) => left_mark,
            (true, false) => right_mark,
            (false, false) => left_mark.min(right_mark),
            (true, true) => left_mark.max(right_mark),
        };
        let now = both.max(before);
        add(emitted, "watermark-left", batch, [left_mark]);
        add(emitted, "watermark-right", batch, [right_mark]);
        add(emitted, "watermark-both", batch, [now]);
        let records = |chunk: &Chunk| chunk.iter().copied().filter(|(key, _)| *key != FLUSH).collect();
        steps.push(Step { batch, left: records(&left[at]), right: records(&right[at]), before, now });
        before = now;
    }
    steps
}

/// Everything that the job emits.
pub fn run(left: &[Chunk], right: &[Chunk], shape: &Shape) -> Emitted {
    let mut emitted = Emitted::new();
    let steps = steps(left, right, shape, &mut emitted);
    let in_order = |values: &mut [i64]| {
        values.sort_by_key(|value| time_of(*value));
        values.to_vec()
    };
    let sums = |values: &mut [i64]| (values.len() as u64, values.iter().sum::<i64>());
    let as_they_came = |values: &mut [i64]| text(values);
    // Panes begin where windows begin or end.
    let width = greatest_common_divisor(shape.size, shape.slide) as i64;
    let by_pane = |values: &mut [i64]| {
        values.sort_by_key(|value| (time_of(*value) as i64 - shape.offset as i64).div_euclid(width));
        text(values)
    };
    windows(&steps, shape, shape.size, "tumbling", in_order, &mut emitted);
    windows(&steps, shape, shape.slide, "sliding", sums, &mut emitted);
    windows(&steps, shape, shape.size, "tumbling-text", as_they_came, &mut emitted);
    windows(&steps, shape, shape.slide, "sliding-text", by_pane, &mut emitted);
    sessions(&steps, shape, &mut emitted);
    unique(&steps, shape, &mut emitted);
    join(&steps, shape, &mut emitted);
    timers(&steps, shape, &mut emitted);
    emitted
}

/// What concatenating comes to, which is associative and by no means commutative.
fn text(values: &[i64]) -> String {
    values.iter().map(|value| format!("{value},")).collect()
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    (1..=a.min(b)).rev().find(|n| a.is_multiple_of(*n) && b.is_multiple_of(*n)).unwrap()
}

/// Tumbling and sliding windows. Returns how many keys are kept at the end.
pub fn windows<A: Debug>(
    steps: &[Step],
    shape: &Shape,
    slide: u64,
    label: &str,
    finish: impl Fn(&mut [i64]) -> A,
    emitted: &mut Emitted,
) -> usize {
    let is_end = |end: u64| (end as i64 - (shape.offset + shape.size) as i64).rem_euclid(slide as i64) == 0;
    let mut all = BTreeMap::<(u16, u64), (Vec<i64>, Option<u32>)>::new();
    for step in steps {
        let (mut late, mut changed) = (Vec::new(), BTreeSet::new());
        for (key, value) in step.both() {
            let time = time_of(value);
            let ends = (time + 1..=time + shape.size).filter(|end| is_end(*end));
            let open: Vec<u64> = ends.filter(|end| end + shape.lateness > step.before).collect();
            if open.is_empty() {
                late.push((time, (key, value)));
            }
            for end in open {
                all.entry((key, end)).or_default().0.push(value);
                changed.insert((key, end));
            }
        }
        let mut results = Vec::new();
        for ((key, end), (values, revision)) in &mut all {
            if *end <= step.now && (revision.is_none() || changed.contains(&(*key, *end))) {
                *revision = Some(revision.map_or(0, |last| last + 1));
                results.push(WindowResult {
                    key: *key,
                    start_ms: end.saturating_sub(shape.size),
                    end_ms: *end,
                    value: finish(values),
                    revision: revision.unwrap(),
                });
            }
        }
        add(emitted, label, step.batch, results);
        add(emitted, &format!("{label}-late"), step.batch, late);
    }
    let end = last_watermark(steps);
    count_distinct(all.keys().filter(|(_, window)| window + shape.lateness > end).map(|(key, _)| *key))
}

fn last_watermark(steps: &[Step]) -> u64 {
    steps.last().map_or(0, |step| step.now)
}

fn count_distinct(keys: impl Iterator<Item = u16>) -> usize {
    keys.collect::<BTreeSet<_>>().len()
}

struct Session {
    key: u16,
    values: Vec<i64>,
    next_revision: u32,
    is_emitted: bool,
}

impl Session {
    fn first(&self) -> u64 {
        self.values.iter().map(|value| time_of(*value)).min().unwrap()
    }

    fn last(&self) -> u64 {
        self.values.iter().map(|value| time_of(*value)).max().unwrap()
    }

    fn meets(&self, other: &Session, gap: u64) -> bool {
        self.key == other.key && self.first() < other.last() + gap && other.first() < self.last() + gap
    }
}

/// Merges any two that meet until none do.
fn merge_all(mut sessions: Vec<Session>, gap: u64) -> Vec<Session> {
    let pair_of = |sessions: &[Session]| {
        let pairs = (0..sessions.len()).flat_map(|a| (a + 1..sessions.len()).map(move |b| (a, b)));
        pairs.into_iter().find(|(a, b)| sessions[*a].meets(&sessions[*b], gap))
    };
    while let Some((a, b)) = pair_of(&sessions) {
        let other = sessions.remove(b);
        let session = &mut sessions[a];
        session.values.extend(other.values);
        session.next_revision = session.next_revision.max(other.next_revision);
        session.is_emitted = false;
    }
    sessions
}

/// Returns how many keys are kept at the end.
pub fn sessions(steps: &[Step], shape: &Shape, emitted: &mut Emitted) -> usize {
    let mut open: Vec<Session> = Vec::new();
    for step in steps {
        let is_over = |last: u64, mark: u64| last + shape.gap + shape.lateness <= mark;
        let (over, on_time): (Vec<_>, Vec<_>) =
            step.both().partition(|(_, value)| is_over(time_of(*value), step.before));
        let arrived = on_time.into_iter().map(|(key, value)| Session {
            key,
            values: vec![value],
            next_revision: 0,
            is_emitted: false,
        });
        open = merge_all(open.into_iter().chain(arrived).collect(), shape.gap);
        let mut late = Vec::new();
        for (key, value) in over {
            let time = time_of(value);
            let around = |session: &&mut Session| {
                session.key == key && session.first() <= time && time <= session.last()
            };
            match open.iter_mut().find(around) {
                Some(session) => {
                    session.values.push(value);
                    session.is_emitted = false;
                }
                None => late.push((time, (key, value))),
            }
        }
        add(emitted, "session-late", step.batch, late);
        let mut results = Vec::new();
        for session in &mut open {
            if session.is_emitted || session.last() + shape.gap > step.now {
                continue;
            }
            // A stable sort: those of one time stay in the order in which they arrived.
            let mut value = session.values.clone();
            value.sort_by_key(|value| time_of(*value));
            results.push(WindowResult {
                key: session.key,
                start_ms: session.first(),
                end_ms: session.last() + shape.gap,
                value,
                revision: session.next_revision,
            });
            session.next_revision += 1;
            session.is_emitted = true;
        }
        add(emitted, "session", step.batch, results);
        open.retain(|session| !is_over(session.last(), step.now));
    }
    count_distinct(open.iter().map(|session| session.key))
}

/// Without duplicates, by key and by a key of the value. Returns how many keys of each are kept at the end.
pub fn unique(steps: &[Step], shape: &Shape, emitted: &mut Emitted) -> [usize; 2] {
    let mut passed = Vec::<(u16, u64)>::new();
    let mut passed_values = Vec::<(u16, u64)>::new();
    for step in steps {
        let (mut unique, mut late, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let is_new = |passed: &mut Vec<(u16, u64)>, key: u16, time: u64| {
            let repeats = passed.iter().any(|(k, other)| *k == key && other.abs_diff(time) <= shape.within);
            if !repeats {
                passed.push((key, time));
            }
            !repeats
        };
        for (key, value) in step.both() {
            let time = time_of(value);
            if time < step.before {
                late.push((time, (key, value)));
                continue;
            }
            if is_new(&mut passed, key, time) {
                unique.push((time, (key, value)));
            }
            if is_new(&mut passed_values, (value % 7) as u16, time) {
                values.push(value);
            }
        }
        add(emitted, "unique", step.batch, unique);
        add(emitted, "unique-late", step.batch, late);
        add(emitted, "unique-value", step.batch, values);
    }
    let end = last_watermark(steps);
    [passed, passed_values].map(|passed| {
        count_distinct(passed.iter().filter(|(_, time)| time + shape.within >= end).map(|(key, _)| *key))
    })
}

/// A record with its time.
type Timed = (u64, (u16, i64));

/// A record of one side, and whether it was in a pair, and whether it was said that it will be in none.
#[derive(Clone, Copy)]
struct Candidate {
    key: u16,
    value: i64,
    is_paired: bool,
    is_reported: bool,
}

fn split(chunk: &Chunk, before: u64) -> (Vec<Candidate>, Vec<Timed>) {
    let (on_time, late): (Vec<_>, Vec<_>) =
        chunk.iter().copied().partition(|(_, value)| time_of(*value) >= before);
    let candidate = |(key, value)| Candidate { key, value, is_paired: false, is_reported: false };
    let timed = |(key, value)| (time_of(value), (key, value));
    (on_time.into_iter().map(candidate).collect(), late.into_iter().map(timed).collect())
}

/// Those that are in no pair, once nothing that is `reach` later can come any more.
fn unpaired(side: &mut [Candidate], reach: i64, now: u64) -> Vec<Timed> {
    let mut rows = Vec::new();
    for one in side.iter_mut().filter(|one| !one.is_reported && !one.is_paired) {
        if time_of(one.value) as i64 + reach < now as i64 {
            one.is_reported = true;
            rows.push((time_of(one.value), (one.key, one.value)));
        }
    }
    rows
}

/// Returns how many keys are kept at the end.
pub fn join(steps: &[Step], shape: &Shape, emitted: &mut Emitted) -> usize {
    let (mut lefts, mut rights) = (Vec::<Candidate>::new(), Vec::<Candidate>::new());
    for step in steps {
        let (old_lefts, old_rights) = (lefts.len(), rights.len());
        let (new_lefts, late_lefts) = split(&step.left, step.before);
        let (new_rights, late_rights) = split(&step.right, step.before);
        lefts.extend(new_lefts);
        rights.extend(new_rights);
        let mut pairs = Vec::new();
        for (at, left) in lefts.iter_mut().enumerate() {
            for (other, right) in rights.iter_mut().enumerate().filter(|(_, right)| right.key == left.key) {
                let (from, to) = (time_of(left.value), time_of(right.value));
                let apart = to as i64 - from as i64;
                let is_new = at >= old_lefts || other >= old_rights;
                if is_new && shape.bounds.0 <= apart && apart <= shape.bounds.1 {
                    (left.is_paired, right.is_paired) = (true, true);
                    pairs.push((from.max(to), (left.key, (left.value, right.value))));
                }
            }
        }
        add(emitted, "join", step.batch, pairs);
        add(emitted, "join-unpaired-left", step.batch, unpaired(&mut lefts, shape.bounds.1, step.now));
        add(emitted, "join-unpaired-right", step.batch, unpaired(&mut rights, -shape.bounds.0, step.now));
        add(emitted, "join-late-left", step.batch, late_lefts);
        add(emitted, "join-late-right", step.batch, late_rights);
    }
    let end = last_watermark(steps) as i64;
    let sides = [(&lefts, shape.bounds.1), (&rights, -shape.bounds.0)];
    let kept = sides
        .into_iter()
        .flat_map(|(side, reach)| side.iter().filter(move |one| time_of(one.value) as i64 + reach >= end));
    count_distinct(kept.map(|one| one.key))
}

/// Counts until a timer comes. Returns those that are waiting for it.
pub fn timers(steps: &[Step], shape: &Shape, emitted: &mut Emitted) -> BTreeMap<u16, u64> {
    let mut waiting = BTreeMap::<u16, (u64, u64)>::new();
    for step in steps {
        let mut fired: Vec<(u16, u64)> = Vec::new();
        waiting.retain(|key, (due, count)| {
            let is_due = *due <= step.now;
            fired.extend(is_due.then_some((*key, *count)));
            !is_due
        });
        for (key, value) in step.both().filter(|(_, value)| time_of(*value) >= step.before) {
            waiting.entry(key).or_insert((time_of(value) + shape.gap, 0)).1 += 1;
        }
        add(emitted, "timers", step.batch, fired);
    }
    waiting.into_iter().map(|(key, (_, count))| (key, count)).collect()
}
