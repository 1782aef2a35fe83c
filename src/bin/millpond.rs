//! The `millpond` command: looks into a store without changing it.

#[path = "millpond/pages.rs"]
mod pages;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use millpond::{Error, ErrorKind, Result, inspect};
use serde::Serialize;

const SOUND: u8 = 0;
const DAMAGED: u8 = 1;
const NOT_RUN: u8 = 2;

/// Looks into the store of a millpond job. Nothing is changed, and the job may be running.
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
    /// Reads and checks every byte, lists all that is wrong and says what to do.
    Verify(Target),
}

#[derive(Args)]
struct Target {
    /// The store's directory.
    dir: PathBuf,
    /// Print one JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

/// What goes to standard output, and whether the store is sound.
struct Output {
    text: String,
    sound: bool,
}

fn main() -> ExitCode {
    let command = Command::parse();
    quiet_panics_of_the_database();
    let outcome = match &command.verb {
        Verb::Inspect(target) => run(target, inspect::inspect, |report| report.sound, pages::store),
        Verb::Checkpoints(target) => {
            run(target, inspect::checkpoints, |report| report.sound, pages::checkpoints)
        }
        Verb::Verify(target) => run(target, inspect::verify, |report| report.sound, pages::verification),
    };
    ExitCode::from(finish(outcome))
}

fn run<R: Serialize>(
    target: &Target,
    read: impl FnOnce(&Path) -> Result<R>,
    sound: impl FnOnce(&R) -> bool,
    page: impl FnOnce(&R) -> String,
) -> Result<Output> {
    let report = read(&target.dir)?;
    let text = if target.json { json(&report)? } else { page(&report) };
    Ok(Output { text, sound: sound(&report) })
}

fn json(report: &impl Serialize) -> Result<String> {
    let text = serde_json::to_string_pretty(report);
    text.map(|text| text + "\n")
        .map_err(|cause| Error::new(ErrorKind::Io, "cannot write the report as JSON").caused_by(cause))
}

fn finish(outcome: Result<Output>) -> u8 {
    let (code, written) = match outcome {
        Ok(output) => {
            let mut out = io::stdout().lock();
            let written = out.write_all(output.text.as_bytes()).and_then(|()| out.flush());
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
