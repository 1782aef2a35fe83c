//! Payments joined with the orders they are for, with exchange rates that are loaded again while it runs, and
//! with a fee that is changed while it runs.
//!
//! ```text
//! cargo run --release --example stream_join
//! ```
//!
//! A payment comes up to a few batches after its order: each batch of payments is joined with a window of orders.
//! One whose order has left the window is late. The rates are a dataset, read again each second from a file that
//! somebody else writes; the fee is a broadcast value. It takes 2 000 payments in about five seconds, computes
//! them once more by plain code, and ends. Kill it at any moment (`kill -9`) and start it again: it goes on where
//! it was, and batches that are computed again see the rates and the fee that they saw the first time. Options:
//! `--store DIR`, `--output DIR`, `--batches N`. Remove `millpond-demo/stream-join` to start over.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "support/batch_files.rs"]
mod batch_files;
#[path = "support/numbered.rs"]
mod numbered;
#[path = "support/run.rs"]
mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use batch_files::read_batches;
use clap::Parser;
use millpond::{LoadError, Reload, StreamingContext};
use numbered::Numbered;

const PER_BATCH: u64 = 40;
const BATCH: Duration = Duration::from_millis(100);
const WINDOW: Duration = Duration::from_secs(1);
const CURRENCIES: [&str; 4] = ["CHF", "EUR", "GBP", "SEK"];

#[derive(Parser)]
struct Options {
    /// The directory that the job recovers from.
    #[arg(long, default_value = "millpond-demo/stream-join/store")]
    store: PathBuf,
    /// The directory of the rates, and of what was booked.
    #[arg(long, default_value = "millpond-demo/stream-join/output")]
    output: PathBuf,
    /// How many batches of orders and payments there are. The same in every run.
    #[arg(long, default_value_t = 50)]
    batches: u64,
}

fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32
}

/// Order number `number`, and its currency.
fn order(number: u64) -> (u64, String) {
    (number, CURRENCIES[(scattered(number) % 4) as usize].to_owned())
}

/// Payment number `number`: the order it is for, and its amount.
fn payment(number: u64) -> (u64, (u64, u64)) {
    let drawn = scattered(number + 7);
    (number.saturating_sub(drawn % 100), (number, 100 + drawn % 9_900))
}

/// What 1 000 of a currency are worth in the given version of the rates.
fn rate_of(currency: &str, version: u64) -> u64 {
    800 + scattered(version * 31 + u64::from(currency.as_bytes()[0])) % 400
}

fn net_of(cents: u64, rate: u64, fee: u64) -> u64 {
    cents * rate * (1_000 - fee) / 1_000_000
}

/// Writes a new version of the rates, as somebody else would. Returns its number.
fn publish_rates(file: &Path) -> Result<u64, Box<dyn Error>> {
    let before =
        if file.exists() { load_rates(file).map_err(|error| error.to_string())? } else { Vec::new() };
    let version = 1 + before.first().map_or(0, |(_, (version, _))| *version);
    let line = |currency: &&str| format!("{currency} {version} {}\n", rate_of(currency, version));
    let unfinished = file.with_extension("unfinished");
    fs::write(&unfinished, CURRENCIES.iter().map(line).collect::<String>())?;
    fs::rename(unfinished, file)?;
    Ok(version)
}

/// By currency: the version of the rates, and the rate.
fn load_rates(file: &Path) -> Result<Vec<(String, (u64, u64))>, LoadError> {
    let text = fs::read_to_string(file)?;
    let row = |line: &str| {
        let mut fields = line.split(' ');
        let mut next = || fields.next().ok_or_else(|| format!("{line:?} is no rate"));
        Ok((next()?.to_owned(), (next()?.parse()?, next()?.parse()?)))
    };
    text.lines().map(row).collect()
}

