//! Does a job compute the same whatever it runs on?

use std::fmt;

use crate::testkit::checks::case;
use crate::testkit::outcome::Compared;
use crate::testkit::replay::{Replay, Replayed};
use crate::testkit::run::first_failure;
use crate::testkit::{CrashPlan, Failure, Input, Setup, TestContext};

/// How often a job is run without any change. Each run has hash maps with seeds of their own.
const REPEATS: usize = 4;

/// So little memory that next to nothing of any state fits.
const LITTLE_MEMORY: u64 = 1 << 10;

/// Another way to run a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Repeat,
    Threads(usize),
    CheckpointEvery(u64),
    StateMemory(u64),
    Partitions(usize),
    Ranges(usize),
}

impl Way {
    fn setup(self, usual: &Setup) -> Setup {
        let mut setup = usual.clone();
        match self {
            Way::Repeat => {}
            Way::Threads(threads) => setup.threads = threads,
            Way::CheckpointEvery(batches) => setup.checkpoint_every_batches = batches,
            Way::StateMemory(bytes) => setup.state_memory_bytes_max = Some(bytes),
            Way::Partitions(partitions) => setup.partitions = partitions,
            Way::Ranges(ranges) => setup.ranges = ranges,
        }
        setup
    }

    /// How closely what comes out is compared.
    fn compared(self) -> Compared {
        match self {
            Way::Repeat | Way::Threads(_) | Way::CheckpointEvery(_) | Way::StateMemory(_) => {
                Compared::Exactly
            }
            Way::Partitions(_) | Way::Ranges(_) => Compared::WithoutOrder,
        }
    }

    fn told(self, usual: &Setup) -> String {
        match self {
            Way::Repeat => "run once more".to_owned(),
            Way::Threads(threads) => format!("on {threads} threads instead of {}", usual.threads),
            Way::CheckpointEvery(batches) => {
                let instead = usual.checkpoint_every_batches;
                format!("with a checkpoint every {batches} batches instead of {instead}")
            }
            Way::StateMemory(bytes) => format!("with {bytes} bytes of memory for state"),
            Way::Partitions(count) => format!("in {count} partitions instead of {}", usual.partitions),
            Way::Ranges(count) => format!("read in {count} ranges instead of {}", usual.ranges),
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let Some((setting, number)) = text.split_once('=') else {
            return (text == "repeat").then_some(Way::Repeat);
        };
        let number: usize = number.parse().ok().filter(|number| *number > 0)?;
        Some(match setting {
            "threads" => Way::Threads(number),
            "checkpoint_every_batches" => Way::CheckpointEvery(number as u64),
            "state_memory_bytes_max" => Way::StateMemory(number as u64),
            "partitions" => Way::Partitions(number),
            "ranges" => Way::Ranges(number),
            _ => return None,
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Repeat => f.write_str("repeat"),
            Way::Threads(number) => write!(f, "threads={number}"),
            Way::CheckpointEvery(number) => write!(f, "checkpoint_every_batches={number}"),
            Way::StateMemory(number) => write!(f, "state_memory_bytes_max={number}"),
            Way::Partitions(number) => write!(f, "partitions={number}"),
            Way::Ranges(number) => write!(f, "ranges={number}"),
        }
    }
}

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
        let threads = [1, 2, 4].map(Way::Threads);
        let intervals = [1, 5].map(Way::CheckpointEvery);
        let memory = [LITTLE_MEMORY].map(Way::StateMemory);
        let partitions = [1, 2, 7].map(Way::Partitions);
        let ranges = [1, 3].map(Way::Ranges);
        let changed = threads.into_iter().chain(intervals).chain(memory).chain(partitions).chain(ranges);
        let changed = changed.filter(|way| way.setup(self) != *self);
        let repeats = std::iter::once(Way::Repeat);
        self.deterministic_in(job, input, &repeats.chain(changed).collect::<Vec<_>>())
    }

    pub(super) fn deterministic_in<I: Input>(
        &self,
        job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
        ways: &[Way],
    ) -> Result<(), Failure> {
        let expected = self.run(&job, input)?;
        let times = |way: Way| if way == Way::Repeat { REPEATS } else { 1 };
        let runs: Vec<Way> = ways.iter().flat_map(|way| std::iter::repeat_n(*way, times(*way))).collect();
        let failed = first_failure(runs.len(), |at| {
            let way = runs[at];
            let setup = way.setup(self);
            let case = case(&setup, &job, input);
            let told = format!("the same input, {}", way.told(self));
            let failure = match case.outcome_of(&told, &CrashPlan::default()) {
                Err(failure) => failure,
                Ok(found) => {
                    let differences = expected.compare(&found, way.compared());
                    if differences.is_empty() {
                        return None;
                    }
                    case.failure(told, None, differences)
                }
            };
            Some(Failure { replay: Some(Replay(Replayed::Way(way))), ..failure })
        });
        failed.map_or(Ok(()), Err)
    }
}
