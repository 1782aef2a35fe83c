//! What a start refuses, and what it says then; what may change from run to run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/child.rs"]
mod child;
#[path = "support/driven.rs"]
mod driven;

use std::path::Path;
use std::sync::Arc;

use child::{child_dir, run_child_through};
use driven::{INTERVAL_MS, builder, tick};
use millpond::{Clock, ErrorKind, ManualClock, Result, RunningContext, StopMode, StreamingContext};

#[test]
fn misuse_is_refused_at_the_start_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let refused = |describe: &dyn Fn(&StreamingContext)| {
        let context = builder(dir.path(), &clock).build().unwrap();
        describe(&context);
        let error = context.start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidGraph);
        error.to_string()
    };
    assert!(refused(&|_| {}).contains("no input"));
    assert!(refused(&|context| drop(context.queue_stream::<u64>("a"))).contains("no output"));
    let twice = refused(&|context| {
        context.queue_stream::<u64>("a").0.print(1);
        context.queue_stream::<u64>("a").0.print(1);
    });
    assert!(twice.contains("two streams are called `a`"), "{twice}");
    assert!(!dir.path().join("store").exists(), "nothing was opened");
    let error = builder(dir.path(), &clock).threads(0).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[test]
fn state_is_matched_by_name_and_not_dropped_unless_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = |name: &str, allow: bool| {
        let context = builder(dir.path(), &clock).partitions(5).allow_dropping_state(allow).build().unwrap();
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        let _sums = numbers
            .map(|n| (n, n))
            .update_state_by_key(name, |_, seen: Option<u64>| Some(seen.unwrap_or(0) + 1));
        (context.start(), queue)
    };
    let len = |job: &RunningContext, name: &str| job.state::<u64, u64>(name).unwrap().len();
    let (job, queue) = start("old", false);
    let job = job.unwrap();
    queue.push([1, 2]).unwrap();
    tick(&job, &clock);
    job.stop(StopMode::Graceful).unwrap();
    drop(job);
    let error = start("new", false).0.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("`old`"), "{error}");
    let job = start("old", false).0.unwrap();
    assert_eq!(len(&job, "old"), 2);
    drop(job);
    let (job, queue) = start("new", true);
    let job = job.unwrap();
    queue.push([3]).unwrap();
    for _ in 0..4 {
        tick(&job, &clock);
    }
    job.stop(StopMode::Graceful).unwrap();
    drop(job);
    // State that was dropped does not come back with its name.
    let job = start("old", true).0.unwrap();
    assert_eq!(len(&job, "old"), 0);
}

fn start_printing(dir: &Path, clock: &Arc<ManualClock>) -> Result<RunningContext> {
    let context = builder(dir, clock).build()?;
    let (numbers, _queue) = context.queue_stream::<u64>("numbers");
    numbers.print(0);
    context.start()
}

#[test]
#[ignore = "the second process: the next test starts it"]
fn second_process() {
    let Some(dir) = child_dir() else { return };
    match start_printing(&dir, &ManualClock::at(0)) {
        Ok(_) => println!("it was let in"),
        Err(error) => println!("{:?}: {error}", error.kind()),
    }
}

#[test]
fn a_second_process_on_the_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let first = start_printing(dir.path(), &clock).unwrap();
    tick(&first, &clock);
    let said = run_child_through("second_process", "true", dir.path());
    assert!(said.contains("Locked: another process holds "), "{said}");
    assert_eq!(
        start_printing(dir.path(), &clock).unwrap_err().kind(),
        ErrorKind::Locked,
        "nor in this process"
    );
    tick(&first, &clock);
    drop(first);
    let said = run_child_through("second_process", "true", dir.path());
    assert!(said.contains("it was let in"), "{said}");
}

/// What a checkpoint says of the operators has to fit a record.
#[test]
fn a_job_with_more_state_than_a_checkpoint_can_name_is_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = |operators: usize| {
        let context = builder(dir.path(), &clock).checkpoint_every_batches(1).build().unwrap();
        let (numbers, _queue) = context.queue_stream::<u64>("numbers");
        let pairs = numbers.map(|n| (n, n));
        for operator in 0..operators {
            let name = format!("{operator} {}", "a long name ".repeat(20));
            let _ = pairs.update_state_by_key(&*name, |_, seen: Option<u64>| seen);
        }
        context.start()
    };
    let error = start(400).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidGraph);
    assert!(error.to_string().contains("the job keeps 400 states"), "{error}");
    assert!(!dir.path().join("store").exists(), "nothing was opened");
    let job = start(200).unwrap();
    tick(&job, &clock);
    job.stop(StopMode::Graceful).unwrap();
    assert!(job.progress().checkpoints > 0);
}

