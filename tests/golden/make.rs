//! Makes the fixtures of the present version. See CONTRIBUTING.md.

use std::fs;
use std::path::Path;

use crate::jobs::{Describe, JOBS, Job, KILLED_AFTER, LIVES};
use crate::tool::copy_dir;
use crate::{EXPECTED, expected_file, fixtures, operators, tool_json};

#[test]
#[ignore = "makes tests/fixtures anew: only before a version of the format is released"]
fn make_fixtures() {
    let version = fixtures().join(format!("v{}", millpond::FORMAT_VERSION));
    if version.exists() {
        fs::remove_dir_all(&version).unwrap();
    }
    for (name, describe) in JOBS {
        let dir = tempfile::tempdir().unwrap();
        let fixture = version.join(name);
        fs::create_dir_all(fixture.join(EXPECTED)).unwrap();
        kill(dir.path(), describe, &fixture);
        drop_what_git_does_not_keep(&fixture.join("store"));
        let checkpoints = tool_json(&fixture, &["checkpoints", "store"]);
        fs::write(expected_file(&fixture, "checkpoints"), checkpoints.out).unwrap();
        for operator in operators(&fixture) {
            let state = tool_json(&fixture, &["state", "store", &operator, "--limit", "100000"]);
            assert_eq!(state.code, 0, "{}", state.err);
            fs::write(expected_file(&fixture, &operator), state.out).unwrap();
        }
    }
}

/// Runs a job through its lives and copies its store as it is while the last one runs: as if the machine had stopped.
fn kill(root: &Path, describe: Describe, fixture: &Path) {
    let mut batch = 0;
    for last in LIVES {
        let job = Job::start(root, describe, batch, false).unwrap();
        while batch < last {
            batch += 1;
            job.feed(batch);
            job.run(batch);
        }
        job.stop();
    }
    let job = Job::start(root, describe, batch, false).unwrap();
    while batch < KILLED_AFTER {
        batch += 1;
        job.feed(batch);
        job.run(batch);
        job.settle((batch - LIVES[1]) / 2);
    }
    job.feed(batch + 1);
    copy_dir(&root.join("store"), &fixture.join("store"));
    job.stop();
}

/// Empty directories, and the lock, which says nothing.
fn drop_what_git_does_not_keep(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            drop_what_git_does_not_keep(&entry.path());
            // Refused where it is not empty.
            drop(fs::remove_dir(entry.path()));
        } else if entry.file_name() == "lock" {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}
