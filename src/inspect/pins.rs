//! Pinned checkpoints, by name.

use std::path::Path;

use crate::checkpoint::protocol::History;
use crate::error::Result;
use crate::format::records::PinRecord;
use crate::id::EpochId;
use crate::inspect::open::{ReadStore, open, relative};
use crate::inspect::report::Finding;
use crate::inspect::state::Committed;
use crate::inspect::view::no_such;
use crate::store::pins::Pins;
use crate::store::quarantine;

const REMEDY: &str = "put the file back from a copy, or remove the pin with `unpin`; until then a job removes no \
                      segment that is there";

/// A checkpoint that is kept under a name.
pub(super) struct Pinned {
    pub(super) name: String,
    /// With the epoch that has its record too, 0 for none.
    pub(super) committed: Committed,
}

/// Reads the pins; what is wrong with them goes to `findings`.
pub(super) fn read_pins(
    store: &ReadStore,
    history: &History,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Pinned>> {
    let Pins { pins, damage } = Pins::read(&store.paths, store.identity.store)?;
    findings.extend(damage.into_iter().map(|(name, what)| {
        Finding::damage(format!("pins/{name}.pin"), relative(&store.paths, &what), REMEDY)
    }));
    let epoch_of = |id: u64| {
        let known = history.checkpoints.iter().find(|(_, record)| record.checkpoint == id);
        known.map_or(EpochId(0), |(epoch, _)| *epoch)
    };
    let pinned = |PinRecord { name, checkpoint, .. }| {
        let committed = (epoch_of(checkpoint.checkpoint), checkpoint);
        Pinned { name, committed }
    };
    Ok(pins.into_iter().map(pinned).collect())
}

/// The number of the checkpoint that `text` names in the store in `dir`: a number, or the name of a pin.
///
/// # Errors
/// As [`inspect`](crate::inspect::inspect), and [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig)
/// when there is no such pin.
pub fn checkpoint_number(dir: &Path, text: &str) -> Result<u64> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let store = open(dir)?;
    let pins = Pins::read(&store.paths, store.identity.store)?.pins;
    if let Some(pin) = pins.iter().find(|pin| pin.name == text) {
        return Ok(pin.checkpoint.checkpoint);
    }
    let names: Vec<&str> = pins.iter().map(|pin| &*pin.name).collect();
    let known = if names.is_empty() { "there is none".to_owned() } else { names.join(", ") };
    Err(no_such(format!("there is no pin `{text}` (pins: {known})")))
}

/// A note about damaged files that were put aside.
pub(super) fn quarantined(store: &ReadStore) -> Result<Option<Finding>> {
    let files = quarantine::list(&store.paths)?;
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    let what =
        format!("{} damaged files, {bytes} bytes, were put aside by a start or by `repair`", files.len());
    let remedy = "nothing: no start reads them; `prune` removes them";
    Ok((!files.is_empty()).then(|| Finding::note("quarantine", what, remedy)))
}
