//! What the state of an operator may come from: earlier names, earlier types, rows with timers and without.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::dstream::Graph;
use crate::dstream::keyed::{RowParts, Timer, assemble};
use crate::error::Result;
use crate::record::{Data, DataBuffer};
use crate::state::{Convert, OperatorState, Origins, StateType, Upgrade};

type Migrate = dyn Fn(&[u8], &mut DataBuffer) -> Result<Vec<u8>> + Send + Sync;

/// One step from an old type of values to a newer one.
#[derive(Clone)]
struct Migration {
    from: StateType,
    to: StateType,
    migrate: Arc<Migrate>,
}

impl std::fmt::Debug for Migration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Migration({} -> {})", self.from.value, self.to.value)
    }
}

/// The timers that a key gets whose state was kept without, in a checkpoint of this time.
pub(crate) type FirstTimers = Arc<dyn Fn(u64) -> Vec<Timer> + Send + Sync>;

/// Earlier names and types.
#[derive(Clone, Debug, Default)]
pub(crate) struct Upgrades {
    pub(crate) names: Vec<String>,
    migrations: Vec<Migration>,
}

/// Keys play no part in a migration.
fn same_values(a: &StateType, b: &StateType) -> bool {
    (&a.value, a.value_width, &a.schema) == (&b.value, b.value_width, &b.schema)
}

impl Upgrades {
    pub(crate) fn of_names(names: Vec<String>) -> Self {
        Upgrades { names, migrations: Vec::new() }
    }

    pub(crate) fn add_migration<Old: Data, New: Data>(
        &mut self,
        migrate: impl Fn(Old) -> New + Send + Sync + 'static,
    ) {
        let migrate = move |bytes: &[u8], buffer: &mut DataBuffer| {
            migrate(Old::decode(bytes, buffer)?).encode(buffer)?;
            Ok(buffer.as_bytes().to_vec())
        };
        let (from, to) = (StateType::of::<(), Old>(), StateType::of::<(), New>());
        self.migrations.push(Migration { from, to, migrate: Arc::new(migrate) });
    }

    /// The migrations that lead from values of one type to another, in order. None for equal types.
    fn steps(&self, from: &StateType, to: &StateType) -> Option<Vec<Arc<Migrate>>> {
        let (mut at, mut steps) = (from, Vec::new());
        while !same_values(at, to) {
            // More steps than there are migrations go round in circles.
            let next = self.migrations.iter().find(|next| same_values(&next.from, at))?;
            if steps.len() == self.migrations.len() {
                return None;
            }
            steps.push(next.migrate.clone());
            at = &next.to;
        }
        Some(steps)
    }

    /// Notes what is wrong with them for an operator whose values are of the type `kept`.
    fn check(&self, graph: &Graph, name: &str, kept: &StateType) {
        for (at, Migration { from, to, .. }) in self.migrations.iter().enumerate() {
            let (old, new) = (&from.value, &to.value);
            let earlier = &self.migrations[..at];
            if same_values(from, to) {
                graph.add_problem(format!(
                    "`{name}`: a checkpoint cannot tell the types of the migration from {old} to {new} apart, which have \
                     one name (paths do not count) and the same fields: give the new type another name"
                ));
            } else if earlier.iter().any(|earlier| same_values(&earlier.from, from)) {
                graph.add_problem(format!("`{name}`: there are two migrations from {old}: one has to go"));
            } else if same_values(from, kept) {
                graph.add_problem(format!("`{name}`: its state is {old}: nothing migrates from there"));
            } else if self.steps(from, kept).is_none() {
                graph.add_problem(format!(
                    "`{name}`: the migration from {old} to {new} does not lead to its state, which is {}",
                    kept.value
                ));
            }
        }
    }

    /// What an operator accepts whose keys and values are of the type `kept`, and whose rows have timers when
    /// `first_timers` is there.
    pub(crate) fn origins(
        self,
        graph: &Graph,
        name: &str,
        kept: &StateType,
        first_timers: Option<FirstTimers>,
    ) -> Origins {
        self.check(graph, name, kept);
        let names = self.names.clone();
        let upgrade = StateUpgrade { upgrades: self, kept: kept.clone(), first_timers };
        Origins { names, upgrade: Some(Arc::new(upgrade)) }
    }
}

struct StateUpgrade {
    upgrades: Upgrades,
    kept: StateType,
    first_timers: Option<FirstTimers>,
}

impl Upgrade for StateUpgrade {
    fn way_from(&self, stored: &StateType, time_ms: u64) -> Option<Convert> {
        let (stored, had_timers) = stored.without_timers();
        let steps = (stored.key == self.kept.key).then(|| self.upgrades.steps(&stored, &self.kept))??;
        let first_timers = self.first_timers.clone();
        let migrate = move |archive: &[u8]| {
            let mut buffer = DataBuffer::default();
            steps.iter().try_fold(archive.to_vec(), |archive, step| step(&archive, &mut buffer))
        };
        Some(Box::new(move |stored| {
            let (timers, archive) = if had_timers {
                let parts = RowParts::of(stored)?;
                (parts.timers().collect(), parts.archive())
            } else {
                (first_timers.as_ref().map_or(Vec::new(), |timers| timers(time_ms)), Some(stored))
            };
            let archive = archive.map(&migrate).transpose()?;
            if first_timers.is_none() {
                return Ok(archive);
            }
            let mut row = Vec::new();
            Ok(assemble(&timers, archive.as_deref(), &mut row).map(<[u8]>::to_vec))
        }))
    }
}

/// What is wrong with the names that the operators of a job had before.
pub(super) fn names_clash<'a>(states: impl Iterator<Item = &'a Arc<OperatorState>>) -> Option<String> {
    let states: Vec<_> = states.collect();
    let present: BTreeSet<&str> = states.iter().map(|state| state.name()).collect();
    let mut claimed = BTreeSet::new();
    for state in states {
        for was in &state.origins().names {
            let name = state.name();
            if present.contains(&**was) {
                return Some(format!(
                    "`{name}` was `{was}`, but the job has an operator `{was}`, which goes on with the state of this name: \
                     take one of them away"
                ));
            }
            if !claimed.insert(&**was) {
                return Some(format!("two operators were `{was}`: only one can go on with its state"));
            }
        }
    }
    None
}
