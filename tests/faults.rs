//! What a machine does to a job short of killing it: syncs that fail, disks that are full or read-only, no more files or
//! memory, clocks that are wrong, receivers and sinks that hang or fail. Whatever it is, afterwards the totals are exact.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "support/child.rs"]
mod child;
#[path = "support/driven.rs"]
mod driven;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use child::{child_dir, run_child, run_child_in_mounts, run_child_through};
use driven::{INTERVAL_MS, builder, tick, tick_or_end};
use millpond::testkit::{DiskStep, FaultKind, FaultPlan, Setup, TestContext};
use millpond::{
    BatchId, BatchTime, BlockStore, DStream, DirectorySource, ErrorKind, FnSink, JobHandle, ManualClock,
    Queue, Receiver, ReceiverError, RunningContext, StopMode, StreamingContext, Timer,
};

type Pair = (u64, u64);

fn add_up(new: &[u64], sum: Option<u64>) -> Option<u64> {
    Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
}

fn sums(context: &StreamingContext) -> Queue<Pair> {
    let (pairs, queue) = context.queue_stream::<Pair>("pairs");
    let _sums = pairs.update_state_by_key("sums", add_up);
    queue
}

fn start_sums(
    dir: &Path,
    clock: &Arc<ManualClock>,
    faults: &Arc<FaultPlan>,
) -> millpond::Result<(RunningContext, Queue<Pair>)> {
    let context = builder(dir, clock).checkpoint_every_batches(2).faults(faults.clone()).build()?;
    let queue = sums(&context);
    Ok((context.start()?, queue))
}

fn totals(job: &JobHandle) -> BTreeMap<u64, u64> {
    let mut totals = BTreeMap::new();
    let view = job.state::<u64, u64>("sums").unwrap();
    view.for_each(|key, sum| assert!(totals.insert(key, sum).is_none())).unwrap();
    totals
}

// -- the disk --

/// Outputs to files and to a sink, a window, an accumulator and state that depends on all of it.
fn rich_job(context: &TestContext, pairs: DStream<Pair>) {
    let seen = context.accumulator("seen", 0u64, |a, b| a + b);
    let counted = pairs.map(move |pair| {
        seen.add(1);
        pair
    });
    let two_batches = Duration::from_millis(2 * INTERVAL_MS);
    let windowed = counted.reduce_by_key_and_window(
        "windowed",
        two_batches,
        Duration::from_millis(INTERVAL_MS),
        |a, b| a + b,
    );
    let sums = counted.update_state_by_key("sums", add_up);
    let out = context.directory().join("out");
    sums.join(&windowed).map(|row| format!("{row:?}")).save_as_text_files(out.join("rows"), "");
    context.collect("windowed", &windowed);
    context.compare("files", move || files_below(&out));
}

