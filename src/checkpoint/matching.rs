//! Whose state is whose: the operators of a checkpoint against those of the job, decided before anything is changed.

use std::sync::Arc;

use crate::format::records::OperatorRef;
use crate::state::{Convert, OperatorState, StateType};

/// What becomes of an operator's state at a start.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StateMatch {
    /// The job has an operator of this name and type: it goes on with its state.
    Matched,
    /// The operator goes on with state that has another name, another type or both in the checkpoint. The next
    /// checkpoint has it under the operator's own name and type.
    #[non_exhaustive]
    Upgraded {
        /// Its name in the checkpoint, if that is another one: see [`StateSpec::was`](crate::StateSpec::was).
        name: Option<String>,
        /// Its type in the checkpoint, if that is another one: see
        /// [`StateSpec::migrate_from`](crate::StateSpec::migrate_from).
        value_type: Option<String>,
    },
    /// The job has an operator that the checkpoint does not: it begins empty.
    New,
    /// The checkpoint has state that no operator of the job takes.
    Dropped,
    /// There is state for this operator that it cannot go on with.
    Incompatible,
}

/// What becomes of the state of one operator, of the job or of the checkpoint.
pub(crate) struct Match {
    pub(crate) name: String,
    pub(crate) outcome: StateMatch,
    /// What the checkpoint has for it.
    pub(crate) stored: Option<OperatorRef>,
    pub(crate) asked: Option<StateType>,
    /// How its values are migrated.
    pub(crate) convert: Option<Convert>,
    /// Why the job cannot start like this, and what to do.
    pub(crate) problem: Option<String>,
}

/// Matches the operators of a checkpoint of the time `time_ms` with `states`: first these, in their order, then those
/// that nobody takes.
pub(crate) fn match_states(
    stored: &[OperatorRef],
    states: &[Arc<OperatorState>],
    time_ms: u64,
) -> Vec<Match> {
    let mut matches: Vec<Match> = states.iter().map(|state| match_state(stored, state, time_ms)).collect();
    let known = |name: &str| {
        states.iter().any(|state| state.name() == name)
            || matches.iter().any(|found| found.stored.as_ref().is_some_and(|stored| stored.name == name))
            || states.iter().any(|state| state.origins().names.iter().any(|was| was == name))
    };
    // State that was never filled is no loss.
    let dropped: Vec<Match> =
        stored.iter().filter(|stored| stored.keys > 0 && !known(&stored.name)).map(dropped).collect();
    matches.extend(dropped);
    matches
}

fn dropped(stored: &OperatorRef) -> Match {
    let (name, keys) = (&stored.name, stored.keys);
    let problem = format!(
        "the job has no operator `{name}` any more, which has {keys} keys: bring it back under this name, say which \
         operator was `{name}` (StateSpec::was), or allow dropping state"
    );
    Match {
        name: name.clone(),
        outcome: StateMatch::Dropped,
        stored: Some(stored.clone()),
        asked: None,
        convert: None,
        problem: Some(problem),
    }
}

fn match_state(stored: &[OperatorRef], state: &OperatorState, time_ms: u64) -> Match {
    let (name, asked) = (state.name(), state.state_type());
    let names = std::iter::once(name).chain(state.origins().names.iter().map(|was| &**was));
    let candidates: Vec<&OperatorRef> =
        names.filter_map(|name| stored.iter().find(|stored| stored.name == name)).collect();
    let filled: Vec<&OperatorRef> = candidates.iter().copied().filter(|stored| stored.keys > 0).collect();
    let chosen = filled.first().or(candidates.first()).copied();
    let mut found = Match {
        name: name.to_owned(),
        outcome: StateMatch::New,
        stored: chosen.cloned(),
        asked: Some(asked.clone()),
        convert: None,
        problem: None,
    };
    let Some(chosen) = chosen else { return found };
    let kept = StateType::stored(chosen);
    let convert = || state.origins().upgrade.as_ref().and_then(|upgrade| upgrade.way_from(&kept, time_ms));
    if let [one, other, ..] = filled[..] {
        found.outcome = StateMatch::Incompatible;
        found.problem = Some(format!(
            "there is state both under `{}` ({} keys) and under `{}` ({} keys), and `{name}` can go on with one of \
             them only: take one name away from `{name}`, and keep the other state in an operator of its name, or allow \
             dropping it",
            one.name, one.keys, other.name, other.keys
        ));
        return found;
    }
    let old_name = (chosen.name != name).then(|| chosen.name.clone());
    if kept == *asked {
        found.outcome = match old_name {
            None => StateMatch::Matched,
            name => StateMatch::Upgraded { name, value_type: None },
        };
    } else if let Some(convert) = convert() {
        found.convert = Some(convert);
        found.outcome = StateMatch::Upgraded { name: old_name, value_type: Some(kept.value) };
    } else {
        found.outcome = StateMatch::Incompatible;
        found.problem = Some(difference(name, &kept, asked, state.origins().upgrade.is_some()));
    }
    found
}

