//! What a run leaves behind, and how two runs differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::driver::JobHandle;
use crate::dstream::StateView;
use crate::error::Result;
use crate::format::records::POSITIONS_PREFIX;
use crate::rdd::Record;
use crate::record::{Data, Key};
use crate::state::OperatorState;
use crate::testkit::readable::{key_text, value_text};
use crate::testkit::sink::{Emitted, records_of};

/// The value types of operators that keep whole partitions begin with this: where a record is kept depends on the
/// partitions.
const CHUNKS: &str = "chunk of ";

/// What one operator has in state.
#[derive(Clone)]
struct Contents {
    operator: String,
    key_type: String,
    value_type: String,
    /// Empty where it is not known.
    schema: String,
    keys: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What a job emitted and has in state after all of its input.
#[derive(Clone)]
pub struct Outcome {
    job: JobHandle,
    states: Vec<Contents>,
    outputs: BTreeMap<String, Emitted>,
    outside: BTreeMap<String, Vec<String>>,
    starts: usize,
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states = self.states.iter().map(|state| format!("{}: {} keys", state.operator, state.keys.len()));
        f.debug_struct("Outcome")
            .field("states", &states.collect::<Vec<_>>())
            .field("outputs", &self.outputs.keys())
            .field("starts", &self.starts)
            .finish_non_exhaustive()
    }
}

impl Outcome {
    pub(super) fn read(
        job: JobHandle,
        states: &[Arc<OperatorState>],
        outputs: BTreeMap<String, Emitted>,
        outside: BTreeMap<String, Vec<String>>,
        starts: usize,
    ) -> Result<Self> {
        let own = states.iter().filter(|state| !state.name().starts_with(POSITIONS_PREFIX));
        let contents = |state: &Arc<OperatorState>| {
            let mut keys = BTreeMap::new();
            state.for_each(|key, value| {
                keys.insert(key.to_vec(), value.to_vec());
                Ok(())
            })?;
            let types = state.state_type();
            let (operator, key_type) = (state.name().to_owned(), types.key.clone());
            let schema = types.schema.text.as_deref().unwrap_or_default().to_owned();
            Ok(Contents { operator, key_type, value_type: types.value.clone(), schema, keys })
        };
        let states = own.map(contents).collect::<Result<_>>()?;
        Ok(Outcome { job, states, outputs, outside, starts })
    }

    /// What the [`sink`](crate::testkit::TestContext::sink) of this name got, by batch; nothing when there is none of
    /// this name and type.
    pub fn output<T: Record>(&self, name: &str) -> Vec<(u64, Vec<T>)> {
        self.outputs.get(name).map_or_else(Vec::new, records_of)
    }

    /// The state of the operator of this name.
    ///
    /// # Errors
    /// [`ErrorKind::Incompatible`](crate::ErrorKind::Incompatible) when there is none with keys `K` and states `S`.
    pub fn state<K: Key, S: Data>(&self, operator: &str) -> Result<StateView<K, S>> {
        self.job.state(operator)
    }

    /// How often the job was started: one more than it was crashed.
    pub fn starts(&self) -> usize {
        self.starts
    }

    /// How `found` differs from this one, what it was expected to be: the state of operators first, in the order of
    /// the job's description, and so upstream before what follows from it; then what was emitted, batch by batch.
    pub fn differences(&self, found: &Outcome) -> Vec<Difference> {
        self.compare(found, Compared::Exactly)
    }

    pub(super) fn compare(&self, found: &Outcome, how: Compared) -> Vec<Difference> {
        let mut all = Vec::new();
        for state in self.states.iter().filter(|state| how.includes(state)) {
            match found.states.iter().find(|other| other.operator == state.operator) {
                Some(other) => state.compare(other, &mut all),
                None => state.compare(&Contents { keys: BTreeMap::new(), ..state.clone() }, &mut all),
            }
        }
        for (output, emitted) in &found.outputs {
            all.extend(emitted.again.iter().map(|again| Difference::EmittedAgain {
                output: output.clone(),
                batch: again.batch,
                before: again.before.clone(),
                now: again.now.clone(),
            }));
        }
        let mut emitted = Vec::new();
        for output in names(&self.outputs, &found.outputs) {
            compare_output(output, self.outputs.get(output), found.outputs.get(output), how, &mut emitted);
        }
        emitted.sort_by_key(|(batch, _)| *batch);
        all.extend(emitted.into_iter().map(|(_, difference)| difference));
        for name in names(&self.outside, &found.outside) {
            let lines = |of: &Outcome| of.outside.get(name).cloned().unwrap_or_default();
            let (expected, found) = (lines(self), lines(found));
            if how.sorted(&expected) != how.sorted(&found) {
                all.push(Difference::Outside { name: name.clone(), expected, found });
            }
        }
        all
    }
}

