//! The verbs of the `millpond` command that look at one thing, on stores of real jobs: sound, left by a killed
//! job, beside a running one, and damaged.
#![cfg(feature = "tool")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/tool.rs"]
mod tool;

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use millpond::{ManualClock, Queue, RunningContext, StopMode, StreamingContext};
use serde_json::{Value, json};
use tool::{beside, copy_dir, millpond, report};

/// 2024-02-29 12:00:00 UTC.
const START_MS: u64 = 1_709_208_000_000;

/// Every verb that reads a store, with arguments that fit the store of [`Bench::killed`].
const VERBS: [(&str, &[&str]); 11] = [
    ("checkpoint", &["2"]),
    ("batches", &[]),
    ("batches", &["--last", "2"]),
    ("batch", &["5"]),
    ("blocks", &[]),
    ("block", &["5"]),
    ("lineage", &[]),
    ("growth", &[]),
    ("state", &["totals"]),
    ("state", &["pairs", "--limit", "3", "--at", "1"]),
    ("diff", &["1", "2"]),
];

type Word = (String, u64);

struct Job {
    running: RunningContext,
    queue: Queue<Word>,
    clock: Arc<ManualClock>,
}

fn word(number: u64, count: u64) -> Word {
    (format!("word {number}"), count)
}

impl Job {
    /// A word that was counted 1,000 times is forgotten.
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
        let (words, queue) = context.queue_stream::<Word>("words");
        let seen = context.accumulator("seen", 0u64, |a, b| a + b);
        let counting = seen.clone();
        words.for_each_rdd(move |rdd, _| {
            counting.add(rdd.count()?);
            Ok(())
        });
        let _ = words.update_state_by_key("totals", |new, total: Option<u64>| {
            Some(total.unwrap_or(0) + new.iter().sum::<u64>()).filter(|total| *total < 1_000)
        });
        let pairs = words.map(|(word, count)| ((word.clone(), count as i32), (word, Some(count))));
        let _ = pairs.update_state_by_key("pairs", |new, all: Option<Vec<(String, Option<u64>)>>| {
            let mut all = all.unwrap_or_default();
            all.extend(new.iter().cloned());
            Some(all)
        });
        let lines = context.text_file_stream("files", files).map(|line| (line, 1u64));
        let _ = lines.update_state_by_key("lines", |new, total: Option<u64>| {
            Some(total.unwrap_or(0) + new.len() as u64)
        });
        let running = context.start().unwrap();
        Job { running, queue, clock }
    }

    fn batch(&self, words: impl IntoIterator<Item = Word>) {
        let before = self.running.progress().batches;
        self.queue.push(words).unwrap();
        self.clock.advance(1_000);
        while self.running.progress().batches == before {
            assert!(!self.running.await_termination_or_timeout(Duration::from_millis(2)).unwrap());
        }
    }

    /// Waits until the checkpoint writer has committed and pruned.
    fn settle(&self, checkpoints: u64) {
        for _ in 0..20_000 {
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

    /// A job after five batches with checkpoints after the second and fourth, and one block that waits.
    fn running(&self) -> Job {
        let job = Job::start(&self.at("store"), &self.at("files"));
        (0..2).for_each(|_| job.batch((0..50).map(|number| word(number, 1))));
        job.settle(1);
        let many = (0..50).map(|number| word(number, if number == 7 { 1_000 } else { 1 }));
        job.batch(many.chain([("new".to_owned(), 5)]));
        job.batch((0..5).map(|number| word(number, 1)));
        job.settle(2);
        job.batch((0..5).map(|number| word(number, 1)));
        job.queue.push([word(0, 1)]).unwrap();
        job
    }

    /// A copy of its store, as if the job had been killed.
    fn killed(&self) -> PathBuf {
        let job = self.running();
        let copy = self.at("killed");
        copy_dir(&self.at("store"), &copy);
        drop(job);
        copy
    }
}

fn refused(verb: &str, store: &Path, args: &[&str], why: &str) {
    let outcome = millpond(verb, store, args);
    assert_eq!((outcome.code, outcome.text()), (2, ""), "{verb} {args:?}: {}", outcome.err);
    assert!(outcome.err.contains(why), "{verb} {args:?}: {}", outcome.err);
}

fn page(verb: &str, store: &Path, args: &[&str], parts: &[&str]) {
    let outcome = millpond(verb, store, args);
    assert_eq!(outcome.code, 0, "{verb}: {outcome:?}");
    for part in parts {
        assert!(outcome.text().contains(part), "{part} is not in\n{}", outcome.text());
    }
}

#[test]
fn a_checkpoint_is_shown_with_its_key_groups_and_what_a_restart_replays() {
    let bench = Bench::new();
    let store = bench.killed();
    let found = report("checkpoint", &store, &["1"]);
    assert_eq!((&found["checkpoint"]["batch"], &found["checkpoint"]["damage"]), (&2.into(), &Value::Null));
    assert_eq!(found["replay"], json!({"batches": 3, "from": 3, "to": 5, "done": 3}));
    let names: Vec<&Value> = found["operators"].as_array().unwrap().iter().map(|o| &o["name"]).collect();
    assert_eq!(names, ["totals", "pairs", "lines", "accumulator seen"]);
    assert_eq!(found["positions"][0]["source"], "files");
    let second = report("checkpoint", &store, &["2"]);
    assert_eq!(second["replay"]["batches"], 1);
    // Every entry of the state is in some part: the operators' keys, and what later entries hide.
    let parts = second["segments"].as_array().unwrap().iter().flat_map(|s| s["parts"].as_array().unwrap());
    let of_totals: Vec<&Value> = parts.filter(|part| part["operator"] == "totals").collect();
    assert!(of_totals.iter().map(|part| part["entries"].as_u64().unwrap()).sum::<u64>() >= 50);
    let groups =
        of_totals.iter().map(|p| p["base"].as_array().unwrap().len() + p["delta"].as_array().unwrap().len());
    assert!(groups.sum::<usize>() > 40);
    page(
        "checkpoint",
        &store,
        &["2"],
        &["replays 1 batch (5 to 5), 1 of them", "positions of files", "sound"],
    );
    refused(
        "checkpoint",
        &store,
        &["9"],
        "there is no checkpoint 9: the catalog has none of this number (retained: 1, 2)",
    );
}

#[test]
fn batches_are_listed_and_shown_in_full() {
    let bench = Bench::new();
    let store = bench.killed();
    let all = report("batches", &store, &[]);
    let batches = all["batches"].as_array().unwrap();
    let restart: Vec<&Value> = batches.iter().map(|batch| &batch["restart"]).collect();
    assert_eq!(restart.last().unwrap(), &"replayed");
    assert!(restart.iter().rev().skip(1).all(|restart| *restart == "past"), "{restart:?}");
    let third = batches.iter().find(|batch| batch["batch"] == 3).unwrap();
    assert_eq!(
        (&third["records"], &third["blocks"], &third["checkpoint"]),
        (&51.into(), &1.into(), &2.into())
    );
    assert_eq!((&third["time_ms"], &third["done"]), (&(START_MS + 3_000).into(), &true.into()));
    let last = report("batches", &store, &["--last", "2"]);
    assert_eq!(last["batches"].as_array().unwrap()[..], batches[batches.len() - 2..]);
    assert_eq!(last["left_out"], batches.len() - 2);
    let third = report("batch", &store, &["3"]);
    let words = third["inputs"].as_array().unwrap().iter().find(|input| input["name"] == "words").unwrap();
    assert_eq!((&words["blocks"][0]["block"], &words["blocks"][0]["unreadable"]), (&3.into(), &Value::Null));
    let seen =
        json!([{"name": "accumulator seen", "value_type": "u64", "value": 51, "hex": "3300000000000000"}]);
    assert_eq!(third["accumulators"], seen);
    assert_eq!(third["batch"]["outputs"].as_array().unwrap().len(), 1);
    page("batches", &store, &[], &["2024-02-29 12:00:05.000 UTC", "replays it", "in its past"]);
    page("batch", &store, &["3"], &["stream words", "accumulator seen", "51"]);
    refused("batch", &store, &["77"], "there is no batch 77: the catalog has plans from");
}

#[test]
fn the_range_of_a_file_is_in_its_batch() {
    let bench = Bench::new();
    let store = bench.killed();
    let all = report("batches", &store, &[]);
    let batch = all["batches"].as_array().unwrap().iter().find(|batch| batch["ranges"] == 1).unwrap();
    let first = report("batch", &store, &[&batch["batch"].to_string()]);
    let files = first["inputs"].as_array().unwrap().iter().find(|input| input["name"] == "files").unwrap();
    assert!(files["ranges"][0]["partition"].as_str().unwrap().ends_with("a.txt"));
    assert_eq!((&files["ranges"][0]["start"], &files["ranges"][0]["end"]), (&0.into(), &8.into()));
    assert_eq!(first["batch"]["range_units"], 8);
    let positions = report("state", &store, &["positions of files"]);
    assert_eq!(positions["entries"][0]["value"]["offset"], 8);
}

#[test]
fn blocks_are_listed_and_their_records_shown() {
    let bench = Bench::new();
    let store = bench.killed();
    let all = report("blocks", &store, &[]);
    let blocks = all["blocks"].as_array().unwrap();
    let batches: Vec<&Value> = blocks.iter().map(|block| &block["batch"]).collect();
    assert_eq!(batches.last().unwrap(), &&Value::Null);
    assert_eq!(blocks.last().unwrap()["pending"], true);
    assert!(blocks.iter().rev().skip(1).all(|block| block["pending"] == false && block["name"] == "words"));
    assert_eq!(report("blocks", &store, &["--stream", "words"])["blocks"], all["blocks"]);
    assert_eq!(report("blocks", &store, &["--stream", "files"])["blocks"], json!([]));
    refused("blocks", &store, &["--stream", "wrods"], "no input stream `wrods`: it has ");
    let fourth = report("block", &store, &["4"]);
    assert_eq!((&fourth["block"]["records"], &fourth["block"]["encoding"]), (&5.into(), &"records".into()));
    assert_eq!(fourth["first"][0]["value"], json!(["word 0", 1]));
    assert_eq!(fourth["first"].as_array().unwrap().len(), 5);
    let raw = millpond("block", &store, &["4", "--raw"]);
    let length = u32::from_le_bytes(raw.out[..4].try_into().unwrap()) as usize;
    assert_eq!(length as u64, fourth["first"][0]["bytes"].as_u64().unwrap());
    assert_eq!(raw.out.len() as u64, fourth["block"]["bytes"].as_u64().unwrap() - 24);
    page("blocks", &store, &[], &["pending", "words", "records"]);
    page("block", &store, &["4"], &["[\"word 0\",1]", "5 as records"]);
    refused("block", &store, &["99"], "there is no block 99 in the log");
}

#[test]
fn lines_are_shown_as_text_and_never_reach_the_terminal_as_they_are() {
    let bench = Bench::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let context = StreamingContext::builder("lines")
        .store(bench.at("store"))
        .batch_interval(Duration::from_millis(20))
        .stop_on_signals(false)
        .build()
        .unwrap();
    let lines = context.socket_text_stream("lines", &listener.local_addr().unwrap().to_string());
    lines.count().print(1);
    let job = context.start().unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    let received = b"plain\n\x1b[31mred\xff\nthird\n";
    socket.write_all(received).unwrap();
    while job.progress().records < 3 {
        assert!(!job.await_termination_or_timeout(Duration::from_millis(5)).unwrap());
    }
    let raw = beside("block", &bench.at("store"), &["1", "--raw"]);
    assert!(received.starts_with(&raw.out) && !raw.out.is_empty(), "{raw:?}");
    job.stop(StopMode::Graceful).unwrap();
    let found = report("block", &bench.at("store"), &["1"]);
    assert_eq!((&found["first"][0]["text"], &found["block"]["encoding"]), (&"plain".into(), &"lines".into()));
    let shown = millpond("block", &bench.at("store"), &["1"]);
    assert!(!shown.out.contains(&0x1b), "{shown:?}");
}

#[test]
fn the_lineage_goes_from_inputs_to_outputs() {
    let bench = Bench::new();
    let store = bench.killed();
    let found = report("lineage", &store, &[]);
    let nodes = found["nodes"].as_array().unwrap();
    let named = |name: &str| nodes.iter().find(|node| node["name"] == name).unwrap();
    assert_eq!((&named("words")["parents"], &named("words")["wide"]), (&json!([]), &false.into()));
    assert_eq!(
        (&named("totals")["parents"], &named("totals")["wide"]),
        (&json!([named("words")["id"]]), &true.into())
    );
    page("lineage", &store, &[], &["words", "wide", "narrow", "update_state_by_key"]);
    let dot = millpond("lineage", &store, &["--dot"]);
    let edge = format!("n{} -> n{} [style=bold", named("words")["id"], named("totals")["id"]);
    assert!(dot.text().starts_with("digraph \"counts\" {") && dot.text().contains(&edge), "{}", dot.text());
    assert_eq!(
        dot.text().matches("->").count(),
        nodes.iter().map(|n| n["parents"].as_array().unwrap().len()).sum::<usize>()
    );
    refused("lineage", &store, &["--dot", "--json"], "cannot be used with");
}

#[test]
fn growth_counts_what_hides_and_what_is_hidden() {
    let bench = Bench::new();
    let store = bench.killed();
    let found = report("growth", &store, &[]);
    let sizes = found["sizes"].as_array().unwrap();
    let totals: Vec<&Value> = sizes.iter().filter(|size| size["operator"] == "totals").collect();
    assert_eq!(totals.len(), 2);
    let keys: Vec<&Value> = totals.iter().map(|size| &size["keys"]).collect();
    assert_eq!(keys, [50, 50]);
    assert_eq!(totals[0]["dead_entries"], 0);
    let entry = |word: &str| 16 + word.len() + 8;
    let live: usize = (0..50).map(|number| entry(&format!("word {number}"))).sum();
    assert_eq!(totals[0]["live_bytes"], live);
    assert_eq!(totals[1]["live_bytes"], live - entry("word 7") + entry("new"));
    assert!(totals.iter().all(|size| size["stored_bytes"].as_u64() > size["live_bytes"].as_u64()));
    page("growth", &store, &[], &["totals", "dead entries", "positions of files"]);
}

#[test]
fn state_is_decoded_by_its_types() {
    let bench = Bench::new();
    let store = bench.killed();
    let totals = report("state", &store, &["totals"]);
    assert_eq!(
        (&totals["checkpoint"], &totals["keys"], &totals["matched"]),
        (&2.into(), &50.into(), &50.into())
    );
    let first = json!({"key": "new", "key_hex": "6e6577", "value": 5, "value_hex": "0500000000000000"});
    assert_eq!(totals["entries"][0], first);
    assert_eq!(totals["entries"][1]["key"], "word 0");
    assert_eq!(totals["entries"][1]["value"], 4);
    let one = report("state", &store, &["totals", "--key", "word 12"]);
    assert_eq!((&one["matched"], &one["entries"][0]["value"]), (&1.into(), &3.into()));
    assert_eq!(report("state", &store, &["totals", "--key", "0x776f7264203132"])["entries"], one["entries"]);
    let tens = report("state", &store, &["totals", "--prefix", "word 1", "--limit", "2", "--at", "1"]);
    assert_eq!((&tens["matched"], tens["entries"].as_array().unwrap().len()), (&11.into(), 2));
    assert_eq!(tens["entries"][1]["key"], "word 10");
    let pair = report("state", &store, &["pairs", "--key", "[\"word 7\", 1000]"]);
    assert_eq!(pair["entries"][0]["key"], json!(["word 7", 1000]));
    assert_eq!(pair["entries"][0]["value"], json!([["word 7", 1000]]));
    assert_eq!(pair["value_type_known"], true);
    page("state", &store, &["pairs", "--limit", "1"], &["1 shown", "(utf8,i32)"]);
    refused("state", &store, &["totals", "--key", "word 7"], "no key `word 7` in `totals` at checkpoint 2");
    refused("state", &store, &["pairs", "--key", "word 7"], "no key of type (utf8,i32)");
    refused("state", &store, &["pairs", "--prefix", "word"], "have no prefix in text");
    refused("state", &store, &["nothing"], "no operator `nothing` in checkpoint 2: it has totals");
    refused("state", &store, &["totals", "--at", "3"], "there is no checkpoint 3");
}

#[test]
fn a_difference_is_what_was_added_removed_and_changed() {
    let bench = Bench::new();
    let store = bench.killed();
    let found = report("diff", &store, &["1", "2", "--operator", "totals", "--limit", "60"]);
    let [totals] = &found["operators"].as_array().unwrap()[..] else { panic!("{found}") };
    assert_eq!([&totals["added"], &totals["removed"], &totals["changed"]], [1, 1, 49]);
    let keys = totals["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 51);
    assert_eq!(
        (&keys[0]["change"], &keys[0]["key"], &keys[0]["before"]),
        (&"added".into(), &"new".into(), &Value::Null)
    );
    let gone = keys.iter().find(|key| key["key"] == "word 7").unwrap();
    assert_eq!(
        (&gone["change"], &gone["before"], &gone["after"]),
        (&"removed".into(), &2.into(), &Value::Null)
    );
    let other = keys.iter().find(|key| key["key"] == "word 0").unwrap();
    assert_eq!((&other["before"], &other["after"]), (&2.into(), &4.into()));
    let back = report("diff", &store, &["2", "1", "--operator", "totals"]);
    assert_eq!([&back["operators"][0]["added"], &back["operators"][0]["removed"]], [1, 1]);
    let same = report("diff", &store, &["2", "2"]);
    assert_eq!(same["operators"].as_array().unwrap().len(), 5);
    for operator in same["operators"].as_array().unwrap() {
        assert_eq!([&operator["added"], &operator["removed"], &operator["changed"]], [0, 0, 0]);
    }
    page("diff", &store, &["1", "2"], &["added", "\"new\"", "removed"]);
    refused("diff", &store, &["1", "2", "--operator", "nothing"], "no operator `nothing`");
    refused("diff", &store, &["1", "7"], "there is no checkpoint 7");
}

#[test]
fn what_a_job_stored_fits_together() {
    let bench = Bench::new();
    let job = bench.running();
    let beside = beside("verify", &bench.at("store"), &["--deep", "--json"]);
    drop(job);
    let beside: Value = serde_json::from_slice(&beside.out).unwrap();
    for found in [beside, report("verify", &bench.at("store"), &["--deep"])] {
        assert_eq!((&found["findings"], &found["sound"]), (&json!([]), &true.into()));
        let deep = &found["deep"];
        assert_eq!([&deep["violations"], &deep["undecoded"]], [0, 0], "{deep}");
        assert!(deep["entries"].as_u64().unwrap() > 200 && deep["batches"].as_u64().unwrap() >= 3, "{deep}");
    }
    page("verify", &bench.at("store"), &["--deep"], &["key groups with", "decoded", "sound"]);
    assert_eq!(report("verify", &bench.at("store"), &[])["deep"], Value::Null);
}

fn totals_at_the_end(store: &Path, files: &Path) -> (u64, Vec<Value>) {
    let job = Job::start(store, files);
    let from = job.running.recovery().checkpoint.unwrap().0.0;
    job.running.stop(StopMode::Graceful).unwrap();
    drop(job);
    (from, report("state", store, &["totals"])["entries"].as_array().unwrap().clone())
}

#[test]
fn a_copy_made_beside_a_running_job_goes_on_as_the_job_would() {
    let bench = Bench::new();
    let job = bench.running();
    let killed = bench.at("elsewhere");
    copy_dir(&bench.at("store"), &killed);
    let copies = [("whole", None), ("first", Some("1")), ("second", Some("2"))];
    for (name, checkpoint) in copies {
        let to = bench.at(name);
        let arguments = [to.to_str().unwrap(), "--checkpoint", checkpoint.unwrap_or_default()];
        let arguments = if checkpoint.is_some() { &arguments[..] } else { &arguments[..1] };
        let outcome = beside("copy", &bench.at("store"), arguments);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        assert_eq!(millpond("verify", &to, &[]).code, 0);
        assert_eq!(report("inspect", &to, &[])["pending"]["blocks"], 1);
    }
    drop(job);
    let (from, expected) = totals_at_the_end(&killed, &bench.at("files"));
    assert_eq!((from, expected[1]["value"].as_u64()), (2, Some(6)));
    for (name, checkpoint) in copies {
        let (from, totals) = totals_at_the_end(&bench.at(name), &bench.at("files"));
        assert_eq!(from.to_string(), checkpoint.unwrap_or("2"));
        assert_eq!(totals, expected, "{name}");
    }
}

#[test]
fn a_copy_is_refused_where_it_would_overwrite_or_be_damaged() {
    let bench = Bench::new();
    let store = bench.killed();
    let to = bench.at("copy");
    let arguments = [to.to_str().unwrap()];
    refused("copy", &store, &[store.join("copy").to_str().unwrap()], "is inside of the store");
    refused("copy", &store, &[bench.at("files").to_str().unwrap()], "exists");
    refused("copy", &store, &[arguments[0], "--checkpoint", "9"], "there is no checkpoint 9");
    assert!(!to.exists());
    for file in ["state/1.segment", "log/1.extent"] {
        let damaged = bench.at("damaged");
        copy_dir(&store, &damaged);
        let mut bytes = fs::read(damaged.join(file)).unwrap();
        let at = bytes.len() - 1;
        bytes[at] ^= 1;
        fs::write(damaged.join(file), bytes).unwrap();
        let outcome = millpond("copy", &damaged, &arguments);
        assert_eq!(outcome.code, 1, "{file}: {outcome:?}");
        assert!(outcome.err.contains(file), "{outcome:?}");
        assert!(!to.exists());
    }
    let made = report("copy", &store, &arguments);
    assert_eq!((&made["checkpoints"], &made["blocks"]), (&json!([1, 2]), &6.into()));
    assert!(to.join("millpond.id").exists());
}

#[test]
fn a_busy_job_disturbs_no_verb() {
    let bench = Bench::new();
    let job = Job::start(&bench.at("store"), &bench.at("files"));
    (0..4).for_each(|_| job.batch([word(1, 1)]));
    job.settle(1);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                job.batch((0..20).map(|number| word(number, 1)));
            }
        });
        let verbs: [(&str, &[&str]); 5] = [
            ("batches", &[]),
            ("blocks", &["--stream", "words"]),
            ("growth", &[]),
            ("state", &["totals"]),
            ("copy", &[]),
        ];
        let to = bench.at("copy");
        let copy = [to.to_str().unwrap()];
        let outcomes = verbs.map(|(verb, args)| {
            (verb, beside(verb, &bench.at("store"), if verb == "copy" { &copy } else { args }))
        });
        done.store(true, Ordering::SeqCst);
        worker.join().unwrap();
        for (verb, outcome) in outcomes {
            assert_eq!(outcome.code, 0, "{verb}: {outcome:?}");
        }
    });
}

