//! Starting a job: open the store, find where to begin, replay, and only then receive.

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};

use tokio::sync::watch;

use crate::checkpoint::matching::{Match, StateMatch};
use crate::checkpoint::recovery::{Found, read_store};
use crate::checkpoint::sweep::Sweep;
use crate::checkpoint::writer::{CheckpointWriter, WriterSetup};
use crate::config::Settings;
use crate::dstream::{Input, InputKind, Job};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{Executor, keep_memory_for_reuse};
use crate::format::records::{
    CheckpointRecord, JobRecord, PlanRecord, Record, RunRecord, SegmentRef, StreamRef,
};
use crate::id::{BatchId, BatchTime, BlockId, EpochId};
use crate::receive_log::{self, ReceiveLog, ReceivedBlock};
use crate::record::schema_hash;
use crate::sink::SinkStart;
use crate::source::{Inlet, run_receiver};
use crate::state::SEGMENTS_MAX;
use crate::store::catalog::{Catalog, JOB_BYTES_MAX, RECORD_BYTES_MAX, remove_epoch, sync_epoch};
use crate::store::extents::{ExtentIndex, ExtentWriter, remove_extent, sync_extent};
use crate::store::late_damage;
use crate::store::log_scan::LogContents;
use crate::store::quarantine::move_there;
use crate::store::retry::FullDisk;
use crate::store::segments::segment_name;
use crate::store::{Disk, Store};
use crate::time::{Clock, Stopwatch, WakeUp};

use super::changes::Watched;
use super::rate::Rates;
use super::report::ReceiverReports;
use super::residency::Residency;
use super::run::Emit;
use super::upgrade::{UpgradePlan, plan_of};
use super::{Driver, Listeners, Progress, Receivers, RecoveryReport, Shared, StopMode, lock};

/// A start that finds more epochs without a checkpoint than this takes one at once, so that crash loops do not pile
/// them up.
const EPOCHS_MAX: usize = 4;

/// A checkpoint may refer to more segments than it should for a while.
const SEGMENTS_SPARE: usize = 1_024;

/// What the frame of a record takes, and a pin's name.
const RECORD_SPARE: usize = 4 << 10;

/// What a job is started with besides its description.
pub(crate) struct Components {
    pub(crate) settings: Settings,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Disk,
    pub(crate) listeners: Listeners,
}

/// A job that is ready, before its first new batch.
pub(crate) struct Started {
    pub(crate) driver: Driver,
    pub(crate) shared: Arc<Shared>,
    pub(crate) report: RecoveryReport,
}

/// Recovers the job and makes it ready; returns when every batch that has to be replayed was.
pub(crate) fn start(components: Components, job: Job) -> Result<Started> {
    let watch = Stopwatch::start();
    let Components { settings, clock, disk, listeners } = components;
    if settings.state_memory_bytes_max.is_none() {
        keep_memory_for_reuse();
    }
    let executor = Executor::new(settings.threads, settings.task_attempts_max)?;
    let executor = Arc::new(executor.with_disk(disk.clone()));
    refuse_too_large(&job)?;
    let store = Store::open(&settings.store, &settings.name, disk)?;
    let found = read_store(&store.paths, store.identity.store, &executor, settings.verify_at_start_bytes)?;
    let (plan, matches) = plan_of(&found, &settings, &job.outline());
    plan.check()?;
    let mut report = report_of(&found, plan);
    let limited = |limit| Residency::new(limit, &job.states(), &found.segments, &found.damage);
    let residency = settings.state_memory_bytes_max.map(limited);
    if let Err(error) = restore(&job, &found, &matches, &executor) {
        found.damage.leave_note(&store.disk, &store.paths)?;
        return Err(error);
    }
    open_sinks(&job, &found, &settings, &store)?;
    report.quarantined = set_aside(&store, &found)?;
    let mut driver = Driver::assemble(settings, clock, store, executor, job, &found)?;
    driver.listeners = listeners;
    driver.residency = residency;
    // What new operators begin with is no batch's doing.
    driver.watched.take();
    driver.commit_run()?;
    driver.adopt_pending(&found.log)?;
    driver.replay(&found, &mut report)?;
    late_damage::remove_note(&driver.store.disk, &driver.store.paths)?;
    driver.start_receivers()?;
    driver.variables.before_start(driver.last_time)?;
    driver.log.activity().note_ready();
    driver.ready_ms = driver.now_ms();
    report.took = watch.elapsed();
    report.log();
    Ok(Started { shared: driver.shared.clone(), driver, report })
}