/// What a reader of a directory of outputs sees.
fn files_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        let hidden = path.file_name().unwrap().to_string_lossy().starts_with('.');
        match path.is_dir() {
            _ if hidden => {}
            true => found.extend(files_below(&path)),
            false => {
                let (name, dir) = (path.file_name().unwrap(), path.parent().unwrap().file_name().unwrap());
                found.push(format!("{dir:?}/{name:?}: {}", fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_disk_that_fails_or_is_full_at_any_step_changes_nothing_of_a_job_with_everything() {
    let setup = Setup { partitions: 1, ranges: 1, pairs_max: 60, ..Setup::default() };
    let input = vec![vec![(1, 10), (2, 20), (1, 1)], vec![(2, 5)], vec![(3, 7), (1, 2)]];
    let coverage = setup.withstands_faults(rich_job, &input).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(coverage.steps > 90 && coverage.faults > 2 * coverage.steps, "{coverage:?}");
}

/// Runs a job that is told of each record whether it was taken, until it ends or all is pushed.
fn push_through(dir: &Path, faults: &Arc<FaultPlan>) -> (Vec<u64>, Vec<u64>) {
    let clock = ManualClock::at(0);
    let (mut taken, mut refused) = (Vec::new(), Vec::new());
    let Ok((job, queue)) = start_sums(dir, &clock, faults) else { return (taken, refused) };
    for key in 0..12u64 {
        match queue.push([(key, key + 1)]) {
            Ok(()) => taken.push(key),
            Err(_) => refused.push(key),
        }
        if key % 2 == 1 && !tick_or_end(&job, &clock) {
            break;
        }
    }
    (taken, refused)
}

/// The syncs of a file that come again after one of it failed; once it was made anew it is another one.
fn syncs_tried_again(passed: &[DiskStep], failed: usize) -> Vec<DiskStep> {
    let path = &passed[failed].path;
    let is_anew = |step: &&DiskStep| match step.what {
        "create file" => step.path == *path,
        "remove directory" => path.starts_with(&step.path),
        _ => false,
    };
    let of_this_file = passed[failed + 1..].iter().take_while(|step| !is_anew(step));
    of_this_file.filter(|step| step.what == "sync" && step.path == *path).cloned().collect()
}

/// A failed sync may have lost pages that a second one would call durable. So nothing is acknowledged on account of
/// a second one, and what was acknowledged before is there after a restart.
#[test]
fn a_failed_sync_is_never_tried_again_and_takes_back_no_acknowledgement() {
    let counting = FaultPlan::never();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(push_through(dir.path(), &counting), ((0..12).collect(), vec![]));
    let syncs = |step: &&(usize, DiskStep)| step.1.what == "sync";
    let steps: Vec<(usize, DiskStep)> = counting.passed().into_iter().enumerate().collect();
    let (mut tried, mut refusals) = (0, 0);
    for (at, _) in steps.iter().filter(syncs) {
        let dir = tempfile::tempdir().unwrap();
        let step = *at as u64 + 1;
        let faults = FaultPlan::of([(step..step + 1, FaultKind::Io)]);
        let (taken, refused) = push_through(dir.path(), &faults);
        let passed = faults.passed();
        // Threads take turns: the step with this number may be another one.
        let Some(failed) = passed.get(*at).filter(|failed| failed.what == "sync") else { continue };
        tried += 1;
        assert_eq!(syncs_tried_again(&passed, *at), [], "after {failed}");
        if failed.path.extension().is_some_and(|extension| extension == "extent") {
            // From the record on whose sync failed none is acknowledged.
            assert!(taken.iter().max() < refused.iter().min(), "{taken:?} {refused:?} after {failed}");
            assert!(!refused.is_empty(), "after {failed}");
            refusals += 1;
        }
        let clock = ManualClock::at(1_000 * INTERVAL_MS);
        let (job, _) = start_sums(dir.path(), &clock, &FaultPlan::never()).unwrap();
        tick(&job, &clock);
        let found = totals(&job);
        for key in 0..12 {
            let expected = taken.contains(&key).then_some(key + 1);
            // What was refused may be there all the same: who sent it does not know.
            let may_be = refused.contains(&key) && found.get(&key) == Some(&(key + 1));
            assert!(found.get(&key).copied() == expected || may_be, "{key} in {found:?} after {failed}");
        }
    }
    assert!(tried > 20 && refusals > 3, "{tried} syncs, {refusals} of the log");
}

/// Room for a job with small records, and not much more.
const SMALL_DISK: &str = "mount -t tmpfs -o size=4m,mode=700 tmpfs \"$MILLPOND_TEST_CHILD\"";

#[test]
#[ignore = "a test below runs it in a process of its own"]
fn a_job_on_a_small_disk() {
    let Some(dir) = child_dir() else { return };
    let clock = ManualClock::at(0);
    let (job, queue) = start_sums(&dir, &clock, &FaultPlan::never()).unwrap();
    let fill = || {
        let mut filler = File::create(dir.join("filler")).unwrap();
        let chunk = vec![1; 4 << 10];
        while std::io::Write::write_all(&mut filler, &chunk).is_ok() {}
    };
    let (mut waits, mut rounds) = (0, 0);
    // What the job removes meanwhile may be room enough for a round.
    while rounds < 6 || (waits == 0 && rounds < 100) {
        let round = rounds;
        rounds += 1;
        queue.push([(1, 1), (2, round)]).unwrap();
        fill();
        clock.advance(INTERVAL_MS);
        // It waits for space, and nothing else ends.
        assert!(!job.await_termination_or_timeout(Duration::from_millis(150)).unwrap(), "round {round}");
        waits += u64::from(job.progress().last_batch.is_none_or(|(batch, _)| batch.0 <= round));
        fs::remove_file(dir.join("filler")).unwrap();
        while job.progress().last_batch.is_none_or(|(batch, _)| batch.0 <= round) {
            assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
        }
    }
    assert!(waits > 0, "the disk was never full");
    drop((job, queue));
    let remount = |how: &str| {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&dir).status().unwrap();
        assert!(done.success(), "{how}");
    };
    remount("ro");
    let error = start_sums(&dir, &clock, &FaultPlan::never()).unwrap_err();
    assert!(error.kind() == ErrorKind::Io && error.chain().contains("Read-only"), "{}", error.chain());
    remount("rw");
    let (job, queue) = start_sums(&dir, &clock, &FaultPlan::never()).unwrap();
    queue.push([(1, 1)]).unwrap();
    tick(&job, &clock);
    assert_eq!(totals(&job), BTreeMap::from([(1, rounds + 1), (2, (0..rounds).sum())]));
}

#[test]
fn a_full_and_a_read_only_file_system() {
    let dir = tempfile::tempdir().unwrap();
    match run_child_in_mounts("a_job_on_a_small_disk", SMALL_DISK, dir.path()) {
        Some(output) => assert!(output.contains("1 passed"), "{output}"),
        None => eprintln!("SKIPPED: only root can mount a small file system"),
    }
}

// -- no more files, no more memory --

/// Takes all the files that this process may have but `left`.
fn hog_files(left: usize) -> Vec<File> {
    let mut hogged: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    hogged.truncate(hogged.len().saturating_sub(left));
    hogged
}

#[test]
#[ignore = "a test below runs it in a process of its own"]
fn a_job_that_runs_out_of_files() {
    let Some(dir) = child_dir() else { return };
    let (mut failed, mut came_through) = (0, 0);
    for left in 0..24 {
        let (dir, clock) = (dir.join(left.to_string()), ManualClock::at(0));
        fs::create_dir(&dir).unwrap();
        let mut taken = 0;
        // In half of the rounds before the start, in the other half while it runs.
        let early = (left % 2 == 0).then(|| hog_files(left));
        if let Ok((job, queue)) = start_sums(&dir, &clock, &FaultPlan::never()) {
            let late = early.is_none().then(|| hog_files(left));
            for _ in 0..5 {
                taken += u64::from(queue.push([(1, 1)]).is_ok());
                if !tick_or_end(&job, &clock) {
                    break;
                }
            }
            drop(late);
            match job.stop(StopMode::Graceful) {
                Ok(()) => came_through += 1,
                Err(error) => {
                    assert!(error.chain().contains("Too many open files"), "{}", error.chain());
                    failed += 1;
                }
            }
        } else {
            failed += 1;
        }
        drop(early);
        let (job, queue) = start_sums(&dir, &clock, &FaultPlan::never()).unwrap();
        queue.push([(2, 1)]).unwrap();
        // The first may be one that was missed, and begun before the push.
        (0..2).for_each(|_| tick(&job, &clock));
        let expected = [(1, taken), (2, 1)].into_iter().filter(|(_, sum)| *sum > 0).collect();
        assert_eq!(totals(&job), expected, "{left} files left");
    }
    assert!(failed > 3 && came_through > 3, "{failed} failed, {came_through} came through");
}

#[test]
fn running_out_of_files_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    run_child_through("a_job_that_runs_out_of_files", "ulimit -n 200", dir.path());
}

/// Counts words of files; in the third batch all memory but so many KiB is taken first.
fn start_words(dir: &Path, clock: &Arc<ManualClock>, left_kib: Option<usize>) -> RunningContext {
    let context = builder(dir, clock).checkpoint_every_batches(2).source_bytes_per_batch_max(64 << 10);
    let context = context.build().unwrap();
    let batch = Arc::new(AtomicU64::new(0));
    let words = context.file_stream("words", DirectorySource::new(dir.join("spool")).settle(Duration::ZERO));
    let hogged: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let pairs = words.transform(move |lines, _| {
        if let (2, Some(left_kib)) = (batch.fetch_add(1, Ordering::SeqCst), left_kib) {
            let mut hogged = hogged.lock().unwrap();
            for size in [1 << 20, 16 << 10, 1 << 10] {
                let mut more = Vec::new();
                while more.try_reserve_exact(size).is_ok() {
                    hogged.push(std::mem::take(&mut more));
                }
            }
            let (mut freed, keep) = (0, hogged.len());
            while freed < left_kib << 10 && hogged.len() > keep / 1_000 {
                freed += hogged.swap_remove(0).capacity();
            }
        }
        Ok(lines.map(|line| (line.to_string(), 1u64)))
    });
    let _sums = pairs.update_state_by_key("sums", add_up);
    context.start().unwrap()
}

#[test]
#[ignore = "a test below runs it in a process of its own"]
fn a_job_that_runs_out_of_memory() {
    let Some(dir) = child_dir() else { return };
    let left_kib = fs::read_to_string(dir.join("left")).unwrap().parse().unwrap();
    let clock = ManualClock::at(0);
    let job = start_words(&dir, &clock, Some(left_kib));
    while tick_or_end(&job, &clock) && job.progress().last_batch.unwrap().0.0 < 6 {}
    match job.stop(StopMode::Now) {
        Ok(()) => println!("came through"),
        Err(error) => println!("ended with {:?}", error.kind()),
    }
}

#[test]
fn running_out_of_memory_loses_nothing() {
    let mut aborted = 0;
    for left_kib in [0, 64, 512, 4_096, 65_536] {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("spool")).unwrap();
        fs::write(dir.path().join("left"), left_kib.to_string()).unwrap();
        for file in 0..6 {
            let lines: String = (0..3_000).map(|n| format!("word number {}\n", n % (7 + file))).collect();
            fs::write(dir.path().join(format!("spool/{file}")), lines).unwrap();
        }
        let limit = "export MALLOC_ARENA_MAX=1 RUST_BACKTRACE=0 && ulimit -c 0 && ulimit -v 400000";
        let output = run_child("a_job_that_runs_out_of_memory", limit, dir.path());
        let told = String::from_utf8_lossy(&output.stdout).into_owned();
        let is_aborted = !output.status.success();
        aborted += u32::from(is_aborted);
        assert!(is_aborted || told.contains("came through") || told.contains("ended with"), "{told}");
        let clock = ManualClock::at(100 * INTERVAL_MS);
        let job = start_words(dir.path(), &clock, None);
        while tick_or_end(&job, &clock) && job.progress().last_batch.unwrap().0.0 < 12 {}
        let mut found = 0;
        let counts = job.state::<String, u64>("sums").unwrap();
        counts.for_each(|_, count| found += count).unwrap();
        let sevens = (0..6).map(|file| (0..3_000u64).filter(|n| n % (7 + file) == 6).count() as u64).sum();
        assert_eq!(
            (found, counts.get(&"word number 6".to_owned()).unwrap()),
            (18_000, Some(sevens)),
            "{told}"
        );
    }
    assert!(aborted > 0, "no limit was met");
}

// -- clocks --

/// Per key a sum, a window over two batches, and a timer that comes once, an hour after the key.
fn start_timed(
    dir: &Path,
    clock: &Arc<ManualClock>,
    seen: &Arc<Mutex<Vec<String>>>,
) -> (RunningContext, Queue<Pair>) {
    let context = builder(dir, clock).build().unwrap();
    let (pairs, queue) = context.queue_stream::<Pair>("pairs");
    let _sums = pairs.update_state_by_key("sums", add_up);
    let two_batches = Duration::from_millis(2 * INTERVAL_MS);
    let windowed =
        pairs.window("window", two_batches, Duration::from_millis(INTERVAL_MS)).map(|(_, value)| value);
    let alarms = pairs.transform_with_state("alarms", |key, values: &[u64]| {
        if !values.is_empty() && key.take().is_none() {
            key.set_timer(Timer::ProcessingTime(key.batch_time().0 + 3_600_000));
        }
        key.update(1u64);
        let due = key.due().len();
        (0..due).for_each(|_| key.emit(*key.key()));
    });
    for (name, stream) in [("window", windowed), ("alarm", alarms)] {
        let seen = seen.clone();
        stream.for_each_rdd(move |rdd, info| {
            let mut records = rdd.collect()?;
            records.sort_unstable();
            if !records.is_empty() {
                seen.lock().unwrap().push(format!("{} {name} {records:?}", info.batch.0));
            }
            Ok(())
        });
    }
    (context.start().unwrap(), queue)
}

/// The batch after so many, once it is done.
fn batch_after(job: &RunningContext, batches: usize) -> (BatchId, BatchTime) {
    loop {
        match job.progress().last_batch {
            Some((batch, time)) if batch.0 > batches as u64 => return (batch, time),
            _ => assert!(!job.await_termination_or_timeout(Duration::from_millis(1)).unwrap()),
        }
    }
}

#[test]
fn a_clock_that_is_hours_off_changes_no_total_and_no_order() {
    const HOUR: u64 = 3_600_000;
    let dir = tempfile::tempdir().unwrap();
    let seen = Arc::default();
    let mut times = Vec::new();
    // Each life finds another clock: it stands still, went back by five hours, and on by two.
    for (life, starts_at) in [10 * HOUR, 10 * HOUR, 5 * HOUR, 14 * HOUR].into_iter().enumerate() {
        let clock = ManualClock::at(starts_at);
        let (job, queue) = start_timed(dir.path(), &clock, &seen);
        // For all the batches that were missed there is one.
        if life == 3 {
            times.push(batch_after(&job, times.len()));
        }
        for batch in 0..3 {
            queue.push([(life as u64, batch + 1)]).unwrap();
            tick(&job, &clock);
            times.push(job.progress().last_batch.unwrap());
        }
        // While it runs the clock jumps, too.
        if life == 1 {
            clock.advance(2 * HOUR);
            times.push(batch_after(&job, times.len()));
        }
        let expected = (0..=life as u64).map(|life| (life, 6)).collect();
        assert_eq!(totals(&job), expected);
    }
    assert!(times.windows(2).all(|two| two[0].0.0 + 1 == two[1].0.0 && two[0].1 < two[1].1), "{times:?}");
    let seen: Vec<String> = std::mem::take(&mut *seen.lock().unwrap());
    let alarms: Vec<&str> =
        seen.iter().filter_map(|line| line.split_once("alarm ")).map(|(_, keys)| keys).collect();
    // The keys of the first two lives are due after the jump, that of the third one when the clock is ahead again.
    assert_eq!(alarms, ["[0, 1]", "[2]"], "{seen:?}");
    // Windows go by the time of batches, and two hours are more than two intervals.
    assert!(!seen.iter().any(|line| line.starts_with("7 window")), "{seen:?}");
    assert!(
        seen.contains(&"2 window [1, 2]".to_owned()) && seen.contains(&"3 window [2, 3]".to_owned()),
        "{seen:?}"
    );
}

// -- what is outside --

/// Stores one record, and then never comes back: it holds its thread.
struct Hangs;

impl Receiver for Hangs {
    type Item = Pair;

    async fn receive(&mut self, blocks: BlockStore<Pair>) -> Result<(), ReceiverError> {
        blocks.store(vec![(1, 1)]).await?;
        loop {
            std::thread::park();
        }
    }
}

#[test]
#[ignore = "a test below runs it in a process of its own"]
fn a_job_with_a_receiver_that_hangs() {
    let Some(dir) = child_dir() else { return };
    tracing_subscriber::fmt().with_writer(std::io::stdout).init();
    let clock = ManualClock::at(0);
    let context = builder(&dir, &clock).build().unwrap();
    let _sums = context.receiver_stream("the one that hangs", Hangs).update_state_by_key("sums", add_up);
    let job = context.start().unwrap();
    while totals(&job).is_empty() {
        tick(&job, &clock);
    }
    job.stop_gracefully_within(Duration::from_millis(1)).unwrap();
    assert_eq!(totals(&job), BTreeMap::from([(1, 1)]));
}

#[test]
fn a_stop_ends_though_a_receiver_hangs_and_says_which() {
    let dir = tempfile::tempdir().unwrap();
    let told = run_child_through("a_job_with_a_receiver_that_hangs", "export NO_COLOR=1", dir.path());
    let warning = told.lines().find(|line| line.contains("did not stop in time and is given up"));
    assert!(warning.is_some_and(|line| line.contains("the one that hangs")), "{told}");
}

#[test]
fn a_sink_that_fails_for_a_while_gets_every_batch_once() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, down) = (ManualClock::at(0), Arc::new(AtomicBool::new(false)));
    // For so many writes it is down by itself.
    let failures = Arc::new(AtomicU64::new(0));
    let rows: Arc<Mutex<BTreeMap<String, Vec<Pair>>>> = Arc::default();
    let start = || {
        let context = builder(dir.path(), &clock).task_attempts_max(3).build().unwrap();
        let queue = {
            let (pairs, queue) = context.queue_stream::<Pair>("pairs");
            let (down, failures, rows) = (down.clone(), failures.clone(), rows.clone());
            let sink = FnSink::new(move |id, records: Vec<Pair>| {
                let fails = |left: u64| left.checked_sub(1);
                let flaky = failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_ok();
                if flaky || down.load(Ordering::SeqCst) {
                    return Err("the sink is down".into());
                }
                let before = rows.lock().unwrap().insert(format!("{id:?}"), records.clone());
                assert!(before.is_none_or(|before| before == records), "{id:?}");
                Ok(())
            });
            let sums = pairs.update_state_by_key("sums", add_up);
            sums.write_to("sink", sink);
            queue
        };
        (context.start().unwrap(), queue)
    };
    let (job, queue) = start();
    for batch in 0..3 {
        // Shorter than there are attempts: nobody notices.
        failures.store(batch, Ordering::SeqCst);
        queue.push([(1, 1)]).unwrap();
        tick(&job, &clock);
    }
    down.store(true, Ordering::SeqCst);
    queue.push([(1, 1)]).unwrap();
    assert!(!tick_or_end(&job, &clock));
    let error = job.await_termination().unwrap_err();
    assert!(error.chain().contains("the sink is down"), "{}", error.chain());
    drop((job, queue));
    down.store(false, Ordering::SeqCst);
    let (job, queue) = start();
    queue.push([(1, 1)]).unwrap();
    tick(&job, &clock);
    assert_eq!(totals(&job), BTreeMap::from([(1, 5)]));
    let mut written: Vec<Pair> = rows.lock().unwrap().values().flatten().copied().collect();
    written.sort_unstable();
    assert_eq!(written, [(1, 1), (1, 2), (1, 3), (1, 4), (1, 5)]);
}
