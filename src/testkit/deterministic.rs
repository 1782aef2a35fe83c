//! Does a job compute the same whatever it runs on?

use crate::testkit::checks::case;
use crate::testkit::outcome::Compared;
use crate::testkit::run::first_failure;
use crate::testkit::{CrashPlan, Failure, Input, Setup, TestContext};

/// How often a job is run without any change. Each run has hash maps with seeds of their own.
const REPEATS: usize = 4;

impl Setup {
    /// As [`assert_deterministic`](crate::testkit::assert_deterministic).
    ///
    /// # Errors
    /// The first way to run in which something came out otherwise.
    pub fn deterministic<I: Input>(
        &self,
        job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
    ) -> Result<(), Failure> {
        let expected = self.run(&job, input)?;
        let ways = self.ways();
        let failed = first_failure(ways.len(), |at| {
            let (told, setup, how) = &ways[at];
            let case = case(setup, &job, input);
            let told = format!("the same input, {told}");
            match case.outcome_of(&told, &CrashPlan::default()) {
                Err(failure) => Some(failure),
                Ok(found) => {
                    let differences = expected.compare(&found, *how);
                    (!differences.is_empty()).then(|| case.failure(told, None, differences))
                }
            }
        });
        failed.map_or(Ok(()), Err)
    }

    /// The other ways to run, each with how closely what comes out is compared.
    fn ways(&self) -> Vec<(String, Setup, Compared)> {
        let mut ways: Vec<_> =
            (0..REPEATS).map(|_| ("run once more".to_owned(), self.clone(), Compared::Exactly)).collect();
        for threads in [1, 2, 4].into_iter().filter(|threads| *threads != self.threads) {
            let told = format!("on {threads} threads instead of {}", self.threads);
            ways.push((told, Setup { threads, ..self.clone() }, Compared::Exactly));
        }
        for every in [1, 5].into_iter().filter(|every| *every != self.checkpoint_every_batches) {
            let told = format!(
                "with a checkpoint every {every} batches instead of {}",
                self.checkpoint_every_batches
            );
            ways.push((told, Setup { checkpoint_every_batches: every, ..self.clone() }, Compared::Exactly));
        }
        for partitions in [1, 2, 7].into_iter().filter(|partitions| *partitions != self.partitions) {
            let told = format!("in {partitions} partitions instead of {}", self.partitions);
            ways.push((told, Setup { partitions, ..self.clone() }, Compared::WithoutOrder));
        }
        for ranges in [1, 3].into_iter().filter(|ranges| *ranges != self.ranges) {
            let told = format!("read in {ranges} ranges instead of {}", self.ranges);
            ways.push((told, Setup { ranges, ..self.clone() }, Compared::WithoutOrder));
        }
        ways
    }
}
