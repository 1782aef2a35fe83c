//! The SQLite sink: rows that are added up show every batch that was written twice or never.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "sqlite", feature = "testkit"))]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millpond::testkit::FaultPlan;
use millpond::{
    BatchInfo, Begin, ContextBuilder, DStream, Error, ErrorKind, ManualClock, OutputError, Record,
    RunningContext, Sink, SinkId, SinkStart, SqliteSink, StopMode, rusqlite,
};
use rusqlite::Connection;
use support::Chunk;
use support::through::{builder, run_to, some_chunks, start, through};

const SCHEMA: &str =
    "CREATE TABLE IF NOT EXISTS totals (key INTEGER PRIMARY KEY, total INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS history (at INTEGER PRIMARY KEY AUTOINCREMENT, key INTEGER NOT NULL) STRICT;
    CREATE TRIGGER IF NOT EXISTS remember AFTER INSERT ON totals BEGIN
        INSERT INTO history (key) VALUES (new.key); END;";

/// Each record goes through the trigger, so that the order of rows is in the table `history`.
const ADD: &str = "INSERT INTO totals VALUES (?1, ?2)
    ON CONFLICT (key) DO UPDATE SET total = total + excluded.total";

fn totals_sink(database: &Path) -> SqliteSink<(u16, i64)> {
    SqliteSink::new(database, ADD, |add, (key, value)| add.execute((key, value))).schema(SCHEMA)
}

fn totals(database: &Path) -> BTreeMap<u16, i64> {
    let connection = Connection::open(database).unwrap();
    let mut query = connection.prepare("SELECT key, total FROM totals").unwrap();
    let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

/// The ledger: store, batch and time of each output.
fn ledger(database: &Path) -> Vec<(String, u64, u64)> {
    let connection = Connection::open(database).unwrap();
    let mut query = connection.prepare("SELECT output, batch, time_ms FROM millpond_ledger").unwrap();
    let rows = query.query_map((), |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).unwrap();
    rows.collect::<Result<_, _>>().unwrap()
}

fn model(chunks: &[Chunk]) -> BTreeMap<u16, i64> {
    let mut totals = BTreeMap::new();
    for (key, value) in chunks.iter().flatten() {
        *totals.entry(*key).or_default() += value;
    }
    totals
}

/// A job with one sink, in a directory of its own.
struct Place {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    chunks: Arc<Vec<Chunk>>,
}

impl Place {
    fn new(batches: u16) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Place { dir, clock: ManualClock::at(0), chunks: some_chunks(batches) }
    }

    fn database(&self) -> PathBuf {
        self.dir.path().join("totals.db")
    }

    fn builder(&self) -> ContextBuilder {
        builder(self.dir.path(), &self.clock).task_attempts_max(1)
    }

    fn start_with<S: Sink<(u16, i64)>>(&self, sink: S) -> millpond::Result<RunningContext> {
        self.start_at(self.builder(), sink)
    }

    fn start_at<S: Sink<(u16, i64)>>(
        &self,
        builder: ContextBuilder,
        sink: S,
    ) -> millpond::Result<RunningContext> {
        let sink = std::cell::Cell::new(Some(sink));
        start(builder, &self.chunks, &|pairs: &DStream<(u16, i64)>| {
            pairs.write_to("totals", sink.take().unwrap());
        })
    }

    fn start(&self) -> millpond::Result<RunningContext> {
        self.start_with(totals_sink(&self.database()))
    }

    /// Runs to the end of batch `last`, and leaves without a last checkpoint.
    fn run_to(&self, last: u64) {
        let job = self.start().unwrap();
        assert!(run_to(&job, &self.clock, last), "{:?}", job.await_termination());
    }

    fn refusal(&self) -> String {
        let error = self.start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Incompatible, "{error:?}");
        error.to_string()
    }
}

