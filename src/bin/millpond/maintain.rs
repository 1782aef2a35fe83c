//! The verbs that write.

use clap::{Args, Subcommand};
use millpond::Result;
use millpond::maintenance::Maintenance;
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
        Verb::Repair { change, job } => change.report(|store| store.repair(job.as_deref()), page::repair),
        Verb::Prune { change, keep } => change.report(|store| store.prune(*keep), page::prune),
    }
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
        Ok(Output { bytes: text.into_bytes(), sound: true })
    }
}
