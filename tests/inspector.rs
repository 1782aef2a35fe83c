//! The `millpond` command on real stores: sound, left by a killed job, beside a running one, and damaged.
#![cfg(feature = "tool")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/tool.rs"]
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millpond::{ManualClock, Queue, RunningContext, StopMode, StreamingContext};
use serde_json::Value;
use tool::{copy_dir, snapshot};

const VERBS: [&str; 3] = ["inspect", "checkpoints", "verify"];

/// 2024-02-29 12:00:00 UTC.
const START_MS: u64 = 1_709_208_000_000;

struct Job {
    running: RunningContext,
    queue: Queue<String>,
    clock: Arc<ManualClock>,
}

impl Job {
    fn start(store: &Path, files: &Path) -> Job {
        let clock = ManualClock::at(START_MS);
        let context = StreamingContext::builder("counts")
            .store(store)
            .clock(clock.clone())
            .batch_interval(Duration::from_secs(1))
            .checkpoint_every_batches(2)
            .threads(2)
            .stop_on_signals(false)
            .build()
            .unwrap();
        let (words, queue) = context.queue_stream::<String>("words");
        let _ = words.map(|word| (word, 1u64)).update_state_by_key("totals", |new, total: Option<u64>| {
            Some(total.unwrap_or(0) + new.iter().sum::<u64>())
        });
        let _ = context
            .text_file_stream("files", files)
            .map(|line| (line, 1u64))
            .update_state_by_key("lines", |new, total: Option<u64>| {
                Some(total.unwrap_or(0) + new.len() as u64)
            });
        let running = context.start().unwrap();
        Job { running, queue, clock }
    }

    /// Runs one batch of 50 words.
    fn batch(&self) {
        let before = self.running.progress().batches;
        self.push();
        self.clock.advance(1_000);
        while self.running.progress().batches == before {
            assert!(!self.running.await_termination_or_timeout(Duration::from_millis(2)).unwrap());
        }
    }

    fn push(&self) {
        self.queue.push((0..50).map(|word| format!("word {word}"))).unwrap();
    }

    /// Waits until the checkpoint writer has committed and pruned.
    fn settle(&self, checkpoints: u64) {
        for _ in 0..5_000 {
            if self.running.progress().checkpoints >= checkpoints {
                return;
            }
            assert!(!self.running.await_termination_or_timeout(Duration::from_millis(2)).unwrap());
        }
        panic!("checkpoint {checkpoints} was not committed: {:?}", self.running.progress());
    }
}

struct Bench {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().to_owned();
        fs::create_dir(root.join("files")).unwrap();
        fs::write(root.join("files/a.txt"), "one\ntwo\n").unwrap();
        Bench { _dir: dir, root }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// A job after five batches with two checkpoints and one block that waits.
    fn running(&self) -> Job {
        let job = Job::start(&self.at("store"), &self.at("files"));
        (0..2).for_each(|_| job.batch());
        job.settle(1);
        (0..2).for_each(|_| job.batch());
        job.settle(2);
        job.batch();
        job.push();
        job
    }

    /// A copy of the same, as if the job had been killed.
    fn killed(&self) -> PathBuf {
        let job = self.running();
        let copy = self.at("killed");
        copy_dir(&self.at("store"), &copy);
        drop(job);
        copy
    }
}

struct Outcome {
    code: i32,
    out: String,
    err: String,
}

/// Runs the command and proves that it changed nothing.
fn millpond(verb: &str, dir: &Path, json: bool) -> Outcome {
    let before = snapshot(dir);
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.arg(verb).arg(dir);
    if json {
        command.arg("--json");
    }
    let output = command.output().unwrap();
    assert!(before == snapshot(dir), "`{verb}` changed {}", dir.display());
    let outcome = Outcome {
        code: output.status.code().expect("it ended by itself"),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!outcome.err.contains("panicked"), "{}", outcome.err);
    assert!(outcome.err.lines().count() <= 1, "{}", outcome.err);
    outcome
}

