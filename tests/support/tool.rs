//! Runs the `millpond` command and proves that it changes nothing.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use serde_json::Value;

pub fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Every name below `dir` with its modification time and bytes.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, (SystemTime, Option<Vec<u8>>)> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(path) = open.pop() {
        let Ok(found) = fs::metadata(&path) else { continue };
        let bytes = found.is_file().then(|| fs::read(&path).unwrap());
        if found.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        all.insert(path, (found.modified().unwrap(), bytes));
    }
    all
}

#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub out: Vec<u8>,
    pub err: String,
}

impl Outcome {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.out).unwrap()
    }
}

/// Runs `millpond VERB DIR ARGS` on a store that no job runs on.
pub fn millpond(verb: &str, dir: &Path, args: &[&str]) -> Outcome {
    let before = snapshot(dir);
    let outcome = beside(verb, dir, args);
    assert!(before == snapshot(dir), "`{verb}` changed {}", dir.display());
    outcome
}

/// The same while a job may change the store.
pub fn beside(verb: &str, dir: &Path, args: &[&str]) -> Outcome {
    let output = Command::new(env!("CARGO_BIN_EXE_millpond")).arg(verb).arg(dir).args(args).output().unwrap();
    let outcome = Outcome {
        code: output.status.code().expect("it ended by itself"),
        out: output.stdout,
        err: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!outcome.err.contains("panicked"), "{}", outcome.err);
    assert!([0, 1, 2].contains(&outcome.code), "{outcome:?}");
    // One line, but for what clap says about arguments that it does not know.
    let is_usage = outcome.err.contains("Usage:") || outcome.err.contains("--help");
    assert!(is_usage || outcome.err.lines().count() <= 1, "{}", outcome.err);
    outcome
}

/// The report of a verb on a sound store.
pub fn report(verb: &str, dir: &Path, args: &[&str]) -> Value {
    let outcome = millpond(verb, dir, &[args, &["--json"]].concat());
    assert_eq!(outcome.code, 0, "{verb}: {outcome:?}");
    let report: Value = serde_json::from_slice(&outcome.out).unwrap();
    assert_eq!((&report["sound"], &report["schema"]), (&true.into(), &1.into()));
    report
}