#[test]
fn damage_is_named_and_never_a_panic() {
    let bench = Bench::new();
    let store = bench.killed();
    let copy = bench.at("damaged");
    copy_dir(&store, &copy);
    for file in
        ["state/1.segment", "state/2.segment", "log/1.extent", "log/witness", "epochs/1/db", "millpond.id"]
    {
        let sound = fs::read(copy.join(file)).unwrap();
        for (at, flip) in
            [(sound.len() / 2, true), (40, true), (sound.len() - 1, true), (sound.len() / 3, false)]
        {
            let mut bytes = sound.clone();
            if flip && at < bytes.len() {
                bytes[at] ^= 0x21;
            } else {
                bytes.truncate(at);
            }
            fs::write(copy.join(file), bytes).unwrap();
            for (verb, args) in VERBS.iter().step_by(if at == 40 { 1 } else { 4 }) {
                let outcome = millpond(verb, &copy, args);
                if outcome.code > 0 && outcome.out.is_empty() {
                    assert_eq!(outcome.err.lines().count(), 1, "{verb}: {outcome:?}");
                }
            }
        }
        fs::write(copy.join(file), sound).unwrap();
    }
    let flip = |file: &str, at: usize| {
        let mut bytes = fs::read(copy.join(file)).unwrap();
        bytes[at] ^= 1;
        fs::write(copy.join(file), bytes).unwrap();
    };
    flip("state/2.segment", 200);
    let shown = millpond("checkpoint", &copy, &["2", "--json"]);
    let shown_json: Value = serde_json::from_slice(&shown.out).unwrap();
    assert_eq!((shown.code, &shown_json["sound"]), (1, &false.into()));
    assert!(shown_json["checkpoint"]["damage"].as_str().unwrap().contains("state/2.segment"));
    let asked = millpond("state", &copy, &["totals", "--at", "2"]);
    assert!(
        asked.code == 1 && asked.err.contains("checkpoint 2") && asked.err.contains("state/2.segment"),
        "{asked:?}"
    );
    assert_eq!(report("state", &copy, &["totals"])["checkpoint"], 1);
    flip("log/1.extent", fs::metadata(copy.join("log/1.extent")).unwrap().len() as usize - 1);
    let last = millpond("block", &copy, &["6"]);
    assert!(last.code == 1 && last.err.contains("log/1.extent"), "{last:?}");
}

#[test]
fn what_is_no_store_and_what_is_no_number_is_refused() {
    let bench = Bench::new();
    fs::create_dir(bench.at("empty")).unwrap();
    for (verb, args) in VERBS.into_iter().chain([("copy", &["/dev/null/copy"][..])]) {
        refused(verb, &bench.at("absent"), args, "does not exist");
        refused(verb, &bench.at("empty"), args, "it is empty");
        refused(verb, &bench.at("files"), args, "no millpond.id");
    }
    refused("batch", &bench.at("files"), &["one"], "invalid value");
    refused("state", &bench.at("files"), &["totals", "--key", "a", "--prefix", "b"], "cannot be used with");
}

#[test]
fn completions_and_manual_pages_are_printed() {
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_millpond")).args(args).output().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("growth"));
    }
    let main = String::from_utf8(run(&["man"]).stdout).unwrap();
    assert!(main.contains(".TH") && main.contains("checkpoints"), "{main}");
    let verb = String::from_utf8(run(&["man", "diff"]).stdout).unwrap();
    assert!(verb.contains("\\-\\-operator"), "{verb}");
    let unknown = run(&["man", "mend"]);
    assert_eq!((unknown.status.code(), unknown.stdout.len()), (Some(2), 0));
}
