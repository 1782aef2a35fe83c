//! The graph of a job: its inputs, its stateful operators, its outputs, and a description of all.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::batch::Batch;
use crate::dstream::Output;
use crate::dstream::shared::{SharedVariable, SharedVariables, Tallied};
use crate::dstream::upgrades::names_clash;
use crate::error::{Error, ErrorKind, Result};
use crate::format::records::{LineageNode, POSITIONS_PREFIX};
use crate::id::{BatchTime, StreamId};
use crate::source::{Inlet, Offer, Positions, ReceiverTask};
use crate::state::OperatorState;

/// An operator that keeps state from batch to batch.
pub(crate) trait StatefulNode: Send + Sync {
    fn state(&self) -> &Arc<OperatorState>;

    /// Computes the batch's changes, then applies them: all or, when computing fails, none.
    fn advance(&self, batch: &Batch) -> Result<()>;

    /// The batch is over: nothing may refer to the numbers of keys any more.
    fn finish_batch(&self) -> Result<()>;

    /// Puts the state in place that a store without any state of this operator begins with.
    fn initialize(&self) -> Result<()> {
        Ok(())
    }

    /// The state is back from a checkpoint: what is derived from it and held in memory is built again.
    fn restored(&self) -> Result<()> {
        Ok(())
    }

    /// The archives of the values that the operator is given for a key in a batch; `None` where its input is not by
    /// this key. Neither its state nor the batch in progress is touched.
    fn values_for(&self, _batch: &Batch, _key: &[u8]) -> Result<Option<Vec<Vec<u8>>>> {
        Ok(None)
    }

    /// A batch time between `last` and `latest`, both exclusive, that this operator must not miss although
    /// nothing was received for it: the end of a window that has records.
    fn due_between(&self, _last: BatchTime, _latest: BatchTime) -> Option<BatchTime> {
        None
    }
}

/// A replayable source whose record type no longer matters.
pub(crate) trait PollSource: Send {
    fn poll(&mut self, positions: &Positions, limit: u64, now_ms: u64) -> Result<Offer>;
}

/// How an input gets its records.
pub(crate) enum InputKind {
    /// Runs on the tokio runtime.
    Receiver { task: ReceiverTask, ends_by_itself: bool },
    /// Is pushed into by hand.
    Queue(Box<dyn FnOnce(tokio::runtime::Handle, Inlet) + Send>),
    /// Is asked once per batch.
    Replayable { source: Box<dyn PollSource>, positions: Positions },
}

/// An input of the job.
pub(crate) struct Input {
    pub(crate) name: Arc<str>,
    pub(crate) stream: StreamId,
    pub(crate) kind: InputKind,
    /// Of the records in its blocks; empty where they are lines or where there are no blocks.
    pub(crate) schema: String,
}

#[derive(Default)]
struct Parts {
    nodes: Vec<LineageNode>,
    inputs: Vec<Input>,
    stateful: Vec<Arc<dyn StatefulNode>>,
    variables: SharedVariables,
    outputs: Vec<Arc<Output>>,
    names: HashSet<String>,
    problems: Vec<String>,
    /// The job was started from it: what is added now would never run.
    is_closed: bool,
}

/// A stream that an operation reads.
#[derive(Clone, Copy)]
pub(crate) struct Upstream<'a> {
    pub(crate) graph: &'a Arc<Graph>,
    pub(crate) id: u32,
    /// The time between batches in which it takes part, 0 for every batch.
    pub(crate) slide_ms: u64,
}

/// The description of a job while it is being written.
pub(crate) struct Graph {
    partitions: usize,
    interval_ms: u64,
    parts: Mutex<Parts>,
}

/// The parts of a job that a store knows by name.
pub(crate) struct Outline {
    /// Everything that a checkpoint holds, in a fixed order.
    pub(crate) states: Vec<Arc<OperatorState>>,
    /// Each with the schema of its records.
    pub(crate) streams: Vec<(Arc<str>, StreamId, String)>,
}

