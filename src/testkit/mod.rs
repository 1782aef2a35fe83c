//! Proves in an ordinary `cargo test` that a job of yours recovers (feature `testkit`).
//!
//! A check takes the function that describes your job, the same that your program calls, and input for it. It runs
//! the job batch by batch on a [`ManualClock`], so that nothing sleeps, on a store in a temporary directory; it crashes
//! it, starts it again, and compares state and outputs with a run that nothing disturbed:
//!
//! * [`assert_recovers`]: after a crash at *every* commit boundary that the run passes, and during recovery.
//! * [`assert_deterministic`]: on other threads, in other partitions, with other checkpoint intervals and little memory.
//! * [`assert_upgrades`]: when a new version of the job takes over the store of the old one, after each batch.
//! * [`assert_withstands_faults`]: when any step on the disk fails for a moment.
//!
//! What does not come out as it should is reported with the operator, the key, what was expected and what was found,
//! and with a line that replays the case. It is also written to a file `NAME_OF_THE_SOURCE.millpond-regressions` beside
//! the test, and run first from then on. With the variable `MILLPOND_CASE` set to a case, it alone is run, and the other
//! checks of the test do nothing. [`Setup`] says how a job runs, and has the same checks as methods that
//! return what they find. [`strategies`] make input, setups and crashes for proptest.
//!
//! The guide is `docs/testing-your-job.md`.
//!
//! ```
//! use millpond::DStream;
//! use millpond::testkit::{self, TestContext};
//!
//! fn totals(orders: &DStream<(String, u64)>) -> DStream<(String, u64)> {
//!     orders.update_state_by_key("totals", |new, total: Option<u64>| {
//!         Some(total.unwrap_or(0) + new.iter().sum::<u64>())
//!     })
//! }
//!
//! let input = vec![vec![("ada".to_owned(), 20), ("bob".to_owned(), 7)], vec![("ada".to_owned(), 1)]];
//! testkit::assert_recovers(
//!     |context: &TestContext, orders| context.collect("totals", &totals(&orders)),
//!     &input,
//! );
//! ```

mod checks;
mod deterministic;
mod failure;
mod faults;
mod input;
mod outcome;
mod readable;
mod recovers;
mod regressions;
mod replay;
mod run;
mod setup;
mod sink;
mod snapshot;
mod source;
pub mod strategies;
mod upgrades;
mod world;

use std::panic::Location;

pub use failure::{CrashPlan, Failure};
pub use faults::FaultCoverage;
pub use input::Input;
pub use outcome::{Difference, Outcome};
pub use recovers::Coverage;
pub use replay::Replay;
pub use setup::Setup;
pub use sink::CollectSink;
pub use snapshot::StoreSnapshot;
pub use source::ScriptedSource;
pub use upgrades::Upgraded;
pub use world::TestContext;

pub use crate::rdd::LocalRdds;
pub use crate::store::{DiskStep, FaultKind, FaultPlan};
pub use crate::time::ManualClock;

use regressions::check;

/// Fails the test with the page of a failure.
fn passed<T>(check: &str, outcome: Result<T, Failure>) -> T {
    outcome.unwrap_or_else(|failure| panic!("{check}: {failure}"))
}

/// Runs a job over all of its input, undisturbed, with the default [`Setup`].
///
/// ```
/// use millpond::DStream;
/// use millpond::testkit::{self, TestContext};
///
/// let job = |context: &TestContext, numbers: DStream<u64>| context.collect("sums", &numbers.reduce(|a, b| a + b));
/// let outcome = testkit::run(job, &vec![vec![1, 2, 3], vec![4]]);
/// assert_eq!(outcome.output::<u64>("sums"), [(1, vec![6]), (2, vec![4])]);
/// ```
///
/// # Panics
/// With what stopped it.
pub fn run<I: Input>(job: impl Fn(&TestContext, I::Streams) + Sync, input: &I) -> Outcome {
    passed("the job does not run", Setup::default().run(job, input))
}

