//! Stateful operators with timers, timeouts and a time to live, batch by batch and over restarts.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driven::{INTERVAL_MS, builder, tick};
use millpond::{
    DStream, ManualClock, Queue, Record, RunningContext, State, StateSpec, StopMode, StreamingContext, Timer,
};

type Pairs = Vec<(String, i64)>;

/// What each batch emitted.
type Emitted<U> = Arc<Mutex<Vec<Vec<U>>>>;

fn collect<U: Record>(stream: &DStream<U>) -> Emitted<U> {
    let emitted: Emitted<U> = Arc::default();
    let sink = emitted.clone();
    stream.for_each_rdd(move |rdd, _| {
        sink.lock().unwrap().push(rdd.collect()?);
        Ok(())
    });
    emitted
}

/// Runs a job over batches of words, started anew before each batch whose number `restarts` says yes to.
fn run<U: Record>(
    dir: &Path,
    batches: &[&str],
    restarts: impl Fn(usize) -> bool,
    describe: impl Fn(&DStream<(String, i64)>) -> DStream<U>,
    at_end: impl FnOnce(&RunningContext),
) -> Vec<Vec<U>> {
    let clock = ManualClock::at(0);
    let start = || -> (RunningContext, Queue<(String, i64)>, Emitted<U>) {
        let context: StreamingContext = builder(dir, &clock).build().unwrap();
        let (pairs, queue) = context.queue_stream::<(String, i64)>("pairs");
        let emitted = collect(&describe(&pairs));
        (context.start().unwrap(), queue, emitted)
    };
    let mut all = Vec::new();
    let (mut job, mut queue, mut emitted) = start();
    for (at, words) in batches.iter().enumerate() {
        if restarts(at) {
            // At once: everything since the last checkpoint is replayed.
            drop(job);
            (job, queue, emitted) = start();
        }
        let pairs: Pairs = words.split_whitespace().map(|word| (word.to_owned(), 1)).collect();
        if !pairs.is_empty() {
            queue.push(pairs).unwrap();
        }
        tick(&job, &clock);
        all.append(&mut emitted.lock().unwrap());
    }
    at_end(&job);
    job.stop(StopMode::Graceful).unwrap();
    all
}

/// The same with no restart, with one before every batch, and with one before every third.
fn run_all<U: Record + PartialEq + std::fmt::Debug>(
    batches: &[&str],
    describe: impl Fn(&DStream<(String, i64)>) -> DStream<U>,
    at_end: impl Fn(&RunningContext),
) -> Vec<Vec<U>> {
    let run_with = |restarts: &dyn Fn(usize) -> bool| {
        let dir = tempfile::tempdir().unwrap();
        run(dir.path(), batches, restarts, &describe, &at_end)
    };
    let expected = run_with(&|_| false);
    assert_eq!(run_with(&|_| true), expected, "with a restart before each batch");
    assert_eq!(run_with(&|at| at % 3 == 2), expected, "with a restart before every third batch");
    expected
}

fn counting(spec: StateSpec) -> impl Fn(&DStream<(String, i64)>) -> DStream<String> {
    move |pairs| {
        let mapped = pairs.map_with_state(spec.clone(), |key, value: Option<i64>, state| match value {
            Some(value) => {
                let count = state.get().copied().unwrap_or(0i64) + value;
                state.update(count);
                Some(format!("{key}{count}"))
            }
            None => {
                assert!(state.is_timing_out());
                Some(format!("-{key}{}", state.get().unwrap()))
            }
        });
        (*mapped).clone()
    }
}

fn sorted(mut batches: Vec<Vec<String>>) -> Vec<String> {
    batches.iter_mut().for_each(|batch| batch.sort());
    batches.into_iter().map(|batch| batch.join(" ")).collect()
}

#[test]
fn each_record_is_mapped_with_the_state_of_its_key() {
    let batches = ["a", "a b a", "", "c b a"];
    let emitted = run_all(&batches, counting(StateSpec::named("counts")), |job| {
        assert_eq!(job.state::<String, i64>("counts").unwrap().len(), 3);
        assert_eq!(job.state::<String, i64>("counts").unwrap().get(&"a".to_owned()).unwrap(), Some(4));
    });
    assert_eq!(sorted(emitted), ["a1", "a2 a3 b1", "", "a4 b2 c1"]);
}