/// A job whose checkpoints would not fit a record of the catalog is refused before it has any.
fn refuse_too_large(job: &Job) -> Result<()> {
    let segment = SegmentRef { segment: 0, length: 0, directory_crc: 0 };
    let operators: Vec<_> = job.states().iter().map(|state| state.describe()).collect();
    let (count, segments) = (operators.len(), vec![segment; SEGMENTS_MAX + SEGMENTS_SPARE]);
    let record = CheckpointRecord {
        checkpoint: 0,
        batch: 0,
        time_ms: 0,
        next_block: 0,
        fingerprint: 0,
        segments,
        operators,
    };
    let (bytes, most) = (record.to_archive()?.len(), RECORD_BYTES_MAX - RECORD_SPARE);
    if bytes <= most {
        return Ok(());
    }
    let message = format!(
        "the job keeps {count} states, and to name them and their types takes {} bytes too much for the record of a \
         checkpoint: use fewer, or shorter names",
        bytes - most
    );
    Err(Error::new(ErrorKind::InvalidGraph, message))
}

/// Puts the states of the checkpoint in place.
pub(super) fn restore(job: &Job, found: &Found, matches: &[Match], executor: &Executor) -> Result<()> {
    let matches: HashMap<&str, &Match> = matches.iter().map(|found| (&*found.name, found)).collect();
    for state in job.states() {
        let stored = matches.get(state.name()).and_then(|found| Some((found, found.stored.as_ref()?)));
        match stored {
            Some((Match { outcome: StateMatch::Matched, .. }, _)) => state.restore(&found.segments)?,
            Some((matched, stored)) => {
                state.take_over(&found.segments, stored, matched.convert.as_ref(), executor)?;
            }
            // State that an older checkpoint had under this name, and the chosen one does not, is gone.
            None => state.hide(&found.segments),
        }
    }
    job.variables.restored(executor)?;
    job.stateful.iter().try_for_each(|node| match matches.get(node.state().name()) {
        Some(Match { outcome: StateMatch::Matched | StateMatch::Upgraded { .. }, .. }) => node.restored(),
        _ => node.initialize(),
    })
}

/// A sink may refuse to go on from this store; nothing was changed in it yet.
fn open_sinks(job: &Job, found: &Found, settings: &Settings, store: &Store) -> Result<()> {
    let start = SinkStart {
        job: settings.name.clone(),
        output: String::new(),
        store: store.identity.store.iter().map(|byte| format!("{byte:02x}")).collect(),
        last_batch: BatchId(found.recovery.next_batch - 1),
        lost: found.recovery.lost_plans.clone(),
    };
    job.outputs.iter().try_for_each(|output| output.open(&start))
}