/// How closely two runs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    /// To the byte and in order.
    Exactly,
    /// As sets of records per batch, and without state that is kept by partition.
    WithoutOrder,
}

impl Compared {
    fn includes(self, state: &Contents) -> bool {
        self == Compared::Exactly || !state.value_type.starts_with(CHUNKS)
    }

    fn sorted(self, lines: &[String]) -> Vec<String> {
        let mut lines = lines.to_vec();
        if self == Compared::WithoutOrder {
            lines.sort_unstable();
        }
        lines
    }
}

fn names<'a, V>(one: &'a BTreeMap<String, V>, other: &'a BTreeMap<String, V>) -> BTreeSet<&'a String> {
    one.keys().chain(other.keys()).collect()
}

impl Contents {
    fn compare(&self, found: &Contents, all: &mut Vec<Difference>) {
        let keys: BTreeSet<_> = self.keys.keys().chain(found.keys.keys()).collect();
        for key in keys {
            let (expected, found_value) = (self.keys.get(key), found.keys.get(key));
            if expected != found_value {
                let shown = |value: &Vec<u8>| value_text(&self.value_type, &self.schema, value);
                all.push(Difference::State {
                    operator: self.operator.clone(),
                    key: key_text(&self.key_type, key),
                    expected: expected.map(shown),
                    found: found_value.map(shown),
                });
            }
        }
    }
}

fn compare_output(
    output: &str,
    expected: Option<&Emitted>,
    found: Option<&Emitted>,
    how: Compared,
    all: &mut Vec<(u64, Difference)>,
) {
    let batches_of = |emitted: Option<&Emitted>| -> Vec<u64> {
        emitted.into_iter().flat_map(|emitted| emitted.batches.keys().copied()).collect()
    };
    let batches: BTreeSet<u64> = batches_of(expected).into_iter().chain(batches_of(found)).collect();
    for batch in batches {
        let lines = |emitted: Option<&Emitted>| Some(how.sorted(&emitted?.batches.get(&batch)?.lines));
        let (expected, found) = (lines(expected), lines(found));
        if expected != found {
            all.push((batch, Difference::Output { output: output.to_owned(), batch, expected, found }));
        }
    }
}

/// One thing that two runs do not have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// The state of a key.
    State {
        /// The operator, by its name.
        operator: String,
        /// The key, as `Debug` shows it where its type is one of the crate's; else as hexadecimal digits.
        key: String,
        /// What it should be, as JSON by the schema of its type; `None` for nothing.
        expected: Option<String>,
        /// What it is.
        found: Option<String>,
    },
    /// What a batch has in a sink.
    Output {
        /// The sink's name.
        output: String,
        /// The batch's number.
        batch: u64,
        /// The records that should be there; `None` when the batch should not be.
        expected: Option<Vec<String>>,
        /// Those that are.
        found: Option<Vec<String>>,
    },
    /// A batch was emitted a second time, and not with the records that it had: computing it again did not give the
    /// same.
    EmittedAgain {
        /// The sink's name.
        output: String,
        /// The batch's number.
        batch: u64,
        /// The records of the first time.
        before: Vec<String>,
        /// Those of the second.
        now: Vec<String>,
    },
    /// What is outside of the job.
    Outside {
        /// Its name.
        name: String,
        /// What it should be.
        expected: Vec<String>,
        /// What it is.
        found: Vec<String>,
    },
}

/// Where two lists begin to differ.
fn first_of(expected: &[String], found: &[String]) -> String {
    let at = expected.iter().zip(found).take_while(|(one, other)| one == other).count();
    let shown = |lines: &[String]| lines.get(at).cloned().unwrap_or_else(|| "nothing".to_owned());
    let (one, other) = (expected.len(), found.len());
    let sizes = if one == other { String::new() } else { format!(" ({one} and {other} in all)") };
    format!("record {}: expected {}, found {}{sizes}", at + 1, shown(expected), shown(found))
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        match self {
            Difference::State { operator, key, expected, found } => {
                let (expected, found) = (shown(expected), shown(found));
                write!(f, "operator `{operator}`, key {key}: expected {expected}, found {found}")
            }
            Difference::Output { output, batch, expected: Some(expected), found: Some(found) } => {
                write!(f, "output `{output}`, batch {batch}, {}", first_of(expected, found))
            }
            Difference::Output { output, batch, expected, .. } => {
                let (is, should) = if expected.is_some() { ("is not", "is") } else { ("is", "is not") };
                write!(f, "output `{output}`: batch {batch} {is} there, and {should} expected")
            }
            Difference::EmittedAgain { output, batch, before, now } => {
                let first = first_of(before, now);
                write!(f, "output `{output}`: batch {batch} was emitted again with other records, {first}")
            }
            Difference::Outside { name, expected, found } => {
                write!(f, "outside `{name}`, {}", first_of(expected, found))
            }
        }
    }
}