/// Computes every booking again. Returns a line that says what there was.
fn check(output: &Path, count: u64, totals: &BTreeMap<String, u64>) -> Result<String, Box<dyn Error>> {
    let mut ordered_at = BTreeMap::new();
    for (time, lines) in read_batches(&output.join("orders"))? {
        for line in lines {
            ordered_at.insert(line.parse::<u64>()?, time);
        }
    }
    let in_window = |order: u64, time: u64| {
        ordered_at.get(&order).is_some_and(|at| *at <= time && at + WINDOW.as_millis() as u64 > time)
    };
    let (mut payments, mut late, mut expected) = (Vec::new(), 0, BTreeMap::<String, u64>::new());
    for (time, lines) in read_batches(&output.join("late"))? {
        for line in lines {
            let number: u64 = line.parse()?;
            payments.push(number);
            late += 1;
            if in_window(payment(number).0, time) {
                return Err(format!("payment {number} was not late").into());
            }
        }
    }
    let mut terms = Vec::new();
    for (time, lines) in read_batches(&output.join("booked"))? {
        let mut of_batch = BTreeSet::new();
        for line in lines {
            let fields: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>()?;
            let [number, version, fee, net] = fields[..] else { return Err("not a booking".into()) };
            let (order_number, (_, cents)) = payment(number);
            let currency = order(order_number).1;
            if !in_window(order_number, time) || net != net_of(cents, rate_of(&currency, version), fee) {
                return Err(format!("payment {number} was booked wrongly: {line}").into());
            }
            payments.push(number);
            of_batch.insert((version, fee));
            *expected.entry(currency).or_default() += net;
        }
        terms.extend(of_batch);
    }
    // One version of the rates and one fee per batch, and neither goes back.
    if !terms.is_sorted_by(|before, after| before.0 <= after.0 && before.1 <= after.1) {
        return Err("rates or fees went back, or changed within a batch".into());
    }
    payments.sort_unstable();
    if !payments.into_iter().eq(0..count) || *totals != expected {
        return Err(format!("not every payment was booked once: {totals:?}, not {expected:?}").into());
    }
    terms.dedup();
    Ok(format!("{count} payments each taken once, {late} late, under {} terms; {totals:?}", terms.len()))
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let (output, count) = (options.output, options.batches * PER_BATCH);
    let file = output.join("rates");
    fs::create_dir_all(&output)?;
    publish_rates(&file)?;
    let context = StreamingContext::builder("stream-join")
        .store(&options.store)
        .batch_interval(BATCH)
        .checkpoint_every_batches(4)
        .build()?;
    let orders = context.replayable_stream("orders", Numbered::new(count, PER_BATCH, order));
    let payments = context.replayable_stream("payments", Numbered::new(count, PER_BATCH, payment));
    let read_from = file.clone();
    let rates =
        context.dataset("rates", Reload::every(Duration::from_secs(1)), move || load_rates(&read_from));
    let fee = context.broadcast("fee", 0u64);

    let matched = payments.left_outer_join(&orders.window("recent orders", WINDOW, BATCH)).cache();
    let fee_now = fee.clone();
    let booked = matched
        .flat_map(|(_, (payment, currency)), out| {
            currency.into_iter().for_each(|currency| out.emit((currency, payment)));
        })
        .join_dataset(&rates)
        .map(move |(currency, ((number, cents), (version, rate)))| {
            let fee = *fee_now.value();
            (currency, (number, version, fee, net_of(cents, rate, fee)))
        })
        .cache();
    let _totals = booked
        .map(|(currency, booking)| (currency, booking.3))
        .update_state_by_key("totals", |new, total: Option<u64>| {
            Some(total.unwrap_or(0) + new.iter().sum::<u64>())
        });
    orders.map(|(number, _)| number).save_as_text_files(output.join("orders"), "txt");
    booked
        .map(|(_, (number, version, fee, net))| format!("{number} {version} {fee} {net}"))
        .save_as_text_files(output.join("booked"), "txt");
    matched
        .filter(|(_, (_, currency))| currency.is_none())
        .map(|(_, ((number, _), _))| number)
        .save_as_text_files(output.join("late"), "txt");

    let job = context.start()?;
    run::tell(job.recovery());
    let totals = job.state::<String, u64>("totals")?;
    let read_totals = || {
        let mut found = BTreeMap::new();
        totals.for_each(|currency, total| found.extend([(currency, total)])).map(|()| found)
    };
    let mut looks = 0;
    let ended = run::run_to_end(&job, || {
        looks += 1;
        if looks % 3 == 0 {
            let (version, new_fee) = (publish_rates(&file)?, *fee.value() + 1);
            fee.update(new_fee)?;
            println!(
                "from now on the rates are those of version {version}, and the fee is {new_fee} of 1000"
            );
        }
        println!("booked: {:?}", read_totals()?);
        Ok(())
    })?;
    if ended {
        println!("checked: {}", check(&output, count, &read_totals()?)?);
    }
    Ok(())
}