impl Driver {
    /// Puts the parts together and begins the epoch of this run.
    fn assemble(
        settings: Settings,
        clock: Arc<dyn Clock>,
        store: Store,
        executor: Arc<Executor>,
        job: Job,
        found: &Found,
    ) -> Result<Self> {
        make_durable(&store, found)?;
        // Starts that came to nothing: the epoch of this one stands in for theirs.
        found.idle.iter().try_for_each(|epoch| remove_epoch(&store.disk, &store.paths, *epoch))?;
        let catalog = begin_epoch(&store, found, job_record(&settings, &job, clock.now_ms())?)?;
        let full_disk = FullDisk::default();
        let wake = WakeUp::new();
        let index = ExtentIndex::new(found.log.extents.clone());
        let Store { paths, disk, identity, .. } = &store;
        found.log.unfinished.iter().try_for_each(|extent| remove_extent(disk, paths, *extent))?;
        let checkpoints = checkpoint_writer(
            &store,
            found,
            &settings,
            (&catalog, &index, &full_disk),
            (clock.clone(), wake.clone()),
        )?;
        let buffer_bytes = settings.receive_buffer_bytes_max;
        let extents = ExtentWriter::new(disk.clone(), paths.clone(), identity.store, index, found.log.end);
        let (log, log_thread) = receive_log::start(extents, buffer_bytes, full_disk.clone(), wake.clone())?;
        let shared = shared_of(&job, found, &log, &executor, &full_disk, wake);
        let (last_time, clock_ahead_ms) = last_time(found, &settings, &*clock);
        Ok(Driver {
            streams: job.inputs.iter().map(|input| (input.stream, input.name.clone())).collect(),
            states: job.states(),
            residency: None,
            watched: Watched::of(&job, settings.partitions),
            next_batch: BatchId(found.recovery.checkpoint.as_ref().map_or(0, |chosen| chosen.batch) + 1),
            next_block: found.recovery.next_block,
            next_checkpoint: found.newest_checkpoint().next(),
            next_segment: found.newest_segment(&store.paths)?.next(),
            batches_since_checkpoint: 0,
            owes_checkpoint: false,
            ahead: None,
            sweep: Sweep::of(&found.unchecked),
            damage: found.damage.clone(),
            sources_wait: false,
            listeners: Listeners::default(),
            receiver_reports: ReceiverReports::new(shared.wake.clone()),
            rates: Rates::new(&settings),
            ready_ms: 0,
            fingerprint: job.fingerprint,
            inputs: job.inputs,
            stateful: job.stateful,
            variables: job.variables,
            outputs: job.outputs,
            receivers: None,
            log_thread: Some(log_thread),
            settings,
            clock,
            clock_ahead_ms,
            store,
            catalog,
            executor,
            shared,
            full_disk,
            log,
            checkpoints,
            last_time,
        })
    }
}

fn checkpoint_writer(
    store: &Store,
    found: &Found,
    settings: &Settings,
    (catalog, extents, full_disk): (&Arc<Mutex<Catalog>>, &ExtentIndex, &FullDisk),
    (clock, done): (Arc<dyn Clock>, Arc<WakeUp>),
) -> Result<CheckpointWriter> {
    CheckpointWriter::start(WriterSetup {
        disk: store.disk.clone(),
        paths: store.paths.clone(),
        store: store.identity.store,
        catalog: catalog.clone(),
        extents: extents.clone(),
        full_disk: full_disk.clone(),
        clock,
        retained: found.retained(),
        retained_count: settings.checkpoints_retained,
        pinned: found.pins.segments(&store.paths)?,
        segments: found.recovery.checkpoint.as_ref().map_or(Vec::new(), |chosen| chosen.segments.clone()),
        done,
    })
}

/// Whether a batch has to be emitted: not if it was done.
fn emit_of(found: &Found, batch: u64) -> Emit {
    found.history.done.get(&batch).map_or(Emit::Yes, |done| {
        let tallies = found.history.tallies.get(&batch).cloned().unwrap_or_default();
        Emit::DoneBefore(tallies, done.changes.clone())
    })
}

/// A job that was not replayed has come as far as its checkpoint.
fn first_progress(found: &Found) -> Progress {
    let chosen = found.recovery.checkpoint.as_ref();
    Progress {
        last_batch: chosen.map(|chosen| (BatchId(chosen.batch), BatchTime(chosen.time_ms))),
        // Not idle before the first batch has asked the sources.
        busy: true,
        ..Progress::default()
    }
}

/// What the driver shares with whoever holds the job.
fn shared_of(
    job: &Job,
    found: &Found,
    log: &Arc<ReceiveLog>,
    executor: &Arc<Executor>,
    full_disk: &FullDisk,
    wake: Arc<WakeUp>,
) -> Arc<Shared> {
    Arc::new(Shared {
        wake,
        stop: Mutex::new(None),
        outcome: Mutex::new(None),
        ended: std::sync::Condvar::new(),
        progress: Mutex::new(first_progress(found)),
        gate: Arc::new(RwLock::new(())),
        states: job.states_by_name(),
        log: log.clone(),
        executor: executor.clone(),
        full_disk: full_disk.clone(),
    })
}