/// What differs between two types of state, and what to do about it.
fn difference(name: &str, kept: &StateType, asked: &StateType, can_migrate: bool) -> String {
    if kept.key != asked.key {
        return format!(
            "the keys of `{name}` are {} in the checkpoint and {} in the job: keys cannot be migrated, because they say \
             where state is. Go back to the old type of keys, or give the operator a new name, fill it \
             (StateSpec::initial_state) if it should not begin empty, and allow dropping the old state",
            kept.key, asked.key
        );
    }
    let what = if kept.value == asked.value {
        format!(
            "the states of `{name}` are of the type {}, whose fields have changed: it had {} bytes and the schema {:016x} \
             in the checkpoint, and has {} bytes and the schema {:016x} in the job, {}",
            kept.value,
            kept.value_width,
            kept.schema.hash,
            asked.value_width,
            asked.schema.hash,
            asked.schema.text()
        )
    } else {
        format!("the state of `{name}` is {} in the checkpoint and {} in the job", kept.value, asked.value)
    };
    let remedy = if can_migrate {
        "say how one becomes the other (StateSpec::migrate_from), or go back to the old type"
    } else {
        "go back to what it was, or give the operator a new name and allow dropping the old state"
    };
    format!("{what}: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::object::name_without_paths;
    use crate::record::schema_hash;
    use crate::state::KnownSchema;

    fn operator(name: &str, key: &str, value: &str, keys: u64) -> OperatorRef {
        OperatorRef {
            name: name.into(),
            key_type: key.into(),
            value_type: value.into(),
            value_width: 8,
            schema: schema_hash(&name_without_paths(value)),
            keys,
        }
    }

    fn state(name: &str, value: &str) -> Arc<OperatorState> {
        let state_type = StateType {
            key: "bytes".into(),
            value: value.into(),
            value_width: 8,
            schema: KnownSchema::of_text(&name_without_paths(value)),
        };
        OperatorState::new(name, state_type)
    }

    #[test]
    fn operators_are_matched_by_name() {
        let stored = [
            operator("a", "bytes", "u64", 3),
            operator("b", "bytes", "u64", 3),
            operator("c", "bytes", "u64", 3),
            operator("e", "bytes", "u64", 0),
            operator("f", "bytes", "shop::v1::Order", 3),
            operator("g", "utf8", "u64", 3),
        ];
        let job = [("a", "u64"), ("b", "i64"), ("d", "u64"), ("f", "shop::orders::Order"), ("g", "u64")];
        let job = job.map(|(name, value)| state(name, value));
        let matches = match_states(&stored, &job, 0);
        let expected = [
            ("a", StateMatch::Matched),
            ("b", StateMatch::Incompatible),
            ("d", StateMatch::New),
            ("f", StateMatch::Matched),
            ("g", StateMatch::Incompatible),
            ("c", StateMatch::Dropped),
        ];
        let found: Vec<_> = matches.iter().map(|found| (&*found.name, found.outcome.clone())).collect();
        assert_eq!(found, expected);
        let keys = matches[4].problem.as_deref().unwrap();
        assert!(keys.contains("utf8 in the checkpoint and bytes in the job"), "{keys}");
    }
}
