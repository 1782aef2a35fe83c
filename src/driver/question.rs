//! A job that is asked a question in place of starting.
//!
//! The `millpond` command runs the job's own binary, because only that knows its operators and types, and names a
//! directory in an environment variable. A context that would start then finds the question in there, leaves its answer, and
//! returns an error, so that an ordinary `main` ends. Nothing is opened for writing, received or computed.

use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::checkpoint::matching::StateMatch;
use crate::dstream::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::format::question::{
    Answer, Ask, DamagedCheckpoint, KeyReplay, Message, OperatorPlan, Question, ReplayedCause, ReplayedPlace,
    ReplayedTouch, Reply, SettingPlan, StartPlan, StreamPlan,
};
use crate::format::records::RangeRef;
use crate::source::SourceRange;
use crate::store::disk::read_small;

use super::rehearsal::{CausePlace, KeyCause, KeyHistory, KeyTouch, why};
use super::start::Components;
use super::upgrade::{PlannedState, PlannedStream, StreamMatch, UpgradePlan, plan};

/// The environment variable that names the directory of a question.
pub(crate) const VARIABLE: &str = "MILLPOND_QUESTION";

/// The files in there.
pub(crate) const QUESTION: &str = "question";
pub(crate) const ANSWER: &str = "answer";
/// What a context on another store leaves. One on the right store may still follow.
pub(crate) const ELSEWHERE: &str = "elsewhere";

/// More than any question takes.
const QUESTION_BYTES_MAX: u64 = 1 << 20;

/// A question that waits for an answer.
pub(crate) struct Asked {
    directory: PathBuf,
    ask: Ask,
}

impl Asked {
    /// The question in the environment of this process.
    ///
    /// # Errors
    /// When there is one that cannot be read: a process that was to answer must not start in place of that.
    pub(crate) fn in_environment() -> Result<Option<Self>> {
        let Some(directory) = std::env::var_os(VARIABLE).map(PathBuf::from) else { return Ok(None) };
        let path = directory.join(QUESTION);
        let place = |error: Error| {
            let why = "the job does not start while it is set, and the question it names cannot be read";
            Error::new(ErrorKind::InvalidConfig, format!("{VARIABLE}: {why}")).caused_by(error)
        };
        let bytes = read_small(&path, QUESTION_BYTES_MAX).map_err(place)?;
        let bytes = bytes
            .ok_or_else(|| place(Error::new(ErrorKind::Io, format!("{} does not exist", path.display()))))?;
        match Message::from_bytes(&bytes).map_err(place)? {
            Message::Ask(ask) => Ok(Some(Asked { directory, ask })),
            Message::Answer(_) => Err(place(Error::corrupt("it is an answer"))),
        }
    }

    /// Answers for the job that would have started, and says so in an error of kind [`ErrorKind::Stopped`].
    pub(crate) fn answer(&self, components: &Components, job: Result<Job>) -> Error {
        let settings = &components.settings;
        let store = resolved(&settings.store);
        let is_asked = store.as_os_str().as_bytes() == self.ask.store;
        let reply = if is_asked {
            let reply = job.and_then(|job| reply(&self.ask.question, components, &job));
            reply.unwrap_or_else(|error| Reply::Refused(error.chain()))
        } else {
            Reply::Elsewhere(store.clone().into_os_string().into_vec())
        };
        let version = env!("CARGO_PKG_VERSION").to_owned();
        let message = Message::Answer(Box::new(Answer { version, job: settings.name.clone(), reply }));
        let name = if is_asked { ANSWER } else { ELSEWHERE };
        if let Err(error) = message.to_bytes().and_then(|bytes| publish(&self.directory, name, &bytes)) {
            return error.within(format!("{VARIABLE}: the job was asked and cannot answer"));
        }
        let what = if is_asked {
            "the job has answered a question, and was not started".to_owned()
        } else {
            format!("a question about another store is asked: the job on {} was not started", store.display())
        };
        Error::new(ErrorKind::Stopped, what)
    }
}

