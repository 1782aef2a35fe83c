//! How a stateful operator is named, and how it works.

use std::sync::Arc;
use std::time::Duration;

use crate::dstream::{Graph, Upgrades};
use crate::error::Result;
use crate::record::{Data, DataBuffer, Key};
use crate::state::StateType;

/// Which keys a stateful operator visits in a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Visit {
    /// Only keys with new values: a batch costs what it touches.
    #[default]
    Touched,
    /// Every key there is, as Spark does: a batch costs as much as the state is large.
    All,
}

/// A duration in milliseconds; one that is longer than any time lasts for ever.
pub(crate) fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The name of a stateful operator, and how it works.
///
/// The name is what its state is found by after a restart, whatever else in the job has changed.
///
/// ```
/// use std::time::Duration;
/// use millpond::StateSpec;
///
/// let spec = StateSpec::named("sessions")
///     .timeout(Duration::from_secs(1800))
///     .initial_state([("root".to_owned(), 1u64)]);
/// ```
#[derive(Clone, Debug)]
pub struct StateSpec {
    pub(crate) name: String,
    pub(crate) visit: Visit,
    pub(crate) timeout: Option<Duration>,
    pub(crate) time_to_live: Option<Duration>,
    pub(crate) initial: Option<InitialState>,
    pub(crate) upgrades: Upgrades,
}

impl StateSpec {
    /// State under this name.
    pub fn named(name: impl Into<String>) -> Self {
        StateSpec {
            name: name.into(),
            visit: Visit::default(),
            timeout: None,
            time_to_live: None,
            initial: None,
            upgrades: Upgrades::default(),
        }
    }

    /// Which keys are visited in a batch. Default [`Visit::Touched`]. For
    /// [`update_state_by_key`](crate::DStream::update_state_by_key).
    #[must_use]
    pub fn visit(mut self, visit: Visit) -> Self {
        self.visit = visit;
        self
    }

    /// A key without values for this long, by the times of batches, is told so once and removed, in the first
    /// batch of that time or later. For [`map_with_state`](crate::DStream::map_with_state).
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// A key without values for this long, by the times of batches, is forgotten without a word, in the first
    /// batch of that time or later.
    #[must_use]
    pub fn time_to_live(mut self, time_to_live: Duration) -> Self {
        self.time_to_live = Some(time_to_live);
        self
    }

    /// The states that the operator begins with where the store has none of it. Of two for one key the last
    /// one counts.
    #[must_use]
    pub fn initial_state<K: Key, S: Data>(mut self, states: impl IntoIterator<Item = (K, S)>) -> Self {
        self.initial = Some(InitialState::of(states));
        self
    }

    /// A name that the operator had in an earlier version of the job. Where a store has state under it and none
    /// under the name of now, the operator goes on with that; from the next checkpoint on it is stored under the
    /// new name alone. Several may be given, of which one may have state. After that checkpoint this may go.
    ///
    /// ```
    /// use millpond::StateSpec;
    ///
    /// let spec = StateSpec::named("visits").was("hits").was("clicks");
    /// ```
    #[must_use]
    pub fn was(mut self, name: impl Into<String>) -> Self {
        self.upgrades.names.push(name.into());
        self
    }

    /// How a state of an earlier version of the job becomes one of a newer version. Where a store has states of the
    /// type `Old`, each is migrated when the job starts, which reads all of the operator's state into memory; the
    /// next checkpoint holds the new ones alone, and a crash before it has them migrated again, so `migrate` must
    /// depend on nothing but the state. Timers and the end of a time to live stay. A function that panics fails the
    /// start, and nothing in the store has changed.
    ///
    /// Several may be given: one for each old type, each to the present one or to another from which a migration
    /// goes on. Types are told apart by their names without paths and by their fields: the old type can keep its name
    /// in a module of its own, as long as the new one differs in one of both.
    ///
    /// ```
    /// use millpond::StateSpec;
    ///
    /// // Version 1 kept a count, version 2 a count and a sum, version 3 counts in 128 bits.
    /// let spec = StateSpec::named("totals")
    ///     .migrate_from(|count: u64| (count, 0i64))
    ///     .migrate_from(|(count, sum): (u64, i64)| (u128::from(count), sum));
    /// ```
    #[must_use]
    pub fn migrate_from<Old: Data, New: Data>(
        mut self,
        migrate: impl Fn(Old) -> New + Send + Sync + 'static,
    ) -> Self {
        self.upgrades.add_migration(migrate);
        self
    }

    /// Notes settings that the operation cannot follow.
    pub(crate) fn allow_only(&self, graph: &Graph, operation: &str, visit_all: bool, timeout: bool) {
        let refuse = |what: &str| {
            graph.add_problem(format!("`{}`: {operation} knows no {what}", self.name));
        };
        if self.visit == Visit::All && !visit_all {
            refuse("Visit::All: it visits keys with new values or due timers");
        }
        if self.timeout.is_some() && !timeout {
            refuse("timeout: use time_to_live, or map_with_state");
        }
        if self.visit == Visit::All && self.time_to_live.is_some() {
            graph.add_problem(format!(
                "`{}`: with Visit::All every key is visited in every batch: return None for those whose time is over \
                 instead of setting time_to_live",
                self.name
            ));
        }
    }
}

impl From<&str> for StateSpec {
    fn from(name: &str) -> Self {
        StateSpec::named(name)
    }
}

/// The states that an operator begins with, as bytes.
#[derive(Clone, Debug)]
pub(crate) struct InitialState {
    state_type: StateType,
    rows: Arc<Result<Vec<(Vec<u8>, Vec<u8>)>>>,
}

impl InitialState {
    fn of<K: Key, S: Data>(states: impl IntoIterator<Item = (K, S)>) -> Self {
        let mut buffer = DataBuffer::default();
        let encode = |(key, state): (K, S)| {
            let mut bytes = Vec::new();
            key.encode_key(&mut bytes);
            state.encode(&mut buffer)?;
            Ok((bytes, buffer.as_bytes().to_vec()))
        };
        let rows = states.into_iter().map(encode).collect();
        InitialState { state_type: StateType::of::<K, S>(), rows: Arc::new(rows) }
    }

    /// Notes what is wrong with it for an operator with state of this type.
    pub(crate) fn check(&self, graph: &Graph, name: &str, expected: &StateType) {
        if self.state_type != *expected {
            let (given, kept) = (&self.state_type, expected);
            graph.add_problem(format!(
                "the initial state of `{name}` is {} -> {}, its state is {} -> {}",
                given.key, given.value, kept.key, kept.value
            ));
        }
        if let Err(error) = &*self.rows {
            graph.add_problem(format!("the initial state of `{name}`: {}", error.chain()));
        }
    }

    /// The rows; none where encoding failed, which [`check`](Self::check) has noted.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.rows.iter().flatten().map(|(key, state)| (&**key, &**state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_beyond_all_times_lasts_for_ever() {
        assert_eq!(in_ms(Duration::from_millis(7)), 7);
        assert_eq!(in_ms(Duration::from_secs(u64::MAX / 1_000 + 1)), u64::MAX);
    }
}
