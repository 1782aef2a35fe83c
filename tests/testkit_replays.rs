//! What a check finds is written down beside the test and tried first from then on, and the line that it prints runs
//! that case alone: for each check, with a job that does not pass it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![cfg(feature = "testkit")]

use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use millpond::testkit::{self, TestContext};
use millpond::{DStream, FnSink, StateSpec};

/// Each life of a job that fails leaves a byte here.
const LIVES: &str = "lives";

fn lived() {
    let file = std::fs::File::options().create(true).append(true).open(LIVES);
    file.unwrap().write_all(b".").unwrap();
}

fn words() -> Vec<Vec<String>> {
    vec![vec!["a".to_owned()], vec!["b".to_owned()]]
}

/// An output that appends.
fn appends(context: &TestContext, words: DStream<String>) {
    lived();
    let mailbox = context.outside::<Vec<String>>("mailbox");
    words.write_to(
        "mailbox",
        FnSink::new(move |_, mut words| {
            mailbox.lock().unwrap().append(&mut words);
            Ok(())
        }),
    );
}

#[test]
#[ignore = "fails on purpose: the last test runs it"]
fn does_not_recover() {
    testkit::assert_recovers(appends, &words());
}

#[test]
#[ignore = "fails on purpose: the last test runs it"]
fn does_not_withstand_faults() {
    testkit::assert_withstands_faults(appends, &words());
}

/// A state that has the number of partitions in it.
#[test]
#[ignore = "fails on purpose: the last test runs it"]
fn is_not_deterministic() {
    let job = |_: &TestContext, words: DStream<String>| {
        lived();
        let parts = words.map(|word| (word, 1u64)).reduce_by_key(|a, b| a + b).glom();
        let _counts = parts
            .map(|_| ((), 1u64))
            .update_state_by_key("parts", |new: &[u64], _: Option<u64>| Some(new.iter().sum()));
    };
    testkit::assert_deterministic(job, &words());
}

/// A migration that gives another state each time.
#[test]
#[ignore = "fails on purpose: the last test runs it"]
fn does_not_upgrade() {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let old = |_: &TestContext, words: DStream<String>| {
        lived();
        let counts = words.map(|word| (word, 1u64));
        let _counts = counts.update_state_by_key("counts", |new: &[u64], count: Option<u64>| {
            Some(count.unwrap_or(0) + new.iter().sum::<u64>())
        });
    };
    let new = |_: &TestContext, words: DStream<String>| {
        lived();
        let spec = StateSpec::named("counts")
            .migrate_from(|count: u64| (count, CALLS.fetch_add(1, Ordering::SeqCst)));
        let counts = words.map(|word| (word, 1u64));
        let _counts = counts.update_state_by_key(spec, |new, count: Option<(u64, u64)>| {
            let (count, drawn) = count.unwrap_or_default();
            Some((count + new.iter().sum::<u64>(), drawn))
        });
    };
    let _ = testkit::assert_upgrades(old, new, &words());
}

/// Runs the test of a broken job in `dir`, one case of it or all. Returns whether it passed, what it said, and how many
/// lives it took.
fn run(dir: &Path, test: &str, case: Option<&str>) -> (bool, String, usize) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).current_dir(dir);
    command.env_remove("MILLPOND_CASE").env("RUST_BACKTRACE", "0");
    case.map(|case| command.env("MILLPOND_CASE", case));
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let lives = std::fs::read(dir.join(LIVES)).unwrap_or_default().len();
    drop(std::fs::remove_file(dir.join(LIVES)));
    (output.status.success(), String::from_utf8_lossy(&said).into_owned(), lives)
}

fn assert_written_down_and_replayed(test: &str, check: &str, says: &str) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("tests")).unwrap();
    std::fs::write(dir.path().join("tests/testkit_replays.rs"), "").unwrap();
    let file = dir.path().join("tests/testkit_replays.millpond-regressions");
    let (passed, said, all_lives) = run(dir.path(), test, None);
    assert!(!passed && said.contains(says), "{said}");
    let replay = said.split("MILLPOND_CASE=").nth(1).unwrap();
    let (case, command) = replay.split_once(' ').unwrap();
    assert!(command.starts_with(&format!("cargo test {test}\n")), "{said}");
    assert!(case.starts_with(&format!("{check}:")), "{said}");
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.ends_with(&format!("\n{test} {case}\n")), "{written}");
    // From the file, and from the line alone; neither runs what comes before it in the whole check.
    for again in [None, Some(case)] {
        let (passed, said, lives) = run(dir.path(), test, again);
        assert!(!passed && said.contains(says) && said.contains(case), "{said}");
        assert!(lives < all_lives, "{lives} lives for one case, {all_lives} for all");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), written, "nothing is written twice");
    let other = if check == "crashes" { "faults:io@1" } else { "crashes:1" };
    let (passed, said, lives) = run(dir.path(), test, Some(other));
    assert!(passed && lives == 0, "a case of another check: {said}");
    let (passed, said, _) = run(dir.path(), test, Some("one"));
    assert!(!passed && said.contains("`one` is no case of a check"), "{said}");
    std::fs::write(&file, format!("{test} one\n")).unwrap();
    let (passed, said, _) = run(dir.path(), test, None);
    assert!(!passed && said.contains("testkit_replays.rs: `one` is no case of a check"), "{said}");
}

#[test]
fn failures_are_written_down_and_replayed() {
    assert_written_down_and_replayed(
        "does_not_recover",
        "crashes",
        "outside `mailbox`, record 1: expected [",
    );
    assert_written_down_and_replayed("does_not_withstand_faults", "faults", "outside `mailbox`, record 1");
    assert_written_down_and_replayed(
        "is_not_deterministic",
        "run",
        "operator `parts`, key (): expected 3, found ",
    );
    assert_written_down_and_replayed(
        "does_not_upgrade",
        "upgrade",
        "operator `counts`, key \"a\": expected [1,",
    );
}
