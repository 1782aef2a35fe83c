//! Rows in a SQLite database, each batch in one transaction with its entry in the ledger.

mod ledger;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension, Statement, Transaction, TransactionBehavior,
};

use crate::error::{Error, ErrorKind, Result};
use crate::sink::{BatchInfo, Begin, OutputError, Sink, SinkId, SinkStart};
use ledger::LedgerRow;

/// Created once per database; a row per output of a job.
const LEDGER: &str = "CREATE TABLE IF NOT EXISTS millpond_ledger (
    job TEXT NOT NULL, output TEXT NOT NULL, store TEXT NOT NULL, batch INTEGER NOT NULL,
    time_ms INTEGER NOT NULL, fence INTEGER NOT NULL, PRIMARY KEY (job, output)) STRICT";

type Insert<T> = dyn Fn(&mut Statement<'_>, &T) -> rusqlite::Result<usize> + Send + Sync;

/// A SQLite database, written to exactly-once (feature `sqlite`, which builds SQLite itself).
///
/// Transactional, in the words of [`Sink`]: the rows of a batch and its number in the table `millpond_ledger` become
/// durable in one transaction. A batch that comes again after a crash is found in the ledger and skipped. Rows are
/// written in the order of partitions and records. A batch is held in memory until it is committed; one without
/// records does not touch the database.
///
/// The statement runs once per record, with what the closure binds:
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let database = dir.path().join("words.db");
/// use millpond::{ManualClock, SqliteSink, StopMode, StreamingContext, rusqlite};
///
/// let clock = ManualClock::at(0);
/// let context = StreamingContext::builder("doc").store(dir.path().join("store")).clock(clock.clone()).build()?;
/// let (words, queue) = context.queue_stream::<String>("words");
/// let insert = "INSERT INTO words VALUES (?1, ?2)
///     ON CONFLICT (word) DO UPDATE SET seen = seen + excluded.seen";
/// words.map(|word| (word, 1u64)).reduce_by_key(|a, b| a + b).write_to(
///     "words",
///     SqliteSink::new(&database, insert, |insert, (word, seen): &(String, u64)| insert.execute((word, seen)))
///         .schema("CREATE TABLE IF NOT EXISTS words (word TEXT PRIMARY KEY, seen INTEGER NOT NULL)"),
/// );
/// let job = context.start()?;
/// queue.push(["to", "be", "or", "not", "to", "be"].map(String::from))?;
/// clock.advance(1_000);
/// job.stop(StopMode::Graceful)?;
///
/// let seen = "SELECT seen FROM words WHERE word = 'be'";
/// let seen: u64 = rusqlite::Connection::open(&database)?.query_row(seen, (), |row| row.get(0))?;
/// assert_eq!(seen, 2);
/// # Ok(()) }
/// ```
///
/// The database is switched to a write-ahead log (others may read it while the job writes) and each commit is synced.
/// It must be on a disk that belongs to this machine, like any SQLite database that more than one process uses.
///
/// # When store and database do not belong together
/// A start is refused with [`ErrorKind::Incompatible`] when the ledger is of another store (the store was deleted,
/// the database was not), when it is ahead of the store (the store was put back from an earlier copy), or when its
/// last batch is one whose plan was lost to damage: rows would be written twice, or left out. Which is right only
/// you can say. Rows that would come twice are taken out by hand, then the row in `millpond_ledger` is deleted, or its
/// `batch` set to the last one whose rows are left.
///
/// A process that was overtaken by a later start, of a copy of the store, can commit no more and stops with
/// [`ErrorKind::Locked`].
pub struct SqliteSink<T> {
    path: PathBuf,
    sql: String,
    schema: String,
    insert: Box<Insert<T>>,
    busy_timeout: Duration,
    opened: Mutex<Option<Opened>>,
}

struct Opened {
    connection: Connection,
    fence: i64,
}

impl<T> std::fmt::Debug for SqliteSink<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SqliteSink({})", self.path.display())
    }
}

