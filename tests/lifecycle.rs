//! The life of a job: what its listeners are told, who finds it, and how it stops. Ported by idea from Spark's
//! StreamingContextSuite and StreamingListenerSuite.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;
#[path = "support/recorder.rs"]
mod recorder;

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use driven::{INTERVAL_MS, builder, tick};
use millpond::{
    ActiveOrStarted, BatchCompleted, BatchSubmitted, BlockStore, ContextBuilder, ContextState, DStream,
    Emitter, Error, ErrorKind, JobHandle, ManualClock, Offer, Positions, Queue, RangeReader, Receiver,
    ReceiverError, ReplayableSource, Result, SourceRange, StopMode, StreamingContext, StreamingListener,
    StreamingStarted, StreamingStopped,
};
use recorder::Recorder;

/// A job of its own name, to be found by it.
fn named(name: &str, dir: &Path, clock: &Arc<ManualClock>) -> ContextBuilder {
    StreamingContext::builder(name)
        .store(dir.join("store"))
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(INTERVAL_MS))
        .threads(2)
        .stop_on_signals(false)
}

fn sums(context: &StreamingContext) -> Queue<u64> {
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let sums = numbers
        .map(|n| ((), n))
        .update_state_by_key("sum", |new, sum: Option<u64>| Some(sum.unwrap_or(0) + new.iter().sum::<u64>()));
    sums.for_each_rdd(|_, _| Ok(()));
    queue
}

fn sum(job: &JobHandle) -> Option<u64> {
    job.state::<(), u64>("sum").unwrap().get(&()).unwrap()
}

/// StreamingListenerSuite: what is told, in which order, with which figures; also of replayed batches.
#[test]
fn events_come_in_the_order_of_what_happens() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let recorder = Arc::new(Recorder::default());
    let start = || {
        let context = builder(dir.path(), &clock).listener(recorder.clone()).build().unwrap();
        let queue = sums(&context);
        (context.start().unwrap(), queue)
    };
    let (job, queue) = start();
    queue.push([1, 2, 3]).unwrap();
    tick(&job, &clock);
    tick(&job, &clock);
    drop(job);
    let first = [
        "started, 0 replayed",
        "batch 1 submitted with [\"numbers\"]",
        "batch 1 begins",
        "batch 1 output 3-for_each_rdd",
        "batch 1 output 3-for_each_rdd after 1",
        "batch 1 of 3 [(\"numbers\", 3)]",
        "batch 2 submitted with []",
        "batch 2 begins",
        "batch 2 output 3-for_each_rdd",
        "batch 2 output 3-for_each_rdd after 1",
        "batch 2 of 0 []",
        "stopped",
    ];
    assert_eq!(recorder.lines(), first);
    assert!(recorder.checkpoints().is_empty());
    recorder.clear();
    let (job, queue) = start();
    queue.push([4]).unwrap();
    job.stop(StopMode::Graceful).unwrap();
    let second = [
        "batch 1 submitted again with [\"numbers\"]",
        "batch 1 begins again",
        "batch 1 of 3 [(\"numbers\", 3)] again",
        "batch 2 submitted again with []",
        "batch 2 begins again",
        "batch 2 of 0 [] again",
        "started, 2 replayed",
        "batch 3 submitted with [\"numbers\"]",
        "batch 3 begins",
        "batch 3 output 3-for_each_rdd",
        "batch 3 output 3-for_each_rdd after 1",
        "batch 3 of 1 [(\"numbers\", 1)]",
        "stopped",
    ];
    assert_eq!(recorder.lines(), second);
    let checkpoints = recorder.checkpoints();
    let written: Vec<_> = checkpoints.iter().map(|written| (written.checkpoint.0, written.batch.0)).collect();
    assert_eq!(written, [(1, 2), (2, 3)]);
    assert!(checkpoints.iter().all(|written| written.bytes > 0));
}