fn report_of(found: &Found, plan: UpgradePlan) -> RecoveryReport {
    RecoveryReport {
        fresh: plan.fresh,
        checkpoint: plan.checkpoint,
        pending_blocks: found.log.blocks.len(),
        operators: plan.states.into_iter().map(|state| (state.operator, state.outcome)).collect(),
        walked_back: plan.walked_back,
        lost_plans: found.recovery.lost_plans.clone(),
        damage: found
            .history
            .damage
            .iter()
            .chain(&found.log.notes)
            .cloned()
            .chain(pin_damage(found))
            .collect(),
        ..RecoveryReport::default()
    }
}

fn pin_damage(found: &Found) -> impl Iterator<Item = String> {
    let damaged = found.pins.damage.iter();
    damaged.map(|(name, what)| format!("pin `{name}`: {what}; no segment that is there is removed"))
}

/// What a process that was killed wrote last may not have reached the disk yet. From here on it is built upon: a
/// power cut must not take it away from under what follows.
fn make_durable(store: &Store, found: &Found) -> Result<()> {
    let Store { paths, disk, .. } = store;
    found.newest_epochs().iter().try_for_each(|epoch| sync_epoch(disk, paths, *epoch))?;
    found.log.extents.last().map_or(Ok(()), |(newest, _)| sync_extent(disk, paths, *newest))
}

/// Damaged segments of checkpoints that are passed over go to the quarantine: the next checkpoint would remove them.
/// A start that crashes on the way finds them missing, and passes over the same checkpoints.
fn set_aside(store: &Store, found: &Found) -> Result<Vec<String>> {
    let names: Vec<_> = found.damaged.iter().map(|segment| segment_name(*segment)).collect();
    let moved = move_there(&store.disk, &store.paths, &names)?;
    Ok(moved.into_iter().map(|moved| moved.to.display().to_string()).collect())
}

/// A new epoch at every start: an epoch of an earlier run is never written to again.
fn begin_epoch(store: &Store, found: &Found, job: JobRecord) -> Result<Arc<Mutex<Catalog>>> {
    let newest = found.epochs.last().copied().unwrap_or(EpochId(0));
    let start = found.history.next_epoch(store.identity.store, newest, Some(job));
    let catalog = Catalog::begin(store.disk.clone(), store.paths.clone(), start)?;
    Ok(Arc::new(Mutex::new(catalog)))
}

/// The description of the job. One that would fill the catalog leaves out the lineage, which is for people only.
fn job_record(settings: &Settings, job: &Job, started_ms: u64) -> Result<JobRecord> {
    let streams = job.inputs.iter().map(|input| StreamRef {
        stream: input.stream.0,
        name: input.name.to_string(),
        schema: input.schema.clone(),
    });
    let mut record = JobRecord {
        job: settings.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        started_ms,
        batch_interval_ms: settings.batch_interval_ms(),
        checkpoint_every_batches: settings.checkpoint_every_batches,
        partitions: settings.partitions as u32,
        threads: settings.threads as u32,
        fingerprint: job.fingerprint,
        streams: streams.collect(),
        lineage: job.lineage.clone(),
    };
    if record.to_archive()?.len() > JOB_BYTES_MAX {
        tracing::warn!("the job is too large for the store to describe its lineage");
        record.lineage.clear();
    }
    if record.to_archive()?.len() > JOB_BYTES_MAX {
        record.streams.iter_mut().for_each(|stream| stream.schema.clear());
    }
    if record.to_archive()?.len() > JOB_BYTES_MAX {
        record.streams.clear();
    }
    Ok(record)
}

/// The time of the newest batch, and how far the clock is behind it.
fn last_time(found: &Found, settings: &Settings, clock: &dyn Clock) -> (BatchTime, u64) {
    let now_ms = clock.now_ms();
    let planned = found.history.plans.values().map(|plan| plan.time_ms).max();
    let checkpointed = found.recovery.checkpoint.as_ref().map(|checkpoint| checkpoint.time_ms);
    let Some(last) = planned.max(checkpointed) else {
        // The first batch of a store is due at the next multiple of the interval after its first start.
        let first_start = found.history.runs.first().map_or(now_ms, |run| run.started_ms.min(now_ms));
        return (BatchTime(first_start - first_start % settings.batch_interval_ms()), 0);
    };
    let behind = last.saturating_sub(now_ms);
    if behind > settings.batch_interval_ms() {
        tracing::warn!(behind_ms = behind, "the clock is behind the last batch: times go on from there");
    }
    (BatchTime(last), behind)
}

