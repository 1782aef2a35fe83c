//! What shared variables, sinks, receivers and stops do to one another.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use millpond::testkit::FaultPlan;
use millpond::{
    BatchInfo, Begin, BlockStore, Clock, ErrorKind, FnSink, JobHandle, ManualClock, OutputError, Receiver,
    ReceiverError, RunningContext, Sink, SinkId, StopMode, StreamingContext,
};
use support::through::{builder, run_to, some_chunks};
use support::{Chunk, ScriptedSource};

/// What a transactional sink has committed; it outlives the job.
#[derive(Clone, Default)]
struct Committed(Arc<Mutex<BTreeSet<u64>>>);

impl Sink<(u16, i64)> for Committed {
    type Staged = ();

    fn begin(&self, batch: &BatchInfo) -> Result<Begin, OutputError> {
        Ok(if self.0.lock().unwrap().contains(&batch.batch.0) { Begin::Skip } else { Begin::Write })
    }

    fn write(&self, _: &SinkId, _: Vec<(u16, i64)>) -> Result<(), OutputError> {
        Ok(())
    }

    fn commit(&self, batch: &BatchInfo, _: Vec<()>) -> Result<(), OutputError> {
        self.0.lock().unwrap().insert(batch.batch.0);
        Ok(())
    }
}

/// Counts the records that reach a transactional sink, through crashes at the given steps.
fn counted_through(chunks: &Arc<Vec<Chunk>>, plans: &[Arc<FaultPlan>]) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let sink = Committed::default();
    let mut plans = plans.iter().cloned();
    loop {
        let faults = plans.next().unwrap_or_else(FaultPlan::never);
        let context = builder(dir.path(), &clock).faults(faults.clone()).build().unwrap();
        let count = context.accumulator("count", 0u64, |a, b| a + b);
        let source = ScriptedSource { chunks: chunks.clone(), ranges: 2, flaky: false };
        let adds = count.clone();
        let counted = context.replayable_stream("script", source).map(move |row| {
            adds.add(1);
            row
        });
        counted.write_to("rows", sink.clone());
        let Ok(job) = context.start() else {
            assert!(faults.has_crashed(), "a start failed without a crash");
            continue;
        };
        if run_to(&job, &clock, chunks.len() as u64) && job.stop(StopMode::Graceful).is_ok() {
            return count.value();
        }
        assert!(faults.has_crashed(), "the job ended without a crash: {:?}", job.await_termination());
    }
}

#[test]
fn what_a_batch_adds_counts_also_when_its_sink_has_it_already() {
    let chunks = some_chunks(5);
    let never = FaultPlan::never();
    let expected = counted_through(&chunks, std::slice::from_ref(&never));
    assert_eq!(expected, chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>());
    for step in 1..=never.steps() {
        let found = counted_through(&chunks, &[FaultPlan::crash_at(step)]);
        assert_eq!(found, expected, "after a crash at step {step} of {}", never.steps());
    }
}

/// Fails the test instead of hanging it.
fn ends<R: Send + 'static>(what: &str, work: impl FnOnce() -> R + Send + 'static) -> R {
    let (done, ended) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let result = work();
        done.send(()).unwrap();
        result
    });
    let ended = ended.recv_timeout(Duration::from_secs(60));
    assert!(!matches!(ended, Err(mpsc::RecvTimeoutError::Timeout)), "{what} does not end");
    thread.join().unwrap()
}

/// Blocks the thread that receives, which is wrong but easily done.
struct Blocks {
    begun: Arc<AtomicBool>,
    until: mpsc::Receiver<()>,
}

impl Receiver for Blocks {
    type Item = u64;

    /// It never awaits: that is the point.
    async fn receive(&mut self, _: BlockStore<u64>) -> Result<(), ReceiverError> {
        self.begun.store(true, Ordering::SeqCst);
        // Until the test lets go of the other end.
        let _ = self.until.recv();
        Ok(())
    }
}

#[test]
fn a_job_stops_although_a_receiver_blocks_its_thread() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let begun = Arc::new(AtomicBool::new(false));
    let (release, until) = mpsc::channel();
    context.receiver_stream("numbers", Blocks { begun: begun.clone(), until }).print(1);
    let job = context.start().unwrap();
    while !begun.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    ends("the stop", move || job.stop(StopMode::Now)).unwrap();
    drop(release);
}