/// StreamingListenerSuite: the scheduling delay is how late a batch begins, the missed intervals with it.
#[test]
fn the_scheduling_delay_counts_from_when_a_batch_was_due() {
    #[derive(Default)]
    struct Delays(Mutex<Vec<(u64, u64)>>);

    impl StreamingListener for Delays {
        fn batch_completed(&self, event: &BatchCompleted) {
            let delay_ms = event.scheduling_delay.as_millis() as u64;
            self.0.lock().unwrap().push((event.time.0, delay_ms));
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(300);
    let delays = Arc::new(Delays::default());
    let start = || {
        let context = builder(dir.path(), &clock).listener(delays.clone()).build().unwrap();
        let _queue = sums(&context);
        context.start().unwrap()
    };
    let job = start();
    clock.advance(700);
    while job.progress().batches < 1 {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
    }
    clock.advance(1_500);
    while job.progress().batches < 2 {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
    }
    assert_eq!(*delays.0.lock().unwrap(), [(1_000, 0), (2_000, 500)]);
    clock.advance(1_900);
    while job.progress().batches < 3 {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
    }
    job.stop(StopMode::Graceful).unwrap();
    // While it was down, nothing was late.
    clock.advance(50_000);
    let job = start();
    while job.progress().batches < 1 {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
    }
    assert_eq!(delays.0.lock().unwrap()[2..], [(4_000, 1_400), (54_000, 0)]);
}

/// StreamingListenerSuite, StreamingContextSuite: an output that fails is reported with its error, and the first
/// error is what ends the wait, how often one asks.
#[test]
fn a_failing_output_is_reported_and_ends_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let recorder = Arc::new(Recorder::default());
    let context =
        builder(dir.path(), &clock).listener(recorder.clone()).task_attempts_max(2).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    numbers.for_each_rdd(|_, _| Ok(()));
    numbers.for_each_rdd(|_, _| Err("the sink is away".into()));
    let job = context.start().unwrap();
    queue.push([1]).unwrap();
    clock.advance(INTERVAL_MS);
    for _ in 0..2 {
        let error = job.await_termination().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UserCode);
        assert!(error.to_string().contains("the sink is away"), "{error}");
    }
    assert_eq!(job.context_state(), ContextState::Stopped);
    assert_eq!(job.stop(StopMode::Graceful).unwrap_err().kind(), ErrorKind::UserCode);
    let expected = [
        "batch 1 output 1-for_each_rdd",
        "batch 1 output 1-for_each_rdd after 1",
        "batch 1 output 2-for_each_rdd",
        "batch 1 output 2-for_each_rdd after 2 failed: UserCode",
        // The records were never read: the outputs did not ask for them.
        "batch 1 of 0 [(\"numbers\", 0)] failed: UserCode",
        "stopped failed: UserCode",
    ];
    assert_eq!(recorder.lines()[3..], expected);
}

struct Broken;

impl ReplayableSource for Broken {
    type Item = u64;

    fn poll(&mut self, _: &Positions, _: u64, _: u64) -> Result<Offer> {
        Err(Error::new(ErrorKind::Source, "the source is away"))
    }

    fn reader(&self) -> Arc<dyn RangeReader<u64>> {
        Arc::new(Broken)
    }
}

impl RangeReader<u64> for Broken {
    fn read(&self, _: &SourceRange, _: &mut Emitter<'_, u64>) -> Result<u64> {
        Err(Error::new(ErrorKind::Source, "nothing was ever planned"))
    }
}

/// StreamingContextSuite: an error while a batch is generated, and one in a task, both surface.
#[test]
fn errors_of_planning_and_of_tasks_surface() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let recorder = Arc::new(Recorder::default());
    let context = builder(dir.path(), &clock).listener(recorder.clone()).build().unwrap();
    context.replayable_stream("broken", Broken).print(1);
    let job = context.start().unwrap();
    clock.advance(INTERVAL_MS);
    let error = job.await_termination().unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("the source is away")), (ErrorKind::Source, true));
    // Nothing was planned, so there was no batch.
    assert_eq!(recorder.lines(), ["started, 0 replayed", "stopped failed: Source"]);
    drop(job);

    let dir = tempfile::tempdir().unwrap();
    let context =
        builder(dir.path(), &clock).listener(recorder.clone()).task_attempts_max(1).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    numbers.map(|n| n / (n - 1)).print(10);
    let job = context.start().unwrap();
    queue.push([0, 1]).unwrap();
    clock.advance(INTERVAL_MS);
    let error = job.await_termination_or_timeout(Duration::from_secs(600)).unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("panicked")), (ErrorKind::UserCode, true));
    assert_eq!(recorder.lines().last().unwrap(), "stopped failed: UserCode");
}

