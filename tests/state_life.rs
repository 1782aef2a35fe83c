//! State at the edges: operators that come back, states that begin before their first batch, lives that end
//! without values, operators after windows, and stops from within.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driven::{INTERVAL_MS, builder, tick};
use millpond::{DStream, ManualClock, RunningContext, StateSpec, StopMode, StreamingContext, Timer};

fn intervals(count: u64) -> Duration {
    Duration::from_millis(count * INTERVAL_MS)
}

/// Runs a job for some batches, the first of which has `words`, and returns the state `name`, if asked for.
fn run(
    dir: &Path,
    clock: &Arc<ManualClock>,
    batches: usize,
    words: &[String],
    describe: impl Fn(&DStream<(String, i64)>),
    name: Option<&str>,
) -> Vec<(String, i64)> {
    let context = builder(dir, clock).allow_dropping_state(true).build().unwrap();
    let (pairs, queue) = context.queue_stream::<(String, i64)>("pairs");
    describe(&pairs);
    let job = context.start().unwrap();
    if !words.is_empty() {
        queue.push(words.iter().map(|word| (word.clone(), 1)).collect::<Vec<_>>()).unwrap();
    }
    (0..batches).for_each(|_| tick(&job, clock));
    let rows = name.map_or_else(Vec::new, |name| rows(&job, name));
    job.stop(StopMode::Graceful).unwrap();
    rows
}

fn rows(job: &RunningContext, name: &str) -> Vec<(String, i64)> {
    let view = job.state::<String, i64>(name).unwrap();
    let mut rows = Vec::new();
    view.for_each(|key, value| rows.push((key, value))).unwrap();
    assert_eq!(view.len(), rows.len() as u64, "a key without a state is left");
    rows.sort();
    rows
}

fn count(new: &[i64], before: Option<i64>) -> Option<i64> {
    Some(before.unwrap_or(0) + new.len() as i64)
}

#[test]
fn the_state_of_a_dropped_operator_does_not_come_back_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let words: Vec<String> = (0..20).map(|n| format!("w{n}")).collect();
    let both = |pairs: &DStream<(String, i64)>| {
        let _ = pairs.update_state_by_key("kept", count);
        let _ = pairs.update_state_by_key("dropped", count);
    };
    let one = |pairs: &DStream<(String, i64)>| drop(pairs.update_state_by_key("kept", count));
    assert_eq!(run(dir.path(), &clock, 1, &words, both, Some("dropped")).len(), 20);
    run(dir.path(), &clock, 1, &words[..1], one, None);
    let anew = [("w1".to_owned(), 1)];
    assert_eq!(run(dir.path(), &clock, 1, &words[1..2], both, Some("dropped")), anew);
    assert_eq!(run(dir.path(), &clock, 1, &[], both, Some("dropped")), anew);
    assert_eq!(run(dir.path(), &clock, 4, &[], both, Some("dropped")), anew);
    assert_eq!(run(dir.path(), &clock, 0, &[], both, Some("kept")).len(), 20);
}

#[test]
fn an_initial_state_survives_a_checkpoint_before_the_first_slide() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let describe = |pairs: &DStream<(String, i64)>| {
        let spec = StateSpec::named("counts").initial_state([("a".to_owned(), 10i64)]);
        let window = pairs.window("window", intervals(5), intervals(5));
        let _ = window.map_with_state(spec, |_, value: Option<i64>, state| {
            state.update(state.get().unwrap_or(&0) + value.unwrap_or(0));
            None::<()>
        });
    };
    let initial = [("a".to_owned(), 10)];
    assert_eq!(run(dir.path(), &clock, 2, &[], describe, Some("counts")), initial);
    assert_eq!(run(dir.path(), &clock, 5, &[], describe, Some("counts")), initial);
}

