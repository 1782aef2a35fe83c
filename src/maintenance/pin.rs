//! Checkpoints that are kept under a name.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::format::records::{PinRecord, Record};
use crate::inspect::SCHEMA;
use crate::maintenance::Maintenance;
use crate::maintenance::open::Opened;
use crate::store::pins::{is_name, pin_path};
use crate::time::{Clock, SystemClock};

/// A checkpoint that was given a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PinReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// Whether it was done; otherwise nothing was changed.
    pub done: bool,
    /// The name.
    pub pin: String,
    /// The checkpoint.
    pub checkpoint: u64,
    /// The last batch whose changes are in it.
    pub batch: u64,
    /// The time of that batch.
    pub time_ms: u64,
    /// How many segments stay for it.
    pub segments: u64,
    /// Their bytes; checkpoints share them.
    pub bytes: u64,
    /// Whether it had this name already.
    pub was_pinned: bool,
}

/// A name that was taken from a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UnpinReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// Whether it was done; otherwise nothing was changed.
    pub done: bool,
    /// The name.
    pub pin: String,
    /// The checkpoint; `null` when the pin is damaged.
    pub checkpoint: Option<u64>,
    /// Bytes of segments that nothing else keeps, which the job's next clean-up or `prune` removes.
    pub freed_later_bytes: u64,
}

impl Maintenance {
    /// Keeps a checkpoint, by number or by another name, under `name`: no clean-up removes what it needs. Batches after
    /// it and the blocks that they read are not kept by it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no such checkpoint, `name` is none (1 to 64 of letters, digits,
    /// `.`, `_` and `-`, not digits alone) or names another one; [`ErrorKind::Corrupt`] when the checkpoint is damaged;
    /// [`ErrorKind::Locked`] when the job runs.
    pub fn pin(&self, checkpoint: &str, name: &str) -> Result<PinReport> {
        if !is_name(name) {
            let message = format!(
                "`{name}` is no name for a pin: it has 1 to 64 letters, digits, `.`, `_` or `-`, and is no number"
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        self.carry_out(|store| self.give_name(store, checkpoint, name))
    }

    fn give_name(&self, store: &Opened, checkpoint: &str, name: &str) -> Result<PinReport> {
        let record = store.find(checkpoint)?;
        store.prove(&record)?;
        let before = store.pins.pins.iter().find(|pin| pin.name == name);
        let is_damaged = store.pins.damage.iter().any(|(damaged, _)| damaged == name);
        if is_damaged || before.is_some_and(|pin| pin.checkpoint.checkpoint != record.checkpoint) {
            let message = format!("there is a pin `{name}` already: `unpin` it first");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let report = PinReport {
            schema: SCHEMA,
            directory: self.dir.display().to_string(),
            job: store.job.clone(),
            done: self.is_confirmed,
            pin: name.to_owned(),
            checkpoint: record.checkpoint,
            batch: record.batch,
            time_ms: record.time_ms,
            segments: record.segments.len() as u64,
            bytes: record.segments.iter().map(|segment| segment.length).sum(),
            was_pinned: before.is_some(),
        };
        if self.is_confirmed && before.is_none() {
            let number = record.checkpoint;
            let pinned_ms = SystemClock::new().now_ms();
            let pin = PinRecord { store: store.store, name: name.to_owned(), pinned_ms, checkpoint: record };
            store.disk.create_dir(&store.paths.pins())?;
            store.disk.publish(&pin_path(&store.paths, name), &pin.to_frame(number)?)?;
        }
        Ok(report)
    }

    /// Takes the name from a checkpoint, which is then kept for as long as any other. A damaged pin can be removed too.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] when there is no such pin, [`ErrorKind::Locked`] when the job runs.
    pub fn unpin(&self, name: &str) -> Result<UnpinReport> {
        self.carry_out(|store| self.take_name(store, name))
    }

    fn take_name(&self, store: &Opened, name: &str) -> Result<UnpinReport> {
        let pin = store.pins.pins.iter().find(|pin| pin.name == name);
        let is_damaged = store.pins.damage.iter().any(|(damaged, _)| damaged == name);
        if pin.is_none() && !is_damaged {
            let message = format!("there is no pin `{name}`: `checkpoints` lists what there is");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let others = store.pins.pins.iter().filter(|pin| pin.name != name).map(|pin| &pin.checkpoint);
        let needed = store.history.checkpoints.iter().map(|(_, record)| record).chain(others);
        let needed: BTreeSet<u64> =
            needed.flat_map(|record| &record.segments).map(|segment| segment.segment).collect();
        let segments = pin.into_iter().flat_map(|pin| &pin.checkpoint.segments);
        let free = segments.filter(|segment| !needed.contains(&segment.segment));
        let report = UnpinReport {
            schema: SCHEMA,
            directory: self.dir.display().to_string(),
            job: store.job.clone(),
            done: self.is_confirmed,
            pin: name.to_owned(),
            checkpoint: pin.map(|pin| pin.checkpoint.checkpoint),
            freed_later_bytes: free.map(|segment| segment.length).sum(),
        };
        if self.is_confirmed {
            store.disk.remove_file(&pin_path(&store.paths, name))?;
            store.disk.sync_dir(&store.paths.pins())?;
        }
        Ok(report)
    }
}
