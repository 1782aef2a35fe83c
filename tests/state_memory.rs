//! State that takes more than its memory: what a job makes of its input does not depend on what is resident.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

#[path = "support/cases.rs"]
mod cases;
#[path = "support/lives.rs"]
mod lives;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cases::cases;
use lives::{INTERVAL_MS, Life, Run, Scripted, start_life, wait_for_batch};
use millpond::testkit::FaultPlan;
use millpond::{ErrorKind, ManualClock, Progress, RunningContext, StateSpec, StopMode, StreamingContext};
use proptest::prelude::*;

/// The last batch that is compared.
const LAST_BATCH: u64 = 16;

/// A key, and what is added to it; zero removes it.
type Pair = (u64, i64);

/// What each batch put out, by its number.
type Emitted = Arc<Mutex<BTreeMap<u64, Vec<(u64, i64)>>>>;

fn describe(chunks: &Arc<Vec<Vec<Pair>>>, emitted: &Emitted) -> impl Fn(&StreamingContext, &Run) {
    let (chunks, emitted) = (chunks.clone(), emitted.clone());
    move |context, run| {
        let script = Scripted { chunks: chunks.clone(), ranges: run.ranges, flaky: run.flaky };
        let pairs = context.replayable_stream("script", script);
        let totals = pairs.update_state_by_key("totals", |new, total: Option<i64>| {
            (!new.contains(&0)).then(|| total.unwrap_or(0) + new.iter().sum::<i64>())
        });
        let window = Duration::from_millis(3 * INTERVAL_MS);
        let sums =
            pairs.reduce_by_key_and_window("sums", window, Duration::from_millis(INTERVAL_MS), |a, b| a + b);
        // Each key goes three batches after its last value.
        let spec = StateSpec::named("visits").timeout(window);
        let visits = pairs.map_with_state(spec, |key, value: Option<i64>, state| {
            let visits = state.get().copied().unwrap_or(0) + 1;
            if value.is_some() {
                state.update(visits);
            }
            Some((*key, visits))
        });
        let listed = emitted.clone();
        totals.union(&sums).union(&visits).for_each_rdd(move |rdd, info| {
            let mut rows = rdd.collect()?;
            rows.sort_unstable();
            let before = listed.lock().unwrap().insert(info.batch.0, rows.clone());
            assert!(before.is_none_or(|before| before == rows), "{} is not what it was", info.batch);
            Ok(())
        });
    }
}

/// What a job has put out and keeps, and what its lives had in memory.
#[derive(Debug, PartialEq)]
struct Made {
    emitted: BTreeMap<u64, Vec<(u64, i64)>>,
    totals: Vec<(u64, i64)>,
    /// The keys with a timeout that has not come.
    visited: u64,
}

/// Lives through `lives` and then to the end of the input. A replay that changes anything else than the batch did the
/// first time is found by the hashes of the changes.
fn made(chunks: &Arc<Vec<Vec<Pair>>>, lives: &[Life], last: &Run) -> (Made, Vec<Progress>) {
    let dir = tempfile::tempdir().unwrap();
    let (clock, emitted, mut progress) = (ManualClock::at(0), Emitted::default(), Vec::new());
    let job = describe(chunks, &emitted);
    for life in lives {
        let Ok(job) = start_life(dir.path(), &clock, life, &job) else { continue };
        assert!(job.recovery().differences.is_empty(), "{:?}", job.recovery());
        let (batches, mode) = life.stop.unwrap();
        tick_until(&job, &clock, batches);
        let _ = job.stop(mode);
        progress.push(job.progress());
    }
    let life = Life { run: last.clone(), faults: FaultPlan::never(), stop: None };
    let job = start_life(dir.path(), &clock, &life, &job).unwrap();
    let made = to_the_end(&job, &clock, &emitted);
    progress.push(job.progress());
    (made, progress)
}

/// The rest of the input, as the last life of a job.
fn to_the_end(job: &RunningContext, clock: &ManualClock, emitted: &Emitted) -> Made {
    assert!(job.recovery().differences.is_empty(), "{:?}", job.recovery());
    // Some more, so that windows end and all timers are due.
    assert!(tick_until(job, clock, LAST_BATCH + 2));
    let view = job.state::<u64, i64>("totals").unwrap();
    let mut totals = Vec::new();
    view.for_each(|key, total| totals.push((key, total))).unwrap();
    for (key, total) in totals.iter().step_by(7) {
        assert_eq!(view.get(key).unwrap(), Some(*total));
    }
    totals.sort_unstable();
    let visited = job.keys_in_state("visits").unwrap();
    job.stop(StopMode::Graceful).unwrap();
    let mut emitted = emitted.lock().unwrap().clone();
    // A stop may come after one batch more.
    emitted.retain(|batch, _| *batch <= LAST_BATCH);
    Made { emitted, totals, visited }
}

