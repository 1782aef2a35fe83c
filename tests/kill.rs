//! Kills the real `word_count` with SIGKILL, again and again, and compares its totals exactly.
//!
//! The times of the kills are random; `MILLPOND_KILL_SEED` repeats the choices of an earlier run (not its
//! timing, which is the machine's).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]
#![allow(clippy::disallowed_methods, reason = "a process is killed in real time")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

type Counts = BTreeMap<String, u64>;

/// After so long without a sign of life a run counts as hung. Nothing else here depends on time.
const HUNG: Duration = Duration::from_secs(60);

/// The choices of a test: xorshift64*.
struct Random(u64);

impl Random {
    fn seeded(test: &str) -> Self {
        let seed = match std::env::var("MILLPOND_KILL_SEED") {
            Ok(seed) => seed.parse().expect("MILLPOND_KILL_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1,
        };
        eprintln!("{test}: MILLPOND_KILL_SEED={seed}");
        Random(seed.max(1))
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    fn pause(&mut self, most_ms: u64) {
        sleep(Duration::from_micros(self.below(most_ms * 1_000 + 1)));
    }
}

/// The example, where cargo puts it: beside the directory of this test.
fn word_count() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples/word_count");
    assert!(
        path.is_file(),
        "{} is not there: `cargo test` builds it, `cargo test --test kill` alone does not; \
         run `cargo build --example word_count` (with the same profile) first",
        path.display()
    );
    path
}

/// What the tests of one store share.
struct Place {
    dir: tempfile::TempDir,
    word_count: PathBuf,
}

impl Place {
    fn new() -> Self {
        Place { dir: tempfile::tempdir().unwrap(), word_count: word_count() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts the job on the store. What it logs is kept, to be shown when a test fails.
    fn start(&self, source: &str, more: &[&str]) -> Job {
        let log = File::options().create(true).append(true).open(self.path("log")).unwrap();
        let mut child = Command::new(&self.word_count)
            .args(["--source", source, "--batch-ms", "20", "--checkpoint-every", "3", "--store"])
            .arg(self.path("store"))
            .arg("--totals")
            .arg(self.path("totals"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        // Ends with the child.
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Job { child, lines, log: self.path("log") }
    }

    /// The totals of the last run that was stopped, which are removed.
    fn take_totals(&self) -> Counts {
        let totals = fs::read_to_string(self.path("totals")).unwrap();
        fs::remove_file(self.path("totals")).unwrap();
        let mut counts = Counts::new();
        for line in totals.lines() {
            let (word, count) = line.split_once('\t').unwrap();
            let before = counts.insert(word.to_owned(), count.parse().unwrap());
            assert_eq!(before, None, "`{word}` is in the totals twice");
        }
        counts
    }
}

/// A running `word_count`; killed when dropped.
struct Job {
    child: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Job {
    /// The totals that the next batch with input shows, of its most frequent words; `None` when none came in
    /// time, and after the job has ended.
    fn shown_within(&self, timeout: Duration) -> Option<Counts> {
        loop {
            match self.lines.recv_timeout(timeout) {
                Ok(line) => match shown(&line) {
                    None => {}
                    counts => return counts,
                },
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Waits until `word` is shown with a total of at least `total`; returns what was shown with it.
    fn wait_for(&self, word: &str, total: u64) -> Counts {
        loop {
            let Some(counts) = self.shown_within(HUNG) else {
                panic!("`{word}` never reached {total}; {}", self.story());
            };
            if counts.get(word).is_some_and(|shown| *shown >= total) {
                return counts;
            }
        }
    }

    /// SIGKILL. Returns what was shown until then and not yet asked for.
    fn kill(mut self) -> Vec<Counts> {
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert!(status.code().is_none(), "the job had ended by itself: {status}; {}", self.story());
        std::iter::from_fn(|| self.shown_within(HUNG)).collect()
    }

    /// SIGTERM, and waits for a good end.
    fn terminate(self) {
        let kill = format!("kill -TERM {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.end();
    }

    /// Waits for a good end.
    fn end(mut self) {
        const POLL: Duration = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(waited < HUNG, "the job does not end; {}", self.story());
            sleep(POLL);
            waited += POLL;
        };
        assert!(status.success(), "the job failed: {status}; {}", self.story());
    }

    fn story(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let from = log.char_indices().rev().nth(4_000).map_or(0, |(at, _)| at);
        format!("the end of its log:\n{}", &log[from..])
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads a line like `batch 7  the 12  pond 5`.
fn shown(line: &str) -> Option<Counts> {
    let (_, words) = line.split_once("  ")?;
    words
        .split("  ")
        .map(|pair| {
            let (word, total) = pair.rsplit_once(' ')?;
            Some((word.to_owned(), total.parse().ok()?))
        })
        .collect()
}

fn count(text: &str, into: &mut Counts) {
    for word in text.split_ascii_whitespace() {
        *into.entry(word.to_owned()).or_default() += 1;
    }
}

#[track_caller]
fn assert_same(totals: &Counts, expected: &Counts, job: &str) {
    let words: std::collections::BTreeSet<_> = totals.keys().chain(expected.keys()).collect();
    let wrong: Vec<String> = words
        .into_iter()
        .filter(|word| totals.get(*word) != expected.get(*word))
        .map(|word| format!("{word}: {:?}, not {:?}", totals.get(word), expected.get(word)))
        .collect();
    let some = &wrong[..wrong.len().min(20)];
    assert!(wrong.is_empty(), "{job}: {} words have wrong totals: {some:#?}", wrong.len());
}

// -- a directory --

/// Writes files aside and moves them into the monitored directory.
struct Feeder {
    aside: PathBuf,
    monitored: PathBuf,
    files: u64,
    expected: Counts,
}

impl Feeder {
    fn new(place: &Place) -> Self {
        let feeder = Feeder {
            aside: place.path("aside"),
            monitored: place.path("monitored"),
            files: 0,
            expected: Counts::new(),
        };
        fs::create_dir(&feeder.aside).unwrap();
        fs::create_dir(&feeder.monitored).unwrap();
        feeder
    }

    fn feed(&mut self, random: &mut Random) {
        let name = format!("part-{:05}-{}.txt", self.files, random.below(1_000));
        let lines = match random.below(20) {
            0 => 0,
            1 => 4_000,
            _ => 1 + random.below(40),
        };
        let mut text = String::new();
        for _ in 0..lines {
            for _ in 0..random.below(9) {
                // Some words are frequent, some are seen once.
                let rarity = 1 + random.below(16);
                let word = random.below(1 << rarity);
                text += &format!("w{word} ");
            }
            text += if random.below(10) == 0 { "\r\n" } else { "\n" };
        }
        if random.below(3) == 0 {
            text += "an end without a newline";
        }
        fs::write(self.aside.join(&name), &text).unwrap();
        fs::rename(self.aside.join(&name), self.monitored.join(&name)).unwrap();
        count(&text, &mut self.expected);
        self.files += 1;
    }
}

#[test]
fn files_are_counted_once_whenever_the_job_is_killed() {
    const ROUNDS: u64 = 25;
    let mut random = Random::seeded("a directory");
    let place = Place::new();
    let mut feeder = Feeder::new(&place);
    let source = format!("dir:{}", feeder.monitored.display());
    let mut counting = 0;
    for round in 0..ROUNDS {
        // While the job is down.
        for _ in 0..random.below(4) {
            feeder.feed(&mut random);
        }
        let job = place.start(&source, &[]);
        if round % 3 == 2 {
            // Somewhere in the start, in a replay of what the last kill left.
            feeder.feed(&mut random);
            random.pause(120);
        } else {
            // Between two batches that count, or in one, or in a checkpoint.
            run_while_feeding(&job, 1 + random.below(5), &mut feeder, &mut random);
            random.pause(50);
            counting += 1;
        }
        job.kill();
    }
    feeder.feed(&mut random);
    place.start(&source, &["--idle-stop", "2", "--quiet"]).end();
    eprintln!("{} files; {counting} of {ROUNDS} kills while they were being counted", feeder.files);
    assert_same(&place.take_totals(), &feeder.expected, "files");
}

/// Feeds until `batches` batches with input were shown.
fn run_while_feeding(job: &Job, batches: u64, feeder: &mut Feeder, random: &mut Random) {
    const POLL: Duration = Duration::from_millis(40);
    let (mut seen, mut silent) = (0, Duration::ZERO);
    while seen < batches {
        // A stream of files that ends only when the job hangs.
        if silent < HUNG / 4 {
            feeder.feed(random);
        }
        match job.shown_within(POLL) {
            Some(_) => (seen, silent) = (seen + 1, Duration::ZERO),
            None => silent += POLL,
        }
        assert!(silent < HUNG, "no file is counted; {}", job.story());
    }
}

// -- a socket --

/// How often `probe` is in the line that a connection begins with: often enough to be shown always.
const PROBES: u64 = 1_000;

/// The lines to be counted, and what the job is known to have of them.
///
/// The server sends them in order, and what was durable when the job was killed is the first so many of
/// them. Each has the word `mark` once, so that the total of `mark` tells how many.
struct Script {
    seed: u64,
    /// So many lines are durable in the job.
    durable: u64,
    /// Connections that began with a probe, which was seen counted.
    probes: u64,
}

impl Script {
    fn line(&self, number: u64) -> String {
        let mut random = Random((self.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1));
        let mut line = String::from("mark");
        for _ in 0..random.below(9) {
            line += &format!(" w{}", random.below(300));
        }
        line + "\n"
    }

    fn lines(&self, count: u64) -> String {
        (self.durable..self.durable + count).map(|number| self.line(number)).collect()
    }

    /// What the job must have counted when `lines` lines and all probes are.
    fn expected(&self, lines: u64) -> Counts {
        let mut counts = Counts::new();
        (0..lines).for_each(|number| count(&self.line(number), &mut counts));
        *counts.entry("mark".to_owned()).or_default() += self.probes;
        counts.insert("probe".to_owned(), PROBES * self.probes);
        counts
    }

    /// Sends the line that a connection begins with and waits until it is counted: all that an earlier run
    /// made durable has been counted before it. Returns how many lines that is.
    fn probe(&mut self, job: &Job, socket: &mut TcpStream) -> u64 {
        let line = format!("mark{}\n", " probe".repeat(PROBES as usize));
        socket.write_all(line.as_bytes()).unwrap();
        self.probes += 1;
        let shown = job.wait_for("probe", PROBES * self.probes);
        assert_eq!(shown["probe"], PROBES * self.probes, "a probe was counted twice");
        shown["mark"] - self.probes
    }
}

/// How a run ends.
#[derive(Clone, Copy, Debug)]
enum End {
    KilledInItsStart,
    KilledWhileItReceives,
    KilledWhenAllIsCounted,
    StoppedWhileItReceives,
    StoppedWhenAllIsCounted,
}

const ENDS: [End; 18] = [
    End::KilledWhileItReceives,
    End::KilledWhileItReceives,
    End::KilledInItsStart,
    End::KilledWhenAllIsCounted,
    End::KilledInItsStart,
    End::KilledInItsStart,
    End::StoppedWhenAllIsCounted,
    End::KilledWhileItReceives,
    End::KilledInItsStart,
    End::StoppedWhileItReceives,
    End::KilledInItsStart,
    End::KilledWhileItReceives,
    End::KilledWhileItReceives,
    End::StoppedWhileItReceives,
    End::KilledWhenAllIsCounted,
    End::KilledWhileItReceives,
    End::KilledInItsStart,
    End::StoppedWhenAllIsCounted,
];

#[test]
fn lines_are_counted_once_whenever_the_job_is_killed() {
    let mut random = Random::seeded("a socket");
    let place = Place::new();
    let mut script = Script { seed: random.below(u64::MAX), durable: 0, probes: 0 };
    // At least so many, at most so many of the script's lines are durable when a run starts.
    let (mut least, mut most) = (0, 0);
    let mut unseen = 0;
    for (round, end) in ENDS.into_iter().enumerate() {
        // A port of its own: no connection of an earlier run waits at it.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let job = place.start(&format!("socket:{}", listener.local_addr().unwrap()), &[]);
        if matches!(end, End::KilledInItsStart) {
            random.pause(150);
            job.kill();
            continue;
        }
        let mut socket = listener.accept().unwrap().0;
        script.durable = script.probe(&job, &mut socket);
        let durable = script.durable;
        eprintln!("round {round}: {durable} lines, expected {least} to {most}; now {end:?}");
        assert!(durable >= least, "lines that were counted are lost");
        assert!(durable <= most, "lines were counted twice");
        unseen += durable - least;

        let text = script.lines(50 + random.below(300));
        let sent = send(&text, &mut socket, end, &mut random);
        let all = durable + sent;
        match end {
            End::KilledWhileItReceives => {
                let shown = job.kill();
                let counted = shown.last().map_or(durable, |counts| counts["mark"] - script.probes);
                (least, most) = (counted, all);
            }
            End::KilledWhenAllIsCounted => {
                job.wait_for("mark", all + script.probes);
                job.kill();
                (least, most) = (all, all);
            }
            End::StoppedWhileItReceives => {
                job.terminate();
                let totals = place.take_totals();
                let counted = totals["mark"] - script.probes;
                assert!((durable..=all).contains(&counted), "{counted} of {durable} to {all}");
                assert_same(&totals, &script.expected(counted), "stopped while it received");
                (least, most) = (counted, counted);
            }
            End::StoppedWhenAllIsCounted => {
                job.wait_for("mark", all + script.probes);
                job.terminate();
                assert_same(&place.take_totals(), &script.expected(all), "stopped with all counted");
                (least, most) = (all, all);
            }
            End::KilledInItsStart => unreachable!("handled above"),
        }
    }
    eprintln!("{most} lines; {unseen} were durable at a kill and not yet seen counted");
}

/// Sends `text` in pieces that are cut anywhere; returns how many whole lines were sent.
fn send(text: &str, socket: &mut TcpStream, end: End, random: &mut Random) -> u64 {
    let receiving = matches!(end, End::KilledWhileItReceives | End::StoppedWhileItReceives);
    let length = if receiving { random.below(text.len() as u64) as usize } else { text.len() };
    let mut sent = 0;
    while sent < length {
        let piece = (1 + random.below(1_500) as usize).min(length - sent);
        socket.write_all(&text.as_bytes()[sent..sent + piece]).unwrap();
        sent += piece;
        random.pause(8);
    }
    text.as_bytes()[..length].iter().filter(|byte| **byte == b'\n').count() as u64
}
