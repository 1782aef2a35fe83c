//! What a start of a job would do with a store: asked of the job's binary, which is not started.

use std::path::Path;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::format::question::{Question, Reply, StartPlan};
use crate::inspect::ask::JobCommand;
use crate::inspect::open::open;
use crate::inspect::report::SCHEMA;

/// What a start would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlanReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that answered.
    pub job: String,
    /// The program that was asked, and its arguments.
    pub command: Vec<String>,
    /// The version of millpond that it is built with.
    pub version: String,
    /// Why a start would be refused before there is a plan, such as the store of another job.
    pub refused: Option<String>,
    /// The plan; `null` when the start would be refused before.
    pub plan: Option<StartPlan>,
    /// Whether the job would start.
    pub sound: bool,
}

/// Runs the binary of a job, which says what a start on the store in `dir` would do, as
/// [`StreamingContext::plan`](crate::StreamingContext::plan) does. Nothing is started, and the store is not changed; another version of
/// the job may be running on it. What the job's `main` does before its context would start happens.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect), and [`ErrorKind::InvalidConfig`] when the job cannot be asked: it cannot be run,
/// ends or runs out of time without an answer, or its job is on another store.
pub fn plan(dir: &Path, command: &JobCommand) -> Result<PlanReport> {
    open(dir)?;
    let answer = command.ask(dir, Question::Plan)?;
    let (refused, plan) = match answer.reply {
        Reply::Plan(plan) => (None, Some(plan)),
        Reply::Refused(why) => (Some(why), None),
        Reply::Elsewhere(_) | Reply::Why(_) => {
            return Err(Error::new(ErrorKind::InvalidConfig, "the job answered another question"));
        }
    };
    Ok(PlanReport {
        schema: SCHEMA,
        directory: dir.display().to_string(),
        job: answer.job,
        command: command.words(),
        version: answer.version,
        sound: plan.as_ref().is_some_and(|plan| plan.problems.is_empty()),
        refused,
        plan,
    })
}
