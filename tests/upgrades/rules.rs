//! What a start takes over, what it refuses, and what the plan says.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millpond::{
    DStream, Data, ErrorKind, EventWindows, ManualClock, OperatorName, Record, RunningContext, StateMatch,
    StateSpec, StopMode, StreamingContext, Watermarks,
};

use crate::support::through::tree;
use crate::support::{INTERVAL_MS, wait_for_batch};

struct Job {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
}

impl Job {
    fn new() -> Self {
        Job { dir: tempfile::tempdir().unwrap(), clock: ManualClock::at(0) }
    }

    fn context(&self, allow: bool) -> StreamingContext {
        StreamingContext::builder("upgrades")
            .store(self.dir.path().join("store"))
            .clock(self.clock.clone())
            .allow_dropping_state(allow)
            .partitions(4)
            .threads(1)
            .stop_on_signals(false)
            .build()
            .unwrap()
    }

    /// One batch with these numbers, and a checkpoint.
    fn run(&self, describe: impl FnOnce(&DStream<u64>), numbers: &[u64]) -> millpond::Result<RunningContext> {
        self.run_allowing(false, describe, numbers)
    }

    fn run_allowing(
        &self,
        allow: bool,
        describe: impl FnOnce(&DStream<u64>),
        numbers: &[u64],
    ) -> millpond::Result<RunningContext> {
        let context = self.context(allow);
        let (stream, queue) = context.queue_stream::<u64>("numbers");
        describe(&stream);
        let job = context.start()?;
        queue.push(numbers.iter().copied()).unwrap();
        self.clock.advance(INTERVAL_MS);
        job.stop(StopMode::Graceful)?;
        Ok(job)
    }

    fn refused(&self, describe: impl Fn(&DStream<u64>)) -> String {
        let before = tree(self.dir.path());
        let context = self.context(false);
        describe(&context.queue_stream::<u64>("numbers").0);
        let planned = context.plan().map(|plan| plan.to_string());
        assert_eq!(tree(self.dir.path()), before, "a plan changes nothing");
        let error = context.start().unwrap_err();
        assert_eq!(tree(self.dir.path()), before, "a start that is refused changes nothing");
        if error.kind() == ErrorKind::Incompatible {
            assert!(error.to_string().ends_with(&planned.unwrap()), "{error}");
        }
        error.to_string()
    }
}

/// Keeps for each number how often it came, made a state by `make`.
fn keep<S: Data>(numbers: &DStream<u64>, spec: impl Into<StateSpec>, make: fn(u64, Option<S>) -> S) {
    drop(
        numbers.map(|n| (n, ())).update_state_by_key(spec, move |new: &[()], state: Option<S>| {
            Some(make(new.len() as u64, state))
        }),
    );
}

fn count(new: u64, count: Option<u64>) -> u64 {
    count.unwrap_or(0) + new
}

fn rows<S: Data>(job: &RunningContext, name: &str) -> BTreeMap<u64, S> {
    let mut rows = BTreeMap::new();
    job.state::<u64, S>(name).unwrap().for_each(|key, state| drop(rows.insert(key, state))).unwrap();
    rows
}

#[test]
fn migrations_lead_from_every_version_to_the_newest() {
    type Third = (u64, String);
    let newest = |numbers: &DStream<u64>| {
        let spec = StateSpec::named("counts")
            .was("first")
            .was("second")
            .migrate_from(|count: u32| u64::from(count))
            .migrate_from(|count: u64| (count, "from u64".to_owned()))
            .migrate_from(|count: i16| (count as u64, "from i16".to_owned()));
        keep::<Third>(numbers, spec, |new, state| {
            let (count, from) = state.unwrap_or_default();
            (count + new, from)
        });
    };
    let check = |oldest: &dyn Fn(&DStream<u64>), from: &str| {
        let job = Job::new();
        job.run(oldest, &[1, 1, 2]).unwrap();
        for expected in [2, 3, 4] {
            let running = job.run(newest, &[1]).unwrap();
            let rows = rows::<Third>(&running, "counts");
            assert_eq!(rows[&1], (expected + 1, from.to_owned()));
            assert_eq!(rows[&2], (1, from.to_owned()));
        }
    };
    check(&|numbers| keep::<u32>(numbers, "first", |new, n| n.unwrap_or(0) + new as u32), "from u64");
    check(&|numbers| keep::<u64>(numbers, "second", count), "from u64");
    check(&|numbers| keep::<i16>(numbers, "counts", |new, n| n.unwrap_or(0) + new as i16), "from i16");
}