fn report(verb: &str, dir: &Path, code: i32) -> Value {
    let outcome = millpond(verb, dir, true);
    assert_eq!(outcome.code, code, "{verb}: {}{}", outcome.out, outcome.err);
    let report: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(report["sound"], code == 0);
    assert_eq!(report["schema"], 1);
    report
}

fn damaged_places(report: &Value) -> Vec<String> {
    let findings = report["findings"].as_array().unwrap().iter();
    let damage = findings.filter(|finding| finding["severity"] == "damage");
    damage.map(|finding| finding["place"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_store_that_was_stopped_gracefully_is_summarised() {
    let bench = Bench::new();
    let job = bench.running();
    job.running.stop(StopMode::Graceful).unwrap();
    drop(job);
    let store = bench.at("store");
    let found = report("inspect", &store, 0);
    assert_eq!((found["job"].as_str(), found["format_version"].as_u64()), (Some("counts"), Some(1)));
    assert_eq!(found["store"].as_str().unwrap().len(), 32);
    assert_eq!(found["run"]["batch_interval_ms"], 1_000);
    assert_eq!(found["run"]["started_ms"], START_MS);
    assert_eq!(found["restart"]["replayed_batches"], 0);
    assert_eq!(found["restart"]["checkpoint"]["batch"], 6);
    assert_eq!(found["pending"]["blocks"], 0);
    let totals = &found["operators"].as_array().unwrap().iter().find(|o| o["name"] == "totals").unwrap();
    assert_eq!((totals["keys"].as_u64(), totals["value_type"].as_str()), (Some(50), Some("u64")));
    assert!(totals["base_bytes"].as_u64().unwrap() + totals["delta_bytes"].as_u64().unwrap() > 0);
    assert_eq!(found["positions"][0]["source"], "files");
    assert_eq!(found["operators"].as_array().unwrap().len(), 2);
    for part in ["catalog_bytes", "log_bytes", "state_bytes"] {
        assert!(found["disk"][part].as_u64().unwrap() > 0, "{part}");
    }
    let page = millpond("inspect", &store, false).out;
    for shown in [
        "running",
        "nothing is live",
        "an estimated",
        "the newest checkpoint is",
        "counts",
        "sound",
        "totals",
        "2024-02-29 12:00:00.000 UTC",
        "last durable",
        "files",
    ] {
        assert!(page.contains(shown), "{shown} is not in\n{page}");
    }
    assert_eq!(report("verify", &store, 0)["findings"], Value::Array(vec![]));
    let listed = report("checkpoints", &store, 0);
    assert!(listed["checkpoints"].as_array().unwrap().len() >= 2);
    let page = millpond("checkpoints", &store, false).out;
    assert!(page.contains("2024-02-29 12:00:06.000 UTC") && page.contains("sound"), "{page}");
}

#[test]
fn beside_a_running_job_and_after_a_kill_it_says_what_a_restart_would_do() {
    let bench = Bench::new();
    let job = bench.running();
    let killed = bench.at("killed");
    copy_dir(&bench.at("store"), &killed);
    for store in [bench.at("store"), killed.clone()] {
        let found = report("inspect", &store, 0);
        if cfg!(target_os = "linux") {
            assert_eq!(found["running"], store != killed);
        }
        let now_ms = found["age"]["now_ms"].as_u64().unwrap();
        assert_eq!(found["age"]["newest_checkpoint_ms"], now_ms - START_MS - 4_000);
        assert_eq!(found["age"]["newest_record_ms"], now_ms - START_MS - 5_000);
        let predicted = &found["predicted_restart"];
        assert_eq!(predicted["state_bytes"], found["restart"]["checkpoint"]["bytes"]);
        assert_eq!(
            (&predicted["replayed_batches"], &predicted["replayed_unmeasured"]),
            (&1.into(), &0.into())
        );
        let [all, reading, replay] =
            ["estimated_us", "reading_us", "replay_us"].map(|part| predicted[part].as_u64().unwrap());
        assert!(reading > 0 && replay > 0 && all == reading + replay, "{predicted}");
        assert_eq!(found["restart"]["checkpoint"]["batch"], 4);
        assert_eq!(found["restart"]["replayed_batches"], 1);
        assert_eq!(
            (&found["restart"]["replay_from"], &found["restart"]["replayed_done"]),
            (&5.into(), &1.into())
        );
        assert_eq!(found["pending"]["blocks"], 1);
        assert!(found["pending"]["bytes"].as_u64().unwrap() > 50);
        let checked = report("verify", &store, 0);
        assert_eq!(checked["restart"], found["restart"]);
        assert_eq!(checked["blocks"], 6);
        assert_eq!(report("checkpoints", &store, 0)["checkpoints"].as_array().unwrap().len(), 2);
    }
    drop(job);
    let again = Job::start(&killed, &bench.at("files"));
    assert_eq!(again.running.recovery().checkpoint.unwrap().1.0, 4);
    assert_eq!(again.running.recovery().replayed.len(), 1);
    assert_eq!(again.running.recovery().pending_blocks, 1);
}

#[test]
fn a_busy_job_is_never_taken_for_a_damaged_one() {
    let bench = Bench::new();
    let job = Job::start(&bench.at("store"), &bench.at("files"));
    job.batch();
    std::thread::scope(|scope| {
        let store = bench.at("store");
        let done = Arc::new(AtomicBool::new(false));
        let stop = done.clone();
        let worker = scope.spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                job.batch();
            }
        });
        for round in 0..12 {
            let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
            let output = command.arg(VERBS[round % 3]).arg(&store).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let trouble = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(0), "{text}{trouble}");
        }
        done.store(true, Ordering::SeqCst);
        worker.join().unwrap();
    });
}