#[test]
fn a_timeout_fires_once_exactly_in_its_batch() {
    let spec = StateSpec::named("counts").timeout(Duration::from_millis(3 * INTERVAL_MS));
    let batches = ["a b", "b", "", "", "b", "a", "", "", "", "", ""];
    let emitted = run_all(&batches, counting(spec), |job| {
        assert!(job.state::<String, i64>("counts").unwrap().is_empty(), "a husk was left");
    });
    // `a` at 1 times out at 4; `b` at 2 would at 5, where it has a value; then at 8; `a` at 6, at 9.
    assert_eq!(sorted(emitted), ["a1 b1", "b2", "", "-a1", "b3", "a1", "", "-b3", "-a1", "", ""]);
}

#[test]
fn a_timeout_that_passed_while_the_job_was_down_fires_in_the_next_batch() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = || {
        let context = builder(dir.path(), &clock).build().unwrap();
        let (pairs, queue) = context.queue_stream::<(String, i64)>("pairs");
        let spec = StateSpec::named("counts").timeout(Duration::from_millis(3 * INTERVAL_MS));
        let emitted = collect(&counting(spec)(&pairs));
        (context.start().unwrap(), queue, emitted)
    };
    let (job, queue, _) = start();
    queue.push([("a".to_owned(), 1)]).unwrap();
    tick(&job, &clock);
    drop(job);
    clock.advance(100 * INTERVAL_MS);
    let (job, _, emitted) = start();
    tick(&job, &clock);
    tick(&job, &clock);
    let emitted: Vec<String> = emitted.lock().unwrap().iter().flatten().cloned().collect();
    assert_eq!(emitted, ["-a1"]);
}

#[test]
fn a_removed_key_starts_anew() {
    let describe = |pairs: &DStream<(String, i64)>| {
        let mapped = pairs.map_with_state("counts", |key, _, state| {
            let count = state.get().copied().unwrap_or(0i64) + 1;
            if count == 2 {
                state.remove()
            } else {
                state.update(count)
            }
            Some(format!("{key}{count}{}", state.exists()))
        });
        (*mapped).clone()
    };
    let emitted = run_all(&["a a a", "a", "a b"], describe, |job| {
        assert_eq!(job.state::<String, i64>("counts").unwrap().len(), 2);
    });
    assert_eq!(sorted(emitted), ["a1true a1true a2false", "a2false", "a1true b1true"]);
}

/// What a state says of itself before and after each change, the idea of Spark's `MapWithStateSuite`.
#[test]
fn a_state_says_what_was_done_to_it() {
    let describe = |pairs: &DStream<(String, i64)>| {
        let mapped = pairs.map_with_state("states", |_, _, state| {
            let mut told = Vec::new();
            let mut tell = |state: &State<'_, i64>| {
                assert_eq!(state.exists(), state.get().is_some());
                assert!(!state.is_timing_out());
                told.push(format!("{:?}", state.get()));
            };
            tell(state);
            state.update(1);
            tell(state);
            state.update(2);
            tell(state);
            state.remove();
            tell(state);
            state.remove();
            tell(state);
            state.update(3);
            tell(state);
            Some(format!("{}@{}", told.join(","), state.batch_time().0 / INTERVAL_MS))
        });
        (*mapped).clone()
    };
    let emitted = run_all(&["a", "", "a"], describe, |job| {
        assert_eq!(job.state::<String, i64>("states").unwrap().get(&"a".to_owned()).unwrap(), Some(3));
    });
    let changes = "Some(1),Some(2),None,None,Some(3)";
    assert_eq!(sorted(emitted), [format!("None,{changes}@1"), String::new(), format!("Some(3),{changes}@3")]);
}