/// Runs a job over all of its input, crashed where the plan says and started again each time, with the default
/// [`Setup`]. Returns what it emitted and has in state, to compare with [`run`].
///
/// ```
/// use millpond::DStream;
/// use millpond::testkit::{self, CrashPlan, TestContext};
///
/// let job = |context: &TestContext, numbers: DStream<u64>| {
///     let sums = numbers.map(|n| (n % 2, n)).update_state_by_key("sums", |new, sum: Option<u64>| {
///         Some(sum.unwrap_or(0) + new.iter().sum::<u64>())
///     });
///     context.collect("sums", &sums);
/// };
/// let input = vec![vec![1, 2, 3], vec![4]];
/// // The first life ends at its 40th disk step, the start after it at its 5th.
/// let crashed = testkit::run_and_recover(job, &input, &CrashPlan::at([40, 5]));
/// assert_eq!(crashed.starts(), 3);
/// assert_eq!(crashed.state::<u64, u64>("sums").unwrap().get(&0).unwrap(), Some(6));
/// assert!(testkit::run(job, &input).differences(&crashed).is_empty());
/// ```
///
/// # Panics
/// With what stopped it that was not one of the crashes.
pub fn run_and_recover<I: Input>(
    job: impl Fn(&TestContext, I::Streams) + Sync,
    input: &I,
    plan: &CrashPlan,
) -> Outcome {
    passed("the job does not recover", Setup::default().run_and_recover(job, input, plan))
}

/// Asserts that a job recovers: it is crashed at every commit boundary of its run, one after the other, and started
/// again; then also during the recovery. Each time its state, what it emitted, and what it has outside must be what an
/// undisturbed run has, byte for byte.
///
/// A commit boundary is a step on the disk: whatever changes the store. There are no others, since a crash between two
/// of them leaves the same store. They are enumerated, not sampled. For pairs (a crash, then one at each step of the
/// start after it) recoveries that go through the same operations on the same kinds of files count as one, and
/// [`Setup::pairs_max`] of these pairs are run at most, spread evenly. [`Setup::recovers`] returns the numbers.
///
/// ```
/// use millpond::DStream;
/// use millpond::testkit::{self, TestContext};
///
/// let job = |context: &TestContext, words: DStream<String>| context.collect("counts", &words.count_by_value());
/// testkit::assert_recovers(job, &vec![vec!["a".to_owned(), "b".to_owned()], vec!["a".to_owned()]]);
/// ```
///
/// # Panics
/// When a run does not come to the same, with the boundary, the operator, the key, what was expected and found, and the
/// line that replays it.
#[track_caller]
pub fn assert_recovers<I: Input>(job: impl Fn(&TestContext, I::Streams) + Sync, input: &I) {
    check(
        "the job does not recover",
        "crashes",
        Location::caller(),
        |replay| Setup::default().replay(&job, input, replay),
        || Setup::default().recovers(&job, input).map(drop),
    );
}

/// Asserts that what a job computes depends on its input alone: it is run several times as it is, which gives the hash
/// maps of its closures other seeds (the engine's own have none), on 1, 2 and 4 threads, with other checkpoint
/// intervals, and with so little memory that its state is read from the store, and must come to the same bytes in the same order; then with other numbers of partitions of shuffles and
/// of input, which may change the order of records within a batch and nothing else.
///
/// ```
/// use millpond::DStream;
/// use millpond::testkit::{self, TestContext};
///
/// let job = |context: &TestContext, words: DStream<String>| context.collect("counts", &words.count_by_value());
/// testkit::assert_deterministic(job, &vec![vec!["a".to_owned(), "b".to_owned()], vec!["a".to_owned()]]);
/// ```
///
/// # Panics
/// When a run does not come to the same, with the way in which it was run, the operator, the key, and both values.
#[track_caller]
pub fn assert_deterministic<I: Input>(job: impl Fn(&TestContext, I::Streams) + Sync, input: &I) {
    check(
        "the job is not deterministic",
        "run",
        Location::caller(),
        |replay| Setup::default().replay(&job, input, replay),
        || Setup::default().deterministic(&job, input),
    );
}