#[test]
fn a_push_after_the_end_is_an_error_also_where_a_rate_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).receiver_records_per_second_max(1).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    numbers.print(1);
    let job = context.start().unwrap();
    queue.push([1]).unwrap();
    job.stop(StopMode::Now).unwrap();
    // Records are owed, so that each of these would have to wait.
    for _ in 0..50 {
        assert_eq!(queue.push([4]).unwrap_err().kind(), ErrorKind::Stopped);
    }
}

/// Starts a job whose sink's `write`, on a thread of the executor, calls `act` with the job.
fn job_that(act: impl Fn(&JobHandle) + Send + Sync + 'static) -> (tempfile::TempDir, RunningContext) {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let handle: Arc<Mutex<Option<JobHandle>>> = Arc::default();
    let known = handle.clone();
    numbers.write_to(
        "rows",
        FnSink::new(move |_, _: Vec<u64>| {
            let job = known.lock().unwrap().clone();
            act(&job.ok_or("not yet")?);
            Ok(())
        }),
    );
    let job = context.start().unwrap();
    *handle.lock().unwrap() = Some(job.handle());
    queue.push([1]).unwrap();
    clock.advance(1_000);
    (dir, job)
}

#[test]
fn a_sink_may_stop_its_job_from_the_thread_that_writes() {
    for mode in [StopMode::Graceful, StopMode::Now] {
        let stops = Arc::new(AtomicU64::new(0));
        let seen = stops.clone();
        let (_dir, job) = job_that(move |job| {
            job.stop(mode).unwrap();
            seen.fetch_add(1, Ordering::SeqCst);
        });
        let handle = job.handle();
        ends("the job", move || handle.await_termination()).unwrap();
        assert_eq!(stops.load(Ordering::SeqCst), 1);
    }
}

#[test]
fn an_output_that_waits_for_memory_holds_up_no_stop() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context =
        builder(dir.path(), &clock).block_bytes_max(1_024).receive_buffer_bytes_max(4_096).build().unwrap();
    let (bytes, queue) = context.queue_stream::<Vec<u8>>("bytes");
    let (more, begun) = (queue.clone(), Arc::new(AtomicBool::new(false)));
    let begins = begun.clone();
    bytes.for_each_rdd(move |_, _| {
        begins.store(true, Ordering::SeqCst);
        (0..8).try_for_each(|_| more.push([vec![0; 900]]))?;
        Ok(())
    });
    let job = context.start().unwrap();
    queue.push([vec![0; 900]]).unwrap();
    clock.advance(1_000);
    while !begun.load(Ordering::SeqCst) {
        std::thread::yield_now();
    }
    ends("the stop", move || job.stop(StopMode::Now)).unwrap();
}

#[test]
fn names_with_slashes_never_share_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).build().unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    for output in ["x", "x/1", "x%2F1"] {
        let keys = keys.clone();
        numbers.write_to(
            output,
            FnSink::new(move |id, _: Vec<u64>| {
                keys.lock().unwrap().extend([id.idempotency_key(), id.batch.idempotency_key()]);
                Ok(())
            }),
        );
    }
    let job = context.start().unwrap();
    for batch in 1..=2 {
        // Two blocks, two partitions.
        queue.push([batch]).unwrap();
        queue.push([batch]).unwrap();
        assert!(run_to(&job, &clock, batch));
    }
    let keys = keys.lock().unwrap();
    let of_partitions = keys.iter().step_by(2).collect::<BTreeSet<_>>();
    let of_batches = keys.iter().skip(1).step_by(2).collect::<BTreeSet<_>>();
    assert_eq!((of_partitions.len(), of_batches.len()), (12, 6), "{keys:?}");
    assert!(of_partitions.is_disjoint(&of_batches), "{keys:?}");
}