/// Runs batches up to this one; `false` when the job ended before.
fn tick_until(job: &RunningContext, clock: &ManualClock, batch: u64) -> bool {
    let last = |job: &RunningContext| job.progress().last_batch.map_or(0, |(batch, _)| batch.0);
    while last(job) < batch {
        let next = last(job) + 1;
        // To the time of the batch, also where a life has ended between the time and its batch.
        clock.advance((next * INTERVAL_MS).saturating_sub(millpond::Clock::now_ms(clock)));
        if !wait_for_batch(job, next) {
            return false;
        }
    }
    true
}

/// The totals, written once more without any of the machinery.
fn totals_of(chunks: &[Vec<Pair>]) -> Vec<(u64, i64)> {
    let mut totals = BTreeMap::new();
    for chunk in chunks {
        let mut new: BTreeMap<u64, Vec<i64>> = BTreeMap::new();
        chunk.iter().for_each(|(key, value)| new.entry(*key).or_default().push(*value));
        for (key, values) in new {
            if values.contains(&0) {
                totals.remove(&key);
            } else {
                *totals.entry(key).or_default() += values.iter().sum::<i64>();
            }
        }
    }
    totals.into_iter().collect()
}

/// Batches of `size` pairs over so many keys.
fn fixed_chunks(batches: u64, size: u64, keys: u64) -> Arc<Vec<Vec<Pair>>> {
    let pair = |number: u64| {
        let drawn = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        (drawn % keys, (drawn / keys % 12) as i64 - 1)
    };
    Arc::new((0..batches).map(|batch| (batch * size..(batch + 1) * size).map(pair).collect()).collect())
}

#[test]
fn what_is_beyond_the_limit_is_read_from_the_store() {
    let chunks = fixed_chunks(12, 3_000, 20_000);
    let (expected, unlimited) = made(&chunks, &[], &Run::default());
    assert_eq!(expected.totals, totals_of(&chunks));
    assert_eq!((unlimited[0].state_memory_bytes, unlimited[0].state_evictions), (0, 0));
    let limit = 300_000;
    let run = Run { state_memory: Some(limit), ..Run::default() };
    let (found, progress) = made(&chunks, &[], &run);
    assert_eq!(found, expected);
    assert!(progress[0].state_evictions > 256, "{progress:?}");
    assert!((1..=limit).contains(&progress[0].state_memory_bytes), "{progress:?}");
}

#[test]
fn where_changes_alone_pass_the_limit_checkpoints_are_taken_early() {
    let chunks = fixed_chunks(6, 3_000, 20_000);
    let (expected, _) = made(&chunks, &[], &Run::default());
    let run = Run { checkpoint_every: 1_000, state_memory: Some(1 << 10), ..Run::default() };
    let (found, progress) = made(&chunks, &[], &run);
    assert_eq!(found, expected);
    assert!(progress[0].checkpoints >= 6, "{progress:?}");
}

/// Of what was let go of, read again and again, one read fails: in a batch, of a checkpoint or of the start after it.
#[test]
fn a_read_that_fails_anywhere_in_a_running_job_changes_nothing() {
    let chunks = fixed_chunks(8, 400, 2_000);
    let (expected, _) = made(&chunks, &[], &Run::default());
    let run = Run { state_memory: Some(20_000), ..Run::default() };
    let life = |faults: &Arc<FaultPlan>| Life {
        run: run.clone(),
        faults: faults.clone(),
        stop: Some((LAST_BATCH, StopMode::Graceful)),
    };
    let counting = FaultPlan::never();
    let (found, progress) = made(&chunks, &[life(&counting)], &run);
    assert_eq!(found, expected);
    assert!(progress[0].state_evictions > 256, "{progress:?}");
    let reads = counting.reads().len() as u64;
    assert!(reads > 1_000, "{reads} reads");
    let mut failed = 0;
    for read in (1..=reads).step_by(reads as usize / 16) {
        let failing = FaultPlan::failing_reads(read..read + 1);
        let (found, _) = made(&chunks, &[life(&failing)], &run);
        assert_eq!(found, expected, "read {read} of {reads} failed");
        failed += u64::from(failing.has_failed());
    }
    assert!(failed > 12, "only {failed} reads failed");
}

/// Flips a bit at this share of a file, in place, so that whoever has it open reads that.
fn flip(path: &Path, share: f64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let at = (file.metadata().unwrap().len() as f64 * share) as u64;
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 4], at).unwrap();
}

/// The segments in a store, oldest first.
fn segments(store: &Path) -> Vec<PathBuf> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(store.join("state")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        found.extend(name.strip_suffix(".segment").map(|number| (number.parse().unwrap(), path.clone())));
    }
    found.sort_unstable();
    found.into_iter().map(|(_, path)| path).collect()
}

