//! The jobs whose stores are the fixtures, and what each batch of them receives. A job here is never changed once the
//! fixtures of a version are released: what a later version adds becomes another job.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use millpond::{
    DStream, Data, EventWindows, Key, ManualClock, RunningContext, StateSpec, StopMode, StreamingContext,
    Text, Timer, Watermarks,
};

/// 2024-02-29 12:00:00 UTC.
pub const START_MS: u64 = 1_709_208_000_000;
pub const INTERVAL_MS: u64 = 1_000;

/// Lives that end gracefully, by their last batches; then comes the one that is killed.
pub const LIVES: [u64; 2] = [4, 8];
/// The last batch of the life that is killed. What the next one receives is durable by then.
pub const KILLED_AFTER: u64 = 11;
/// How far jobs go on from there.
pub const GOES_ON_TO: u64 = 15;

/// Hands a job what one of its batches receives.
type Feed = Box<dyn Fn(u64)>;

/// Adds the streams and operators of a job. Its files are below the given directory.
pub type Describe = fn(&StreamingContext, &Path) -> Feed;

/// The jobs by the names of their fixtures.
pub const JOBS: [(&str, Describe); 4] =
    [("types", types), ("structs", structs), ("life", life), ("upgrade", upgrade)];

/// A job on the store below `root`.
pub struct Job {
    root: PathBuf,
    clock: Arc<ManualClock>,
    pub running: RunningContext,
    feed: Feed,
}

pub fn context(root: &Path, clock: &Arc<ManualClock>, allow_dropping_state: bool) -> StreamingContext {
    StreamingContext::builder("golden")
        .store(root.join("store"))
        .clock(clock.clone())
        .batch_interval(Duration::from_millis(INTERVAL_MS))
        .checkpoint_every_batches(2)
        .allow_dropping_state(allow_dropping_state)
        .partitions(3)
        .threads(2)
        .stop_on_signals(false)
        .build()
        .unwrap()
}

/// The time of a batch.
pub fn clock_at(batch: u64) -> Arc<ManualClock> {
    ManualClock::at(START_MS + batch * INTERVAL_MS)
}

impl Job {
    /// Starts a job when `batch` is over.
    pub fn start(
        root: &Path,
        describe: Describe,
        batch: u64,
        allow_dropping_state: bool,
    ) -> millpond::Result<Job> {
        put_files(&root.join("files"), batch);
        let clock = clock_at(batch);
        let context = context(root, &clock, allow_dropping_state);
        let feed = describe(&context, root);
        Ok(Job { root: root.to_owned(), clock, running: context.start()?, feed })
    }

    /// Hands over what `batch` receives.
    pub fn feed(&self, batch: u64) {
        put_files(&self.root.join("files"), batch);
        (self.feed)(batch);
    }

