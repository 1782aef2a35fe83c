//! The `millpond` command: looks into a store, and changes one by hand.

#[path = "millpond/export.rs"]
mod export;
#[path = "millpond/maintain.rs"]
mod maintain;
#[path = "millpond/pages.rs"]
mod pages;
#[path = "millpond/terminal.rs"]
mod terminal;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use millpond::inspect::{JobCommand, StateQuery};
use millpond::{Error, ErrorKind, Result, inspect};
use serde::Serialize;

const SOUND: u8 = 0;
const DAMAGED: u8 = 1;
const NOT_RUN: u8 = 2;

/// Looks into the store of a millpond job, which may be running. Only the verbs that take --confirm can change it.
///
/// Exit code: 0 sound, 1 damaged, 2 could not run.
#[derive(Parser)]
#[command(version)]
struct Command {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// One page: the job, what a restart would do, the state, sizes and health.
    Inspect(Target),
    /// The retained checkpoints, and which of them are sound.
    Checkpoints(Target),
    /// One checkpoint: its operators, segments and key groups, and what a restart from it would replay.
    Checkpoint {
        #[command(flatten)]
        target: Target,
        /// The number of the checkpoint, or the name of a pin.
        id: String,
    },
    /// Reads and checks every byte, lists all that is wrong and says what to do.
    Verify {
        #[command(flatten)]
        target: Target,
        /// Check too that what is stored fits together: orders, hashes, counts, types and references.
        #[arg(long)]
        deep: bool,
    },
    /// The planned and done batches, and what a restart makes of them.
    Batches {
        #[command(flatten)]
        target: Target,
        /// Only so many of the newest.
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
    /// One batch: what it reads, block by block and range by range, and what came of it.
    Batch {
        #[command(flatten)]
        target: Target,
        /// The number of the batch.
        id: u64,
    },
    /// The received blocks in the log.
    Blocks {
        #[command(flatten)]
        target: Target,
        /// Only those of this input stream.
        #[arg(long, value_name = "NAME")]
        stream: Option<String>,
    },
    /// One received block: where it is, and its first records.
    Block {
        #[command(flatten)]
        target: Target,
        /// The number of the block.
        id: u64,
        /// Write its bytes to standard output as they were received, and nothing else.
        #[arg(long, conflicts_with = "json")]
        raw: bool,
    },
    /// The lineage of the last run, from inputs to outputs.
    Lineage {
        #[command(flatten)]
        target: Target,
        /// Print it in the language of Graphviz.
        #[arg(long, conflicts_with = "json")]
        dot: bool,
    },
    /// Keys, live and stored bytes and dead entries of each operator over the retained checkpoints.
    Growth(Target),
    /// The keys and values of one operator.
    State {
        #[command(flatten)]
        target: Target,
        /// The name of the operator, as `checkpoint` shows it.
        operator: String,
        #[command(flatten)]
        query: Query,
    },
    /// The keys that were added, removed or changed between two checkpoints.
    Diff {
        #[command(flatten)]
        target: Target,
        /// The checkpoint to compare with, by number or pin.
        from: String,
        /// The checkpoint to compare, by number or pin.
        to: String,
        /// Only this operator.
        #[arg(long, value_name = "NAME")]
        operator: Option<String>,
        /// So many keys of each operator are shown.
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
    },
    /// What touched one key: its value in each checkpoint, the batches in which it was written, and what they read.
    Why {
        #[command(flatten)]
        target: Target,
        /// The name of the operator, as `checkpoint` shows it.
        operator: String,
        /// The key: `0x` and hex digits, or as it is shown.
        key: String,
        /// So many records of each block that mention the key are shown.
        #[arg(long, value_name = "N", default_value_t = 3)]
        limit: usize,
        #[command(flatten)]
        asked: MaybeAsked,
    },
    /// Writes all keys and values of one operator for other programs.
    Export(export::Call),
    /// Makes a consistent, verified copy that a job can be started on. The store is not changed.
    Copy {
        #[command(flatten)]
        target: Target,
        /// The directory of the copy, which must not exist.
        to: PathBuf,
        /// Begin the copy at this checkpoint, and leave other ones out.
        #[arg(long, value_name = "ID|PIN")]
        checkpoint: Option<String>,
    },
    #[command(flatten)]
    Maintain(maintain::Verb),
    /// Asks a job's binary what a start on the store would do, in place of starting it.
    ///
    /// Exit code: 0 it would start, 1 it would not, 2 it could not be asked.
    Plan {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        asked: Asked,
    },
    /// Prints the completions for a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Prints the manual page, or that of one verb, in the language of man.
    Man {
        /// The verb.
        verb: Option<String>,
    },
}

#[derive(Args)]
struct Target {
    /// The store's directory.
    dir: PathBuf,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Query {
    /// Only this key: `0x` and hex digits, or as it is shown.
    #[arg(long, value_name = "HEX|TEXT")]
    key: Option<String>,
    /// Only keys that begin with this: `0x` and hex digits, or text.
    #[arg(long, value_name = "HEX|TEXT", conflicts_with = "key")]
    prefix: Option<String>,
    /// So many entries are shown.
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// The checkpoint, by number or pin; the newest sound one by default.
    #[arg(long, value_name = "ID|PIN")]
    at: Option<String>,
}

/// A job's binary.
#[derive(Args)]
struct Asked {
    /// The time in seconds after which a job that has not answered is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// The job's binary and its arguments.
    #[arg(last = true, required = true, value_name = "JOB")]
    job: Vec<OsString>,
}

/// A job's binary, if there is one.
#[derive(Args)]
struct MaybeAsked {
    /// The time in seconds after which a job that has not answered is killed.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// The job's binary and its arguments, to compute the retained batches again and say exactly what touched the key.
    #[arg(last = true, value_name = "JOB")]
    job: Vec<OsString>,
}

/// `None` without a program.
fn job_command(words: &[OsString], timeout: u64) -> Option<JobCommand> {
    let (program, arguments) = words.split_first()?;
    let timeout = Duration::from_secs(timeout);
    Some(JobCommand { program: program.clone(), arguments: arguments.to_vec(), timeout })
}

/// What goes to standard output, and whether the store is sound.
struct Output {
    bytes: Vec<u8>,
    sound: bool,
    /// Whether it is a page for people, and not JSON or the bytes of a block.
    is_page: bool,
}

fn main() -> ExitCode {
    let command = Command::parse();
    quiet_panics_of_the_database();
    let bar = Arc::new(terminal::Bar::new());
    let outcome = inspect::watched(bar.clone(), || look(&command.verb));
    bar.clear();
    ExitCode::from(finish(outcome))
}

fn look(verb: &Verb) -> Result<Output> {
    match verb {
        Verb::Inspect(target) => run(target, inspect::inspect, |report| report.sound, pages::store),
        Verb::Checkpoints(target) => {
            run(target, inspect::checkpoints, |report| report.sound, pages::checkpoints)
        }
        Verb::Checkpoint { target, id } => {
            let read = |dir: &Path| inspect::checkpoint(dir, inspect::checkpoint_number(dir, id)?);
            run(target, read, |report| report.sound, pages::state::checkpoint)
        }
        Verb::Verify { target, deep } => {
            let read = if *deep { inspect::verify_deep } else { inspect::verify };
            run(target, read, |report| report.sound, pages::verification)
        }
        Verb::Batches { target, last } => {
            run(target, |dir| inspect::batches(dir, *last), |report| report.sound, pages::batch::batches)
        }
        Verb::Batch { target, id } => {
            run(target, |dir| inspect::batch(dir, *id), |report| report.sound, pages::batch::batch)
        }
        Verb::Blocks { target, stream } => {
            let read = |dir: &Path| inspect::blocks(dir, stream.as_deref());
            run(target, read, |report| report.sound, pages::block::blocks)
        }
        Verb::Block { target, id, raw: true } => sound(inspect::block_bytes(&target.dir, *id)?),
        Verb::Block { target, id, .. } => {
            run(target, |dir| inspect::block(dir, *id), |report| report.sound, pages::block::block)
        }
        Verb::Lineage { target, dot: true } => {
            let graph = inspect::LineageReport::to_dot;
            let output = run(target, inspect::lineage, |report| report.sound, graph)?;
            Ok(Output { is_page: false, ..output })
        }
        Verb::Lineage { target, .. } => {
            run(target, inspect::lineage, |report| report.sound, pages::job::lineage)
        }
        Verb::Growth(target) => run(target, inspect::growth, |report| report.sound, pages::state::growth),
        Verb::State { target, operator, query } => {
            let query = query.of(target)?;
            let read = |dir: &Path| inspect::state(dir, operator, &query);
            run(target, read, |report| report.sound, pages::state::state)
        }
        Verb::Diff { target, from, to, operator, limit } => {
            let [from, to] = [from, to].map(|name| inspect::checkpoint_number(&target.dir, name));
            let (from, to) = (from?, to?);
            let read = |dir: &Path| inspect::diff(dir, from, to, operator.as_deref(), *limit);
            run(target, read, |report| report.sound, pages::state::diff)
        }
        Verb::Why { target, operator, key, limit, asked: MaybeAsked { timeout, job } } => {
            let job = job_command(job, *timeout);
            let read = |dir: &Path| inspect::why(dir, operator, key, *limit, job.as_ref());
            run(target, read, |report| report.sound, pages::why::why)
        }
        Verb::Copy { target, to, checkpoint } => {
            let checkpoint = numbered(target, checkpoint)?;
            run(target, |dir| inspect::copy(dir, to, checkpoint), |report| report.sound, pages::job::copy)
        }
        Verb::Export(call) => export::run(call),
        Verb::Maintain(verb) => maintain::run(verb),
        Verb::Plan { target, asked: Asked { timeout, job } } => {
            let job = job_command(job, *timeout);
            let job = job.ok_or_else(|| Error::new(ErrorKind::InvalidConfig, "no job is named"))?;
            run(target, |dir| inspect::plan(dir, &job), |report| report.sound, pages::plan::plan)
        }
        Verb::Completions { shell } => completions(*shell),
        Verb::Man { verb } => man(verb.as_deref()),
    }
}

impl Query {
    fn of(&self, target: &Target) -> Result<StateQuery> {
        let Query { key, prefix, limit, at } = self;
        let (key, prefix, at) = (key.clone(), prefix.clone(), numbered(target, at)?);
        Ok(StateQuery { key, prefix, limit: *limit, at })
    }
}

fn numbered(target: &Target, checkpoint: &Option<String>) -> Result<Option<u64>> {
    checkpoint.as_ref().map(|name| inspect::checkpoint_number(&target.dir, name)).transpose()
}

fn sound(bytes: Vec<u8>) -> Result<Output> {
    Ok(Output { bytes, sound: true, is_page: false })
}

fn completions(shell: Shell) -> Result<Output> {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Command::command(), "millpond", &mut bytes);
    sound(bytes)
}

fn man(verb: Option<&str>) -> Result<Output> {
    let mut command = Command::command();
    command.build();
    let described = match verb {
        None => &command,
        Some(verb) => command.find_subcommand(verb).ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, format!("there is no verb `{verb}`: see `millpond help`"))
        })?,
    };
    let mut bytes = Vec::new();
    let rendered = clap_mangen::Man::new(described.clone()).render(&mut bytes);
    rendered.map_err(|cause| Error::new(ErrorKind::Io, "cannot write the manual page").caused_by(cause))?;
    sound(bytes)
}

