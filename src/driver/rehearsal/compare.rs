//! Comparing states key by key.

use std::fmt;
use std::sync::Arc;

use crate::checkpoint::matching::{Match, StateMatch};
use crate::config::KEY_GROUPS;
use crate::dstream::stored_value;
use crate::error::Result;
use crate::exec::Executor;
use crate::format::records::POSITIONS_PREFIX;
use crate::record::{Data, Key, KeyHash, key_text};
use crate::state::{OperatorState, StateType};
use crate::store::segments::Segment;

/// So many keys of an operator are shown.
const KEYS_SHOWN_MAX: usize = 10;

/// How the state of one operator that was computed again differs from the one in the checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperatorDifference {
    /// The operator; `positions of NAME` for how far a replayable source was read.
    pub operator: String,
    /// How the state in the checkpoint is that of this operator. State under another name or of another type is
    /// compared as a start would take it over.
    pub outcome: StateMatch,
    /// Keys with the same value in both.
    pub equal: u64,
    /// Keys that only the computed state has.
    pub added: u64,
    /// Keys that only the checkpoint has.
    pub removed: u64,
    /// Keys whose values differ.
    pub changed: u64,
    /// The first of these, ordered by their bytes; ten at most.
    pub keys: Vec<KeyDifference>,
}

/// A key that differs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct KeyDifference {
    /// The bytes of the key.
    pub key_bytes: Vec<u8>,
    /// The key as text: JSON-like for the keys the crate knows, else `0x` and its bytes in hexadecimal digits.
    pub key: String,
    /// The bytes of its value in the checkpoint, if it is there.
    pub before: Option<Vec<u8>>,
    /// The bytes of the value that was computed, if there is one.
    pub after: Option<Vec<u8>>,
    has_timers: bool,
}

impl KeyDifference {
    /// The key, `None` when it is no `K`.
    pub fn key_as<K: Key>(&self) -> Option<K> {
        K::decode_key(&self.key_bytes)
    }

    /// The state of the key in the checkpoint.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is no `S`.
    pub fn before_as<S: Data>(&self) -> Result<Option<S>> {
        self.decode(&self.before)
    }

    /// The state of the key that was computed.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when it is no `S`.
    pub fn after_as<S: Data>(&self) -> Result<Option<S>> {
        self.decode(&self.after)
    }

    fn decode<S: Data>(&self, value: &Option<Vec<u8>>) -> Result<Option<S>> {
        value.as_ref().map_or(Ok(None), |bytes| stored_value(bytes, self.has_timers))
    }
}

impl OperatorDifference {
    /// Whether there is none.
    pub fn is_equal(&self) -> bool {
        self.added + self.removed + self.changed == 0
    }

    /// Of state that no operator has any more.
    pub(super) fn dropped(matched: &Match) -> Self {
        OperatorDifference {
            operator: matched.name.clone(),
            outcome: StateMatch::Dropped,
            equal: 0,
            added: 0,
            removed: matched.stored.as_ref().map_or(0, |stored| stored.keys),
            changed: 0,
            keys: Vec::new(),
        }
    }
}

impl fmt::Display for OperatorDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OperatorDifference { operator, equal, added, removed, changed, keys, .. } = self;
        if self.is_equal() {
            return write!(f, "= `{operator}`: {equal} keys are equal");
        }
        write!(f, "! `{operator}`: {added} keys added, {removed} removed, {changed} changed, {equal} equal")?;
        if !keys.is_empty() {
            let shown: Vec<&str> = keys.iter().map(|key| &*key.key).collect();
            let more = if added + removed + changed > keys.len() as u64 { ", ..." } else { "" };
            write!(f, ": {}{more}", shown.join(", "))?;
        }
        Ok(())
    }
}

/// What a checkpoint holds for each of `states`, as a start would take it over.
pub(super) fn original_of(
    states: &[Arc<OperatorState>],
    matches: &[Match],
    segments: &[Arc<Segment>],
    executor: &Executor,
) -> Result<Vec<Arc<OperatorState>>> {
    let original = |(state, matched): (&Arc<OperatorState>, &Match)| {
        let original = OperatorState::new(state.name(), state.state_type().clone());
        match (&matched.outcome, &matched.stored) {
            (StateMatch::Matched, _) => original.restore(segments)?,
            (StateMatch::Upgraded { .. }, Some(stored)) => {
                original.take_over(segments, stored, matched.convert.as_ref(), executor)?;
            }
            _ => {}
        }
        Ok(original)
    };
    states.iter().zip(matches).map(original).collect()
}

/// How `after` differs from `before`. Brings all of both into memory.
pub(super) fn state_difference(
    before: &OperatorState,
    after: &OperatorState,
    executor: &Executor,
) -> Result<OperatorDifference> {
    let stage = format!("compare the state of `{}`", after.name());
    let groups = executor.run_stage(&stage, KEY_GROUPS, |_, group| group_difference(before, after, group))?;
    let mut all = OperatorDifference {
        operator: after.name().to_owned(),
        outcome: StateMatch::New,
        equal: 0,
        added: 0,
        removed: 0,
        changed: 0,
        keys: Vec::new(),
    };
    for group in groups {
        all.equal += group.equal;
        all.added += group.added;
        all.removed += group.removed;
        all.changed += group.changed;
        all.keys.extend(group.keys);
    }
    all.keys.sort_unstable();
    all.keys.truncate(KEYS_SHOWN_MAX);
    Ok(all)
}

#[derive(Default)]
struct GroupDifference {
    equal: u64,
    added: u64,
    removed: u64,
    changed: u64,
    keys: Vec<KeyDifference>,
}

fn group_difference(before: &OperatorState, after: &OperatorState, group: usize) -> Result<GroupDifference> {
    let StateType { key: key_type, .. } = after.state_type();
    let (_, has_timers) = after.state_type().without_timers();
    // What a source let go of is no longer in the checkpoint; it is told between batches, and no plan says so.
    let forgets = after.name().starts_with(POSITIONS_PREFIX);
    let (mut before, mut after) = (before.group(group), after.group(group));
    before.load()?;
    after.load()?;
    let (before, after) = (before.table(), after.table());
    let mut found = GroupDifference::default();
    let mut keep = |key: &[u8], values: (Option<&[u8]>, Option<&[u8]>)| {
        found.keys.push(KeyDifference {
            key_bytes: key.to_vec(),
            key: key_text(key_type, key),
            before: values.0.map(<[u8]>::to_vec),
            after: values.1.map(<[u8]>::to_vec),
            has_timers,
        });
        if found.keys.len() > 2 * KEYS_SHOWN_MAX {
            found.keys.sort_unstable();
            found.keys.truncate(KEYS_SHOWN_MAX);
        }
    };
    let value_in = |table: &crate::state::StateTable, hash: KeyHash, key: &[u8]| {
        table.find(hash, key).and_then(|at| table.value(at)).map(<[u8]>::to_vec)
    };
    for at in before.live() {
        let (hash, key, value) =
            (before.hash(at as usize), before.key(at as usize), before.value(at as usize));
        match value_in(after, hash, key) {
            Some(now) if Some(&*now) == value => found.equal += 1,
            now => {
                if now.is_some() {
                    found.changed += 1
                } else {
                    found.removed += 1
                }
                keep(key, (value, now.as_deref()));
            }
        }
    }
    for at in after.live() {
        let (hash, key) = (after.hash(at as usize), after.key(at as usize));
        if !forgets && value_in(before, hash, key).is_none() {
            found.added += 1;
            keep(key, (None, after.value(at as usize)));
        }
    }
    Ok(found)
}
