//! The verbs that write.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use millpond::maintenance::Maintenance;
use millpond::{Error, ErrorKind, Result};
use serde::Serialize;

use super::{Output, Target, json, pages};

/// Each only says what it would do, unless it is confirmed.
#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Keeps a checkpoint under a name: it is never pruned.
    Pin {
        #[command(flatten)]
        change: Change,
        /// The checkpoint, by number or by another name.
        checkpoint: String,
        /// The name: 1 to 64 letters, digits, `.`, `_` and `-`.
        name: String,
    },
    /// Takes a name from a checkpoint, which is then pruned like any other.
    Unpin {
        #[command(flatten)]
        change: Change,
        /// The name.
        name: String,
    },
    /// Puts the job back to a checkpoint: the next start begins there.
    Rollback {
        #[command(flatten)]
        change: Change,
        /// The checkpoint, by number or pin.
        checkpoint: String,
        /// Go back even if batches after it cannot be computed again.
        #[arg(long)]
        lose_batches: bool,
    },
    /// Removes what no checkpoint that stays needs, and what was put aside.
    Prune {
        #[command(flatten)]
        change: Change,
        /// So many checkpoints stay, 2 if it is not given.
        #[arg(long, value_name = "N")]
        keep: Option<usize>,
    },
    /// Gives a key of an operator another value, or removes it.
    Edit {
        #[command(flatten)]
        change: Change,
        /// The name of the operator, as `checkpoint` shows it.
        operator: String,
        /// The key: `0x` and hex digits, or as it is shown.
        #[arg(long, value_name = "KEY")]
        key: String,
        /// The value, as JSON like `state` shows it.
        #[arg(long, value_name = "JSON", required_unless_present = "delete", conflicts_with = "delete")]
        set: Option<String>,
        /// Remove the key.
        #[arg(long)]
        delete: bool,
    },
    /// Gives an operator the keys and values of a file: lines of JSON, as `export` writes them. Other keys stay.
    Import {
        #[command(flatten)]
        change: Change,
        /// The name of the operator, as `checkpoint` shows it.
        operator: String,
        /// The file.
        file: PathBuf,
    },
    /// Makes a damaged store startable: keeps what is sound, puts aside what is not, and says what is lost.
    Repair {
        #[command(flatten)]
        change: Change,
        /// The name of the job, where the store no longer says it.
        #[arg(long, value_name = "NAME")]
        job: Option<String>,
    },
}

#[derive(Args)]
pub(crate) struct Change {
    #[command(flatten)]
    target: Target,
    /// Do it: without this, nothing is changed.
    #[arg(long)]
    confirm: bool,
}

pub(crate) fn run(verb: &Verb) -> Result<Output> {
    use pages::maintain as page;
    match verb {
        Verb::Pin { change, checkpoint, name } => {
            change.report(|store| store.pin(checkpoint, name), page::pin)
        }
        Verb::Unpin { change, name } => change.report(|store| store.unpin(name), page::unpin),
        Verb::Rollback { change, checkpoint, lose_batches } => {
            change.report(|store| store.rollback(checkpoint, *lose_batches), page::rollback)
        }
        Verb::Edit { change, operator, key, set, .. } => {
            let value = set.as_ref().map(|text| json_of(text)).transpose()?;
            change.report(|store| store.edit(operator, key, value.as_ref()), page::edit)
        }
        Verb::Import { change, operator, file } => {
            change.report(|store| store.import(operator, file), page::import)
        }
        Verb::Repair { change, job } => change.report(|store| store.repair(job.as_deref()), page::repair),
        Verb::Prune { change, keep } => change.report(|store| store.prune(*keep), page::prune),
    }
}

fn json_of(text: &str) -> Result<serde_json::Value> {
    serde_json::from_str(text).map_err(|cause| {
        let message = format!("`{text}` is no JSON ({cause}): texts take quotes, as in \"text\"");
        Error::new(ErrorKind::InvalidConfig, message)
    })
}

impl Change {
    fn report<R: Serialize>(
        &self,
        work: impl FnOnce(&Maintenance) -> Result<R>,
        page: impl FnOnce(&R) -> String,
    ) -> Result<Output> {
        let dir = &self.target.dir;
        let store = if self.confirm { Maintenance::confirmed(dir) } else { Maintenance::planned(dir) };
        let report = work(&store)?;
        let mut text = if self.target.json { json(&report)? } else { page(&report) };
        if !self.confirm && !self.target.json {
            text.push_str("nothing was changed: add --confirm\n");
        }
        Ok(Output { bytes: text.into_bytes(), sound: true, is_page: true })
    }
}