impl Outline {
    fn of(inputs: &[Input], stateful: &[Arc<dyn StatefulNode>], variables: &SharedVariables) -> Self {
        let states = stateful.iter().map(|node| node.state().clone());
        let positions = inputs.iter().filter_map(|input| match &input.kind {
            InputKind::Replayable { positions, .. } => Some(positions.state().clone()),
            _ => None,
        });
        Outline {
            states: states.chain(variables.states()).chain(positions).collect(),
            streams: inputs
                .iter()
                .map(|input| (input.name.clone(), input.stream, input.schema.clone()))
                .collect(),
        }
    }
}

/// A job as it runs: nothing can be added any more.
pub(crate) struct Job {
    pub(crate) inputs: Vec<Input>,
    pub(crate) stateful: Vec<Arc<dyn StatefulNode>>,
    pub(crate) variables: SharedVariables,
    pub(crate) outputs: Vec<Arc<Output>>,
    pub(crate) lineage: Vec<LineageNode>,
    pub(crate) fingerprint: u64,
}

impl Graph {
    pub(crate) fn new(partitions: usize, interval_ms: u64) -> Arc<Self> {
        Arc::new(Graph { partitions, interval_ms, parts: Mutex::default() })
    }

    pub(crate) fn interval_ms(&self) -> u64 {
        self.interval_ms
    }

    /// Notes something that is wrong with the job: the start refuses it.
    pub(crate) fn add_problem(&self, problem: String) {
        self.lock().problems.push(problem);
    }