/// StreamingListenerSuite: a receiver that fails is reported, and that it is started again; then that it ended.
#[test]
fn receivers_are_reported() {
    struct Flaky(u64);

    impl Receiver for Flaky {
        type Item = u64;

        async fn receive(&mut self, blocks: BlockStore<u64>) -> Result<(), ReceiverError> {
            self.0 += 1;
            match self.0 {
                1 => Err("first".into()),
                2 => Err("second".into()),
                _ => Ok(blocks.store(vec![self.0]).await?),
            }
        }
    }

    struct Endless;

    impl Receiver for Endless {
        type Item = u64;

        async fn receive(&mut self, _: BlockStore<u64>) -> Result<(), ReceiverError> {
            std::future::pending().await
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let recorder = Arc::new(Recorder::default());
    let context = builder(dir.path(), &clock).listener(recorder.clone()).build().unwrap();
    context.receiver_stream("endless", Endless).union(&context.receiver_stream("flaky", Flaky(0))).print(1);
    let job = context.start().unwrap();
    let stopped = "receiver flaky stopped: None".to_owned();
    while !recorder.lines().contains(&stopped) {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
    }
    job.stop(StopMode::Now).unwrap();
    let of = |stream: &str| -> Vec<String> {
        recorder.lines().into_iter().filter(|line| line.contains(stream)).collect()
    };
    let flaky = [
        "receiver flaky started",
        "receiver flaky failed: first, 100ms",
        "receiver flaky started",
        "receiver flaky failed: second, 200ms",
        "receiver flaky started",
        &stopped,
    ];
    assert_eq!(of("flaky"), flaky);
    assert_eq!(of("endless"), ["receiver endless started", "receiver endless stopped: None"]);
    assert_eq!(recorder.lines().last().unwrap(), "stopped");
}

/// A listener that panics disturbs neither the job nor the listeners after it; one added twice is told twice.
#[test]
fn a_listener_that_panics_is_passed_over() {
    struct Panics(AtomicU32);

    impl StreamingListener for Panics {
        fn streaming_started(&self, _: &StreamingStarted) {
            panic!("started");
        }

        fn batch_submitted(&self, _: &BatchSubmitted) {
            panic!("submitted");
        }

        fn batch_completed(&self, _: &BatchCompleted) {
            self.0.fetch_add(1, Ordering::SeqCst);
            panic!("completed");
        }

        fn streaming_stopped(&self, _: &StreamingStopped) {
            panic!("stopped");
        }
    }

    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let (panics, recorder) = (Arc::new(Panics(AtomicU32::new(0))), Arc::new(Recorder::default()));
    let context = builder(dir.path(), &clock)
        .listener(panics.clone())
        .listener(recorder.clone())
        .listener(panics.clone())
        .listener(recorder.clone())
        .build()
        .unwrap();
    let queue = sums(&context);
    let job = context.start().unwrap();
    queue.push([1, 2]).unwrap();
    tick(&job, &clock);
    tick(&job, &clock);
    job.stop(StopMode::Graceful).unwrap();
    assert_eq!(sum(&job), Some(3));
    assert_eq!(panics.0.load(Ordering::SeqCst), 4);
    let lines = recorder.lines();
    assert!(lines.chunks(2).all(|pair| pair[0] == pair[1]), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "stopped");
}

/// StreamingContextSuite: a stop from a listener must not deadlock, whichever event it is called from.
#[test]
fn a_listener_may_stop_the_job() {
    struct Stops(&'static str, Option<Duration>);

    impl Stops {
        fn stop(&self, event: &str) {
            if event != self.0 {
                return;
            }
            let job = StreamingContext::get_active("stopped-by-listener").unwrap();
            match self.1 {
                None => job.stop(StopMode::Graceful).unwrap(),
                Some(timeout) => job.stop_gracefully_within(timeout).unwrap(),
            }
            assert_eq!(job.context_state(), ContextState::Stopping);
        }
    }

    impl StreamingListener for Stops {
        fn streaming_started(&self, _: &StreamingStarted) {
            self.stop("streaming_started");
        }

        fn batch_submitted(&self, _: &BatchSubmitted) {
            self.stop("batch_submitted");
        }

        fn batch_completed(&self, _: &BatchCompleted) {
            self.stop("batch_completed");
        }

        fn streaming_stopped(&self, _: &StreamingStopped) {
            self.stop("streaming_stopped");
        }
    }

    for (event, timeout) in [
        ("streaming_started", None),
        ("batch_submitted", None),
        ("batch_completed", Some(Duration::from_secs(600))),
        ("batch_completed", Some(Duration::ZERO)),
        ("streaming_stopped", None),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let clock = ManualClock::at(0);
        let listener = Arc::new(Stops(event, timeout));
        let builder = named("stopped-by-listener", dir.path(), &clock).listener(listener);
        let context = builder.build().unwrap();
        let _queue = sums(&context);
        let job = context.start().unwrap();
        clock.advance(INTERVAL_MS);
        if event == "streaming_stopped" {
            job.stop(StopMode::Now).unwrap();
        }
        job.await_termination().unwrap();
        assert_eq!(job.context_state(), ContextState::Stopped);
        assert!(StreamingContext::get_active("stopped-by-listener").is_none());
    }
}

/// StreamingContextSuite: states, getActive, getActiveOrCreate, a stop more than once.
#[test]
fn an_active_job_is_found_and_a_stopped_one_is_not() {
    const NAME: &str = "found-by-name";
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let queue: OnceLock<Queue<u64>> = OnceLock::new();
    let get = || {
        StreamingContext::get_or_create(named(NAME, dir.path(), &clock), |context| {
            queue.set(sums(context)).map_err(|_| Error::new(ErrorKind::InvalidGraph, "described twice"))
        })
    };
    assert!(StreamingContext::get_active(NAME).is_none());
    let ActiveOrStarted::Started(job) = get().unwrap() else { panic!("nothing was active") };
    let ActiveOrStarted::Active(found) = get().unwrap() else { panic!("it is active") };
    assert_eq!(found.context_state(), ContextState::Active);
    assert!(found.recovery().fresh);
    queue.get().unwrap().push([2, 3]).unwrap();
    tick(&job, &clock);
    assert_eq!((sum(&found), found.progress().batches), (Some(5), 1));

    // The same store in the same process, under any name, is taken.
    let second = named(NAME, dir.path(), &clock).build().unwrap();
    let _queue = sums(&second);
    assert_eq!(second.start().unwrap_err().kind(), ErrorKind::Locked);
    assert_eq!(StreamingContext::get_active(NAME).unwrap().progress().batches, 1);

    found.stop(StopMode::Graceful).unwrap();
    for mode in [StopMode::Graceful, StopMode::Now] {
        job.stop(mode).unwrap();
        job.stop_gracefully_within(Duration::ZERO).unwrap();
    }
    assert_eq!((job.context_state(), found.context_state()), (ContextState::Stopped, ContextState::Stopped));
    assert!(StreamingContext::get_active(NAME).is_none());
    drop(job);
    // The handle still shows what the job left.
    assert_eq!(sum(&found), Some(5));

    // Nothing of the name is active: it is created again, and recovers.
    let again = StreamingContext::get_or_create(named(NAME, dir.path(), &clock), |context| {
        let _queue = sums(context);
        Ok(())
    });
    let again = again.unwrap();
    assert!(!again.recovery().fresh);
    assert_eq!(sum(&again), Some(5));
    let refused = StreamingContext::get_or_create(named("refused", dir.path(), &clock), |_| {
        Err(Error::new(ErrorKind::InvalidGraph, "not today"))
    });
    assert_eq!(refused.unwrap_err().to_string(), "not today");
}

/// A graceful stop that takes too long stops at once, and what it did not process is at the next start.
#[test]
fn a_graceful_stop_with_a_limit_gives_up_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let start = |stuck: bool, entered: &Arc<AtomicBool>| {
        let context = builder(dir.path(), &clock).build().unwrap();
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        let entered = entered.clone();
        numbers.for_each_rdd(move |rdd, _| {
            entered.store(true, Ordering::SeqCst);
            // Stuck until the job is told to stop at once: then no task begins any more.
            if stuck {
                loop {
                    rdd.count()?;
                }
            }
            Ok(())
        });
        let _sum = numbers.map(|n| ((), n)).update_state_by_key("sum", |new, sum: Option<u64>| {
            Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
        });
        (context.start().unwrap(), queue)
    };
    let entered = Arc::new(AtomicBool::new(false));
    let (job, queue) = start(true, &entered);
    queue.push([1, 2]).unwrap();
    clock.advance(INTERVAL_MS);
    while !entered.load(Ordering::SeqCst) {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
    }
    queue.push([40]).unwrap();
    job.stop_gracefully_within(Duration::from_millis(1)).unwrap();
    drop(job);
    let (job, _queue) = start(false, &entered);
    let recovery = job.recovery();
    assert_eq!((recovery.emitted.len(), recovery.pending_blocks), (1, 1));
    job.stop_gracefully_within(Duration::from_secs(600)).unwrap();
    assert_eq!(sum(&job), Some(43));
}

/// A checkpoint that cannot be written is reported, and ends the job.
#[cfg(feature = "testkit")]
#[test]
fn a_checkpoint_that_fails_is_reported() {
    #[derive(Default)]
    struct Checkpoints {
        written: AtomicU32,
        failed: Mutex<Vec<(u64, ErrorKind)>>,
    }

    impl StreamingListener for Checkpoints {
        fn checkpoint_written(&self, _: &millpond::CheckpointWritten) {
            self.written.fetch_add(1, Ordering::SeqCst);
        }

        fn checkpoint_failed(&self, event: &millpond::CheckpointFailed) {
            self.failed.lock().unwrap().push((event.batch.0, event.error.kind));
        }
    }

    let clock = ManualClock::at(0);
    let (mut failed, mut written) = (0, 0);
    for step in 1..200 {
        let dir = tempfile::tempdir().unwrap();
        let faults = millpond::testkit::FaultPlan::crash_at(step);
        let checkpoints = Arc::new(Checkpoints::default());
        let context =
            builder(dir.path(), &clock).listener(checkpoints.clone()).faults(faults.clone()).build().unwrap();
        let queue = sums(&context);
        let Ok(job) = context.start() else { continue };
        let outcome = queue.push([1]).and_then(|()| job.stop(StopMode::Graceful));
        let reported = checkpoints.failed.lock().unwrap().clone();
        written += checkpoints.written.load(Ordering::SeqCst);
        if !faults.has_crashed() {
            outcome.unwrap();
            assert!(reported.is_empty());
            break;
        }
        if let [(batch, kind)] = reported[..] {
            assert_eq!((batch, kind, outcome.unwrap_err().kind()), (1, ErrorKind::Io, ErrorKind::Io));
            failed += 1;
        }
    }
    assert!(failed > 3 && written == 1, "{failed} failed, {written} written");
}

#[test]
fn an_operation_on_a_started_job_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let context = builder(dir.path(), &ManualClock::at(0)).build().unwrap();
    let (numbers, _queue) = context.queue_stream::<u64>("numbers");
    numbers.print(0);
    let job = context.start().unwrap();
    let print = |numbers: &DStream<u64>| numbers.print(1);
    let map = |numbers: &DStream<u64>| drop(numbers.map(|n| n + 1));
    for add in [print, map] {
        let added = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| add(&numbers)));
        let message = *added.unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains("describe all of a job before its start"), "{message}");
    }
    job.stop(StopMode::Graceful).unwrap();
}
