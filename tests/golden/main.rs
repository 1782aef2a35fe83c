//! Stores of every released version, in `tests/fixtures`: the tool shows what it showed when they were made, a second
//! reader agrees with it, and jobs of today's code go on with them. How fixtures are made is in CONTRIBUTING.md.
#![cfg(feature = "tool")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod jobs;
mod make;
mod newer;
mod second_reader;
#[path = "../support/tool.rs"]
mod tool;
mod upgrade;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use jobs::{Describe, GOES_ON_TO, JOBS, Job, KILLED_AFTER};
use tool::{Outcome, copy_dir};

/// The directory in a fixture with what the tool printed when it was made.
const EXPECTED: &str = "expected";

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn expected_file(fixture: &Path, name: &str) -> PathBuf {
    fixture.join(EXPECTED).join(format!("{}.json", name.replace(' ', "_")))
}

/// A copy of a fixture, with its store and what was expected of it.
struct Golden {
    dir: tempfile::TempDir,
    describe: Describe,
}

impl Golden {
    fn root(&self) -> &Path {
        self.dir.path()
    }

    /// Every fixture of every version.
    fn all() -> Vec<Golden> {
        let versions = fs::read_dir(fixtures()).unwrap().map(|version| version.unwrap().path());
        let all: Vec<Golden> = versions
            .flat_map(|version| JOBS.map(|job| (version.join(job.0), job.1)))
            .map(Golden::copy)
            .collect();
        assert!(all.len() >= JOBS.len());
        all
    }

    fn named(name: &str) -> Vec<Golden> {
        let wanted = JOBS.iter().find(|job| job.0 == name).unwrap().1;
        Golden::all().into_iter().filter(|golden| golden.describe as usize == wanted as usize).collect()
    }

    fn copy((fixture, describe): (PathBuf, Describe)) -> Golden {
        let dir = tempfile::tempdir().unwrap();
        copy_dir(&fixture, dir.path());
        Golden { dir, describe }
    }
}

/// Runs the tool in `dir`, so that what it prints does not depend on where that is.
fn tool_json(dir: &Path, args: &[&str]) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    let output = command.current_dir(dir).args(args).arg("--json").output().unwrap();
    Outcome {
        code: output.status.code().unwrap(),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn json(outcome: &Outcome) -> Value {
    serde_json::from_slice(&outcome.out).unwrap_or_else(|error| panic!("{error}: {outcome:?}"))
}

/// The operators of the newest checkpoint, positions of sources included.
fn operators(root: &Path) -> Vec<String> {
    let summary = json(&tool_json(root, &["inspect", "store"]));
    let names = |list: &str, name: &str, prefix: &str| -> Vec<String> {
        let all = summary[list].as_array().unwrap().iter();
        all.map(|one| format!("{prefix}{}", one[name].as_str().unwrap())).collect()
    };
    [names("operators", "name", ""), names("positions", "source", "positions of ")].concat()
}

/// Key and value of an operator, in bytes.
fn rows(root: &Path, operator: &str) -> BTreeMap<String, String> {
    let state = json(&tool_json(root, &["state", "store", operator, "--limit", "100000"]));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let entries = state["entries"].as_array().unwrap().iter();
    entries.map(|entry| (text(&entry["key_hex"]), text(&entry["value_hex"]))).collect()
}

fn all_rows(root: &Path) -> BTreeMap<String, BTreeMap<String, String>> {
    operators(root).into_iter().map(|operator| (operator.clone(), rows(root, &operator))).collect()
}

/// Whether all that was said is said again: later versions of the tool may say more.
fn assert_says(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            for (key, expected) in expected {
                assert_says(found.get(key).unwrap_or(&Value::Null), expected, &format!("{place}/{key}"));
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{place}");
            let both = found.iter().zip(expected).enumerate();
            both.for_each(|(at, (found, expected))| assert_says(found, expected, &format!("{place}/{at}")));
        }
        _ => assert_eq!(found, expected, "{place}"),
    }
}

#[test]
fn the_tool_shows_what_it_showed() {
    for golden in Golden::all() {
        let before = tool::snapshot(golden.root());
        let expected = |name: &str| -> Value {
            serde_json::from_slice(&fs::read(expected_file(golden.root(), name)).unwrap()).unwrap()
        };
        let checkpoints = json(&tool_json(golden.root(), &["checkpoints", "store"]));
        assert!(checkpoints["checkpoints"].as_array().unwrap().len() >= 2, "{checkpoints}");
        assert_says(&checkpoints, &expected("checkpoints"), "checkpoints");
        for operator in operators(golden.root()) {
            let state = json(&tool_json(golden.root(), &["state", "store", &operator, "--limit", "100000"]));
            assert_says(&state, &expected(&operator), &operator);
        }
        let verified = tool_json(golden.root(), &["verify", "store"]);
        assert_eq!(verified.code, 0, "{verified:?}");
        assert!(before == tool::snapshot(golden.root()));
    }
}

