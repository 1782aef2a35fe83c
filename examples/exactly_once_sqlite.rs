//! Sales per shop, added up in a SQLite database: each sale counts once, however often the job is killed.
//!
//! ```text
//! cargo run --release --features sqlite --example exactly_once_sqlite
//! ```
//!
//! It takes 4 000 sales in about five seconds, checks the table, and ends. Kill it at any moment (`kill -9`) and start
//! it again: it goes on where it was. Options: `--store DIR`, `--database FILE`, `--batches N`, `--batch-ms MS`. Remove
//! `millpond-demo/exactly-once-sqlite` to start over: the database alone, or the store alone, is refused.
//!
//! The job itself keeps no state. The statement adds to what is there, so a batch that was written twice or
//! never would show in the sums.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "support/numbered.rs"]
mod numbered;
#[path = "support/run.rs"]
mod run;

use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use millpond::{SqliteSink, StreamingContext, rusqlite};
use numbered::Numbered;

const SALES_PER_BATCH: u64 = 80;

#[derive(Parser)]
struct Options {
    /// The directory that the job recovers from.
    #[arg(long, default_value = "millpond-demo/exactly-once-sqlite/store")]
    store: PathBuf,
    /// The database with the totals.
    #[arg(long, default_value = "millpond-demo/exactly-once-sqlite/totals.db")]
    database: PathBuf,
    /// How many batches of sales there are. The same in every run.
    #[arg(long, default_value_t = 50)]
    batches: u64,
    /// The time between batches.
    #[arg(long, default_value_t = 100)]
    batch_ms: u64,
}

/// Sale number `number`: in which shop, for how many cents.
fn sale(number: u64) -> (u64, u64) {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (scattered % 20, 100 + scattered % 9_900)
}

fn totals_sink(database: &PathBuf) -> SqliteSink<(u64, (u64, u64))> {
    let add = "INSERT INTO totals (shop, sales, cents) VALUES (?1, ?2, ?3)
        ON CONFLICT (shop) DO UPDATE SET sales = sales + excluded.sales, cents = cents + excluded.cents";
    SqliteSink::new(database, add, |add, (shop, (sales, cents))| add.execute((shop, sales, cents))).schema(
        "CREATE TABLE IF NOT EXISTS totals
            (shop INTEGER PRIMARY KEY, sales INTEGER NOT NULL, cents INTEGER NOT NULL) STRICT",
    )
}

/// The totals of all sales, from the table.
fn read_totals(database: &PathBuf) -> rusqlite::Result<BTreeMap<u64, (u64, u64)>> {
    let connection = rusqlite::Connection::open(database)?;
    let mut query = connection.prepare("SELECT shop, sales, cents FROM totals")?;
    let rows = query.query_map((), |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))?;
    rows.collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    if let Some(dir) = options.database.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let count = options.batches * SALES_PER_BATCH;
    let context = StreamingContext::builder("exactly-once-sqlite")
        .store(&options.store)
        .batch_interval(Duration::from_millis(options.batch_ms))
        .checkpoint_every_batches(4)
        .build()?;
    context
        .replayable_stream("sales", Numbered::new(count, SALES_PER_BATCH, sale))
        .map(|(shop, cents)| (shop, (1, cents)))
        .reduce_by_key(|(sales, cents), (more_sales, more_cents)| (sales + more_sales, cents + more_cents))
        .write_to("totals", totals_sink(&options.database));
    let job = context.start()?;
    run::tell(job.recovery());
    if !run::run_to_end(&job, || Ok(()))? {
        return Ok(());
    }

    let mut expected = BTreeMap::<u64, (u64, u64)>::new();
    for (shop, cents) in (0..count).map(sale) {
        let total = expected.entry(shop).or_default();
        *total = (total.0 + 1, total.1 + cents);
    }
    if read_totals(&options.database)? != expected {
        return Err("the table does not have the totals of these sales".into());
    }
    println!("exactly once: {count} sales in {} shops, and the table has their totals", expected.len());
    Ok(())
}