mod shop {
    #[millpond::data]
    #[derive(Clone, Default)]
    pub struct Total(pub u64);

    pub mod orders {
        #[millpond::data]
        #[derive(Clone, Default)]
        pub struct Total(pub u64);

        #[millpond::data]
        #[derive(Clone, Default)]
        pub struct Wide(pub u64, pub u64);
    }

    pub mod wide {
        #[millpond::data]
        #[derive(Clone, Default)]
        pub struct Total(pub u64, pub u64);
    }
}

#[test]
fn a_type_may_move_to_another_module_and_not_change_under_its_name() {
    let job = Job::new();
    let old = |numbers: &DStream<u64>| {
        keep::<shop::Total>(numbers, "t", |new, total| shop::Total(total.unwrap_or_default().0 + new));
    };
    let moved = |numbers: &DStream<u64>| {
        keep::<shop::orders::Total>(numbers, "t", |new, total| {
            shop::orders::Total(total.unwrap_or_default().0 + new)
        });
    };
    job.run(old, &[7]).unwrap();
    let running = job.run(moved, &[7]).unwrap();
    assert_eq!(running.recovery().operators["t"], StateMatch::Matched);
    assert_eq!(rows::<shop::orders::Total>(&running, "t")[&7].0, 2);
    let wide = |_: u64, total: Option<shop::wide::Total>| total.unwrap_or_default();
    let refused = job.refused(|numbers| keep(numbers, "t", wide));
    assert!(refused.contains("of the type Total, whose fields have changed"), "{refused}");
    assert!(refused.contains("it had 8 bytes") && refused.contains("has 16 bytes"), "{refused}");
    let spec = || StateSpec::named("t").migrate_from(|old: shop::Total| shop::wide::Total(old.0, 1));
    let running = job.run(|numbers| keep(numbers, spec(), wide), &[]).unwrap();
    let total = &rows::<shop::wide::Total>(&running, "t")[&7];
    assert_eq!((total.0, total.1), (2, 1));
}

#[test]
fn migrations_that_cannot_work_are_refused_when_the_job_is_described() {
    let job = Job::new();
    let refused = |spec: StateSpec| job.refused(|numbers| keep::<u64>(numbers, spec.clone(), count));
    let spec = || StateSpec::named("t");
    let alike = refused(spec().migrate_from(|old: shop::Total| shop::orders::Total(old.0)));
    assert!(alike.contains("cannot tell the types of the migration from Total to Total apart"), "{alike}");
    let twice = refused(spec().migrate_from(|old: u32| u64::from(old)).migrate_from(|_: u32| 0u64));
    assert!(twice.contains("two migrations from u32"), "{twice}");
    let away = refused(spec().migrate_from(|old: u64| old as u32));
    assert!(away.contains("its state is u64"), "{away}");
    let elsewhere = refused(spec().migrate_from(|old: u32| old as u16));
    assert!(elsewhere.contains("does not lead to its state, which is u64"), "{elsewhere}");
    let round = refused(spec().migrate_from(|old: u32| old as u16).migrate_from(|old: u16| u32::from(old)));
    assert!(round.contains("does not lead"), "{round}");
    let both = job.refused(|numbers| {
        keep::<u64>(numbers, StateSpec::named("a").was("c"), count);
        keep::<u64>(numbers, StateSpec::named("b").was("c"), count);
    });
    assert!(both.contains("two operators were `c`"), "{both}");
    let taken = job.refused(|numbers| {
        keep::<u64>(numbers, StateSpec::named("a").was("b"), count);
        keep::<u64>(numbers, "b", count);
    });
    assert!(taken.contains("the job has an operator `b`"), "{taken}");
}

