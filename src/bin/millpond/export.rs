//! All of an operator's state, for other programs.

use std::error::Error as _;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use millpond::inspect::{ExportFormat, ExportQuery};
use millpond::{Error, ErrorKind, Result, inspect};

use super::{Output, Target, numbered, pages, run as report, sound};

#[derive(Args)]
pub(crate) struct Call {
    #[command(flatten)]
    target: Target,
    /// The name of the operator, as `checkpoint` shows it.
    operator: String,
    /// How it is written; Parquet takes a build with the feature `parquet`.
    #[arg(long)]
    format: Format,
    /// The file, which is replaced when the export is complete; standard output by default.
    #[arg(long, value_name = "PATH")]
    to: Option<PathBuf>,
    /// Only keys that begin with this: `0x` and hex digits, or text.
    #[arg(long, value_name = "HEX|TEXT")]
    prefix: Option<String>,
    /// The checkpoint, by number or pin; the newest sound one by default.
    #[arg(long, value_name = "ID|PIN")]
    at: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A JSON object with `key` and `value` per line, which `import` reads.
    Json,
    /// RFC 4180 with a header; fields are columns with dotted names.
    Csv,
    /// Apache Parquet with the same columns, typed.
    Parquet,
}

pub(crate) fn run(call: &Call) -> Result<Output> {
    let Call { target, operator, format, to, prefix, at } = call;
    let format = match format {
        Format::Json => ExportFormat::Json,
        Format::Csv => ExportFormat::Csv,
        Format::Parquet => ExportFormat::Parquet,
    };
    let query = ExportQuery { format, prefix: prefix.clone(), at: numbered(target, at)? };
    if let Some(to) = to {
        let write = |dir: &std::path::Path| inspect::export_file(dir, operator, &query, to);
        return report(target, write, |report| report.sound, pages::job::export);
    }
    if target.json {
        let message = "--json reports on an export to a file: standard output has the export itself";
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
    let exported = inspect::export(&target.dir, operator, &query, &mut out);
    let written = exported.and_then(|_| {
        out.flush().map_err(|cause| Error::new(ErrorKind::Io, "write the export").caused_by(cause))
    });
    // What could not be written is not tried again.
    drop(out.into_parts());
    match written {
        // Whoever reads has seen enough.
        Err(error) if is_broken_pipe(&error) => sound(Vec::new()),
        written => written.and_then(|()| sound(Vec::new())),
    }
}

fn is_broken_pipe(error: &Error) -> bool {
    let mut cause = error.source();
    while let Some(found) = cause {
        if found.downcast_ref::<io::Error>().is_some_and(|found| found.kind() == io::ErrorKind::BrokenPipe) {
            return true;
        }
        cause = found.source();
    }
    false
}
