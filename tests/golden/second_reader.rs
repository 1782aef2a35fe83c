//! The reader in `tests/reader`, which was written from `checkpoint-format.md`, against the tool: on sound stores they
//! print the same bytes; of damaged ones they think the same.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::tool::{Outcome, copy_dir, snapshot};
use crate::{Golden, json, operators, tool_json};

/// Whether there is a Python to run it. On a machine that checks changes there has to be one.
fn python_is_there() -> bool {
    let is_there =
        Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    if !is_there {
        assert!(std::env::var_os("CI").is_none(), "the second reader needs python3");
        eprintln!("NOT TESTED: there is no python3, and so no second reader of the format");
    }
    is_there
}

/// Runs it for many lists of arguments.
fn reader(dir: &Path, all: &[Vec<String>]) -> Vec<Outcome> {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/reader.py");
    let mut command = Command::new("python3");
    command.current_dir(dir).args(["-B", "-E", "-s"]).arg(program).arg("many");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines: String = all.iter().map(|args| format!("{}\n", Value::from(args.clone()))).collect();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success());
    let outcome = |line: &str| {
        let (code, out, err): (i32, String, String) = serde_json::from_str(line).unwrap();
        Outcome { code, out: out.into_bytes(), err }
    };
    let outcomes: Vec<Outcome> = std::str::from_utf8(&output.stdout).unwrap().lines().map(outcome).collect();
    assert_eq!(outcomes.len(), all.len());
    outcomes
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[test]
fn a_reader_made_from_the_document_prints_the_same_bytes() {
    if !python_is_there() {
        return;
    }
    for golden in Golden::all() {
        let dir = golden.root();
        let listed = tool_json(dir, &["checkpoints", "store"]);
        let (mut asked, mut expected) = (vec![words(&["checkpoints", "store"])], vec![listed]);
        let checkpoints = json(&expected[0]);
        for checkpoint in checkpoints["checkpoints"].as_array().unwrap() {
            let number = checkpoint["checkpoint"].to_string();
            for operator in operators(dir) {
                asked.push(words(&["state", "store", &operator, &number]));
                let args = ["state", "store", &operator, "--limit", "100000", "--at", &number];
                expected.push(tool_json(dir, &args));
            }
        }
        for ((found, expected), asked) in reader(dir, &asked).iter().zip(&expected).zip(&asked) {
            assert_eq!((found.code, expected.code), (0, 0), "{asked:?}: {found:?} {expected:?}");
            assert_eq!(found.text(), expected.text(), "{asked:?}");
        }
    }
}

/// That it refuses a store of a newer version, and as that.
pub fn says_unsupported(dir: &Path) {
    if python_is_there() {
        let refused = &reader(dir, &[words(&["checkpoints", "store"])])[0];
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.err.contains("unsupported format version"), "{refused:?}");
    }
}

/// A sequence of numbers that is the same each time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Flips a bit, cuts, lengthens, removes or replaces a file.
fn damage(files: &[(PathBuf, Vec<u8>)], numbers: &mut Numbers) -> String {
    let (path, bytes) = &files[numbers.below(files.len())];
    let (at, bit) = (numbers.below(bytes.len()), numbers.below(8));
    let mut bytes = bytes.clone();
    let what = numbers.below(12);
    match what {
        0 => bytes.truncate(at),
        1 => bytes.extend_from_slice(&[0; 30][..bit + 1]),
        2 => bytes = files[numbers.below(files.len())].1.clone(),
        _ => bytes[at] ^= 1 << bit,
    }
    if what == 3 {
        fs::remove_file(path).unwrap();
    } else {
        fs::write(path, bytes).unwrap();
    }
    format!("{} at {at}, bit {bit}, {what}", path.display())
}

/// Which checkpoints are listed and which of them are sound; of a state everything.
fn judged(outcome: &Outcome) -> Option<Vec<(Value, bool)>> {
    let mut report: Value = serde_json::from_slice(&outcome.out).ok()?;
    report["directory"].take();
    let Some(all) = report["checkpoints"].as_array() else { return Some(vec![(report, true)]) };
    let all = all.iter();
    Some(all.map(|one| (one["checkpoint"].clone(), one["damage"].is_null())).collect())
}

/// How often each store is damaged.
const DAMAGES: usize = 40;

#[test]
fn both_readers_think_the_same_of_damage() {
    if !python_is_there() {
        return;
    }
    let mut numbers = Numbers(1);
    let mut seen = [0; 3];
    for golden in Golden::named("upgrade").into_iter().chain(Golden::named("life")) {
        let dir = golden.root();
        // What sled keeps beside its log, and the receive log, are not looked at by the second reader.
        let has_checkpoints = |path: &PathBuf| {
            let name = path.strip_prefix(dir.join("store")).unwrap();
            name == "millpond.id"
                || name.ends_with("db")
                || name.starts_with("state")
                || name.starts_with("epochs") && name.ends_with("witness")
        };
        let all =
            snapshot(&dir.join("store")).into_iter().filter_map(|(path, (_, bytes))| Some((path, bytes?)));
        let files: Vec<_> = all.filter(|(path, _)| has_checkpoints(path)).collect();
        let operator = if dir.join("expected/totals.json").exists() { "totals" } else { "migrated" };
        let verbs = [vec!["checkpoints", "store"], vec!["state", "store", operator]];
        let mut expected = Vec::new();
        for at in 0..DAMAGES {
            let what = damage(&files, &mut numbers);
            let damaged = dir.join(at.to_string());
            copy_dir(&dir.join("store"), &damaged.join("store"));
            expected.extend(verbs.iter().map(|verb| (what.clone(), tool_json(&damaged, verb))));
            files.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
        }
        let asked = (0..DAMAGES).flat_map(|at| {
            verbs
                .iter()
                .map(move |verb| words(&[verb[0], &format!("{at}/store"), verb.get(2).unwrap_or(&"")]))
        });
        let asked: Vec<_> =
            asked.map(|args| args.into_iter().filter(|word| !word.is_empty()).collect()).collect();
        for ((what, ours), found) in expected.iter().zip(reader(dir, &asked)) {
            assert_eq!(found.code, ours.code, "{what}: {ours:?} {found:?}");
            assert_eq!(judged(&found), judged(ours), "{what}: {ours:?} {found:?}");
            seen[usize::try_from(ours.code).unwrap()] += 1;
        }
    }
    assert!(seen[1] > 10 && seen[2] > 0, "there was too little damage: {seen:?}");
}
