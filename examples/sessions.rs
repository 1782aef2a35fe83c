//! Sessions of the users of a web site, from its access log: when somebody came, how long they stayed, and how
//! many pages they looked at.
//!
//! ```text
//! cargo run --release --example sessions [-- --store DIR]
//! ```
//!
//! It reads 6 000 lines in about six seconds, then ends. Lines come out of order, as those of slow requests do;
//! some come minutes late and change a session that was told already, a few come hours late and are told apart.
//! At the end every line is in a session or was late. Kill it and start it again: it goes on where it was.
//! Remove `millpond-demo/sessions` to start over.

#![allow(clippy::print_stdout, reason = "an example shows what it does")]

#[path = "support/numbered.rs"]
mod numbered;
#[path = "support/run.rs"]
mod run;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use millpond::{BatchInfo, DStream, EventWindows, OutputError, StreamingContext, Watermarks, WindowResult};
use numbered::Numbered;

const LINES: u64 = 6_000;
const LINES_PER_BATCH: u64 = 120;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Who looks at nothing for this long has left.
const GAP: Duration = Duration::from_secs(5 * 60);

#[derive(Parser)]
#[command(about = "Sessions from an access log; survives kill -9 with exact totals")]
struct Arguments {
    /// The directory of the store and of what the job writes
    #[arg(long, default_value = "millpond-demo/sessions")]
    store: PathBuf,
}

// -- the log --

/// Line number `number` of a log that is always the same. A line every two seconds, and no visitors for two hours
/// after each 1 500; visitors come in groups of ten.
fn line(number: u64) -> String {
    let now = 6 * 3_600 + number * 2 + number / 1_500 * 2 * 3_600;
    if number == LINES {
        // At night nobody looks at the site but its own probe: so time goes on, and the last sessions end.
        return text_of(now + 4 * 3_600, "-", "/health");
    }
    let lag = match number {
        // A server that was cut off sends what it has hours later.
        n if n % 251 == 250 => 3 * 3_600,
        // Minutes late: the session may have been told already.
        n if n % 101 == 100 => 8 * 60,
        // A slow request is written when it ends, with the time at which it began.
        n if n % 7 == 3 => 20,
        _ => 0,
    };
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    // Whose turn it was when the line was due; what is hours late may be of anybody.
    let due = if lag == 8 * 60 { number.saturating_sub(lag / 2) } else { number };
    let user = format!("user-{:02}", due / 300 * 10 % 60 + scattered % 10);
    text_of(now - lag, &user, &format!("/articles/{}", scattered % 500))
}

fn text_of(second: u64, user: &str, path: &str) -> String {
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!(
        "203.0.113.7 - {user} [10/Oct/2000:{hour:02}:{minute:02}:{second:02} +0000] \"GET {path} HTTP/1.1\" 200 2326"
    )
}

/// A request, as the log has it.
#[derive(Clone, Debug)]
struct Hit {
    time_ms: u64,
    user: String,
    path: String,
}

/// Reads a line in Apache's combined format, in universal time; `None` when it is none.
fn parse(line: &str) -> Option<Hit> {
    let (who, rest) = line.split_once(" [")?;
    let (when, request) = rest.split_once("] \"")?;
    let user = who.split(' ').nth(2)?.to_owned();
    let path = request.split(' ').nth(1)?.to_owned();
    Some(Hit { time_ms: parse_time(when.strip_suffix(" +0000")?)?, user, path })
}