    /// Runs the batch that was fed.
    pub fn run(&self, batch: u64) {
        self.clock.advance(INTERVAL_MS);
        let done = || self.running.progress().last_batch.is_some_and(|(done, _)| done.0 >= batch);
        while !done() {
            assert!(!self.running.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
        }
    }

    /// Waits until so many checkpoints of this life are durable and the clean-up after them is done.
    pub fn settle(&self, checkpoints: u64) {
        while self.running.progress().checkpoints < checkpoints {
            assert!(!self.running.await_termination_or_timeout(Duration::from_millis(1)).unwrap());
        }
    }

    pub fn stop(self) {
        self.running.stop(StopMode::Graceful).unwrap();
    }
}

/// Runs a job from its beginning up to `last`, in one life.
pub fn run_undisturbed(root: &Path, describe: Describe, last: u64) {
    let job = Job::start(root, describe, 0, false).unwrap();
    for batch in 1..=last {
        job.feed(batch);
        job.run(batch);
    }
    job.stop();
}

/// The files that are there in `batch`, with the times of modification that plans and positions know them by.
pub fn put_files(dir: &Path, batch: u64) {
    fs::create_dir_all(dir).unwrap();
    let files = [
        (1, "a.txt", "one\ntwo\ntwo\n"),
        (7, "b.txt", "two\nthree\n"),
        (11, "c.txt", "one\n"),
        (14, "d.txt", "four\n"),
    ];
    for (since, name, lines) in files.iter().filter(|(since, ..)| *since <= batch) {
        if !dir.join(name).exists() {
            fs::write(dir.join(name), lines).unwrap();
        }
        let modified = SystemTime::UNIX_EPOCH + Duration::from_millis(START_MS + since * INTERVAL_MS);
        File::options().append(true).open(dir.join(name)).unwrap().set_modified(modified).unwrap();
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// Keeps under a name the latest value of each key that a number stands for.
fn keep<K: Key + Data, V: Data>(
    numbers: &DStream<u64>,
    name: &str,
    pair: impl Fn(u64) -> (K, V) + Send + Sync + 'static,
) {
    drop(numbers.map(pair).update_state_by_key(name, |new, old| new.last().cloned().or(old)));
}

/// A type of a job's own.
#[millpond::data]
#[derive(Clone)]
struct Order {
    customer: String,
    lines: BTreeMap<String, Line>,
    seen: BTreeSet<i16>,
    payment: Payment,
    took: Duration,
    note: Option<Box<Note>>,
}

#[millpond::data]
#[derive(Clone)]
struct Line {
    pieces: u16,
    cents: u64,
}

#[millpond::data]
#[derive(Clone)]
struct Note(String);

#[millpond::data]
#[derive(Clone)]
enum Payment {
    Open,
    Card { number: String, checked: bool },
    Split(u8, Vec<u128>),
    Failed(Result<(), [u8; 3]>),
}

/// Types of a job's own, maps and sets of many sizes.
fn structs(context: &StreamingContext, _: &Path) -> Feed {
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    let (orders, order_queue) = context.queue_stream::<(u64, Order)>("orders");
    drop(orders.update_state_by_key("orders", |new, old| new.last().cloned().or(old)));
    let timed = StateSpec::named("expiring").time_to_live(seconds(5));
    drop(orders.update_state_by_key(timed, |new: &[Order], old| {
        new.last().map(|order| order.payment.clone()).or(old)
    }));
    drop(orders.window("recent", seconds(3), seconds(1)));
    keep(&numbers, "map", |n| (n, (0..n * 7).map(|m| (m as u32, m * n)).collect::<BTreeMap<_, _>>()));
    keep(&numbers, "set", |n| (n, (0..n * 3).map(|m| format!("element {}", m * n)).collect::<BTreeSet<_>>()));
    keep(&numbers, "result", |n| (n, if n % 2 == 0 { Ok(n as u8) } else { Err("x".repeat(n as usize)) }));
    let order = |n: u64| Order {
        customer: format!("customer {n}"),
        lines: (0..n).map(|m| (format!("item {m}"), Line { pieces: m as u16, cents: m * 250 })).collect(),
        seen: (0..n as i16).map(|m| 3 - m).collect(),
        payment: match n % 4 {
            0 => Payment::Open,
            1 => Payment::Card { number: format!("{n:016}"), checked: n % 8 == 1 },
            2 => Payment::Split(n as u8, vec![u128::from(n); 2]),
            _ => Payment::Failed(if n % 8 == 3 { Ok(()) } else { Err([n as u8; 3]) }),
        },
        took: Duration::from_millis(n * 1_500),
        note: n.is_multiple_of(3).then(|| Box::new(Note(format!("note {n}")))),
    };
    Box::new(move |batch| {
        queue.push([batch, batch + 1]).unwrap();
        order_queue.push([(batch % 5, order(batch)), (100 + batch, order(batch + 2))]).unwrap();
    })
}

/// Every kind of key and value.
fn types(context: &StreamingContext, _: &Path) -> Feed {
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    keep(&numbers, "u8", |n| (n as u8, n as i8));
    keep(&numbers, "u16", |n| ((n * 997) as u16, (n * 997) as i16));
    keep(&numbers, "u32", |n| ((n * 99_991) as u32, (n as i32) - 5));
    keep(&numbers, "u64", |n| (n.wrapping_mul(u64::MAX / 7), n as i64 - 5));
    keep(&numbers, "u128", |n| (u128::from(n) << 90, i128::MIN + i128::from(n)));
    keep(&numbers, "i8", |n| (n as i8 - 5, n as u8));
    keep(&numbers, "i16", |n| (n as i16 - 5, n as u16));
    keep(&numbers, "i32", |n| (n as i32 - 5, n as u32));
    keep(&numbers, "i64", |n| (n as i64 - 5, u64::MAX - n));
    keep(&numbers, "i128", |n| (i128::from(n) - 5, u128::MAX - u128::from(n)));
    keep(&numbers, "bool", |n| (n % 2 == 0, n % 3 == 0));
    keep(&numbers, "char", |n| {
        (char::from_u32(0x3b1 + n as u32).unwrap(), ['a', '\u{e9}', '\u{1f30a}'][n as usize % 3])
    });
    keep(&numbers, "unit", |n| ((), (n, ())));
    keep(&numbers, "option", |n| {
        ((n % 5 > 0).then_some(n as u16), (n % 4 > 0).then(|| "x".repeat(n as usize)))
    });
    keep(&numbers, "bytes", |n| (vec![0xff - n as u8, b'a'], vec![n as u8; n as usize]));
    keep(&numbers, "text", |n| (Text::from(&*format!("t{n}")), Text::from(&*"line ".repeat(n as usize))));
    keep(&numbers, "names", |n| {
        ("\u{e9}".repeat(n as usize), format!("{:\u{e9}>width$}\n\"\\", n, width = n as usize))
    });
    // Each path through the hash of keys has keys of its own.
    let lengths = [0, 1, 3, 4, 8, 9, 16, 17, 32, 33, 65, 97, 128, 129, 200, 240, 241, 1024, 1025, 2100];
    keep(&numbers, "lengths", move |n| {
        let length = lengths[n as usize % lengths.len()];
        ((0..length).map(|at| (at * 31 + length) as u8).collect::<Vec<u8>>(), length as u64)
    });
    // All in one key group, on two pages: a part with a filter.
    keep(&numbers, "filtered", |n| ([0u64, 68, 77][n as usize % 3], "x".repeat(2_100 + n as usize)));
    keep(&numbers, "pair", |n| ((format!("k{n}"), n as i32 - 5), (n as u8, n, n as u16)));
    keep(&numbers, "nested", |n| {
        let key = ((n % 3 > 0).then_some((n as u8, false)), 'k', -(n as i64), "end".to_owned());
        let list =
            |m: u64| (0..m).map(|m| (format!("element {m}"), Some(m as f32 / 2.0))).collect::<Vec<_>>();
        (key, (0..n % 4).map(list).collect::<Vec<_>>())
    });
    let floats = [
        0.0,
        -0.0,
        1.5,
        -2.0,
        1e15,
        1e16,
        123_456_789_012_345_680.0,
        1e21,
        1e-4,
        1e-5,
        1.25e-6,
        1e-7,
        5e-324,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        0.1,
        1.0 / 3.0,
    ];
    keep(&numbers, "floats", move |n| {
        (n as u32, (floats[n as usize % floats.len()], floats[n as usize % floats.len()] as f32))
    });
    Box::new(move |batch| queue.push((0..3).map(|n| (batch * 3 + n) % 23)).unwrap())
}

/// Everything that keeps state, and every kind of input.
fn life(context: &StreamingContext, root: &Path) -> Feed {
    let (words, queue) = context.queue_stream::<(String, u64)>("words");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let lines = context.socket_text_stream("lines", &listener.local_addr().unwrap().to_string());
    let files = context.text_file_stream("files", root.join("files"));
    let seen = context.accumulator("seen", 0u64, |a, b| a + b);
    let factor = context.broadcast("factor", 1u64);

    let (count, by) = (seen.clone(), factor.clone());
    let weighed = words.map(move |(word, n)| {
        count.add(n);
        (word, n * *by.value())
    });
    // Keys go when they come to a multiple of three.
    let _ = weighed.update_state_by_key("totals", |new, total: Option<u64>| {
        Some(total.unwrap_or(0) + new.iter().sum::<u64>()).filter(|total| total % 3 > 0)
    });
    words.window("recent", seconds(3), seconds(1)).count().for_each_rdd(|rdd, _| {
        rdd.collect()?;
        Ok(())
    });
    let _ = words.reduce_by_key_and_window_with_inverse(
        "window",
        seconds(3),
        seconds(1),
        |a, b| a + b,
        |a, b| a - b,
    );
    let _ = words.map_with_state(StateSpec::named("idle").timeout(seconds(3)), |_, n, state| {
        if let Some(n) = n {
            state.update(state.get().unwrap_or(&0) + n);
        }
        None::<u64>
    });
    let _ = words.transform_with_state("due", |key, new: &[u64]| {
        let before = key.take().unwrap_or(0u64);
        if key.due().is_empty() {
            key.update(before + new.iter().sum::<u64>());
            key.set_timer(Timer::ProcessingTime(key.batch_time().0 + 2 * INTERVAL_MS));
            key.emit(before);
        }
    });
    let events =
        words.with_event_time(Watermarks::bounded("events", seconds(2)), |(_, n)| START_MS + n * 700);
    let _ = events.transform_with_state("silent", |key, new: &[(u64, u64)]| {
        let latest = new.iter().map(|(time_ms, _)| *time_ms).chain(key.take()).max();
        if let Some(latest) = latest.filter(|latest| latest + 4_000 > key.watermark()) {
            key.update(latest);
            key.set_timer(Timer::EventTime(latest + 4_000));
            key.emit(latest);
        }
    });
    let _ = events.window("sessions", EventWindows::session(seconds(2))).count();
    let count = |new: &[u64], count: Option<u64>| Some(count.unwrap_or(0) + new.len() as u64);
    let _ = lines.map(|line| (line, 1u64)).update_state_by_key("heard", count);
    let _ = files.map(|line| (line, 1u64)).update_state_by_key("read", count);

    let log = root.join("store/log");
    Box::new(move |batch| {
        if batch % 4 == 3 {
            factor.update(batch).unwrap();
        }
        if batch % 3 == 2 {
            say(&listener, &log, &format!("batch {batch}\nagain\n"));
        }
        queue.push((0..4).map(|n| (format!("word {}", (batch * n + n) % 11), batch + n))).unwrap();
    })
}

/// Sends lines, and waits until they are in the log.
fn say(listener: &TcpListener, log: &Path, lines: &str) {
    let extents =
        || -> u64 { fs::read_dir(log).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum() };
    let before = extents();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(lines.as_bytes()).unwrap();
    drop(stream);
    while extents() < before + lines.len() as u64 {
        #[allow(clippy::disallowed_methods, reason = "a socket is waited for")]
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Numbers, for jobs that are upgraded: each batch has the same key and one of its own.
fn numbers(context: &StreamingContext) -> (DStream<u64>, Feed) {
    let (numbers, queue) = context.queue_stream::<u64>("numbers");
    (numbers, Box::new(move |batch| queue.push([0, batch % 6 + 1, 0]).unwrap()))
}

fn count(numbers: &DStream<u64>, spec: impl Into<StateSpec>) {
    let pairs = numbers.map(|n| (n, 1u64));
    drop(pairs.update_state_by_key(spec, |new, n: Option<u64>| Some(n.unwrap_or(0) + new.len() as u64)));
}

/// What [`upgraded`] goes on with.
fn upgrade(context: &StreamingContext, _: &Path) -> Feed {
    let (numbers, feed) = numbers(context);
    count(&numbers, "renamed before");
    count(&numbers, "migrated");
    count(&numbers, "dropped");
    let pairs = numbers.map(|n| (n, 1u32));
    let _ = pairs.map_with_state(
        StateSpec::named("timed").timeout(seconds(4)),
        |_, n, state: &mut millpond::State<'_, u32>| {
            if let Some(n) = n {
                state.update(state.get().unwrap_or(&0) + n);
            }
            None::<u64>
        },
    );
    feed
}

/// The job of `upgrade` after it was changed: an operator is renamed, two are migrated, one is gone.
pub fn upgraded(context: &StreamingContext, _: &Path) -> Feed {
    let (numbers, feed) = numbers(context);
    count(&numbers, StateSpec::named("renamed").was("renamed before"));
    let migrated = StateSpec::named("migrated").migrate_from(|count: u64| (count, format!("{count} before")));
    let pairs = numbers.map(|n| (n, 1u64));
    let _ = pairs.update_state_by_key(migrated, |new, state: Option<(u64, String)>| {
        let (count, before) = state.unwrap_or_default();
        Some((count + new.len() as u64, before))
    });
    let timed = StateSpec::named("timed").timeout(seconds(4)).migrate_from(|count: u32| vec![count]);
    let pairs = numbers.map(|n| (n, 1u32));
    let _ = pairs.map_with_state(timed, |_, n, state: &mut millpond::State<'_, Vec<u32>>| {
        if let Some(n) = n {
            let mut all = state.get().cloned().unwrap_or_default();
            all.push(n);
            state.update(all);
        }
        None::<u64>
    });
    feed
}
