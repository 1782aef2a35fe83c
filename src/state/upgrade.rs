//! State that an operator takes over although it was kept under another name or as another type.

use std::sync::Arc;

use crate::error::Result;
use crate::state::StateType;

/// Makes a value of the type that is asked for out of a stored one; `None` leaves nothing of its key.
pub(crate) type Convert = Box<dyn Fn(&[u8]) -> Result<Option<Vec<u8>>> + Send + Sync>;

/// The types of state that an operator can go on from, besides its own.
pub(crate) trait Upgrade: Send + Sync {
    /// The way from values of the type `stored`, in a checkpoint of the time `time_ms`; `None` where there is none.
    /// It depends on these alone: a start that crashes goes the same way again.
    fn way_from(&self, stored: &StateType, time_ms: u64) -> Option<Convert>;
}

/// Where an operator's state may come from, besides its own name and type.
#[derive(Clone, Default)]
pub(crate) struct Origins {
    /// What the operator was called before.
    pub(crate) names: Vec<String>,
    pub(crate) upgrade: Option<Arc<dyn Upgrade>>,
}

impl std::fmt::Debug for Origins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Origins({:?})", self.names)
    }
}