fn run<R: Serialize>(
    target: &Target,
    read: impl FnOnce(&Path) -> Result<R>,
    sound: impl FnOnce(&R) -> bool,
    page: impl FnOnce(&R) -> String,
) -> Result<Output> {
    let report = read(&target.dir)?;
    let text = if target.json { json(&report)? } else { page(&report) };
    Ok(Output { bytes: text.into_bytes(), sound: sound(&report), is_page: !target.json })
}

fn json(report: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(report);
    text.map(|text| text + "\n")
        .map_err(|cause| Error::new(ErrorKind::Io, "cannot write the report as JSON").caused_by(cause))
}

fn finish(outcome: Result<Output>) -> u8 {
    let (code, written) = match outcome {
        Ok(output) => {
            let written = terminal::write(&output.bytes, output.is_page);
            (if output.sound { SOUND } else { DAMAGED }, written)
        }
        Err(error) => {
            let code = if error.kind() == ErrorKind::Corrupt { DAMAGED } else { NOT_RUN };
            complain(&error.chain());
            (code, Ok(()))
        }
    };
    match written {
        // Whoever reads has seen enough.
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to standard output: {cause}"));
            NOT_RUN
        }
        _ => code,
    }
}

/// One line on standard error. When that is closed there is nobody to tell.
fn complain(message: &str) {
    let line = message.replace('\n', " ");
    drop(writeln!(io::stderr(), "millpond: {line}"));
}

/// sled panics on damage, in threads of its own or of the catalog; that is caught and reported as damage.
fn quiet_panics_of_the_database() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        if thread.name() == Some("main") {
            report(panic);
        }
    }));
}
