//! Pins: checkpoints that are kept under a name, each in a file of its own.
//!
//! Who runs the job only reads them: they change while no job has the lock.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result};
use crate::format::records::{PinRecord, Record};
use crate::store::StorePaths;
use crate::store::catalog::RECORD_BYTES_MAX;
use crate::store::disk::read_small;
use crate::store::segments::list_segments;

/// The end of a pin's file name.
const SUFFIX: &str = ".pin";

/// The longest name of a pin, in bytes.
const PIN_NAME_BYTES_MAX: usize = 64;

/// Whether a pin may be called so. A name of digits alone would be taken for a checkpoint's number.
pub(crate) fn is_name(name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=PIN_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(known)
        && !name.bytes().all(|byte| byte.is_ascii_digit())
}

pub(crate) fn pin_path(paths: &StorePaths, name: &str) -> PathBuf {
    paths.pins().join(format!("{name}{SUFFIX}"))
}

/// The pins of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    /// By name.
    pub(crate) pins: Vec<PinRecord>,
    /// What cannot be read: the name, and what is wrong.
    pub(crate) damage: Vec<(String, String)>,
}

impl Pins {
    /// Reads every pin.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] for files of another store or version, [`ErrorKind::Io`] when reading is
    /// refused. Damage is described in the result.
    pub(crate) fn read(paths: &StorePaths, store: [u8; 16]) -> Result<Self> {
        let mut pins = Pins::default();
        for name in names(paths)? {
            match read_pin(paths, store, &name) {
                Ok(pin) => pins.pins.extend(pin),
                Err(error) if error.kind() == ErrorKind::Corrupt => pins.damage.push((name, error.chain())),
                Err(error) => return Err(error),
            }
        }
        Ok(pins)
    }

    /// The segments that must stay. Which ones a damaged pin needs is not known: all that are there may be.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] when listing is refused.
    pub(crate) fn segments(&self, paths: &StorePaths) -> Result<BTreeSet<u64>> {
        let listed = self.pins.iter().flat_map(|pin| &pin.checkpoint.segments);
        let mut segments: BTreeSet<u64> = listed.map(|segment| segment.segment).collect();
        if !self.damage.is_empty() {
            segments.extend(list_segments(paths)?.into_iter().map(|segment| segment.0));
        }
        Ok(segments)
    }

    /// The newest checkpoint that is pinned, 0 for none.
    pub(crate) fn newest_checkpoint(&self) -> u64 {
        self.pins.iter().map(|pin| pin.checkpoint.checkpoint).max().unwrap_or(0)
    }
}

/// The names that have a file, in their order.
fn names(paths: &StorePaths) -> Result<Vec<String>> {
    let dir = paths.pins();
    let refused = |cause| Error::io(format!("list {}", dir.display()), cause);
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(refused(cause)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.map_err(refused)?.file_name();
        let name = file.to_str().and_then(|file| file.strip_suffix(SUFFIX));
        names.extend(name.filter(|name| is_name(name)).map(str::to_owned));
    }
    names.sort_unstable();
    Ok(names)
}

/// One pin; `None` when it is gone.
fn read_pin(paths: &StorePaths, store: [u8; 16], name: &str) -> Result<Option<PinRecord>> {
    let path = pin_path(paths, name);
    let Some(bytes) = read_small(&path, 2 * RECORD_BYTES_MAX as u64)? else { return Ok(None) };
    let (_, pin) = PinRecord::from_frame(&bytes).map_err(|error| error.within(path.display()))?;
    if pin.store != store {
        let message = format!("{} belongs to another store", path.display());
        return Err(Error::new(ErrorKind::Incompatible, message));
    }
    if pin.name != name {
        return Err(Error::corrupt(format!(
            "{}: it is pin `{}` under another name",
            path.display(),
            pin.name
        )));
    }
    Ok(Some(pin))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_that_are_no_numbers() {
        for name in ["a", "before-upgrade", "v1.2_3", "2026-01-01", ".", &*"n".repeat(64)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "7", "a/b", "..\u{0}", "a b", "\u{e9}", &*"n".repeat(65)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
