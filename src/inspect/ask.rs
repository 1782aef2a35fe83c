//! Asking a job's own binary, which alone knows its operators and types.
//!
//! The binary is run with an environment variable that names a directory with the question; the first context that
//! it would start answers there and is not started (`driver::question`).

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::driver::question::{ANSWER, ELSEWHERE, QUESTION, VARIABLE, publish, resolved};
use crate::error::{Error, ErrorKind, Result};
use crate::format::question::{Answer, Ask, Message, Question, Reply};
use crate::store::disk::{open_options, read_small};
use crate::store::private_tempdir;
use crate::time::{Stopwatch, WakeUp};

/// How often it is looked whether the job has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A job that has answered gets this long to end by itself.
const END_BY_ITSELF: Duration = Duration::from_secs(2);

/// More than any answer takes.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// So much of the end of what a job wrote to standard error is looked at.
const LAST_WORDS_BYTES: u64 = 4096;

/// How a job's binary is run: with the environment, the working directory and the user of this process. Its
/// standard input is empty, and what it writes to standard output is thrown away.
#[derive(Clone, Debug)]
pub struct JobCommand {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The time after which a job that has not answered is killed.
    pub timeout: Duration,
}

impl JobCommand {
    /// The program and its arguments, as they are shown.
    pub(super) fn words(&self) -> Vec<String> {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        words.map(|word| word.to_string_lossy().into_owned()).collect()
    }

    fn name(&self) -> String {
        format!("`{}`", self.program.to_string_lossy())
    }

    /// What the job on the store in `dir` says.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when it cannot be run or does not answer, with the reason.
    pub(super) fn ask(&self, dir: &Path, question: Question) -> Result<Answer> {
        let exchange = Exchange::open(dir, question)?;
        let mut job = exchange.start(self)?;
        let ended = exchange.wait(&mut job, self.timeout)?;
        if let Some(answer) = exchange.read(ANSWER, self)? {
            return Ok(answer);
        }
        let why = match (exchange.read(ELSEWHERE, self)?, ended) {
            (Some(Answer { reply: Reply::Elsewhere(store), .. }), _) => {
                let store = PathBuf::from(OsString::from_vec(store));
                format!("its job is on the store {}, not on {}", store.display(), dir.display())
            }
            (_, None) => {
                format!(
                    "it did not answer in {} s and was killed{}",
                    self.timeout.as_secs_f64(),
                    exchange.last_words()
                )
            }
            (_, Some(status)) => format!(
                "it ended without an answer ({status}): it is no millpond job, or did not come to its start{}",
                exchange.last_words()
            ),
        };
        Err(Error::new(ErrorKind::InvalidConfig, format!("cannot ask {}: {why}", self.name())))
    }
}

/// The directory that question and answer are in. It is this user's alone, and goes with this value.
struct Exchange {
    directory: TempDir,
}

impl Exchange {
    fn open(store: &Path, question: Question) -> Result<Self> {
        let directory = private_tempdir("millpond-question-")?;
        let ask = Ask { store: resolved(store).as_os_str().as_bytes().to_vec(), question };
        publish(directory.path(), QUESTION, &Message::Ask(ask).to_bytes()?)?;
        Ok(Exchange { directory })
    }

    fn words_path(&self) -> PathBuf {
        self.directory.path().join("stderr")
    }

    fn start(&self, command: &JobCommand) -> Result<Child> {
        let words = self.words_path();
        let made = open_options().write(true).create_new(true).open(&words);
        let words = made.map_err(|cause| Error::io(format!("create {}", words.display()), cause))?;
        let started = Command::new(&command.program)
            .args(&command.arguments)
            .env(VARIABLE, self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(words)
            .spawn();
        started.map_err(|cause| {
            let message = format!("cannot run {}", command.name());
            Error::new(ErrorKind::InvalidConfig, message).caused_by(cause)
        })
    }

    /// Waits until the job has ended; one that does not in time, or goes on after its answer, is killed. `None` for
    /// a job that was killed.
    fn wait(&self, job: &mut Child, timeout: Duration) -> Result<Option<ExitStatus>> {
        let watch = Stopwatch::start();
        let answer = self.directory.path().join(ANSWER);
        let mut end = None;
        loop {
            let ended = job.try_wait().map_err(|cause| Error::io("wait for the job", cause))?;
            if ended.is_some() {
                return Ok(ended);
            }
            if end.is_none() && answer.exists() {
                end = Some((watch.elapsed() + END_BY_ITSELF).min(timeout));
            }
            if watch.elapsed() >= end.unwrap_or(timeout) {
                let killed = job.kill().and_then(|()| job.wait());
                return killed.map(|_| None).map_err(|cause| Error::io("kill the job", cause));
            }
            WakeUp::default().wait_for(0, LOOK_AGAIN);
        }
    }

    fn read(&self, name: &str, command: &JobCommand) -> Result<Option<Answer>> {
        let bytes = read_small(&self.directory.path().join(name), ANSWER_BYTES_MAX)?;
        let Some(bytes) = bytes else { return Ok(None) };
        let unreadable = |cause: Error| {
            let message = format!(
                "cannot read the answer of {}, which is built with another version of millpond than {}",
                command.name(),
                env!("CARGO_PKG_VERSION")
            );
            Error::new(ErrorKind::InvalidConfig, message).caused_by(cause)
        };
        match Message::from_bytes(&bytes).map_err(unreadable)? {
            Message::Answer(answer) => Ok(Some(*answer)),
            Message::Ask(_) => Err(unreadable(Error::corrupt("it is a question"))),
        }
    }

    /// The last line that the job wrote to standard error, as the end of a message.
    fn last_words(&self) -> String {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(self.words_path())?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)))?;
            let mut bytes = Vec::new();
            file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
        let printable: String = last.trim().chars().filter(|c| !c.is_control()).take(300).collect();
        if printable.is_empty() { printable } else { format!("; its last words: {printable}") }
    }
}
