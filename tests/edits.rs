//! State that was changed by hand: the job goes on from it, and nothing else is different.
#![cfg(all(feature = "tool", feature = "testkit"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/accounts.rs"]
mod accounts;
#[path = "support/manual_job.rs"]
mod manual_job;
#[path = "support/tool.rs"]
mod tool;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use accounts::{lived, payments};
use millpond::inspect::{self, ExportFormat, ExportQuery, StateQuery};
use millpond::maintenance::Maintenance;
use millpond::testkit::FaultPlan;
use millpond::{ErrorKind, Result, StopMode};
use serde_json::{Value, json};
use tool::{copy_dir, millpond, snapshot};

const KEY: &str = r#"["customer 1",1]"#;

struct Store {
    dir: tempfile::TempDir,
}

impl Store {
    /// Three batches, the third after the checkpoint.
    fn lived() -> Store {
        let store = Store { dir: tempfile::tempdir().unwrap() };
        lived(&store.path());
        store
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn copy(&self) -> Store {
        let copy = Store { dir: tempfile::tempdir().unwrap() };
        copy_dir(&self.path(), &copy.path());
        copy
    }

    /// Its job goes on with one more batch; returns its state then.
    fn go_on(&self) -> BTreeMap<String, Value> {
        let accounts = accounts::start(&self.path(), 3_000);
        assert!(accounts.running.recovery().differences.is_empty());
        accounts.batch(payments(100));
        // One is written after what is computed again.
        accounts.settle(1);
        accounts.batch(payments(200));
        accounts.settle(2);
        accounts.running.stop(StopMode::Now).unwrap();
        assert!(inspect::verify_deep(&self.path()).unwrap().sound);
        state(&self.path(), "accounts")
    }
}

fn state(store: &Path, operator: &str) -> BTreeMap<String, Value> {
    let query = StateQuery { key: None, prefix: None, limit: usize::MAX, at: None };
    let report = inspect::state(store, operator, &query).unwrap();
    report.entries.into_iter().map(|entry| (entry.key.unwrap().to_string(), entry.value.unwrap())).collect()
}

fn exported(store: &Path, operator: &str) -> String {
    let mut out = Vec::new();
    let query = ExportQuery { format: ExportFormat::Json, prefix: None, at: None };
    inspect::export(store, operator, &query, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_job_goes_on_from_an_edited_value() {
    let store = Store::lived();
    let plain = store.copy().go_on();
    let mut account = state(&store.path(), "accounts")[KEY].clone();
    let sum = account["sum"].as_i64().unwrap();
    account["sum"] = (sum + 1_000_000).into();
    account["note"] = "set by hand, and long".into();
    let report = Maintenance::confirmed(store.path()).edit("accounts", KEY, Some(&account)).unwrap();
    assert!(report.done && report.becomes == Some(report.checkpoint + 1), "{report:?}");
    assert_eq!((report.before.unwrap()["sum"].clone(), report.after.as_ref()), (sum.into(), Some(&account)));
    assert_eq!((report.replay.map(|span| (span.from, span.to)), report.replayed_done), (Some((3, 3)), 1));
    assert!(inspect::verify_deep(&store.path()).unwrap().sound);
    assert_eq!(state(&store.path(), "accounts")[KEY], account);
    let changed = inspect::diff(&store.path(), 1, 2, None, 100).unwrap();
    assert_eq!(changed.operators.iter().map(|operator| operator.changed).sum::<u64>(), 1, "{changed:?}");
    let mut after = store.go_on();
    assert_eq!(after[KEY]["sum"], plain[KEY]["sum"].as_i64().unwrap() + 1_000_000);
    after.insert(KEY.to_owned(), plain[KEY].clone());
    assert_eq!(after, plain);
}

#[test]
fn a_key_is_removed_and_added() {
    let store = Store::lived();
    let plain = store.copy().go_on();
    let before = state(&store.path(), "accounts");
    let removed = Maintenance::confirmed(store.path()).edit("accounts", KEY, None).unwrap();
    assert!(removed.after.is_none() && removed.before.is_some());
    let again = Maintenance::confirmed(store.path()).edit("accounts", KEY, None).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::InvalidConfig);
    let new =
        json!({"sum": -5, "rate": 0.1, "note": null, "by_day": [[3, [1, 2]]], "kind": "Plain", "raw": ""});
    Maintenance::confirmed(store.path()).edit("accounts", r#"["nobody",9]"#, Some(&new)).unwrap();
    let after = state(&store.path(), "accounts");
    assert_eq!((after.len(), after.get(KEY)), (before.len(), None));
    let operators = inspect::checkpoint(&store.path(), 3).unwrap().operators;
    assert!(operators.iter().any(|known| known.name == "accounts" && known.keys as usize == before.len()));
    let went_on = store.go_on();
    assert_eq!(went_on[r#"["nobody",9]"#], new);
    let lost = before[KEY]["sum"].as_i64().unwrap();
    assert_eq!(went_on[KEY]["sum"], plain[KEY]["sum"].as_i64().unwrap() - lost);
}

#[test]
fn accumulators_are_set_and_never_removed() {
    let store = Store::lived();
    let paid = 1_000 + (35..=74).sum::<i64>();
    let edit = |value: Option<Value>| {
        Maintenance::confirmed(store.path()).edit("accumulator paid", "()", value.as_ref())
    };
    assert_eq!(edit(None).unwrap_err().kind(), ErrorKind::InvalidConfig);
    edit(Some(json!(1_000))).unwrap();
    store.go_on();
    let later: i64 = (100..140).chain(200..240).sum();
    assert_eq!(state(&store.path(), "accumulator paid")["null"], paid + later);
}

#[test]
fn what_was_exported_is_imported_into_a_copy() {
    let store = Store::lived();
    let text = exported(&store.path(), "accounts");
    let file = store.file("accounts.json", &text);
    let lines = text.lines().count() as u64;
    let same = Maintenance::confirmed(store.path()).import("accounts", &file).unwrap();
    assert_eq!((same.lines, same.unchanged, same.becomes), (lines, lines, None), "{same:?}");
    let copy = store.copy();
    for key in state(&store.path(), "accounts").keys().take(5) {
        Maintenance::confirmed(copy.path()).edit("accounts", key, None).unwrap();
    }
    let other = json!({"sum": 1, "rate": 2.5, "note": null, "by_day": [], "kind": {"Shared": ["x", 1]}, "raw": "raw"});
    Maintenance::confirmed(copy.path()).edit("accounts", r#"["customer 29",2]"#, Some(&other)).unwrap();
    let back = Maintenance::confirmed(copy.path()).import("accounts", &file).unwrap();
    assert_eq!((back.added, back.changed, back.unchanged), (5, 1, lines - 6), "{back:?}");
    assert_eq!(back.keys, lines);
    assert_eq!(exported(&copy.path(), "accounts"), text);
    let diff = inspect::diff(&copy.path(), 1, back.becomes.unwrap(), None, 100).unwrap();
    let differing = diff.operators.iter().map(|operator| operator.added + operator.removed);
    assert_eq!(differing.sum::<u64>(), 0, "{diff:?}");
    assert_eq!(copy.go_on(), store.go_on());
}

#[test]
fn one_wrong_line_changes_nothing() {
    let store = Store::lived();
    let text = exported(&store.path(), "accounts");
    let lines: Vec<&str> = text.lines().collect();
    let wrong = [
        (lines[16].replacen("\"sum\":", "\"sum\":\"x\",\"x\":", 1), "no field `x`"),
        (lines[16].replacen("\"raw\":", "\"war\":", 1), "no field `war`"),
        (lines[15].to_owned(), "earlier line"),
        ("{".to_owned(), "no JSON"),
        (String::new(), "no JSON"),
        ("{\"key\":[\"a\",1]}".to_owned(), "`key` and `value`"),
        ("{\"key\":[\"a\"],\"value\":1}".to_owned(), "no key of type (utf8,u32)"),
        ("{\"key\":[\"a\",1],\"value\":1}".to_owned(), "expected an object of sum"),
    ];
    for (line, why) in wrong {
        let mut lines: Vec<&str> = lines.clone();
        lines[16] = &line;
        let file = store.file("wrong.json", &lines.join("\n"));
        let before = snapshot(&store.path());
        let refused = Maintenance::confirmed(store.path()).import("accounts", &file).unwrap_err();
        let text = refused.to_string();
        assert_eq!(refused.kind(), ErrorKind::InvalidConfig);
        assert!(text.contains("line 17: ") && text.contains(why), "{text}");
        assert_eq!(text.lines().count(), 1);
        // Its lock may be taken, and nothing else.
        assert!(without_lock(before) == without_lock(snapshot(&store.path())));
    }
}

fn without_lock<T>(mut files: BTreeMap<PathBuf, T>) -> BTreeMap<PathBuf, T> {
    files.retain(|path, _| !path.ends_with("lock"));
    files
}

type Verb = (&'static str, fn(&Maintenance, &Path) -> Result<()>);

const VERBS: [Verb; 3] = [
    ("edit --set", |store, _| store.edit("accumulator paid", "()", Some(&json!(7))).map(drop)),
    ("edit --delete", |store, _| store.edit("accounts", KEY, None).map(drop)),
    ("import", |store, file| store.import("accounts", file).map(drop)),
];

/// Whatever a crash leaves, the store is as it was or as it was to be, and the job goes on from there.
#[test]
fn a_crash_at_every_step_leaves_the_old_or_the_new() {
    let store = Store::lived();
    let text = exported(&store.path(), "accounts").replace("\"sum\":", "\"sum\":1");
    let file = store.file("changed.json", &text);
    let states =
        |store: &Store| (exported(&store.path(), "accounts"), exported(&store.path(), "accumulator paid"));
    let old = states(&store);
    let old_end = store.copy().go_on();
    for (verb, run) in VERBS {
        let count = FaultPlan::never();
        let copy = store.copy();
        run(&Maintenance::confirmed(copy.path()).faults(count.clone()), &file).unwrap();
        let new = states(&copy);
        assert_ne!(new, old, "{verb} did nothing");
        let new_end = copy.go_on();
        let (mut was_old, mut was_new) = (0, 0);
        for step in 1..=count.steps() {
            let copy = store.copy();
            let crash = FaultPlan::crash_at(step);
            let crashed = run(&Maintenance::confirmed(copy.path()).faults(crash), &file).unwrap_err();
            assert_eq!(crashed.kind(), ErrorKind::Io, "{verb}: {crashed:?}");
            let found = states(&copy);
            assert!(found == old || found == new, "{verb}, crashed at step {step}");
            assert_eq!(copy.copy().go_on(), if found == old { old_end.clone() } else { new_end.clone() });
            (was_old, was_new) = (was_old + u64::from(found == old), was_new + u64::from(found == new));
            // And again, on what it left.
            match run(&Maintenance::confirmed(copy.path()), &file) {
                Err(error) if error.kind() == ErrorKind::InvalidConfig => assert!(found == new, "{error:?}"),
                done => done.unwrap(),
            }
            assert_eq!(states(&copy), new, "{verb}, again after step {step}");
        }
        assert!(was_old > 3, "{verb}: {was_old} old, {was_new} new");
    }
}

#[test]
fn what_is_not_confirmed_changes_nothing() {
    let store = Store::lived();
    let file =
        store.file("changed.json", &exported(&store.path(), "accounts").replace("\"sum\":", "\"sum\":1"));
    for (verb, run) in VERBS {
        let before = snapshot(&store.path());
        run(&Maintenance::planned(store.path()), &file).unwrap_or_else(|error| panic!("{verb}: {error:?}"));
        assert!(before == snapshot(&store.path()), "{verb} changed the store");
    }
    let job = accounts::start(&store.path(), 3_000);
    for (verb, run) in VERBS {
        let refused = run(&Maintenance::confirmed(store.path()), &file).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Locked, "{verb}: {refused:?}");
    }
    job.running.stop(StopMode::Now).unwrap();
}

#[test]
fn a_damaged_checkpoint_is_not_built_upon() {
    let store = Store::lived();
    let file =
        store.file("changed.json", &exported(&store.path(), "accounts").replace("\"sum\":", "\"sum\":1"));
    let segment = store.path().join("state/1.segment");
    let mut bytes = fs::read(&segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&segment, bytes).unwrap();
    for (verb, run) in VERBS {
        let refused = run(&Maintenance::confirmed(store.path()), &file).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Corrupt, "{verb}: {refused:?}");
    }
}

#[test]
fn the_command_says_what_it_would_do() {
    let store = Store::lived();
    let dir = store.path();
    let planned = millpond("edit", &dir, &["accumulator paid", "--key", "()", "--set", "7"]);
    assert_eq!(planned.code, 0, "{planned:?}");
    let text = planned.text();
    assert!(text.contains("computes batches 3 to 3 again on top, 1 of them done"), "{text}");
    assert!(text.ends_with("nothing was changed: add --confirm\n"), "{text}");
    let file = store.file("accounts.json", &exported(&dir, "accounts"));
    let same = millpond("import", &dir, &["accounts", file.to_str().unwrap()]);
    assert!(same.text().contains("0 added, 0 changed"), "{same:?}");
    for (args, why) in [
        (&["edit", "accounts", "--key", KEY, "--set", "7"][..], "expected an object of sum"),
        (&["edit", "accounts", "--key", KEY, "--set", "seven"], "texts take quotes"),
        (&["edit", "accounts", "--key", "7", "--set", "7"], "no key of type"),
        (&["edit", "accumulator paid", "--key", "()", "--delete"], "always has a value"),
        (&["edit", "nothing", "--key", "7", "--delete"], "initial_state"),
        (&["import", "accounts", "/no/such/file"], "No such file"),
    ] {
        let refused = millpond(args[0], &dir, &args[1..]);
        assert_eq!((refused.code, refused.out.len(), refused.err.lines().count()), (2, 0, 1), "{refused:?}");
        assert!(refused.err.contains(why), "{refused:?}");
    }
}