#[test]
fn what_would_be_lost_is_refused_with_a_plan() {
    let job = Job::new();
    let old = |numbers: &DStream<u64>| {
        keep::<u64>(numbers, "a", count);
        keep::<u64>(numbers, "b", count);
        let _window = numbers.count_by_value_and_window(
            "w",
            Duration::from_millis(2 * INTERVAL_MS),
            Duration::from_millis(INTERVAL_MS),
        );
    };
    job.run(old, &[1, 2]).unwrap();
    let dropped = job.refused(|numbers| keep::<u64>(numbers, "a", count));
    assert!(dropped.starts_with("the job has no operator `b` any more, which has 2 keys"), "{dropped}");
    assert!(dropped.contains("  - `b`: 2 keys are dropped, u64 -> u64"), "{dropped}");
    assert!(dropped.contains("  = `a`: goes on with 2 keys"), "{dropped}");
    let both = job.refused(|numbers| keep::<u64>(numbers, StateSpec::named("a").was("b"), count));
    assert!(both.contains("state both under `a` (2 keys) and under `b` (2 keys)"), "{both}");
    let typed = job.refused(|numbers| {
        keep::<i32>(numbers, "a", |_, _| 0);
        keep::<u64>(numbers, "b", count);
    });
    assert!(typed.starts_with("the state of `a` is u64 in the checkpoint and i32 in the job"), "{typed}");
    assert!(typed.contains("migrate_from"), "{typed}");
    let keys = job.refused(|numbers| {
        drop(numbers.map(|n| (n.to_string(), ())).update_state_by_key("a", |_, n: Option<u64>| n));
    });
    assert!(keys.contains("u64 in the checkpoint and utf8 in the job: keys cannot be migrated"), "{keys}");
    let running = job.run_allowing(true, |numbers| keep::<u64>(numbers, "a", count), &[1]).unwrap();
    assert_eq!(running.recovery().operators["b"], StateMatch::Dropped);
    assert_eq!(rows::<u64>(&running, "a"), [(1, 2), (2, 1)].into());
}

/// What was dropped is in segments that other operators still need; it must never be read again.
#[test]
fn state_that_was_dropped_does_not_come_back_with_its_name() {
    let job = Job::new();
    let both = |numbers: &DStream<u64>| {
        keep::<u64>(numbers, "a", count);
        keep::<u64>(&numbers.filter(|n| *n < 1_000), "b", count);
    };
    let all: Vec<u64> = (0..900).collect();
    job.run(both, &all).unwrap();
    job.run_allowing(true, |numbers| keep::<u64>(numbers, "a", count), &[1_000]).unwrap();
    for round in 1..4 {
        let running = job.run(both, &[5, 1_000]).unwrap();
        assert_eq!(rows::<u64>(&running, "b"), [(5, round)].into(), "start {round}");
    }
    // The same where it comes back under a name that another operator had in the meantime.
    let renamed = |numbers: &DStream<u64>| {
        keep::<u64>(numbers, StateSpec::named("c").was("b"), count);
        keep::<u64>(numbers, "a", count);
    };
    job.run(renamed, &[6]).unwrap();
    for round in 1..4 {
        let running = job.run(
            |numbers| {
                both(numbers);
                keep::<u64>(numbers, "c", count);
            },
            &[7],
        );
        let running = running.unwrap();
        assert_eq!(rows::<u64>(&running, "b"), [(7, round)].into());
        assert_eq!(rows::<u64>(&running, "c"), [(5, 3), (6, 1), (7, round)].into());
    }
}