fn flip(path: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = fs::read(path).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn truncate(path: &Path, to: impl Fn(u64) -> u64) {
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(to(file.metadata().unwrap().len())).unwrap();
}

/// Damages a fresh copy of `store` and returns what `verify` says is damaged.
fn damaged(store: &Path, damage: impl FnOnce(&Path)) -> Value {
    let copy = store.with_extension("damaged");
    if copy.exists() {
        fs::remove_dir_all(&copy).unwrap();
    }
    copy_dir(store, &copy);
    damage(&copy);
    for verb in VERBS {
        assert!(millpond(verb, &copy, false).code < 3);
    }
    report("verify", &copy, 1)
}

fn newest(dir: &Path, suffix: &str) -> PathBuf {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let numbers = names.filter_map(|name| name.strip_suffix(suffix)?.parse::<u64>().ok());
    dir.join(format!("{}{suffix}", numbers.max().unwrap()))
}

#[test]
fn damage_to_a_segment_is_named_and_a_restart_walks_back() {
    let bench = Bench::new();
    let store = bench.killed();
    let segment = |copy: &Path| newest(&copy.join("state"), ".segment");
    let place = format!("state/{}", segment(&store).file_name().unwrap().to_str().unwrap());
    let damages: [fn(&Path); 5] = [
        |path| flip(path, |length| length / 2),
        |path| flip(path, |_| 100),
        |path| flip(path, |length| length - 1),
        |path| truncate(path, |length| length - 1),
        |path| fs::remove_file(path).unwrap(),
    ];
    for damage in damages {
        let found = damaged(&store, |copy| damage(&segment(copy)));
        assert_eq!(damaged_places(&found)[0], place, "{found}");
        assert_eq!(found["restart"]["checkpoint"]["checkpoint"], 1);
        assert_eq!(found["restart"]["walked_back"][0]["checkpoint"], 2);
        assert_eq!(found["restart"]["replayed_batches"], 3);
        let listed = report("checkpoints", &store.with_extension("damaged"), 1);
        assert_eq!(listed["checkpoints"][0]["damage"], Value::Null);
        assert!(listed["checkpoints"][1]["damage"].as_str().unwrap().contains(&place));
    }
}

#[test]
fn without_a_sound_checkpoint_a_restart_refuses() {
    let bench = Bench::new();
    let store = bench.killed();
    let found = damaged(&store, |copy| {
        for entry in fs::read_dir(copy.join("state")).unwrap() {
            flip(&entry.unwrap().path(), |length| length / 2);
        }
    });
    assert!(found["restart"]["refused"].as_str().unwrap().contains("no sound checkpoint"));
    assert_eq!(found["restart"]["checkpoint"], Value::Null);
}

#[test]
fn damage_to_the_log_is_named_and_a_restart_refuses_to_lose_blocks() {
    let bench = Bench::new();
    let store = bench.killed();
    let extent = |copy: &Path| newest(&copy.join("log"), ".extent");
    let damages: [fn(&Path); 4] = [
        |path| flip(path, |length| length - 1),
        |path| truncate(path, |length| length - 1),
        |path| flip(path, |_| 30),
        |path| fs::remove_file(path).unwrap(),
    ];
    for damage in damages {
        let found = damaged(&store, |copy| damage(&extent(copy)));
        assert_eq!(damaged_places(&found)[0], "log/1.extent", "{found}");
        assert!(!found["restart"]["refused"].is_null(), "{found}");
    }
    // A block that only an older checkpoint needs is damage, and no reason to refuse.
    let found = damaged(&store, |copy| flip(&extent(copy), |_| 200));
    assert_eq!(damaged_places(&found)[0], "log/1.extent", "{found}");
    assert!(found["restart"]["refused"].is_null(), "{found}");
    for damage in [(|path| flip(path, |_| 27)) as fn(&Path), |path| fs::remove_file(path).unwrap()] {
        let found = damaged(&store, |copy| damage(&copy.join("log/witness")));
        assert_eq!(damaged_places(&found), ["log/witness"], "{found}");
    }
}

#[test]
fn a_log_file_that_is_gone_is_missed() {
    let bench = Bench::new();
    let store = bench.at("store");
    for _ in 0..3 {
        let job = Job::start(&store, &bench.at("files"));
        job.push();
    }
    assert_eq!(report("verify", &store, 0)["blocks"], 3);
    for gone in ["log/2.extent", "log/3.extent"] {
        let found = damaged(&store, |copy| fs::remove_file(copy.join(gone)).unwrap());
        assert_eq!(damaged_places(&found), [gone], "{found}");
    }
}

#[test]
fn damage_to_the_catalog_is_named() {
    let bench = Bench::new();
    let store = bench.killed();
    let epoch = |copy: &Path| newest(&copy.join("epochs"), "");
    let place = format!("epochs/{}", epoch(&store).file_name().unwrap().to_str().unwrap());
    let damages: [fn(&Path); 6] = [
        |dir| truncate(&dir.join("db"), |length| length.min(2_000)),
        |dir| fs::remove_file(dir.join("db")).unwrap(),
        |dir| flip(&dir.join("db"), |_| 700),
        |dir| flip(&dir.join("witness"), |_| 20),
        |dir| truncate(&dir.join("witness"), |_| 7),
        |dir| fs::remove_file(dir.join("witness")).unwrap(),
    ];
    for (at, damage) in damages.iter().enumerate() {
        let found = damaged(&store, |copy| damage(&epoch(copy)));
        assert!(damaged_places(&found).contains(&place), "damage {at}: {found}");
    }
}

#[test]
fn flipped_bits_in_a_database_are_found_or_change_nothing() {
    let bench = Bench::new();
    let store = bench.killed();
    let sound = report("verify", &store, 0);
    let epoch = newest(&store.join("epochs"), "").join("db");
    let db = epoch.strip_prefix(&store).unwrap();
    let copy = bench.at("flipped");
    copy_dir(&store, &copy);
    let length = fs::metadata(&epoch).unwrap().len() as usize;
    for at in (0..length.min(12_000)).step_by(431) {
        fs::copy(&epoch, copy.join(db)).unwrap();
        flip(&copy.join(db), |_| at);
        let outcome = millpond("verify", &copy, true);
        assert!(outcome.code < 3, "{}", outcome.err);
        if outcome.code == 0 {
            let mut found: Value = serde_json::from_str(&outcome.out).unwrap();
            found["directory"] = sound["directory"].clone();
            assert_eq!(found, sound, "bit flipped at byte {at}");
        }
    }
}

#[test]
fn a_damaged_identity_is_damage_and_a_newer_one_is_unsupported() {
    let bench = Bench::new();
    let store = bench.killed();
    let damages: [fn(&Path); 3] = [
        |path| flip(path, |length| length - 1),
        |path| truncate(path, |length| length - 1),
        |path| fs::remove_file(path).unwrap(),
    ];
    for damage in damages {
        let found = damaged(&store, |copy| damage(&copy.join("millpond.id")));
        assert_eq!(damaged_places(&found), ["millpond.id"]);
        assert_eq!(found["job"], Value::Null);
        let outcome = millpond("inspect", &store.with_extension("damaged"), true);
        assert_eq!((outcome.code, outcome.out.as_str()), (1, ""));
        assert!(outcome.err.contains("millpond.id"), "{}", outcome.err);
    }
    for file in ["millpond.id", "log/1.extent"] {
        let copy = bench.at("newer");
        copy_dir(&store, &copy);
        let mut bytes = fs::read(copy.join(file)).unwrap();
        bytes[4] = 77;
        fs::write(copy.join(file), bytes).unwrap();
        let outcome = millpond("verify", &copy, false);
        assert_eq!(outcome.code, 2);
        assert!(outcome.err.contains("unsupported format version 77"), "{}", outcome.err);
        assert!(outcome.err.contains(file), "{}", outcome.err);
    }
}

#[test]
fn what_is_left_over_is_a_note_and_no_damage() {
    let bench = Bench::new();
    let store = bench.killed();
    fs::write(store.join("state/99.segment"), "half a segm").unwrap();
    fs::create_dir(store.join("epochs/50")).unwrap();
    fs::write(store.join("log/2.extent"), "").unwrap();
    let mut extent = fs::OpenOptions::new().append(true).open(store.join("log/1.extent")).unwrap();
    std::io::Write::write_all(&mut extent, b"MLPD torn").unwrap();
    drop(extent);
    let found = report("verify", &store, 0);
    let notes = found["findings"].as_array().unwrap().iter();
    let mut places: Vec<_> = notes.map(|note| note["place"].as_str().unwrap()).collect();
    places.sort_unstable();
    assert_eq!(places, ["epochs/50", "log/1.extent", "log/2.extent", "state/99.segment"]);
}

#[test]
fn what_is_no_store_is_said_to_be_none() {
    let bench = Bench::new();
    let empty = bench.at("empty");
    fs::create_dir(&empty).unwrap();
    let cases = [
        (bench.at("absent"), "does not exist"),
        (empty, "it is empty"),
        (bench.at("files"), "no millpond.id"),
        (bench.at("files/a.txt"), "no directory"),
    ];
    for (dir, why) in &cases {
        for verb in VERBS {
            let outcome = millpond(verb, dir, false);
            assert_eq!((outcome.code, outcome.out.as_str()), (2, ""), "{verb}: {}", outcome.err);
            assert!(outcome.err.contains(why), "{}", outcome.err);
        }
    }
    assert!(!bench.at("absent").exists());
    let bare = Command::new(env!("CARGO_BIN_EXE_millpond")).arg("mend").output().unwrap();
    assert_eq!(bare.status.code(), Some(2));
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let bench = Bench::new();
    let store = bench.killed();
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.arg("verify").arg(&store).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