/// A key that is timing out is gone whatever its function wants; one that is brought back stops the job, and the
/// state stays as it was.
#[test]
fn a_state_that_is_timing_out_can_be_removed_and_not_updated() {
    for updates in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(0);
        let context = builder(dir.path(), &clock).build().unwrap();
        let (pairs, queue) = context.queue_stream::<(String, i64)>("pairs");
        let spec = StateSpec::named("sums").timeout(Duration::from_millis(INTERVAL_MS));
        let sums = pairs.map_with_state(spec, move |_, value: Option<i64>, state| {
            match value {
                Some(value) => state.update(value),
                None if updates => state.update(0),
                None => state.remove(),
            }
            value
        });
        let emitted = collect(&sums);
        let job = context.start().unwrap();
        queue.push([("a".to_owned(), 7)]).unwrap();
        tick(&job, &clock);
        let view = job.state::<String, i64>("sums").unwrap();
        if updates {
            clock.advance(INTERVAL_MS);
            let error = job.await_termination().unwrap_err().chain().to_string();
            assert!(error.contains("the state of a key that is timing out cannot be updated"), "{error}");
            assert_eq!(view.get(&"a".to_owned()).unwrap(), Some(7));
        } else {
            tick(&job, &clock);
            assert!(view.is_empty());
            assert_eq!(*emitted.lock().unwrap(), [vec![7], vec![]]);
        }
    }
}

#[test]
fn snapshots_hold_every_key_in_every_batch() {
    let describe = |pairs: &DStream<(String, i64)>| {
        let counts = pairs.map_with_state("counts", |_, value: Option<i64>, state| {
            state.update(state.get().copied().unwrap_or(0) + value.unwrap_or(0));
            None::<()>
        });
        counts.state_snapshots().map(|(key, count)| format!("{key}{count}"))
    };
    let emitted = run_all(&["a b", "", "a", "c"], describe, |_| {});
    assert_eq!(sorted(emitted), ["a1 b1", "a1 b1", "a2 b1", "a2 b1 c1"]);
}

#[test]
fn a_kept_snapshot_does_not_change_with_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (pairs, queue) = context.queue_stream::<(String, i64)>("pairs");
    let counts = pairs.map_with_state("counts", |_, value: Option<i64>, state| {
        state.update(state.get().copied().unwrap_or(0) + value.unwrap_or(0));
        None::<()>
    });
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = kept.clone();
    counts.state_snapshots().for_each_rdd(move |rdd, _| {
        keep.lock().unwrap().push(rdd);
        Ok(())
    });
    let job = context.start().unwrap();
    for _ in 0..3 {
        queue.push([("a".to_owned(), 1)]).unwrap();
        tick(&job, &clock);
    }
    let kept: Vec<_> = kept.lock().unwrap().iter().map(|rdd| rdd.collect().unwrap()).collect();
    let row = |count| vec![("a".to_owned(), count)];
    assert_eq!(kept, [row(1), row(2), row(3)]);
}

#[test]
fn initial_state_counts_only_where_there_is_none() {
    let initial = [("a".to_owned(), 10i64), ("z".to_owned(), 5)];
    let spec = StateSpec::named("counts")
        .timeout(Duration::from_millis(2 * INTERVAL_MS))
        .initial_state(initial.clone());
    let emitted = run_all(&["a", "a b", "", ""], counting(spec), |_| {});
    assert_eq!(sorted(emitted), ["a11", "a12 b1", "-z5", "-a12 -b1"]);

    let update = move |pairs: &DStream<(String, i64)>| {
        let spec = StateSpec::named("sums").initial_state(initial.clone());
        pairs
            .update_state_by_key(spec, |new: &[i64], sum: Option<i64>| {
                Some(sum.unwrap_or(0) + new.iter().sum::<i64>())
            })
            .map(|(key, sum)| format!("{key}{sum}"))
    };
    let emitted = run_all(&["a", "a b", "z"], update, |job| {
        assert_eq!(job.state::<String, i64>("sums").unwrap().len(), 3);
    });
    assert_eq!(sorted(emitted), ["a11", "a12 b1", "z6"]);
}