impl<T> SqliteSink<T> {
    /// A sink that runs the statement `sql` in the database at `path` for each record, as `insert` binds and executes
    /// it. The database is made when the job starts, if it is not there.
    ///
    /// `insert` must not depend on anything but the record; it sees each record once per attempt of its batch.
    pub fn new(
        path: impl Into<PathBuf>,
        sql: &str,
        insert: impl Fn(&mut Statement<'_>, &T) -> rusqlite::Result<usize> + Send + Sync + 'static,
    ) -> Self {
        SqliteSink {
            path: path.into(),
            sql: sql.to_owned(),
            schema: String::new(),
            insert: Box::new(insert),
            busy_timeout: Duration::from_secs(5),
            opened: Mutex::new(None),
        }
    }

    /// Statements that make the tables, run at every start: `CREATE TABLE IF NOT EXISTS ...`.
    #[must_use]
    pub fn schema(mut self, sql: &str) -> Self {
        self.schema = sql.to_owned();
        self
    }

    /// How long an attempt waits for another process that writes to the database. Default 5 s. After
    /// [`task_attempts_max`](crate::Settings::task_attempts_max) attempts the job stops.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    fn lock(&self) -> MutexGuard<'_, Option<Opened>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn error(&self, what: &str, cause: rusqlite::Error) -> Error {
        let kind = match cause.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => ErrorKind::DiskFull,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
            _ => ErrorKind::Io,
        };
        let hint = match cause.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                " (another process has held it for longer than the busy timeout)"
            }
            _ => "",
        };
        Error::new(kind, format!("{what} {}{hint}", self.path.display())).caused_by(cause)
    }

    /// What the user's statement or binding did wrong.
    fn user_error(&self, what: &str, cause: rusqlite::Error) -> Error {
        match cause.sqlite_error_code() {
            Some(
                ErrorCode::DiskFull
                | ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::SystemIoFailure
                | ErrorCode::ReadOnly,
            ) => self.error("write to", cause),
            _ => Error::new(ErrorKind::UserCode, format!("{what} {}", self.path.display())).caused_by(cause),
        }
    }

    fn connect(&self) -> Result<Connection> {
        if self.path.as_os_str().is_empty() || self.path == Path::new(":memory:") {
            let message = format!("`{}` is a database that ends with its process", self.path.display());
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(&self.path, flags)?;
            connection.busy_timeout(self.busy_timeout)?;
            // Where there can be no write-ahead log, EXTRA makes a commit durable with a rollback journal too.
            connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "extra")?;
            Ok(connection)
        };
        open().map_err(|cause| self.error("open database", cause))
    }

    /// Makes the tables, checks the ledger against the store, and takes it over.
    fn take_over(&self, start: &SinkStart) -> Result<Opened> {
        let failed = |cause| self.error("open the ledger in", cause);
        let mut connection = self.connect()?;
        let transaction = begin(&mut connection).map_err(failed)?;
        transaction.execute_batch(LEDGER).map_err(failed)?;
        let schema = transaction.execute_batch(&self.schema);
        schema.map_err(|cause| self.user_error("the schema cannot be made in", cause))?;
        let statement = transaction.prepare(&self.sql).map(drop);
        statement.map_err(|cause| self.user_error("the statement cannot be run in", cause))?;
        let (job, output) = (&start.job, &start.output);
        let row = read_row(&transaction, job, output).map_err(failed)?;
        if let Some(row) = &row {
            row.check_start(start)?;
        }
        let row = row.unwrap_or(LedgerRow { store: start.store.clone(), batch: 0, time_ms: 0, fence: 0 });
        let taken = LedgerRow { store: start.store.clone(), fence: row.fence + 1, ..row };
        write_row(&transaction, job, output, &taken).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Opened { connection, fence: taken.fence })
    }

    fn with_opened<R>(&self, work: impl FnOnce(&mut Opened) -> Result<R>) -> Result<R> {
        let mut opened = self.lock();
        let opened = opened.as_mut().ok_or_else(|| {
            let message = format!("{} was not opened by a start", self.path.display());
            Error::new(ErrorKind::InvalidGraph, message)
        })?;
        work(opened)
    }

    fn ledger(&self, from: &Connection, batch: &BatchInfo) -> Result<LedgerRow> {
        let row = read_row(from, &batch.job, &batch.output);
        let row = row.map_err(|cause| self.error("read the ledger in", cause))?;
        row.ok_or_else(|| {
            let message =
                format!("the ledger of output `{}` is gone from {}", batch.output, self.path.display());
            Error::new(ErrorKind::Incompatible, message)
        })
    }

    fn store(&self, opened: &mut Opened, batch: &BatchInfo, partitions: Vec<Vec<T>>) -> Result<()> {
        let failed = |cause| self.error("write to", cause);
        let transaction = begin(&mut opened.connection).map_err(failed)?;
        let ledger = self.ledger(&transaction, batch)?;
        if ledger.admit(opened.fence, batch)? == Begin::Skip {
            return Ok(());
        }
        let mut statement = transaction.prepare(&self.sql).map_err(failed)?;
        for record in partitions.iter().flatten() {
            let inserted = (self.insert)(&mut statement, record);
            inserted.map_err(|cause| self.user_error("a record cannot be written to", cause))?;
        }
        drop(statement);
        let committed = LedgerRow { batch: batch.batch.0, time_ms: batch.time.0, ..ledger };
        write_row(&transaction, &batch.job, &batch.output, &committed).map_err(failed)?;
        transaction.commit().map_err(failed)
    }
}

/// Takes the right to write at once, so that what is read in the transaction still holds when it commits.
fn begin(connection: &mut Connection) -> rusqlite::Result<Transaction<'_>> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate)
}

fn read_row(from: &Connection, job: &str, output: &str) -> rusqlite::Result<Option<LedgerRow>> {
    let sql = "SELECT store, batch, time_ms, fence FROM millpond_ledger WHERE job = ?1 AND output = ?2";
    let row = from.query_row(sql, (job, output), |row| {
        Ok(LedgerRow { store: row.get(0)?, batch: row.get(1)?, time_ms: row.get(2)?, fence: row.get(3)? })
    });
    row.optional()
}

fn write_row(to: &Connection, job: &str, output: &str, row: &LedgerRow) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO millpond_ledger VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    to.execute(sql, (job, output, &row.store, row.batch, row.time_ms, row.fence)).map(drop)
}

impl<T: Send + 'static> Sink<T> for SqliteSink<T> {
    type Staged = Vec<T>;

    fn open(&self, start: &SinkStart) -> Result<(), OutputError> {
        let opened = self.take_over(start)?;
        *self.lock() = Some(opened);
        Ok(())
    }

    fn begin(&self, batch: &BatchInfo) -> Result<Begin, OutputError> {
        Ok(self.with_opened(|opened| self.ledger(&opened.connection, batch)?.admit(opened.fence, batch))?)
    }

    fn write(&self, _: &SinkId, records: Vec<T>) -> Result<Vec<T>, OutputError> {
        Ok(records)
    }

    fn commit(&self, batch: &BatchInfo, staged: Vec<Vec<T>>) -> Result<(), OutputError> {
        if staged.iter().all(Vec::is_empty) {
            // Nothing that could be there twice.
            return Ok(());
        }
        Ok(self.with_opened(|opened| self.store(opened, batch, staged))?)
    }
}
