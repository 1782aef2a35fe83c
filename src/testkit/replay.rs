//! One case of a check as a line of text, and how it is run again.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};
use crate::testkit::checks::case;
use crate::testkit::deterministic::Way;
use crate::testkit::faults::FaultyLife;
use crate::testkit::upgrades::Handing;
use crate::testkit::{CrashPlan, Failure, Input, Setup, TestContext, Upgraded};

/// A case of a check that failed, to be run again: [`Setup::replay`] does, and so does the assert when the variable
/// `MILLPOND_CASE` has it as text.
///
/// ```
/// use millpond::testkit::{CrashPlan, Replay};
///
/// let replay = Replay::from(CrashPlan::at([17, 3]));
/// assert_eq!(replay.to_string(), "crashes:17,3");
/// assert_eq!("crashes:17,3".parse::<Replay>().unwrap(), replay);
/// assert!("crashes:soon".parse::<Replay>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay(pub(super) Replayed);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Replayed {
    Crashes(CrashPlan),
    Way(Way),
    Upgrade(Handing),
    Faults(Vec<FaultyLife>),
}

impl Replay {
    /// The check whose case it is, as the text of a case begins.
    pub(super) fn check(&self) -> &'static str {
        match self.0 {
            Replayed::Crashes(_) => "crashes",
            Replayed::Way(_) => "run",
            Replayed::Upgrade(_) => "upgrade",
            Replayed::Faults(_) => "faults",
        }
    }
}

impl From<CrashPlan> for Replay {
    fn from(plan: CrashPlan) -> Self {
        Replay(Replayed::Crashes(plan))
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.check())?;
        match &self.0 {
            Replayed::Crashes(plan) => write!(f, "{plan}"),
            Replayed::Way(way) => write!(f, "{way}"),
            Replayed::Upgrade(handing) => write!(f, "{handing}"),
            Replayed::Faults(lives) => {
                let lives: Vec<String> = lives.iter().map(FaultyLife::to_string).collect();
                f.write_str(&lives.join("/"))
            }
        }
    }
}

impl FromStr for Replay {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let replayed = text.split_once(':').and_then(|(check, case)| {
            Some(match check {
                "crashes" => Replayed::Crashes(case.parse().ok()?),
                "run" => Replayed::Way(Way::parse(case)?),
                "upgrade" => Replayed::Upgrade(Handing::parse(case)?),
                "faults" => Replayed::Faults(case.split('/').map(FaultyLife::parse).collect::<Option<_>>()?),
                _ => return None,
            })
        });
        let no_case = || Error::new(ErrorKind::InvalidConfig, format!("`{text}` is no case of a check"));
        replayed.map(Replay).ok_or_else(no_case)
    }
}

impl Setup {
    /// Runs one case of [`recovers`](Setup::recovers), [`deterministic`](Setup::deterministic) or
    /// [`withstands_faults`](Setup::withstands_faults) alone.
    ///
    /// ```
    /// use millpond::DStream;
    /// use millpond::testkit::{Setup, TestContext};
    ///
    /// let job = |context: &TestContext, words: DStream<String>| context.collect("words", &words);
    /// let input = vec![vec!["a".to_owned()]];
    /// for case in ["crashes:17,3", "run:threads=8", "faults:io@17/short@5"] {
    ///     Setup::default().replay(job, &input, &case.parse().unwrap()).unwrap();
    /// }
    /// ```
    ///
    /// # Errors
    /// When something is not as it should be.
    pub fn replay<I: Input>(
        &self,
        job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
        replay: &Replay,
    ) -> Result<(), Failure> {
        match &replay.0 {
            Replayed::Crashes(plan) => self.recovers_from(job, input, plan),
            Replayed::Way(way) => self.deterministic_in(job, input, std::slice::from_ref(way)),
            Replayed::Faults(lives) => self.withstands(job, input, lives),
            Replayed::Upgrade(_) => {
                let error = Error::new(ErrorKind::InvalidConfig, format!("`{replay}` takes two jobs"));
                let refused = case(self, &job, input).failure("a case of an upgrade", None, Vec::new());
                Err(Failure { error: Some(error.into()), ..refused })
            }
        }
    }

    /// Runs one case of [`upgrades`](Setup::upgrades) alone.
    ///
    /// # Errors
    /// When something is not as it should be.
    pub fn replay_upgrade<I: Input>(
        &self,
        old_job: impl Fn(&TestContext, I::Streams) + Sync,
        new_job: impl Fn(&TestContext, I::Streams) + Sync,
        input: &I,
        replay: &Replay,
    ) -> Result<Upgraded, Failure> {
        let (old, new) = (case(self, &old_job, input), case(self, &new_job, input));
        match &replay.0 {
            Replayed::Upgrade(handing) => handing.check(&old, &new),
            _ => {
                let error = Error::new(ErrorKind::InvalidConfig, format!("`{replay}` takes one job"));
                Err(Failure { error: Some(error.into()), ..new.failure("no upgrade", None, Vec::new()) })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_read_as_they_are_written() {
        let known = [
            "crashes:17,3",
            "crashes:",
            "run:repeat",
            "run:threads=2",
            "run:state_memory_bytes_max=1024",
            "run:checkpoint_every_batches=5",
            "run:partitions=7",
            "run:ranges=3",
            "upgrade:2,stopped",
            "upgrade:0,crashed,17",
            "faults:io@17",
            "faults:full@17+io@30",
            "faults:crash@40/read@3",
            "faults:io@1/short@5",
        ];
        for text in known {
            assert_eq!(text.parse::<Replay>().unwrap().to_string(), text);
        }
        let unknown = ["", "17", "crashes:x", "run:threads", "run:speed=2", "run:threads=0", "upgrade:2"];
        for text in
            unknown.into_iter().chain(["upgrade:2,gone", "upgrade:1,stopped,2,3", "faults:", "faults:io"])
        {
            assert!(text.parse::<Replay>().is_err(), "{text}");
        }
        for beyond in ["faults:io@0", "faults:full@18446744073709551615", "faults:read@1+io@2"] {
            assert!(beyond.parse::<Replay>().is_err(), "{beyond}");
        }
    }
}