/// The fixtures together have everything that a store can hold.
#[test]
fn nothing_is_missing_from_the_fixtures() {
    for golden in Golden::named("life") {
        let blocks = json(&tool_json(golden.root(), &["blocks", "store"]));
        let blocks = blocks["blocks"].as_array().unwrap();
        for encoding in ["lines", "records"] {
            assert!(blocks.iter().any(|block| block["encoding"] == encoding), "{encoding}");
        }
        assert!(blocks.iter().any(|block| block["pending"] == true));
        let batches = json(&tool_json(golden.root(), &["batches", "store"]));
        let batches = batches["batches"].as_array().unwrap();
        assert!(batches.iter().any(|batch| batch["ranges"].as_u64() > Some(0)));
        assert!(batches.iter().any(|batch| batch["restart"] == "replayed"), "a batch is replayed");
        let checkpoints = json(&tool_json(golden.root(), &["checkpoints", "store"]));
        let checkpoints = checkpoints["checkpoints"].as_array().unwrap();
        assert!(
            checkpoints.first().unwrap()["epoch"].as_u64() < checkpoints.last().unwrap()["epoch"].as_u64()
        );
        let number = checkpoints.last().unwrap()["checkpoint"].to_string();
        let newest = json(&tool_json(golden.root(), &["checkpoint", "store", &number]));
        let parts: Vec<&Value> = newest["segments"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|one| one["parts"].as_array().unwrap())
            .collect();
        let any = |field: &str| parts.iter().any(|part| !part[field].as_array().unwrap().is_empty());
        assert!(any("base") && any("delta"), "{newest}");
        // What is neither live nor hidden by something newer are tombstones.
        let growth = json(&tool_json(golden.root(), &["growth", "store"])).to_string();
        assert!(growth.contains("dead"), "{growth}");
        let before = rows_at(golden.root(), "totals", &checkpoints[0]["checkpoint"]);
        let after = rows_at(golden.root(), "totals", &checkpoints.last().unwrap()["checkpoint"]);
        assert!(before.iter().any(|key| !after.contains(key)), "no key of `totals` is gone");
    }
}

/// The kind of frame that a filter is.
const FILTER: [u8; 2] = [36, 0];

#[test]
fn a_fixture_has_filters() {
    for golden in Golden::named("types") {
        let segments = fs::read_dir(golden.root().join("store/state")).unwrap();
        let has_filter = |segment: Vec<u8>| {
            segment.windows(8).any(|header| header.starts_with(b"MLPD") && header[6..] == FILTER)
        };
        assert!(segments.map(|segment| fs::read(segment.unwrap().path()).unwrap()).any(has_filter));
    }
}

fn rows_at(root: &Path, operator: &str, checkpoint: &Value) -> Vec<Value> {
    let state = json(&tool_json(root, &["state", "store", operator, "--at", &checkpoint.to_string()]));
    state["entries"].as_array().unwrap().iter().map(|entry| entry["key"].clone()).collect()
}

#[test]
fn a_job_of_today_goes_on_as_if_it_had_never_stopped() {
    for golden in Golden::all() {
        let job = Job::start(golden.root(), golden.describe, KILLED_AFTER, false).unwrap();
        // What the next batch receives was durable when the job was killed.
        for batch in KILLED_AFTER + 1..=GOES_ON_TO {
            if batch > KILLED_AFTER + 1 {
                job.feed(batch);
            }
            job.run(batch);
        }
        job.stop();
        let undisturbed = tempfile::tempdir().unwrap();
        jobs::run_undisturbed(undisturbed.path(), golden.describe, GOES_ON_TO);
        let (found, expected) = (all_rows(golden.root()), all_rows(undisturbed.path()));
        for (operator, expected) in &expected {
            assert_eq!(found.get(operator), Some(expected), "{operator}");
        }
        assert_eq!(found.len(), expected.len());
    }
}

/// The same by plain code that knows nothing of the engine.
#[test]
fn totals_are_exact_after_going_on() {
    for golden in Golden::named("life") {
        let job = Job::start(golden.root(), golden.describe, KILLED_AFTER, false).unwrap();
        job.run(KILLED_AFTER + 1);
        let (mut totals, mut factor, mut seen) = (BTreeMap::new(), 1, 0);
        for batch in 1..=KILLED_AFTER + 1 {
            if batch % 4 == 3 {
                factor = batch;
            }
            let mut touched = BTreeMap::new();
            for n in 0..4 {
                *touched.entry(format!("word {}", (batch * n + n) % 11)).or_insert(0) += (batch + n) * factor;
                seen += batch + n;
            }
            for (word, n) in touched {
                let total = totals.remove(&word).unwrap_or(0) + n;
                if total % 3 > 0 {
                    totals.insert(word, total);
                }
            }
        }
        let mut found = BTreeMap::new();
        let state = job.running.state::<String, u64>("totals").unwrap();
        state.for_each(|key, total| assert_eq!(found.insert(key, total), None)).unwrap();
        assert_eq!(found, totals);
        assert_eq!(job.running.state::<(), u64>("accumulator seen").unwrap().get(&()).unwrap(), Some(seen));
        job.stop();
    }
}