#[test]
fn a_time_to_live_forgets_without_a_word() {
    let spec = || StateSpec::named("counts").time_to_live(Duration::from_millis(2 * INTERVAL_MS));
    let batches = ["a b", "b", "a", "b", "", "a", "", ""];
    let emitted = run_all(&batches, counting(spec()), |job| {
        assert!(job.state::<String, i64>("counts").unwrap().is_empty(), "a husk was left");
    });
    assert_eq!(sorted(emitted), ["a1 b1", "b2", "a1", "b1", "", "a1", "", ""]);

    let update = move |pairs: &DStream<(String, i64)>| {
        pairs
            .update_state_by_key(spec(), |new: &[i64], sum: Option<i64>| {
                Some(sum.unwrap_or(0) + new.iter().sum::<i64>())
            })
            .map(|(key, sum)| format!("{key}{sum}"))
    };
    let emitted = run_all(&batches, update, |job| {
        assert!(job.state::<String, i64>("counts").unwrap().is_empty(), "a husk was left");
    });
    assert_eq!(sorted(emitted), ["a1 b1", "b2", "a1", "b1", "", "a1", "", ""]);
}

#[test]
fn timers_come_once_and_can_be_set_again_moved_and_deleted() {
    // A value n > 0 sets a timer n batches ahead, 0 deletes all, and a timer that comes tells and, the first
    // time, sets itself once more.
    let describe = |pairs: &DStream<(String, i64)>| {
        pairs.transform_with_state("timers", |key, values: &[i64]| {
            let now = key.batch_time().0;
            let mut fired = key.take().unwrap_or(0u32);
            for timer in key.due().to_vec() {
                assert!(matches!(timer, Timer::ProcessingTime(time) if time <= now), "{timer:?} at {now}");
                fired += 1;
                key.emit(format!("{}@{}", key.key(), now / INTERVAL_MS));
                if fired == 1 {
                    key.set_timer(Timer::ProcessingTime(now + INTERVAL_MS));
                }
            }
            if values.len() > 1 {
                (1..20).for_each(|n| key.delete_timer(Timer::ProcessingTime(n * INTERVAL_MS)));
                return;
            }
            if !values.is_empty() {
                key.set_timer(Timer::ProcessingTime(now + 2 * INTERVAL_MS));
            }
            if fired < 2 {
                key.update(fired);
            }
        })
    };
    let batches = ["a b", "c", "b b", "", "", "c", "", "", ""];
    let emitted = run_all(&batches, describe, |job| {
        assert_eq!(job.progress().last_batch.unwrap().0.0, 9);
    });
    // a: set at 1 for 3, comes at 3 and again at 4. b: deleted at 3, where it is due all the same. c: set at 2
    // for 4, comes at 4 and 5; a new one at 6 for 8, and 9.
    assert_eq!(sorted(emitted), ["", "", "a@3 b@3", "a@4 c@4", "c@5", "", "", "c@8", "c@9"]);
}

#[test]
fn misuse_is_refused_at_start_and_says_what_to_change() {
    let refused = |describe: &dyn Fn(&DStream<(String, i64)>)| {
        let dir = tempfile::tempdir().unwrap();
        let context = builder(dir.path(), &ManualClock::at(0)).build().unwrap();
        let (pairs, _queue) = context.queue_stream::<(String, i64)>("pairs");
        describe(&pairs);
        context.start().expect_err("misuse is refused").to_string()
    };
    let count = |new: &[i64], count: Option<u64>| Some(count.unwrap_or(0) + new.len() as u64);
    let error = refused(&|pairs| {
        let spec = StateSpec::named("counts").initial_state([(1u8, 1u64)]);
        let _ = pairs.update_state_by_key(spec, count);
    });
    assert!(error.contains("`counts` is u8 -> u64, its state is utf8 -> u64"), "{error}");
    let error = refused(&|pairs| {
        let spec = StateSpec::named("counts").timeout(Duration::from_secs(1));
        let _ = pairs.update_state_by_key(spec, count);
    });
    assert!(error.contains("use time_to_live, or map_with_state"), "{error}");
}
