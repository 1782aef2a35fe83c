//! How an operator is named that keeps state and has no more to be said about.

use std::sync::Arc;

use crate::dstream::Upgrades;
use crate::state::{OperatorState, Origins, StateType};

/// The name that the state of an operator is found by after a restart, whatever else in the job has changed, and the
/// names that it had before. Text is one; [`was`](Self::was) is for operators that were renamed.
///
/// ```
/// # fn main() -> millpond::Result<()> {
/// # let context = millpond::StreamingContext::builder("doc").build()?;
/// # let lines = context.socket_text_stream("lines", "127.0.0.1:9999");
/// # use std::time::Duration;
/// use millpond::OperatorName;
///
/// let (length, slide) = (Duration::from_secs(60), Duration::from_secs(1));
/// lines.count_by_window(OperatorName::new("lines a minute").was("per minute"), length, slide).print(1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorName {
    name: String,
    earlier: Vec<String>,
}

impl OperatorName {
    /// A name.
    pub fn new(name: impl Into<String>) -> Self {
        OperatorName { name: name.into(), earlier: Vec::new() }
    }

    /// A name that the operator had in an earlier version of the job, as [`StateSpec::was`](crate::StateSpec::was): where
    /// a store has state under it and none under the name of now, the operator goes on with that.
    #[must_use]
    pub fn was(mut self, name: impl Into<String>) -> Self {
        self.earlier.push(name.into());
        self
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.name
    }

    /// What a part of the operator is called, which keeps state of its own.
    pub(crate) fn part(&self, suffix: &str) -> Self {
        let with = |name: &String| format!("{name}{suffix}");
        OperatorName { name: with(&self.name), earlier: self.earlier.iter().map(with).collect() }
    }

    pub(crate) fn upgrades(&self) -> Upgrades {
        Upgrades::of_names(self.earlier.clone())
    }

    /// State that is kept under this name.
    pub(crate) fn state(&self, state_type: StateType) -> Arc<OperatorState> {
        let origins = Origins { names: self.earlier.clone(), upgrade: None };
        OperatorState::with_origins(&self.name, state_type, origins)
    }
}

impl From<&str> for OperatorName {
    fn from(name: &str) -> Self {
        OperatorName::new(name)
    }
}

impl From<String> for OperatorName {
    fn from(name: String) -> Self {
        OperatorName::new(name)
    }
}

impl From<&String> for OperatorName {
    fn from(name: &String) -> Self {
        OperatorName::new(name)
    }
}