fn reply(question: &Question, components: &Components, job: &Job) -> Result<Reply> {
    match question {
        Question::Why { operator, key } => {
            why(&components.settings, job, operator, key).map(|history| Reply::Why(replayed(history)))
        }
        Question::Plan => plan(&components.settings, &job.outline()).map(|plan| Reply::Plan(written(plan))),
    }
}

/// A path that two processes can compare, whether anything is there yet or not.
pub(crate) fn resolved(path: &Path) -> PathBuf {
    let found = path.canonicalize().or_else(|_| std::path::absolute(path));
    found.unwrap_or_else(|_| path.to_owned())
}

/// Writes a file that is there whole or not at all. Of two contexts on one store the last one counts.
pub(crate) fn publish(directory: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let (path, unfinished) = (directory.join(name), directory.join(format!("{name}.tmp")));
    let write = || {
        let mut file: File =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(bytes)?;
        std::fs::rename(&unfinished, &path)
    };
    write().map_err(|cause| Error::io(format!("write {}", path.display()), cause))
}

fn written(plan: UpgradePlan) -> StartPlan {
    StartPlan {
        fresh: plan.fresh,
        checkpoint: plan.checkpoint.map(|(checkpoint, _)| checkpoint.0),
        batch: plan.checkpoint.map(|(_, batch)| batch.0),
        walked_back: plan
            .walked_back
            .into_iter()
            .map(|(checkpoint, why)| DamagedCheckpoint { checkpoint: checkpoint.0, why })
            .collect(),
        replay: plan.replay.into_iter().map(|batch| batch.0).collect(),
        operators: plan.states.into_iter().map(operator_plan).collect(),
        streams: plan.streams.into_iter().map(stream_plan).collect(),
        settings: plan
            .settings
            .into_iter()
            .map(|changed| SettingPlan {
                setting: changed.setting.to_owned(),
                before: changed.before,
                now: changed.now,
            })
            .collect(),
        problems: plan.problems,
    }
}

fn replayed(history: KeyHistory) -> KeyReplay {
    let cause = |cause: KeyCause| {
        let place = match cause.place {
            CausePlace::Block { block, records, more } => {
                let records = records.into_iter().map(|records| (records.start, records.end)).collect();
                ReplayedPlace::Block { block: block.0, records, more }
            }
            CausePlace::Range(SourceRange { partition, start, end, size, stamp }) => {
                ReplayedPlace::Range(RangeRef { partition, start, end, size, stamp })
            }
        };
        ReplayedCause { stream: cause.stream, place }
    };
    let touch = |touch: KeyTouch| ReplayedTouch {
        batch: touch.batch.0,
        time_ms: touch.time.0,
        before: touch.before,
        after: touch.after,
        causes: touch.causes.into_iter().map(cause).collect(),
    };
    KeyReplay {
        from: history.from.0,
        batches: history.batches.into_iter().map(|batch| batch.0).collect(),
        causes_known: history.causes_known,
        touches: history.touches.into_iter().map(touch).collect(),
    }
}

fn operator_plan(planned: PlannedState) -> OperatorPlan {
    let (outcome, was, migrated) = match planned.outcome {
        StateMatch::Matched => ("matched", None, false),
        StateMatch::Upgraded { name, value_type } => ("upgraded", name, value_type.is_some()),
        StateMatch::New => ("new", None, false),
        StateMatch::Dropped => ("dropped", None, false),
        StateMatch::Incompatible => ("incompatible", None, false),
    };
    OperatorPlan {
        operator: planned.operator,
        outcome: outcome.to_owned(),
        was,
        migrated,
        keys: planned.keys,
        stored: planned.stored,
        asked: planned.asked,
        problem: planned.problem,
    }
}

fn stream_plan(planned: PlannedStream) -> StreamPlan {
    let outcome = match planned.outcome {
        StreamMatch::Kept => "kept",
        StreamMatch::New => "new",
        StreamMatch::Gone => "gone",
    };
    StreamPlan {
        stream: planned.stream,
        outcome: outcome.to_owned(),
        pending_blocks: planned.pending_blocks as u64,
        replayed_batches: planned.replayed_batches as u64,
    }
}