/// Asserts that a new version of a job can take over the store of the old one at any point: before the first batch and
/// after each, when the old one was stopped and when it crashed. The start of the new version must not be refused, it
/// must come through the rest of the input, and when its start is crashed, at every disk step of it, it must come to
/// the same as without.
///
/// Returns what the new version came to from each point, to be compared with what you expect: whether that is what the
/// new version alone would have come to is for you to say.
///
/// ```
/// use millpond::{DStream, StateSpec};
/// use millpond::testkit::{self, TestContext};
///
/// let old = |_: &TestContext, orders: DStream<(String, u64)>| {
///     let _totals = orders.update_state_by_key("totals", |new, total: Option<u64>| {
///         Some(total.unwrap_or(0) + new.iter().sum::<u64>())
///     });
/// };
/// let new = |_: &TestContext, orders: DStream<(String, u64)>| {
///     let revenue = StateSpec::named("revenue").was("totals").migrate_from(|total: u64| u128::from(total));
///     let _revenue = orders.update_state_by_key(revenue, |new, total: Option<u128>| {
///         Some(total.unwrap_or(0) + new.iter().map(|n| u128::from(*n)).sum::<u128>())
///     });
/// };
/// let input = vec![vec![("ada".to_owned(), 20)], vec![("ada".to_owned(), 1)]];
/// for upgraded in testkit::assert_upgrades(old, new, &input) {
///     let revenue = upgraded.outcome.state::<String, u128>("revenue").unwrap();
///     assert_eq!(revenue.get(&"ada".to_owned()).unwrap(), Some(21));
/// }
/// ```
///
/// # Panics
/// When the new version is refused, with the plan that says why, or does not come to the same.
#[track_caller]
pub fn assert_upgrades<I: Input>(
    old_job: impl Fn(&TestContext, I::Streams) + Sync,
    new_job: impl Fn(&TestContext, I::Streams) + Sync,
    input: &I,
) -> Vec<Upgraded> {
    check(
        "the new version does not take over",
        "upgrade",
        Location::caller(),
        |replay| Setup::default().replay_upgrade(&old_job, &new_job, input, replay).map(|one| vec![one]),
        || Setup::default().upgrades(&old_job, &new_job, input),
    )
}

/// Asserts that a job survives a disk that fails for a moment: every step on the disk is made to fail once with an
/// input/output error, with a full disk that has space again some steps later, and, where it is a write, half done; every
/// read of what is stored fails once too, in starts after crashes; then two of these. The job may wait or stop with an error. Started again, if it stopped, it must come to what an
/// undisturbed run comes to.
///
/// ```
/// use millpond::DStream;
/// use millpond::testkit::{Setup, TestContext};
///
/// let job = |context: &TestContext, words: DStream<String>| context.collect("words", &words);
/// let setup = Setup { pairs_max: 2, ..Setup::default() };
/// let coverage = setup.withstands_faults(job, &vec![vec!["a".to_owned()]]).unwrap();
/// assert!(coverage.faults > 2 * coverage.steps && coverage.pairs == 2);
/// ```
///
/// # Panics
/// When a run does not come to the same, with the fault, the operator, the key, what was expected and found.
#[track_caller]
pub fn assert_withstands_faults<I: Input>(job: impl Fn(&TestContext, I::Streams) + Sync, input: &I) {
    check(
        "the job does not withstand a fault",
        "faults",
        Location::caller(),
        |replay| Setup::default().replay(&job, input, replay),
        || Setup::default().withstands_faults(&job, input).map(drop),
    );
}
