//! The parts that the kit's checks are made of: a slow disk, failing reads, snapshots.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

use std::path::Path;

use millpond::testkit::{
    CollectSink, FaultKind, FaultPlan, ManualClock, ScriptedSource, Setup, StoreSnapshot, TestContext,
};
use millpond::{Clock, DStream, ErrorKind, Result, RunningContext, StopMode, StreamingContext};

fn start(
    store: &Path,
    clock: &std::sync::Arc<ManualClock>,
    faults: std::sync::Arc<FaultPlan>,
    sums: &CollectSink<(u8, u64)>,
) -> Result<RunningContext> {
    let context = StreamingContext::builder("parts")
        .store(store)
        .clock(clock.clone())
        .checkpoint_every_batches(2)
        .stop_on_signals(false)
        .faults(faults)
        .build()?;
    let numbers = ScriptedSource::new([vec![(1u8, 1u64)], vec![(1, 2), (2, 5)], vec![(1, 4)]]).ranges(2);
    let totals = context
        .replayable_stream("numbers", numbers)
        .update_state_by_key("sums", |new: &[u64], sum: Option<u64>| {
            Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
        });
    totals.write_to("sums", sums.clone());
    context.start()
}

fn run_to(
    job: &RunningContext,
    clock: &ManualClock,
    sums: &CollectSink<(u8, u64)>,
    batches: std::ops::RangeInclusive<u64>,
) {
    for batch in batches {
        clock.advance(1_000);
        sums.wait_for_batch(batch);
    }
    job.stop(StopMode::Graceful).unwrap();
}

#[test]
fn a_slow_disk_takes_time_of_the_clock_and_changes_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (clock, sums) = (ManualClock::at(0), CollectSink::new());
    let plan = FaultPlan::slow(&clock, 10);
    let job = start(dir.path(), &clock, plan.clone(), &sums).unwrap();
    run_to(&job, &clock, &sums, 1..=3);
    assert_eq!(clock.now_ms(), 3_000 + 10 * plan.steps());
    assert!(plan.steps() > 40 && !plan.has_failed());
    let expected = [(1, vec![(1, 1)]), (2, vec![(1, 3), (2, 5)]), (3, vec![(1, 7)])];
    let mut found = sums.batches();
    found.truncate(3);
    found.iter_mut().for_each(|(_, rows)| rows.sort_unstable());
    assert_eq!(found, expected);
}

#[test]
fn a_snapshot_goes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (store, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let (clock, sums) = (ManualClock::at(0), CollectSink::new());
    let job = start(&store, &clock, FaultPlan::never(), &sums).unwrap();
    run_to(&job, &clock, &sums, 1..=1);
    let snapshot = StoreSnapshot::take(&store).unwrap();
    for place in [&store, &copy] {
        snapshot.restore(place).unwrap();
        assert_eq!(snapshot.differences(&StoreSnapshot::take(place).unwrap()), [""; 0]);
        let (clock, sums) = (ManualClock::at(1_000), CollectSink::new());
        let job = start(place, &clock, FaultPlan::never(), &sums).unwrap();
        run_to(&job, &clock, &sums, 2..=3);
        assert_eq!(job.state::<u8, u64>("sums").unwrap().get(&1).unwrap(), Some(7));
    }
    let changed = snapshot.differences(&StoreSnapshot::take(&store).unwrap());
    assert!(changed.iter().any(|line| line.ends_with(".segment is only in the second")), "{changed:?}");
}

#[test]
fn every_kind_of_fault_is_injected_once() {
    let dir = tempfile::tempdir().unwrap();
    for (kind, expected) in [
        (FaultKind::Io, ErrorKind::Io),
        (FaultKind::Full, ErrorKind::DiskFull),
        (FaultKind::Crash, ErrorKind::Io),
    ] {
        let plan = FaultPlan::of([(5..6, kind)]);
        let store = dir.path().join(format!("{kind:?}"));
        let error = start(&store, &ManualClock::at(0), plan.clone(), &CollectSink::new()).unwrap_err();
        assert_eq!(error.kind(), expected, "{error:?}");
        assert!(plan.has_failed());
        assert_eq!(plan.has_crashed(), kind == FaultKind::Crash);
        assert_eq!(plan.passed().len() as u64, plan.steps());
    }
    let store = dir.path().join("Io");
    let reads = FaultPlan::never();
    drop(start(&store, &ManualClock::at(0), reads.clone(), &CollectSink::new()).unwrap());
    assert!(!reads.reads().is_empty());
    let failing = FaultPlan::failing_reads(1..2);
    let error = start(&store, &ManualClock::at(0), failing.clone(), &CollectSink::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(failing.reads()[0], reads.reads()[0]);
}

#[test]
fn faults_and_reads_are_all_gone_through() {
    let job = |context: &TestContext, words: DStream<String>| {
        context.collect("counts", &words.count_by_value());
    };
    let setup = Setup { pairs_max: 12, ..Setup::default() };
    let words = |words: [&str; 2]| words.map(str::to_owned).to_vec();
    let input = vec![words(["a", "b"]), words(["a", "c"])];
    let coverage = setup.withstands_faults(job, &input).unwrap();
    assert!(coverage.faults > 2 * coverage.steps, "{coverage:?}");
    assert!(coverage.reads > 20 && coverage.pairs == 12 && coverage.pairs_left_out > 1_000, "{coverage:?}");
}

/// A job whose state does not fit passes the same checks, with the checkpoints that are taken early.
#[test]
fn a_job_with_little_memory_for_state_is_checked_as_any_other() {
    let job = |context: &TestContext, numbers: DStream<(u64, u64)>| {
        let sums = numbers.update_state_by_key("sums", |new: &[u64], sum: Option<u64>| {
            Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
        });
        context.collect("sums", &sums);
    };
    let input: Vec<Vec<(u64, u64)>> =
        (0..3).map(|batch| (0..200).map(|key| (key, batch)).collect()).collect();
    let usual = Setup { checkpoint_every_batches: 100, pairs_max: 4, ..Setup::default() };
    let limited = Setup { state_memory_bytes_max: Some(1 << 10), ..usual.clone() };
    let outcomes = [&usual, &limited].map(|setup| setup.run(job, &input).unwrap());
    assert!(outcomes[0].differences(&outcomes[1]).is_empty());
    let [most, more] = [&usual, &limited].map(|setup| setup.recovers(job, &input).unwrap().boundaries);
    assert!(more > most, "{more} disk steps with a limit, {most} without one");
}