#[test]
fn a_broadcast_that_a_batch_has_read_survives_a_crash_before_the_first_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let seen: Arc<Mutex<Vec<u64>>> = Arc::default();
    for initial in [10, 20] {
        let context = builder(dir.path(), &clock).checkpoint_every_batches(100).build().unwrap();
        let limit = context.broadcast("limit", initial);
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        let (rows, reads) = (seen.clone(), limit.clone());
        let limits = numbers.map(move |n| (n, *reads.value()));
        let _kept = limits.update_state_by_key("limits", |new, _: Option<u64>| new.last().copied());
        limits.for_each_rdd(move |rdd, _| {
            rows.lock().unwrap().extend(rdd.collect()?.into_iter().map(|(_, limit)| limit));
            Ok(())
        });
        let job = context.start().unwrap();
        let before = job.progress().last_batch.map_or(0, |(batch, _)| batch.0);
        queue.push([before]).unwrap();
        assert!(run_to(&job, &clock, before + 1), "at {}", clock.now_ms());
        job.stop(StopMode::Now).unwrap();
        assert_eq!(job.state::<u64, u64>("limits").unwrap().get(&0).unwrap(), Some(10));
    }
    assert_eq!(*seen.lock().unwrap(), [10, 10]);
}

#[test]
fn what_an_output_stores_while_the_job_drains_is_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let seen: Arc<Mutex<Vec<(u64, u64)>>> = Arc::default();
    let start = || {
        let context = builder(dir.path(), &clock).build().unwrap();
        let factor = context.broadcast("factor", 1u64);
        let (numbers, queue) = context.queue_stream::<u64>("numbers");
        let (rows, again, reads, updates) = (seen.clone(), queue.clone(), factor.clone(), factor);
        numbers.for_each_rdd(move |rdd, _| {
            for n in rdd.collect()? {
                rows.lock().unwrap().push((n, *reads.value()));
                if n < 3 {
                    updates.update(n * 10)?;
                    again.push([n + 1])?;
                }
            }
            Ok(())
        });
        (context.start().unwrap(), queue)
    };
    let (job, queue) = start();
    // Nothing is due: the stop alone runs the batch of it.
    queue.push([1]).unwrap();
    ends("the first stop", move || job.stop(StopMode::Graceful)).unwrap();
    assert_eq!(*seen.lock().unwrap(), [(1, 1)]);
    for expected in [vec![(1, 1), (2, 10)], vec![(1, 1), (2, 10), (3, 20)]] {
        let (job, _queue) = start();
        ends("a later stop", move || job.stop(StopMode::Graceful)).unwrap();
        assert_eq!(*seen.lock().unwrap(), expected);
    }
}

#[test]
fn a_closure_that_reads_state_while_it_changes_is_told_and_an_output_may() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let name = "reads-its-own-state";
    let context = StreamingContext::builder(name)
        .store(dir.path().join("store"))
        .clock(clock.clone())
        .task_attempts_max(1)
        .stop_on_signals(false)
        .build()
        .unwrap();
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let (tells, of_output) = (told.clone(), told.clone());
    let job_of_this = move || StreamingContext::get_active(name).expect("the job runs");
    let counts = numbers
        .map(move |n| {
            let view = job_of_this().state::<u64, u64>("counts").expect("the state is there");
            let outcome = view.get(&n).map_err(|error| error.to_string());
            tells.lock().unwrap().push(format!("{outcome:?}"));
            (n, 1u64)
        })
        .update_state_by_key("counts", |new, count: Option<u64>| Some(count.unwrap_or(0) + new.len() as u64));
    counts.for_each_rdd(move |rdd, _| {
        rdd.for_each(move |(n, _)| {
            // On the job's threads, after the state has changed.
            let count = job_of_this().state::<u64, u64>("counts")?.get(&n)?;
            assert_eq!(count, Some(1));
            Ok(())
        })?;
        let keys = job_of_this().state::<u64, u64>("counts")?.len();
        of_output.lock().unwrap().push(format!("{keys} keys"));
        Ok(())
    });
    let job = context.start().unwrap();
    queue.push([7]).unwrap();
    clock.advance(1_000);
    ends("the stop", move || job.stop(StopMode::Graceful)).unwrap();
    let told = told.lock().unwrap();
    assert!(told[0].contains("state is read by a closure that runs while it changes"), "{told:?}");
    assert_eq!(told[1], "1 keys");
}