#[test]
fn an_initial_state_that_gets_no_values_has_a_time_to_live() {
    let spec = || {
        let initial = [("a".to_owned(), 10i64), ("b".to_owned(), 5)];
        StateSpec::named("counts").initial_state(initial).time_to_live(intervals(2))
    };
    let describe = |pairs: &DStream<(String, i64)>| drop(pairs.update_state_by_key(spec(), count));
    for (batches, left) in [(2, 2), (3, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let rows = run(dir.path(), &ManualClock::at(0), batches, &[], describe, Some("counts"));
        assert_eq!(rows.len(), left, "after {batches} batches");
    }
}

#[test]
fn a_state_that_a_timer_brought_has_a_time_to_live() {
    let dir = tempfile::tempdir().unwrap();
    let describe = |pairs: &DStream<(String, i64)>| {
        let spec = StateSpec::named("counts").time_to_live(intervals(2));
        let _ = pairs.transform_with_state(spec, |key, values: &[i64]| {
            if values.is_empty() {
                key.update(1i64);
                key.emit(());
            } else {
                key.set_timer(Timer::ProcessingTime(key.batch_time().0 + INTERVAL_MS));
            }
        });
    };
    let clock = ManualClock::at(0);
    assert_eq!(run(dir.path(), &clock, 2, &["a".to_owned()], describe, Some("counts")).len(), 1);
    assert_eq!(run(dir.path(), &clock, 2, &[], describe, Some("counts")).len(), 0);
}

#[test]
fn a_key_that_timed_out_leaves_no_end_of_its_time_to_live() {
    let dir = tempfile::tempdir().unwrap();
    let describe = |pairs: &DStream<(String, i64)>| {
        let spec = StateSpec::named("counts").time_to_live(intervals(100)).timeout(intervals(2));
        let _ = pairs.map_with_state(spec, |_, value: Option<i64>, state| {
            value.into_iter().for_each(|value| state.update(value));
            None::<()>
        });
    };
    assert_eq!(run(dir.path(), &ManualClock::at(0), 4, &["a".to_owned()], describe, Some("counts")), []);
}

#[test]
fn what_is_tried_on_a_window_slides_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let times: Arc<Mutex<Vec<u64>>> = Arc::default();
    let describe = |pairs: &DStream<(String, i64)>| {
        let window = pairs.window("window", intervals(4), intervals(4));
        let tried = window.try_map(|(key, n)| if n > 0 { Ok((key, n)) } else { Err("not positive") });
        let joined = tried.or_skip("skipped").join(&tried.or_dead_letters().0);
        let sink = times.clone();
        joined.for_each_rdd(move |_, info| {
            sink.lock().unwrap().push(info.time.0 / INTERVAL_MS);
            Ok(())
        });
    };
    run(dir.path(), &clock, 9, &["a".to_owned()], describe, None);
    assert_eq!(*times.lock().unwrap(), [4, 8]);
}

#[test]
fn a_task_that_stops_its_job_does_not_wait_for_itself() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    // A name of its own: the tests of this file run side by side.
    let context = StreamingContext::builder("stopped-by-a-task")
        .store(dir.path().join("store"))
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(INTERVAL_MS))
        .stop_on_signals(false)
        .build()
        .unwrap();
    let (pairs, queue) = context.queue_stream::<(String, i64)>("pairs");
    pairs.for_each_rdd(|rdd, info| {
        let name = info.job.clone();
        rdd.for_each(move |_| {
            let job = StreamingContext::get_active(&name).expect("the job runs");
            job.stop(StopMode::Graceful)
        })?;
        Ok(())
    });
    let job = context.start().unwrap();
    queue.push(vec![("a".to_owned(), 1)]).unwrap();
    clock.advance(INTERVAL_MS);
    let ended = job.await_termination_or_timeout(Duration::from_secs(60)).unwrap();
    if !ended {
        // Dropping it would wait for the task too.
        std::mem::forget(job);
        panic!("the job waits for itself");
    }
}
