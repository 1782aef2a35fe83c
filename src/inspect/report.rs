//! The reports: plain data, and as such the wire format of the command.

use serde::Serialize;

/// The version of the wire format.
pub const SCHEMA: u32 = 1;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Stored bytes are damaged or missing. Written `"damage"`.
    Damage,
    /// Nothing is wrong: what an interrupted write left behind. Written `"note"`.
    Note,
}

/// Something that was found in a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Whether it is damage.
    pub severity: Severity,
    /// The file or directory, relative to the store.
    pub place: String,
    /// What is wrong, in one line.
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl Finding {
    pub(crate) fn damage(place: impl Into<String>, what: impl Into<String>, remedy: &str) -> Self {
        let (place, what) = (place.into(), what.into());
        // Errors name their file first; here it has a field of its own.
        let what = what.strip_prefix(&format!("{place}: ")).map_or(what.clone(), str::to_owned);
        Finding { severity: Severity::Damage, place, what, remedy: remedy.to_owned() }
    }

    pub(crate) fn note(place: impl Into<String>, what: impl Into<String>, remedy: &str) -> Self {
        Finding { severity: Severity::Note, ..Finding::damage(place, what, remedy) }
    }

    /// Whether it is damage and not a note.
    pub fn is_damage(&self) -> bool {
        self.severity == Severity::Damage
    }
}

/// A summary of a store: what a restart would find.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoreReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The store's identity: 32 hexadecimal digits.
    pub store: String,
    /// The version of the format the store was made with.
    pub format_version: u16,
    /// The newest sound record of the catalog: the report shows the store as of its commit.
    pub last_durable_record: u64,
    /// The newest batch that was planned, `null` for none.
    pub last_planned_batch: Option<u64>,
    /// The newest start of the job, `null` before the first.
    pub run: Option<RunReport>,
    /// What a restart would do.
    pub restart: RestartReport,
    /// Received blocks that are in no batch yet.
    pub pending: PendingReport,
    /// The stateful operators of the checkpoint a restart would choose.
    pub operators: Vec<OperatorReport>,
    /// How far the replayable sources are, in the same checkpoint.
    pub positions: Vec<PositionsReport>,
    /// What the store takes on disk.
    pub disk: DiskReport,
    /// Whether everything that a restart needs is sound. `verify` looks at the rest too.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// One start of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunReport {
    /// The version of the crate.
    pub version: String,
    /// When it was started.
    pub started_ms: u64,
    /// The time between batches.
    pub batch_interval_ms: u64,
    /// A checkpoint was taken after so many batches.
    pub checkpoint_every_batches: u64,
    /// Partitions of shuffles and state.
    pub partitions: u32,
    /// Compute threads.
    pub threads: u32,
}

/// What the next start of the job would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RestartReport {
    /// The checkpoint it would begin with: the newest sound one. `null` begins with empty state.
    pub checkpoint: Option<CheckpointReport>,
    /// Newer checkpoints that it would pass over because they are damaged.
    pub walked_back: Vec<WalkedBack>,
    /// How many batches it would compute again.
    pub replayed_batches: u64,
    /// The first of them.
    pub replay_from: Option<u64>,
    /// The last of them.
    pub replay_to: Option<u64>,
    /// How many of them were done: their outputs would not be emitted again.
    pub replayed_done: u64,
    /// Batches whose plans are lost.
    pub lost: Option<LostBatches>,
    /// The number of the first new batch.
    pub next_batch: u64,
    /// Why it would refuse to start, `null` when it would start.
    pub refused: Option<String>,
}

/// A checkpoint that is passed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WalkedBack {
    /// Its number.
    pub checkpoint: u64,
    /// What is wrong with it.
    pub why: String,
}

/// A span of batches whose plans cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct LostBatches {
    /// The first.
    pub from: u64,
    /// The last.
    pub to: u64,
}

/// Blocks that wait for a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PendingReport {
    /// How many.
    pub blocks: u64,
    /// Their bytes in the log.
    pub bytes: u64,
}

/// The checkpointed state of one operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OperatorReport {
    /// The name the job gave it.
    pub name: String,
    /// The type of its keys.
    pub key_type: String,
    /// The type of its states.
    pub value_type: String,
    /// Keys with state.
    pub keys: u64,
    /// What whole key groups take in the segments.
    pub base_bytes: u64,
    /// What changes since then take.
    pub delta_bytes: u64,
}

/// The checkpointed positions of one replayable source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PositionsReport {
    /// The name the job gave the source.
    pub source: String,
    /// Partitions (files, topic partitions) with a position.
    pub partitions: u64,
    /// What they take in the segments.
    pub bytes: u64,
}

/// Sizes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiskReport {
    /// The epochs.
    pub catalog_bytes: u64,
    /// The receive log.
    pub log_bytes: u64,
    /// The segments of state.
    pub state_bytes: u64,
}

/// The checkpoints of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointsReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to.
    pub job: String,
    /// The newest sound record of the catalog: the report shows the store as of its commit.
    pub last_durable_record: u64,
    /// The retained and the pinned checkpoints, oldest first.
    pub checkpoints: Vec<CheckpointReport>,
    /// Older ones that the catalog still mentions and whose state was pruned.
    pub pruned: u64,
    /// Whether all retained ones, and the catalog they are in, are sound.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// One checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CheckpointReport {
    /// Its number.
    pub checkpoint: u64,
    /// The epoch of the catalog that it is recorded in, 0 when only a pin keeps it.
    pub epoch: u64,
    /// The last batch whose changes are in it.
    pub batch: u64,
    /// The time of that batch.
    pub time_ms: u64,
    /// Keys with state over all operators, source positions not counted.
    pub keys: u64,
    /// How many segments it needs.
    pub segments: u64,
    /// The bytes of these segments; checkpoints share them.
    pub bytes: u64,
    /// The names that it is pinned under.
    pub pins: Vec<String>,
    /// What is damaged, `null` when it is sound.
    pub damage: Option<String>,
}

/// The outcome of checking every byte of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifyReport {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The store, as it was named.
    pub directory: String,
    /// The job that the store belongs to, `null` when its identity is damaged.
    pub job: Option<String>,
    /// The newest sound record of the catalog: the report shows the store as of its commit.
    pub last_durable_record: u64,
    /// Epochs of the catalog that were read.
    pub epochs: u64,
    /// Checkpoints whose every segment was read.
    pub checkpoints: u64,
    /// Segments of which every page was read.
    pub segments: u64,
    /// Extents of the receive log of which every frame was read.
    pub extents: u64,
    /// Sound blocks in them.
    pub blocks: u64,
    /// Blocks that a replay may need, of those in plans.
    pub planned_blocks: u64,
    /// What a restart would do; `null` when the store's identity is damaged.
    pub restart: Option<RestartReport>,
    /// Whether no finding is damage.
    pub sound: bool,
    /// What was found, damage first.
    pub findings: Vec<Finding>,
}

/// Puts damage first and says whether there is none.
pub(crate) fn judge(findings: &mut [Finding]) -> bool {
    findings.sort_by_key(|finding| finding.severity);
    !findings.iter().any(Finding::is_damage)
}