/// What the start made of a store whose state was damaged while a job ran.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    WalkedBack,
    /// Until the bytes were as they should be again.
    Refused,
}

/// A job that has let go of most of its state; a bit is flipped at this share of the newest segment, or of all of them.
fn damaged_while_running(expected: &Made, chunks: &Arc<Vec<Vec<Pair>>>, all: bool, share: f64) -> Next {
    let dir = tempfile::tempdir().unwrap();
    let (clock, emitted) = (ManualClock::at(0), Emitted::default());
    let describe = describe(chunks, &emitted);
    let run = Run { checkpoint_every: 2, state_memory: Some(100_000), ..Run::default() };
    let life = Life { run, faults: FaultPlan::never(), stop: None };
    let job = start_life(dir.path(), &clock, &life, &describe).unwrap();
    assert!(tick_until(&job, &clock, 7));
    assert!(job.progress().state_evictions > 256, "{:?}", job.progress());
    let segments = segments(dir.path());
    assert!(segments.len() > 1, "{segments:?}");
    let damaged = if all { &segments[..] } else { &segments[segments.len() - 1..] };
    let flip_all = || damaged.iter().for_each(|path| flip(path, share));
    flip_all();
    assert!(!tick_until(&job, &clock, LAST_BATCH), "nobody has read the damaged bytes of {damaged:?}");
    let error = job.await_termination().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains(".segment, page at byte"), "{error}");
    drop(job);
    assert!(dir.path().join("suspect").exists());
    for (batch, rows) in &*emitted.lock().unwrap() {
        assert!(rows == &expected.emitted[batch], "batch {batch} put out something else");
    }
    let (job, next) = match start_life(dir.path(), &clock, &life, &describe) {
        Ok(job) => {
            assert!(!job.recovery().walked_back.is_empty(), "{:?}", job.recovery());
            (job, Next::WalkedBack)
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            flip_all();
            let job = start_life(dir.path(), &clock, &life, &describe).unwrap();
            assert!(job.recovery().walked_back.is_empty(), "{:?}", job.recovery());
            (job, Next::Refused)
        }
    };
    assert!(!dir.path().join("suspect").exists());
    assert_eq!(&to_the_end(&job, &clock, &emitted), expected);
    next
}

#[test]
fn damage_of_what_a_running_job_has_let_go_of_ends_it_before_anything_is_made_of_it() {
    let chunks = fixed_chunks(LAST_BATCH, 1_500, 10_000);
    let (expected, _) = made(&chunks, &[], &Run::default());
    for share in [0.2, 0.6] {
        // Only the newest checkpoint needs the newest segment.
        assert_eq!(damaged_while_running(&expected, &chunks, false, share), Next::WalkedBack);
        assert_eq!(damaged_while_running(&expected, &chunks, true, share), Next::Refused);
    }
}

fn chunks() -> impl Strategy<Value = Arc<Vec<Vec<Pair>>>> {
    let key = prop_oneof![1 => 0u64..6, 3 => 0u64..3_000];
    let chunk = prop::collection::vec((key, -1i64..12), 0..400);
    prop::collection::vec(chunk, 1..12).prop_map(Arc::new)
}

fn run() -> impl Strategy<Value = Run> {
    let state_memory = prop_oneof![Just(None), (1u64 << 10..150_000).prop_map(Some)];
    (1usize..4, 1usize..20, 1u64..7, state_memory).prop_map(
        |(threads, partitions, checkpoint_every, state_memory)| Run {
            threads,
            partitions,
            checkpoint_every,
            state_memory,
            ..Run::default()
        },
    )
}

/// What the disk does in a life: nothing, or it ends it at a step, or fails one read, of the start or of a batch.
fn faults() -> impl Strategy<Value = Arc<FaultPlan>> {
    prop_oneof![
        Just(()).prop_map(|()| FaultPlan::never()),
        (1u64..150).prop_map(FaultPlan::crash_at),
        (1u64..400).prop_map(|read| FaultPlan::failing_reads(read..read + 1)),
    ]
}

fn life() -> impl Strategy<Value = Life> {
    let mode = prop_oneof![Just(StopMode::Graceful), Just(StopMode::Now)];
    (run(), faults(), 1u64..12, mode).prop_map(|(run, faults, batches, mode)| Life {
        run,
        faults,
        stop: Some((batches, mode)),
    })
}

proptest! {
    #![proptest_config(cases(24))]

    /// Lives with other limits each, that end with crashes, reads that fail and stops: as one life without a limit.
    #[test]
    fn no_limit_changes_anything(chunks in chunks(), lives in prop::collection::vec(life(), 0..4), last in run()) {
        let (expected, _) = made(&chunks, &[], &Run::default());
        prop_assert_eq!(&expected.totals, &totals_of(&chunks));
        let (found, _) = made(&chunks, &lives, &last);
        prop_assert_eq!(found, expected);
    }
}
