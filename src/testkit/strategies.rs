//! Strategies for [proptest](https://docs.rs/proptest): what a job is fed with, how it runs, where it is crashed. All
//! shrink to little: few batches, few records, one thread, one partition, no crash.

use std::fmt::Debug;

use proptest::collection::{SizeRange, vec};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use crate::testkit::{CrashPlan, Setup};

/// Beyond the disk steps of most short runs; a crash at a step that is never come to is none.
const STEP_MAX: u64 = 150;

/// A configuration for `proptest!` with so many cases, or as many as `PROPTEST_CASES` asks for; a job that is run many
/// times wants fewer than the usual 256. The seed of a case that fails is printed, and written to a file beside the
/// test, from which it is run again first.
///
/// ```
/// assert_eq!(millpond::testkit::strategies::cases(16).cases, 16);
/// ```
pub fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(usual),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default()
    }
}

/// Batches of records, some of them empty.
///
/// ```
/// use millpond::testkit::strategies::{self, batches};
/// use millpond::testkit::{Setup, TestContext};
/// use millpond::DStream;
/// use proptest::prelude::*;
///
/// fn job(context: &TestContext, words: DStream<String>) {
///     context.collect("counts", &words.count_by_value());
/// }
///
/// proptest!(strategies::cases(4), |(
///     input in batches("[ab]{1,2}", 1..4, 0..5),
///     setup in strategies::setups(),
///     plan in strategies::crash_plans(2),
/// )| {
///     setup.recovers_from(job, &input, &plan)?;
/// });
/// ```
pub fn batches<S: Strategy>(
    record: S,
    batches: impl Into<SizeRange>,
    records_in_each: impl Into<SizeRange>,
) -> impl Strategy<Value = Vec<Vec<S::Value>>> {
    vec(vec(record, records_in_each), batches)
}

/// The given records in their order, cut into batches anywhere: up to `most` of them. Shrinks towards one batch.
///
/// ```
/// use millpond::testkit::strategies::{self, cut_into_batches};
/// use proptest::prelude::*;
///
/// proptest!(strategies::cases(16), |(input in cut_into_batches(vec![1, 2, 3], 5))| {
///     prop_assert_eq!(input.concat(), [1, 2, 3]);
///     prop_assert!(input.len() <= 5);
/// });
/// ```
pub fn cut_into_batches<T: Clone + Debug>(
    records: Vec<T>,
    most: usize,
) -> impl Strategy<Value = Vec<Vec<T>>> {
    let cuts = vec(0..=records.len(), 0..most.max(1));
    cuts.prop_map(move |mut cuts| {
        cuts.sort_unstable();
        let starts = std::iter::once(0).chain(cuts.iter().copied());
        let ends = cuts.iter().copied().chain([records.len()]);
        starts.zip(ends).map(|(start, end)| records[start..end].to_vec()).collect()
    })
}

/// How a job runs: threads, partitions, ranges, checkpoint interval, and memory for state, limited or not.
///
/// ```
/// use millpond::testkit::strategies;
/// use proptest::prelude::*;
///
/// proptest!(strategies::cases(16), |(setup in strategies::setups())| {
///     prop_assert!(setup.threads >= 1 && setup.partitions >= 1);
/// });
/// ```
pub fn setups() -> impl Strategy<Value = Setup> {
    let memory = prop_oneof![3 => Just(None), 1 => (1u64 << 10..128 << 10).prop_map(Some)];
    (1usize..5, 1usize..9, 1usize..4, 1u64..6, memory).prop_map(
        |(threads, partitions, ranges, every, memory)| Setup {
            threads,
            partitions,
            ranges,
            checkpoint_every_batches: every,
            state_memory_bytes_max: memory,
            ..Setup::default()
        },
    )
}

/// Up to `most` crashes, one after the other.
///
/// ```
/// use millpond::testkit::strategies;
/// use proptest::prelude::*;
///
/// proptest!(strategies::cases(16), |(plan in strategies::crash_plans(3))| {
///     prop_assert!(plan.steps().len() <= 3);
/// });
/// ```
pub fn crash_plans(most: usize) -> impl Strategy<Value = CrashPlan> {
    vec(1..STEP_MAX, 0..=most).prop_map(CrashPlan::at)
}
