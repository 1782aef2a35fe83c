//! A process that dies at every step on the disk in turn, with files and a socket that are fed while it runs: its totals
//! are exact at the end. The engine says each step as a trace event; the process aborts in the n-th.
//!
//! `MILLPOND_KILL_ROUNDS` is how many deaths there are; one after the other at later steps, then from the first again.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]
#![allow(clippy::disallowed_methods, reason = "a process is killed in real time")]
#![cfg(all(feature = "testkit", target_os = "linux"))]

#[path = "support/storm.rs"]
mod storm;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use millpond::testkit::FaultPlan;
use millpond::{DirectorySource, StopMode, StreamingContext};
use storm::{end_of, rounds, wait};
use tracing::field::{Field, Visit};
use tracing::span;

/// What the process is told by: the directory of everything, the address of the socket, and at which step it dies.
const PROCESS: [&str; 3] = ["MILLPOND_POINTS_DIR", "MILLPOND_POINTS_ADDRESS", "MILLPOND_POINTS_STEP"];

/// A run that should end by itself counts as hung after so long.
const HUNG: Duration = Duration::from_secs(60);

/// Aborts in the event of a step; 0 for none.
struct Death(AtomicU64);

impl tracing::Subscriber for Death {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().starts_with("millpond::store::fault")
    }

    fn event(&self, event: &tracing::Event<'_>) {
        struct Step(u64);
        impl Visit for Step {
            fn record_u64(&mut self, field: &Field, value: u64) {
                if field.name() == "step" {
                    self.0 = value;
                }
            }

            fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
        }
        let mut step = Step(0);
        event.record(&mut step);
        if step.0 > 0 && step.0 == self.0.load(Ordering::SeqCst) {
            std::process::abort();
        }
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

#[test]
#[ignore = "the process that dies: the other test starts it"]
fn dying_process() {
    let [Ok(dir), Ok(address), Ok(step)] = PROCESS.map(std::env::var) else { return };
    let dir = Path::new(&dir);
    tracing::subscriber::set_global_default(Death(AtomicU64::new(step.parse().unwrap()))).unwrap();
    let context = StreamingContext::builder("points")
        .store(dir.join("store"))
        .batch_interval(Duration::from_millis(20))
        .checkpoint_every_batches(2)
        .threads(2)
        .stop_on_signals(false)
        .faults(FaultPlan::never())
        .build()
        .unwrap();
    let files = DirectorySource::new(dir.join("files")).settle(Duration::ZERO);
    let lines = context.file_stream("files", files).union(&context.socket_text_stream("socket", &address));
    let words = lines.flat_map(|line, out| line.words().for_each(|word| out.emit((word.to_string(), 1u64))));
    let _counts = words.update_state_by_key("counts", |new: &[u64], count: Option<u64>| {
        Some(count.unwrap_or(0) + new.iter().sum::<u64>())
    });
    let job = context.start().unwrap();
    while job.progress().idle < Duration::from_millis(150) {
        assert!(
            !job.await_termination_or_timeout(Duration::from_millis(10)).unwrap(),
            "it stopped by itself"
        );
    }
    job.stop(StopMode::Graceful).unwrap();
    let mut totals = String::new();
    let add = |word: String, count: u64| totals += &format!("{word} {count}\n");
    job.state::<String, u64>("counts").unwrap().for_each(add).unwrap();
    std::fs::write(dir.join("totals"), totals).unwrap();
}

/// One life of the job. `None` when it died as it should.
fn live(dir: &Path, step: u64, lines: &str) -> Option<String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let values = [dir.display().to_string(), listener.local_addr().unwrap().to_string(), step.to_string()];
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let mut child: Child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "dying_process", "--test-threads=1", "--nocapture"])
        .envs(PROCESS.into_iter().zip(values))
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    listener.set_nonblocking(true).unwrap();
    let (mut sent, mut waited) = (0, 0);
    let pieces: Vec<&str> = lines.split_inclusive(' ').collect();
    let mut socket = None;
    let status = loop {
        if let Some(status) = wait(&mut child, Duration::from_millis(5)) {
            break status;
        }
        if socket.is_none() && sent == 0 {
            socket = listener.accept().ok().map(|(socket, _)| socket);
        }
        match (&mut socket, pieces.get(sent)) {
            // It may have died in the meantime.
            (Some(open), Some(piece)) => sent += usize::from(open.write_all(piece.as_bytes()).is_ok()),
            (Some(_), None) => socket = None,
            (None, _) => {}
        }
        waited += 1;
        assert!(waited < HUNG.as_millis() / 5, "it hangs; {}", end_of(&dir.join("log")));
    };
    if status.success() {
        return Some(std::fs::read_to_string(dir.join("totals")).unwrap());
    }
    assert!(step > 0 && status.code().is_none(), "{status} at step {step}; {}", end_of(&dir.join("log")));
    None
}

/// Totals of a life, each word once.
fn parse(totals: &str) -> BTreeMap<String, u64> {
    let row =
        |line: &str| line.split_once(' ').map(|(word, count)| (word.to_owned(), count.parse().unwrap()));
    totals.lines().map(|line| row(line).unwrap()).collect()
}

/// What is in files is counted once; of what each connection sent, the first so many lines, once.
fn check(totals: &str, files: u64, lives: u64) {
    let totals = parse(totals);
    for file in 0..files {
        assert_eq!(totals.get(&format!("file{file}")), Some(&7), "file {file} of {files}");
    }
    assert_eq!(totals.get("all"), Some(&(files * 3)), "in {files} files");
    let mut of_lives = BTreeMap::<u64, Vec<u64>>::new();
    for (word, count) in totals.iter().filter(|(word, _)| word.starts_with("life")) {
        assert_eq!(*count, 1, "{word}");
        let (life, line) = word["life".len()..].split_once('-').unwrap();
        of_lives.entry(life.parse().unwrap()).or_default().push(line.parse().unwrap());
    }
    for (life, mut lines) in of_lives {
        assert!(life < lives, "{life}");
        lines.sort_unstable();
        assert!(lines.iter().copied().eq(0..lines.len() as u64), "of life {life} there are {lines:?}");
    }
}

#[test]
fn totals_are_exact_whichever_step_the_process_dies_at() {
    const DEATHS: u64 = 40;
    let deaths = rounds().unwrap_or(DEATHS);
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("files")).unwrap();
    let (mut files, mut lives, mut died, mut step) = (0, 0, 0, 1);
    let stride = if deaths > DEATHS { 1 } else { 3 };
    while died < deaths {
        for _ in 0..lives % 3 {
            let text = format!("{}\nall all all\n", format!("file{files} ").repeat(7));
            std::fs::write(dir.path().join("unfinished"), text).unwrap();
            std::fs::rename(dir.path().join("unfinished"), dir.path().join(format!("files/{files:05}.txt")))
                .unwrap();
            files += 1;
        }
        let lines: String = (0..30).map(|line| format!("life{lives}-{line}\n ")).collect();
        lives += 1;
        match live(dir.path(), step, &lines) {
            None => (died, step) = (died + 1, step + stride),
            Some(totals) => {
                // It passes fewer steps: from the first again.
                assert!(step > 1, "it passed no step");
                check(&totals, files, lives);
                step = 1;
            }
        }
    }
    let totals = live(dir.path(), 0, "").expect("nothing kills it");
    check(&totals, files, lives);
    eprintln!("{died} deaths in {} lives, {files} files; the last at step {step}", lives + 1);
}
