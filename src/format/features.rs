//! What a store uses beyond its version: bits that tell a reader what it has to know.
//!
//! Each epoch begins with the bits of the whole store, so that they outlive the epoch in which a feature was first
//! used.

use crate::error::{Error, ErrorKind, Result};
use crate::format::records::EpochRecord;

/// Bits of which this build knows what they mean although it need not; none so far.
#[cfg(feature = "tool")]
const KNOWN_COMPATIBLE: u64 = 0;

/// Bits without which a store cannot be read; none so far.
const KNOWN_INCOMPATIBLE: u64 = 0;

/// The features of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// A reader that does not know them may pass over them, and a writer keeps them.
    pub(crate) compatible: u64,
    /// A reader that does not know them refuses the store.
    pub(crate) incompatible: u64,
}

impl Features {
    /// Whether this build knows all that it has to know of an epoch.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`] if not.
    pub(crate) fn check(epoch: &EpochRecord) -> Result<()> {
        let unknown = epoch.incompatible & !KNOWN_INCOMPATIBLE;
        if unknown != 0 {
            let message = format!(
                "unsupported features {unknown:#x} (this build knows {KNOWN_INCOMPATIBLE:#x}): use a newer build"
            );
            return Err(Error::new(ErrorKind::Incompatible, message));
        }
        Ok(())
    }

    /// Adds what an epoch begins with.
    pub(crate) fn join(&mut self, epoch: &EpochRecord) {
        self.compatible |= epoch.compatible;
        self.incompatible |= epoch.incompatible;
    }

    /// The features that this build does not know and passes over.
    #[cfg(feature = "tool")]
    pub(crate) fn passed_over(&self) -> u64 {
        self.compatible & !KNOWN_COMPATIBLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_features_are_kept_or_refused() {
        let epoch = |compatible, incompatible| EpochRecord {
            store: [0; 16],
            continues_after: 0,
            compatible,
            incompatible,
        };
        let mut features = Features::default();
        features.join(&epoch(5, 0));
        features.join(&epoch(8, 0));
        assert_eq!(features, Features { compatible: 13, incompatible: 0 });
        let refused = Features::check(&epoch(0, 2)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Incompatible);
        assert!(refused.to_string().contains("unsupported features 0x2"), "{refused}");
    }
}