#[test]
fn a_time_to_live_may_come_and_go() {
    let job = Job::new();
    let alive = StateSpec::named("t").time_to_live(Duration::from_millis(3 * INTERVAL_MS));
    let expiring = |numbers: &DStream<u64>| keep::<u64>(numbers, alive.clone(), count);
    let plain = |numbers: &DStream<u64>| keep::<u64>(numbers, "t", count);
    job.run(plain, &[1, 2]).unwrap();
    // Counted from the checkpoint: of the batch at 1 s.
    let running = job.run(expiring, &[2]).unwrap();
    assert!(matches!(running.recovery().operators["t"], StateMatch::Upgraded { .. }));
    job.run(expiring, &[3]).unwrap();
    let running = job.run(expiring, &[3]).unwrap();
    assert_eq!(rows::<u64>(&running, "t"), [(2, 2), (3, 2)].into());
    let running = job.run(plain, &[3]).unwrap();
    assert_eq!(rows::<u64>(&running, "t"), [(2, 2), (3, 3)].into());
    job.run(plain, &[3]).unwrap();
    let running = job.run(plain, &[3]).unwrap();
    assert_eq!(rows::<u64>(&running, "t"), [(2, 2), (3, 5)].into(), "nothing expires any more");
}

#[test]
fn a_migration_that_panics_fails_the_start_and_changes_nothing() {
    let job = Job::new();
    job.run(|numbers| keep::<u64>(numbers, "t", count), &[1, 2]).unwrap();
    let spec = || StateSpec::named("t").migrate_from(|count: u64| -> u32 { panic!("no way from {count}") });
    let error = job.run(|numbers| keep::<u32>(numbers, spec(), |_, _| 0), &[]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UserCode);
    assert!(error.chain().contains("no way from"), "{}", error.chain());
    let running = job.run(|numbers| keep::<u64>(numbers, "t", count), &[1]).unwrap();
    assert_eq!(rows::<u64>(&running, "t"), [(1, 2), (2, 1)].into());
}

/// Windows, and operators in event time with their watermarks: the state of all of their parts goes on.
#[test]
fn windows_and_operators_in_event_time_are_renamed() {
    let ms = Duration::from_millis;
    let describe = |numbers: &DStream<u64>, name: &dyn Fn(&str) -> OperatorName, seen: &Seen| {
        let (length, slide) = (ms(4 * INTERVAL_MS), ms(INTERVAL_MS));
        see(&numbers.window(name("plain"), length, slide).count(), "plain", seen);
        see(&numbers.count_by_window(name("count"), length, slide), "count", seen);
        let timed = numbers.with_event_time(Watermarks::bounded(name("time"), ms(5)), |n| *n);
        let other = numbers.with_event_time(Watermarks::bounded(name("other"), ms(9)), |n| *n);
        let keyed = timed.union(name("both"), &other).map(|n| (n % 2, n));
        let windows = keyed.window(name("windows"), EventWindows::tumbling(ms(10))).count().results();
        see(&windows.map(|window| (window.key, window.end_ms, window.value)), "windows", seen);
        let joined = timed.map(|n| (n % 3, n)).interval_join(name("join"), &other.map(|n| (n % 3, n)), 0..=2);
        see(&joined.records(), "join", seen);
        see(&keyed.deduplicate(name("once"), ms(4)).records(), "once", seen);
    };
    let lived = |second: &dyn Fn(&str) -> OperatorName| {
        let (job, seen) = (Job::new(), Seen::default());
        job.run(|numbers| describe(numbers, &|name| name.into(), &seen), &[1, 3, 12, 14]).unwrap();
        let running = job.run(|numbers| describe(numbers, second, &seen), &[12, 15, 26, 40]).unwrap();
        let taken = running.recovery().operators.clone();
        job.run(|numbers| describe(numbers, second, &seen), &[41, 60]).unwrap();
        let seen = seen.lock().unwrap().clone();
        (taken, seen)
    };
    let (kept, expected) = lived(&|name| name.into());
    let (renamed, seen) = lived(&|name| OperatorName::new(format!("new {name}")).was(name));
    assert_eq!(seen, expected);
    assert_eq!(renamed.len(), kept.len());
    let is_renamed = |(name, outcome): (&String, &StateMatch)| match outcome {
        StateMatch::Upgraded { name: Some(old), value_type: None, .. } => *name == format!("new {old}"),
        _ => false,
    };
    assert!(renamed.iter().all(is_renamed), "{renamed:?}");
}