#[test]
fn a_crash_at_every_step_leaves_each_row_added_once() {
    let chunks = some_chunks(5);
    let run = |plans: &[Arc<FaultPlan>]| {
        let dir = tempfile::tempdir().unwrap();
        let database = dir.path().join("totals.db");
        let again = through(dir.path(), &chunks, plans, &|pairs| {
            pairs.write_to("totals", totals_sink(&database));
        });
        (totals(&database), ledger(&database), again)
    };
    let never = FaultPlan::never();
    let (expected, row, _) = run(std::slice::from_ref(&never));
    assert_eq!(expected, model(&chunks));
    assert_eq!(row, [("totals".to_owned(), 5, 5_000)]);
    let mut emitted_again = 0;
    for step in 1..=never.steps() {
        let (found, row_again, again) = run(&[FaultPlan::crash_at(step)]);
        assert_eq!((&found, &row_again), (&expected, &row), "after a crash at step {step}");
        emitted_again += again;
    }
    assert!(emitted_again > 4, "hardly a batch came again: the crashes miss the commits");
}

/// Commits to the sink within, and then fails or panics the first time: what the engine sees of a crash after the
/// commit.
struct FailsAfterCommit<S> {
    within: S,
    panics: bool,
    failed: Arc<AtomicBool>,
}

impl<T: Record, S: Sink<T>> Sink<T> for FailsAfterCommit<S> {
    type Staged = S::Staged;

    fn open(&self, start: &SinkStart) -> Result<(), OutputError> {
        self.within.open(start)
    }

    fn begin(&self, batch: &BatchInfo) -> Result<Begin, OutputError> {
        self.within.begin(batch)
    }

    fn write(&self, id: &SinkId, records: Vec<T>) -> Result<S::Staged, OutputError> {
        self.within.write(id, records)
    }

    fn commit(&self, batch: &BatchInfo, staged: Vec<S::Staged>) -> Result<(), OutputError> {
        self.within.commit(batch, staged)?;
        if batch.batch.0 < 2 || self.failed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        assert!(!self.panics, "asked to panic");
        Err("asked to fail".into())
    }
}

#[test]
fn a_batch_that_was_committed_but_not_recorded_as_done_is_recognised() {
    for (panics, attempts) in [(false, 1), (true, 1), (false, 3), (true, 3)] {
        let place = Place::new(4);
        let failed = Arc::new(AtomicBool::new(false));
        let sink =
            || FailsAfterCommit { within: totals_sink(&place.database()), panics, failed: failed.clone() };
        let job = place.start_at(place.builder().task_attempts_max(attempts), sink()).unwrap();
        if attempts == 1 {
            assert!(!run_to(&job, &place.clock, 4), "the job goes on after a failed output");
            assert_eq!(job.await_termination().unwrap_err().kind(), ErrorKind::UserCode);
            drop(job);
            assert_eq!(ledger(&place.database())[0].1, 2, "the batch was committed");
            let job = place.start_with(sink()).unwrap();
            assert_eq!(job.recovery().emitted.len(), 1, "and comes again");
            assert!(run_to(&job, &place.clock, 4));
        } else {
            assert!(run_to(&job, &place.clock, 4));
        }
        assert!(failed.load(Ordering::SeqCst));
        assert_eq!(totals(&place.database()), model(&place.chunks));
    }
}

#[test]
fn rows_are_written_in_the_order_of_partitions_and_records() {
    let place = Place::new(2);
    place.run_to(2);
    let connection = Connection::open(place.database()).unwrap();
    let mut query = connection.prepare("SELECT key FROM history ORDER BY at").unwrap();
    let keys: Vec<u16> = query.query_map((), |row| row.get(0)).unwrap().collect::<Result<_, _>>().unwrap();
    let mut expected: Vec<u16> = Vec::new();
    for (key, _) in place.chunks.iter().flatten() {
        // Only a new row fires the trigger.
        if !expected.contains(key) {
            expected.push(*key);
        }
    }
    assert_eq!(keys, expected);
}

#[test]
fn a_batch_that_fails_leaves_no_row_of_its_own() {
    let place = Place::new(3);
    let picky = || {
        SqliteSink::new(place.database(), ADD, |add, (key, value): &(u16, i64)| {
            // The last record of the second batch.
            if (*key, *value) == (4, 1) { add.execute(()) } else { add.execute((key, value)) }
        })
        .schema(SCHEMA)
    };
    assert_eq!(place.chunks[1].last(), Some(&(4, 1)));
    assert!(!place.chunks[0].contains(&(4, 1)));
    let job = place.start_with(picky()).unwrap();
    assert!(!run_to(&job, &place.clock, 3));
    let error = job.await_termination().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UserCode);
    assert!(error.to_string().contains("totals.db"), "{error}");
    drop(job);
    assert_eq!(totals(&place.database()), model(&place.chunks[..1]));
    place.run_to(3);
    assert_eq!(totals(&place.database()), model(&place.chunks));
}