    pub(crate) fn partitions(&self) -> usize {
        self.partitions
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn operation(&self, id: u32) -> String {
        self.lock().nodes.get(id as usize).map_or_else(String::new, |node| node.operation.clone())
    }

    /// Adds a node to the description and returns its number.
    ///
    /// # Panics
    /// When the job was started.
    pub(crate) fn add_node<T>(&self, operation: &str, name: &str, parents: &[u32], wide: bool) -> u32 {
        let mut parts = self.lock();
        if parts.is_closed {
            drop(parts);
            panic!(
                "`{operation}` is added to a job that was started: describe all of a job before its start"
            );
        }
        let id = parts.nodes.len() as u32;
        parts.nodes.push(LineageNode {
            id,
            operation: operation.to_owned(),
            name: name.to_owned(),
            record_type: std::any::type_name::<T>().to_owned(),
            parents: parents.to_vec(),
            wide,
        });
        id
    }

    /// Adds an operation on streams. The one place that knows whether they all belong to this job.
    pub(crate) fn add_operation<T>(
        self: &Arc<Self>,
        operation: &str,
        upstream: &[Upstream<'_>],
        wide: bool,
    ) -> u32 {
        if upstream.is_empty() {
            self.add_problem(format!("`{operation}` is given no stream: it needs at least one"));
        }
        let (own, foreign): (Vec<Upstream<'_>>, Vec<Upstream<'_>>) =
            upstream.iter().partition(|stream| Arc::ptr_eq(stream.graph, self));
        if !foreign.is_empty() {
            self.add_problem(format!(
                "`{operation}` is given a stream of another context: all streams of a job come from one"
            ));
        }
        let slides: BTreeSet<u64> = own.iter().map(|stream| stream.slide_ms.max(self.interval_ms)).collect();
        if slides.len() > 1 {
            self.add_problem(format!(
                "`{operation}` is given streams that slide by {slides:?} ms: give their windows the same slide"
            ));
        }
        let parents: Vec<u32> = own.iter().map(|stream| stream.id).collect();
        self.add_node::<T>(operation, "", &parents, wide)
    }

    fn claim_name(parts: &mut Parts, kind: &str, name: &str) {
        if name.is_empty() || name.len() > 255 {
            parts
                .problems
                .push(format!("the name of a {kind} must have 1 to 255 bytes, `{name}` has {}", name.len()));
        }
        if !parts.names.insert(format!("{kind} {name}")) {
            parts.problems.push(format!("two {kind}s are called `{name}`: each needs a name of its own"));
        }
    }

    pub(crate) fn add_input(&self, name: &Arc<str>, kind: InputKind, schema: String) {
        let mut parts = self.lock();
        Self::claim_name(&mut parts, "stream", name);
        parts.inputs.push(Input { name: name.clone(), stream: StreamId::of(name), kind, schema });
    }

    pub(crate) fn add_stateful(&self, name: &str, node: Arc<dyn StatefulNode>) {
        let mut parts = self.lock();
        Self::claim_name(&mut parts, "stateful operator", name);
        if name.starts_with(POSITIONS_PREFIX) {
            parts.problems.push(format!("the name `{name}` is taken: `{POSITIONS_PREFIX}` is for sources"));
        }
        parts.stateful.push(node);
    }

    pub(crate) fn add_variable(&self, variable: Arc<dyn SharedVariable>) {
        let mut parts = self.lock();
        for state in variable.states() {
            Self::claim_name(&mut parts, "stateful operator", state.name());
        }
        parts.variables.add(variable);
    }

    pub(crate) fn add_accumulator(&self, accumulator: Arc<dyn Tallied>) {
        let mut parts = self.lock();
        Self::claim_name(&mut parts, "stateful operator", accumulator.state().name());
        parts.variables.add_accumulator(accumulator);
    }

    pub(crate) fn add_output(&self, output: Output) {
        let mut parts = self.lock();
        Self::claim_name(&mut parts, "output", &output.name);
        parts.outputs.push(Arc::new(output));
    }

    /// Where an output puts its batches: another one there would replace them.
    pub(crate) fn claim_place(&self, place: &str, nested: bool) {
        let mut parts = self.lock();
        if nested {
            parts.problems.push(format!("the suffix of `{place}` must not have a `/`"));
        }
        if !parts.names.insert(format!("place {place}")) {
            parts.problems.push(format!("two outputs save to `{place}`: each needs a place of its own"));
        }
    }

    /// What the description has so far.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidGraph`] where it is no job.
    pub(crate) fn outline(&self) -> Result<Outline> {
        let parts = self.lock();
        parts.check()?;
        Ok(Outline::of(&parts.inputs, &parts.stateful, &parts.variables))
    }

    /// Closes the description.
    pub(crate) fn into_job(self: &Arc<Self>) -> Result<Job> {
        let closed = Parts { is_closed: true, ..Parts::default() };
        let parts = std::mem::replace(&mut *self.lock(), closed);
        parts.check()?;
        let fingerprint = xxh3_64(format!("{:?}", parts.nodes).as_bytes());
        let Parts { nodes, inputs, stateful, variables, outputs, .. } = parts;
        Ok(Job { inputs, stateful, variables, outputs, lineage: nodes, fingerprint })
    }
}

impl Parts {
    /// Whether this is a job.
    fn check(&self) -> Result<()> {
        let invalid = |message: String| Err(Error::new(ErrorKind::InvalidGraph, message));
        if let Some(problem) = self.problems.first() {
            return invalid(problem.clone());
        }
        if self.inputs.is_empty() {
            return invalid("the job has no input stream".to_owned());
        }
        if self.outputs.is_empty() && self.stateful.is_empty() {
            return invalid(
                "the job has no output operation and keeps no state: it would do nothing".to_owned(),
            );
        }
        let variables: Vec<_> = self.variables.states().collect();
        let states = self.stateful.iter().map(|node| node.state());
        names_clash(states.chain(&variables)).map_or(Ok(()), invalid)
    }
}

impl Job {
    /// The states of stateful operators and shared variables.
    pub(crate) fn states_by_name(&self) -> HashMap<String, Arc<OperatorState>> {
        let stateful = self.stateful.iter().map(|node| node.state().clone());
        stateful.chain(self.variables.states()).map(|state| (state.name().to_owned(), state)).collect()
    }

    pub(crate) fn outline(&self) -> Outline {
        Outline::of(&self.inputs, &self.stateful, &self.variables)
    }

    /// Everything that a checkpoint holds, in a fixed order: stateful operators, shared variables, source positions.
    pub(crate) fn states(&self) -> Vec<Arc<OperatorState>> {
        self.outline().states
    }
}