impl Driver {
    fn commit_run(&self) -> Result<()> {
        lock(&self.catalog).append(&RunRecord { started_ms: self.clock.now_ms() })?;
        Ok(())
    }

    /// Received blocks that no plan has wait for the next batch.
    fn adopt_pending(&mut self, found: &LogContents) -> Result<()> {
        let mut pending = Vec::new();
        for block in &found.blocks {
            if !self.streams.contains_key(&block.stream) {
                self.refuse_lost_input(block.stream, &BlockId(block.block.block).to_string())?;
                continue;
            }
            pending.push(ReceivedBlock { place: block.block, stream: block.stream, frame: None });
        }
        self.log.restore_pending(pending);
        Ok(())
    }

    /// Computes the planned batches after the checkpoint again; emits those that were not done.
    fn replay(&mut self, found: &Found, report: &mut RecoveryReport) -> Result<()> {
        for plan in &found.recovery.replay {
            self.replay_batch(plan, found, report)?;
        }
        report.differences = std::mem::take(&mut self.watched.differences);
        self.next_batch = BatchId(found.recovery.next_batch);
        let damaged = !report.walked_back.is_empty() || !report.lost_plans.is_empty();
        let piled_up = found.epochs_without_checkpoint() > EPOCHS_MAX;
        self.owes_checkpoint = !report.replayed.is_empty() || damaged || piled_up;
        if damaged || piled_up {
            self.checkpoint()?;
        } else {
            self.checkpoint_if_due()?;
        }
        if damaged || self.store.disk.is_in_order() {
            // From here on nothing depends on what is damaged.
            self.finish_checkpoint()?;
        }
        Ok(())
    }

    fn replay_batch(&mut self, plan: &PlanRecord, found: &Found, report: &mut RecoveryReport) -> Result<()> {
        let emit = emit_of(found, plan.batch);
        let planned = self.plan_again(plan, found.history.interval_ms(plan.batch))?;
        let batch = planned.batch;
        self.advance_positions(&planned.inputs)?;
        let emitted = emit == Emit::Yes;
        self.run_batch(planned, emit)?;
        self.limit_state(false)?;
        report.replayed.push(batch);
        if emitted {
            report.emitted.push(batch);
        }
        lock(&self.shared.progress).replayed_batches += 1;
        Ok(())
    }

    fn start_receivers(&mut self) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("millpond-receive")
            .enable_all()
            .build()
            .map_err(|cause| Error::io("start the receiving threads", cause))?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        let mut inputs = Vec::new();
        for Input { name, stream, kind, schema } in std::mem::take(&mut self.inputs) {
            let inlet = Inlet {
                name: name.clone(),
                stream,
                schema: schema_hash(&schema),
                log: self.log.clone(),
                stop: stopped.clone(),
                block_bytes: self.settings.block_bytes_max,
                block_interval: self.settings.block_interval(),
                stored: Arc::new(AtomicU64::new(0)),
                admission: self.rates.admission(stream, &self.clock),
                changes: self.receiver_reports.sender(),
            };
            match kind {
                InputKind::Receiver { task, ends_by_itself } => {
                    tasks.push((name, runtime.spawn(run_receiver(task, inlet, ends_by_itself))));
                }
                InputKind::Queue(connect) => connect(runtime.handle().clone(), inlet),
                kind @ InputKind::Replayable { .. } => inputs.push(Input { name, stream, kind, schema }),
            }
        }
        self.inputs = inputs;
        if self.settings.stop_on_signals {
            let shared = self.shared.clone();
            runtime.spawn(stop_on_signals(shared));
        }
        self.receivers = Some(Receivers { runtime, stop, tasks });
        Ok(())
    }
}

/// The first signal stops the job gracefully, the second at once.
async fn stop_on_signals(shared: Arc<Shared>) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::warn!("cannot listen for signals: they end the process as usual");
        return;
    };
    for mode in [StopMode::Graceful, StopMode::Now] {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!(?mode, "a signal asks the job to stop");
        shared.request_stop(mode);
    }
}