// -- a store and a database that do not belong together --

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

#[test]
fn a_ledger_of_a_deleted_store_or_ahead_of_a_restored_one_is_refused() {
    let place = Place::new(5);
    let (store, aside) = (place.dir.path().join("store"), place.dir.path().join("aside"));
    place.run_to(2);
    copy_dir(&store, &aside);
    place.run_to(5);
    let expected = totals(&place.database());
    fs::remove_dir_all(&store).unwrap();
    let refusal = place.refusal();
    assert!(refusal.contains("another store") && refusal.contains("millpond_ledger"), "{refusal}");
    assert!(fs::read_dir(store.join("epochs")).unwrap().next().is_none(), "the start has changed the store");

    fs::remove_dir_all(&store).unwrap();
    copy_dir(&aside, &store);
    let refusal = place.refusal();
    assert!(refusal.contains("ahead of the store") && refusal.contains("batch 5"), "{refusal}");
    assert_eq!(totals(&place.database()), expected, "a refused start writes nothing");

    // Rows and ledger put right by hand: the job goes on.
    let connection = Connection::open(place.database()).unwrap();
    connection.execute_batch("DELETE FROM totals; UPDATE millpond_ledger SET batch = 2").unwrap();
    place.run_to(5);
    assert_eq!(totals(&place.database()), model(&place.chunks[2..]));
}

/// The tail of the newest epoch is gone: batches whose numbers are not used again.
#[test]
fn a_committed_batch_whose_plan_is_lost_stops_the_start() {
    let place = Place::new(6);
    let epoch = place.dir.path().join("store/epochs/1");
    let keep = |name: &str| (epoch.join(name), fs::read(epoch.join(name)).unwrap());
    let builder = || place.builder().checkpoint_every_batches(100);
    let job = place.start_at(builder(), totals_sink(&place.database())).unwrap();
    assert!(run_to(&job, &place.clock, 2));
    let db = keep("db");
    assert!(run_to(&job, &place.clock, 5));
    drop(job);
    let before = totals(&place.database());
    fs::write(db.0, db.1).unwrap();
    for _ in 0..2 {
        let refusal = place.refusal();
        assert!(refusal.contains("batch 5 was committed") && refusal.contains("lost its plan"), "{refusal}");
    }
    assert_eq!(totals(&place.database()), before);
    // None of the lost batches was committed: the job goes on under numbers of their own, exactly once.
    let connection = Connection::open(place.database()).unwrap();
    connection.execute_batch("DELETE FROM totals; UPDATE millpond_ledger SET batch = 2").unwrap();
    drop(connection);
    let job = place.start_at(builder(), totals_sink(&place.database())).unwrap();
    assert!(!job.recovery().lost_plans.is_empty());
    let last = job.recovery().lost_plans.end + 4;
    assert!(run_to(&job, &place.clock, last));
    assert_eq!(totals(&place.database()), model(&place.chunks[2..]));
}

#[test]
fn a_process_that_was_overtaken_commits_no_more() {
    let place = Place::new(6);
    let old = place.start().unwrap();
    assert!(run_to(&old, &place.clock, 2));
    // Its lock is of no use to a copy.
    let copy = tempfile::tempdir().unwrap();
    copy_dir(&place.dir.path().join("store"), &copy.path().join("store"));
    let clock = ManualClock::at(2_000);
    let new = place.start_at(builder(copy.path(), &clock), totals_sink(&place.database())).unwrap();
    assert!(!run_to(&old, &place.clock, 4), "the older process goes on");
    let error = old.await_termination().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked, "{error:?}");
    assert!(error.to_string().contains("taken over"), "{error}");
    assert!(run_to(&new, &clock, 6));
    assert_eq!(totals(&place.database()), model(&place.chunks));
}

// -- a database that is not there, not one, or not free --