/// `10/Oct/2000:13:55:36` as milliseconds since the Unix epoch.
fn parse_time(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let fields: Vec<&str> = text.split(['/', ':']).collect();
    let [day, month, year, time @ ..] = &fields[..] else { return None };
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let month = MONTHS.iter().position(|name| name == month)? as u64;
    // Years that begin with March have their leap day at their end.
    let (year, month) = if month < 2 { (year.checked_sub(1)?, month + 10) } else { (year, month - 2) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day;
    let mut seconds = days.checked_sub(719_469)? * 24;
    for (at, field) in time.iter().enumerate() {
        seconds = if at == 0 { seconds } else { seconds * 60 } + field.parse::<u64>().ok()?;
    }
    (time.len() == 3).then_some(seconds * 1_000)
}

// -- what the job writes --

/// A row of a session that was told.
#[derive(Clone, Debug, PartialEq)]
struct Session {
    user: String,
    start_ms: u64,
    end_ms: u64,
    hits: u64,
    revision: u32,
}

impl Session {
    fn to_row(session: &WindowResult<String, u64>) -> String {
        let WindowResult { key, start_ms, end_ms, value, revision } = session;
        format!("{key}\t{start_ms}\t{end_ms}\t{value}\t{revision}\n")
    }

    fn of_row(row: &str) -> Option<Self> {
        let mut fields = row.split('\t');
        Some(Session {
            user: fields.next()?.to_owned(),
            start_ms: fields.next()?.parse().ok()?,
            end_ms: fields.next()?.parse().ok()?,
            hits: fields.next()?.parse().ok()?,
            revision: fields.next()?.parse().ok()?,
        })
    }

    /// From the first page to the last.
    fn seconds(&self) -> u64 {
        (self.end_ms - self.start_ms) / 1_000 - GAP.as_secs()
    }

    fn lies_within(&self, other: &Session) -> bool {
        self.user == other.user && self.start_ms >= other.start_ms && self.end_ms <= other.end_ms
    }
}

/// One file per batch that has rows, under a name that is the same whenever this batch is emitted: one that is
/// emitted again after a crash replaces itself, and none counts twice.
fn write_rows(dir: &Path, info: &BatchInfo, rows: &[String]) -> Result<(), OutputError> {
    if !rows.is_empty() {
        fs::create_dir_all(dir)?;
        let name = info.idempotency_key().replace('/', "_");
        fs::write(dir.join("unfinished"), rows.concat())?;
        fs::rename(dir.join("unfinished"), dir.join(name))?;
    }
    Ok(())
}

fn read_rows(dir: &Path) -> Result<Vec<String>, Box<dyn Error>> {
    let mut rows = Vec::new();
    for file in fs::read_dir(dir)? {
        rows.extend(fs::read_to_string(file?.path())?.lines().map(str::to_owned));
    }
    Ok(rows)
}

fn save<T: millpond::Record>(stream: &DStream<T>, dir: PathBuf, to_row: fn(&T) -> String) {
    stream.for_each_rdd(move |rdd, info| {
        let rows: Vec<String> = rdd.collect()?.iter().map(to_row).collect();
        write_rows(&dir, info, &rows)
    });
}

/// What was told last of each session: a revision takes the place of all that lies within it.
fn last_told(rows: &[String]) -> Result<Vec<Session>, Box<dyn Error>> {
    let told: Option<Vec<Session>> = rows.iter().map(|row| Session::of_row(row)).collect();
    let mut told = told.ok_or("a row of a session cannot be read")?;
    told.sort_by_key(|session| session.revision);
    let mut last: Vec<Session> = Vec::new();
    for session in told {
        last.retain(|earlier| !earlier.lies_within(&session));
        last.push(session);
    }
    Ok(last)
}

fn report(dir: &Path) -> Result<(), Box<dyn Error>> {
    let rows = read_rows(&dir.join("told"))?;
    let late = read_rows(&dir.join("late"))?;
    let mut sessions = last_told(&rows)?;
    sessions.sort_by(|a, b| b.seconds().cmp(&a.seconds()).then(a.user.cmp(&b.user)));
    println!("the longest of {} sessions, {} of them revised:", sessions.len(), rows.len() - sessions.len());
    for session in sessions.iter().take(5) {
        println!("  {} stayed {:>5} s and looked at {} pages", session.user, session.seconds(), session.hits);
    }
    println!("late, such as: {}", late.first().map_or("none", |row| row));
    let hits: u64 = sessions.iter().map(|session| session.hits).sum();
    println!(
        "{hits} lines in sessions + {} late = {} of {LINES} lines",
        late.len(),
        hits + late.len() as u64
    );
    if hits + late.len() as u64 == LINES { Ok(()) } else { Err("some lines are missing".into()) }
}

fn main() -> Result<(), Box<dyn Error>> {
    let dir = Arguments::parse().store;
    fs::create_dir_all(&dir)?;
    let context = StreamingContext::builder("sessions")
        .store(dir.join("store"))
        .batch_interval(Duration::from_millis(100))
        .build()?;
    let hits = context
        .replayable_stream("access-log", Numbered::new(LINES + 1, LINES_PER_BATCH, line))
        .flat_map(|line, out| parse(&line).into_iter().for_each(|hit| out.emit(hit)))
        .with_event_time(Watermarks::bounded("access-log", 30 * SECOND), |hit| hit.time_ms)
        .filter(|hit| hit.path != "/health");
    let sessions = hits
        .map(|hit| (hit.user, hit.path))
        .window("sessions", EventWindows::session(GAP).allowed_lateness(15 * MINUTE))
        .count();
    save(&sessions.results(), dir.join("told"), Session::to_row);
    save(&sessions.late(), dir.join("late"), |(time_ms, (user, path))| format!("{time_ms} {user} {path}\n"));
    let job = context.start()?;
    run::tell(job.recovery());
    let look = || {
        println!("{} users have open sessions", job.keys_in_state("sessions")?);
        Ok(())
    };
    if !run::run_to_end(&job, look)? {
        return Ok(());
    }
    if job.keys_in_state("sessions")? > 0 {
        return Err("the log is read, and sessions are still open".into());
    }
    report(&dir)
}