/// A clock that was set back between two runs does not stall the job: times go on from the last batch.
#[test]
fn a_clock_that_was_set_back_does_not_stall_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let start = |clock: &Arc<ManualClock>| {
        let context = builder(dir.path(), clock).build().unwrap();
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        numbers.print(0);
        (context.start().unwrap(), queue)
    };
    let clock = ManualClock::at(7_200_000);
    let (job, _queue) = start(&clock);
    tick(&job, &clock);
    drop(job);
    let back = ManualClock::at(500);
    let (job, _queue) = start(&back);
    tick(&job, &back);
    assert_eq!(job.progress().last_batch.unwrap().1.0, 7_202_000);
    assert_eq!(back.now_ms(), 1_500);
}

/// A stop from inside an output does not wait for itself, and what it leaves is whole.
#[test]
fn a_job_can_be_stopped_from_inside_an_output() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let running: Arc<std::sync::OnceLock<Arc<RunningContext>>> = Arc::default();
    let context = builder(dir.path(), &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let inside = running.clone();
    numbers.for_each_rdd(move |_, _| inside.get().map_or(Ok(()), |job| Ok(job.stop(StopMode::Graceful)?)));
    let job = Arc::new(context.start().unwrap());
    running.set(job.clone()).unwrap();
    queue.push([1]).unwrap();
    clock.advance(INTERVAL_MS);
    assert!(
        job.await_termination_or_timeout(std::time::Duration::from_secs(30)).unwrap(),
        "it waits for itself"
    );
}

/// Once a job says that it has stopped, its store is free, also while somebody still holds the job.
#[test]
fn a_store_is_free_as_soon_as_its_job_has_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let mut held = Vec::new();
    for _ in 0..10 {
        let context = builder(dir.path(), &clock).checkpoint_every_batches(1).build().unwrap();
        let (numbers, _queue) = context.queue_stream::<u64>("numbers");
        numbers.print(0);
        let job = context.start().unwrap();
        tick(&job, &clock);
        job.stop(StopMode::Now).unwrap();
        held.push(job);
    }
}

/// A batch that fails each time it is replayed does not pile up what each start writes.
#[test]
fn starts_that_come_to_nothing_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = |poison: u64| {
        let context = builder(dir.path(), &clock).task_attempts_max(1).build().unwrap();
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        let checked = numbers.map(move |n| {
            assert!(n != poison, "poison");
            (n, ())
        });
        let _seen = checked.update_state_by_key("seen", |_, _: Option<()>| Some(()));
        (context.start(), queue)
    };
    let (job, queue) = start(7);
    queue.push([7]).unwrap();
    clock.advance(driven::INTERVAL_MS);
    assert_eq!(job.unwrap().await_termination().unwrap_err().kind(), ErrorKind::UserCode);
    for _ in 0..12 {
        assert_eq!(start(7).0.unwrap_err().kind(), ErrorKind::UserCode);
    }
    let epochs = std::fs::read_dir(dir.path().join("store/epochs")).unwrap().count();
    assert!(epochs <= 3, "{epochs} epochs");
    let job = start(0).0.unwrap();
    assert_eq!(job.state::<u64, ()>("seen").unwrap().len(), 1);
}

/// Each checkpoint that is kept keeps its epoch. They are not what starts that come to nothing leave behind.
#[test]
fn a_start_takes_no_checkpoint_because_many_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = || {
        let context =
            builder(dir.path(), &clock).checkpoint_every_batches(1).checkpoints_retained(60).build().unwrap();
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        let _seen = numbers.map(|n| (n, ())).update_state_by_key("seen", |_, _: Option<()>| Some(()));
        (context.start().unwrap(), queue)
    };
    let (job, queue) = start();
    for number in 0..50 {
        queue.push([number]).unwrap();
        tick(&job, &clock);
    }
    job.stop(StopMode::Graceful).unwrap();
    drop(job);
    let epochs = std::fs::read_dir(dir.path().join("store/epochs")).unwrap().count();
    assert!(epochs > 5, "{epochs} epochs");
    let (job, _queue) = start();
    assert_eq!(job.state::<u64, ()>("seen").unwrap().len(), 50);
    job.stop(StopMode::Graceful).unwrap();
    assert_eq!(job.progress().checkpoints, 0);
}