#[test]
fn a_database_that_cannot_be_used_is_refused_at_the_start_by_name() {
    let place = Place::new(1);
    let refused = |sink: SqliteSink<(u16, i64)>, kind: ErrorKind, word: &str| {
        let error: Error = place.start_with(sink).unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(
            error.to_string().starts_with("output `totals`: ") && error.to_string().contains(word),
            "{error}"
        );
    };
    refused(totals_sink(Path::new(":memory:")), ErrorKind::InvalidConfig, ":memory:");
    refused(totals_sink(&place.dir.path().join("no/where.db")), ErrorKind::Io, "no/where.db");
    let text = place.dir.path().join("text.db");
    fs::write(&text, "not a database ".repeat(400)).unwrap();
    refused(totals_sink(&text), ErrorKind::Corrupt, "text.db");
    refused(totals_sink(&place.database()).schema("CREATE NONSENSE"), ErrorKind::UserCode, "schema");
    let wrong = SqliteSink::new(place.database(), "INSERT INTO nowhere VALUES (?1)", |_, _| Ok(0));
    refused(wrong, ErrorKind::UserCode, "statement");
    place.run_to(1);
    assert_eq!(totals(&place.database()), model(&place.chunks));
}

#[test]
fn a_busy_database_is_waited_for_and_then_an_error() {
    let place = Place::new(4);
    let brief = || totals_sink(&place.database()).busy_timeout(Duration::from_millis(20));
    let job = place.start_at(place.builder().task_attempts_max(2), brief()).unwrap();
    assert!(run_to(&job, &place.clock, 1));
    let other = Connection::open(place.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(!run_to(&job, &place.clock, 2));
    let error = job.await_termination().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("busy timeout") && error.to_string().contains("totals.db"), "{error}");
    drop(job);
    let error = place.start_with(brief()).unwrap_err();
    assert!(error.to_string().contains("busy timeout"), "{error}");
    // With more patience the same batch gets through once the other is done.
    let patient = totals_sink(&place.database()).busy_timeout(Duration::from_secs(60));
    std::thread::scope(|scope| {
        let job = scope.spawn(|| place.start_with(patient));
        other.execute_batch("COMMIT").unwrap();
        let job = job.join().unwrap().unwrap();
        assert!(run_to(&job, &place.clock, 4));
        job.stop(StopMode::Graceful).unwrap();
    });
    assert_eq!(totals(&place.database()), model(&place.chunks));
}

// -- the example, killed --

/// Where cargo puts it: beside the directory of this test.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/exactly_once_sqlite");
    assert!(
        path.is_file(),
        "{} is not there: `cargo test --all-features` builds it; with `--test sqlite` alone run \
         `cargo build --features sqlite --example exactly_once_sqlite` first",
        path.display()
    );
    path
}

/// The job checks the totals itself and says so; here its ledger tells how far a kill let it come.
#[test]
#[allow(clippy::disallowed_methods, reason = "a process is killed in real time")]
fn the_example_adds_each_sale_once_whenever_it_is_killed() {
    const KILLS: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let database = dir.path().join("totals.db");
    let command = || {
        let mut command = std::process::Command::new(example());
        command.arg("--store").arg(dir.path().join("store")).arg("--database").arg(&database);
        command.args(["--batches", "400", "--batch-ms", "5"]);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        command
    };
    let (mut reached, mut advanced) = (0, 0);
    for kill in 1..=KILLS {
        let mut child = command().spawn().unwrap();
        // A short wait falls into the start, a longer one into batches and their commits.
        std::thread::sleep(Duration::from_micros(kill * 7_919 % 150_000));
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code().is_none_or(|code| code == 0), "start {kill} failed: {said}");
        if database.is_file() && fs::metadata(&database).unwrap().len() > 0 {
            let connection = Connection::open(&database).unwrap();
            let batch = connection.query_row("SELECT batch FROM millpond_ledger", (), |row| row.get(0));
            let batch: u64 = batch.unwrap_or(reached);
            assert!(batch >= reached, "a committed batch is gone");
            advanced += u64::from(batch > reached);
            reached = batch;
        }
    }
    let output = command().output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("exactly once: 32000 sales in 20 shops"), "{said}");
    eprintln!("{KILLS} kills; {advanced} starts committed batches before theirs, up to batch {reached}");
    assert!(advanced > 2, "the kills come before anything is committed");
    let sum: u64 = Connection::open(&database)
        .unwrap()
        .query_row("SELECT sum(sales) FROM totals", (), |row| row.get(0))
        .unwrap();
    assert_eq!(sum, 32_000);
}