/// The rows of each output, batch by batch.
type Seen = Arc<Mutex<Vec<(String, Vec<String>)>>>;

fn see<T: Record + std::fmt::Debug>(stream: &DStream<T>, name: &'static str, seen: &Seen) {
    let seen = seen.clone();
    stream.for_each_rdd(move |rdd, _| {
        let mut rows: Vec<String> = rdd.collect()?.iter().map(|row| format!("{row:?}")).collect();
        rows.sort_unstable();
        seen.lock().unwrap().push((name.to_owned(), rows));
        Ok(())
    });
}

#[test]
fn a_plan_is_made_beside_the_running_job() {
    let job = Job::new();
    let running = job.context(false);
    let (numbers, queue) = running.queue_stream::<u64>("numbers");
    let (gone, gone_queue) = running.queue_stream::<u64>("gone");
    keep::<u64>(&numbers.union(&gone), "old", count);
    let running = running.start().unwrap();
    queue.push([1]).unwrap();
    gone_queue.push([2]).unwrap();
    job.clock.advance(INTERVAL_MS);
    assert!(wait_for_batch(&running, 1));
    let next = job.context(false);
    let (numbers, _queue) = next.queue_stream::<u64>("numbers");
    keep::<(u64, u64)>(
        &numbers.union(&next.queue_stream("more").0),
        StateSpec::named("new").was("old").migrate_from(|count: u64| (count, 0u64)),
        |_, state| state.unwrap_or_default(),
    );
    let plan = next.plan().unwrap();
    assert!(plan.checkpoint.is_none() && !plan.fresh, "{plan}");
    assert_eq!(plan.replay.len(), 1, "{plan}");
    assert!(plan.to_string().contains("  - `gone`: is gone, 0 pending blocks, in 1 batches"), "{plan}");
    assert!(plan.problems[0].contains("bring the stream back"), "{plan}");
    running.stop(StopMode::Graceful).unwrap();
    let plan = next.plan().unwrap();
    let page = plan.to_string();
    assert!(page.contains("from ckpt") || page.contains("from checkpoint"), "{page}");
    for line in [
        "  > `new`: goes on with 2 keys of `old`, migrated from u64 -> u64 to u64 -> (u64, u64)",
        "  = `numbers`: goes on",
        "  + `more`: is new",
        "  - `gone`: is gone",
        "the job can start",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    drop(running);
    next.start().unwrap();
}

#[test]
fn a_plan_names_settings_that_changed() {
    let job = Job::new();
    job.run(|numbers| keep::<u64>(numbers, "t", count), &[1]).unwrap();
    let context = StreamingContext::builder("upgrades")
        .store(job.dir.path().join("store"))
        .partitions(9)
        .threads(1)
        .checkpoint_every_batches(7)
        .batch_interval(Duration::from_millis(250))
        .build()
        .unwrap();
    keep::<u64>(&context.queue_stream::<u64>("numbers").0, "t", count);
    let page = context.plan().unwrap().to_string();
    for line in [
        "  ~ batch_interval in ms: 1000 -> 250\n",
        "  ~ checkpoint_every_batches: 10 -> 7\n",
        "  ~ partitions: 4 -> 9\n",
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    assert!(!page.contains("threads"), "{page}");
}
