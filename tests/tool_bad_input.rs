//! Every verb of the `millpond` command on everything that is no store, or one that is damaged: the right exit
//! code, at most one line of complaint, an end in time, and nothing changed. The verbs are those that the command
//! itself lists, so that a new one is tried without being named here.
#![cfg(feature = "tool")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/tool.rs"]
mod tool;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use millpond::{ManualClock, Queue, RunningContext, StreamingContext};
use serde_json::Value;
use tool::{copy_dir, snapshot};

/// 2024-02-29 12:00:00 UTC.
const START_MS: u64 = 1_709_208_000_000;

/// No verb takes so long on stores of this size, on however busy a machine.
const BOUND: Duration = Duration::from_secs(120);

/// One in so many verbs is tried on each damaged store. No divisor of the fields of a frame, so that each verb
/// meets each field.
const TURNS: usize = 5;

/// Verbs that look at no store.
const WITHOUT_STORE: [&str; 3] = ["help", "completions", "man"];

/// What frames begin with: magic, version, kind, length, id and checksum.
const FIELDS: [(&str, usize); 6] =
    [("magic", 0), ("version", 4), ("kind", 6), ("length", 8), ("id", 12), ("checksum", 20)];

struct Job {
    running: RunningContext,
    queue: Queue<String>,
    clock: Arc<ManualClock>,
}

impl Job {
    fn start(store: &Path, since_ms: u64) -> Job {
        let clock = ManualClock::at(START_MS + since_ms);
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
        Job { running: context.start().unwrap(), queue, clock }
    }

    fn batches(&self, count: u64) {
        for _ in 0..count {
            let before = self.running.progress().batches;
            self.queue.push((0..20).map(|number| format!("word {number}"))).unwrap();
            self.clock.advance(1_000);
            while self.running.progress().batches == before {
                assert!(!self.running.await_termination_or_timeout(Duration::from_millis(2)).unwrap());
            }
        }
    }

    /// Waits until the checkpoint writer has committed and pruned.
    fn settle(&self, checkpoints: u64) {
        while self.running.progress().checkpoints < checkpoints {
            assert!(!self.running.await_termination_or_timeout(Duration::from_millis(2)).unwrap());
        }
    }
}

/// Stores that are made once for all tests, and copied by each.
struct Stores {
    _dir: tempfile::TempDir,
    /// Of a job that was killed, started again and killed again: three checkpoints, two epochs and extents.
    store: PathBuf,
    /// Of another job, as far.
    other: PathBuf,
}

fn stores() -> &'static Stores {
    static STORES: OnceLock<Stores> = OnceLock::new();
    STORES.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let made = |name: &str| {
            let (live, killed, again) = (
                dir.path().join(name),
                dir.path().join(format!("{name} 1")),
                dir.path().join(format!("{name} 2")),
            );
            let job = Job::start(&live, 0);
            job.batches(3);
            job.settle(1);
            copy_dir(&live, &killed);
            drop(job);
            let job = Job::start(&killed, 3_000);
            job.batches(2);
            // The one that a start takes, and the one of these batches.
            job.settle(2);
            job.queue.push(["waits".to_owned()]).unwrap();
            copy_dir(&killed, &again);
            again
        };
        let (store, other) = (made("store"), made("other"));
        Stores { _dir: dir, store, other }
    })
}

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millpond"));
    command.stdin(Stdio::null());
    command
}

fn help(args: &[&str]) -> String {
    let output = command().args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// A verb with arguments: `{}` is the store, `{new}` a path that does not exist.
#[derive(Clone, Debug)]
struct Call {
    verb: String,
    args: Vec<String>,
}

/// Every verb that looks at a store, as the command lists them, with arguments that fit or name nothing.
fn calls(fitting: bool) -> Vec<Call> {
    let listing = help(&["help"]);
    let verbs =
        listing.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let verbs = verbs.filter_map(|line| line.split_whitespace().next());
    let verbs: Vec<&str> = verbs.filter(|verb| !WITHOUT_STORE.contains(verb)).collect();
    assert!(verbs.len() >= 13, "{verbs:?}");
    let calls: Vec<Call> = verbs.iter().flat_map(|verb| calls_of(verb, fitting)).collect();
    assert!(calls.iter().any(|call| call.verb == "inspect"));
    calls
}

fn calls_of(verb: &str, fitting: bool) -> Vec<Call> {
    let text = help(&["help", verb]);
    let usage = text.lines().find_map(|line| line.strip_prefix("Usage: ")).expect(verb);
    let words = usage.split_whitespace().skip(2).filter(|word| *word != "[OPTIONS]");
    // A job's binary may be left out.
    let words: Vec<&str> = words.take_while(|word| *word != "[--").collect();
    let args: Vec<String> = words.iter().map(|word| argument(verb, word, fitting)).collect();
    if ["plan", "unpin"].contains(&verb) && fitting {
        // There is no binary of a job, and the store has no pin that could fit.
        return Vec::new();
    }
    let args = if verb == "edit" { [args, vec!["--set".to_owned(), "7".to_owned()]].concat() } else { args };
    let call = |more: &[&str]| Call {
        verb: verb.to_owned(),
        // What follows `--` is a job's.
        args: more.iter().map(|more| (*more).to_owned()).chain(args.iter().cloned()).collect(),
    };
    let mut calls = vec![call(&[])];
    for (option, values) in [("--deep", &[][..]), ("--dot", &[]), ("--raw", &[])] {
        if text.contains(option) {
            calls.push(call(&[&[option], values].concat()));
        }
    }
    if verb == "state" && fitting {
        calls.push(call(&["--key", "word 1"]));
        calls.push(call(&["--at", "1"]));
    }
    if verb == "export" && fitting {
        calls.push(call(&["--at", "1", "--prefix", "word 1"]));
    }
    if text.contains("--json") {
        // The report of an export is beside it.
        calls.push(call(if verb == "export" { &["--to", "{new}", "--json"] } else { &["--json"] }));
    }
    calls
}

/// What stands for an argument of the usage line.
fn argument(verb: &str, word: &str, fitting: bool) -> String {
    let either = |fits: &str, fails: &str| if fitting { fits.to_owned() } else { fails.to_owned() };
    match (verb, word.trim_matches(['<', '>'])) {
        (_, "DIR") => "{}".to_owned(),
        // A value for the key that follows.
        ("edit", "KEY") => either("word 1", "no such word"),
        ("import", "FILE") => either("{lines}", "{new}"),
        ("plan", "JOB>...") => "no such binary".to_owned(),
        (_, "CHECKPOINT") => either("2", "999"),
        ("pin", "NAME") => "kept".to_owned(),
        ("copy", "TO") => "{new}".to_owned(),
        ("diff", "FROM") => either("1", "98"),
        ("diff", "TO") => either("2", "99"),
        ("batch" | "block", "ID") => either("4", "999"),
        (_, "ID") => either("2", "999"),
        (_, "OPERATOR") => either("totals", "nothing of this name"),
        (_, "KEY" | "HEX|TEXT") => either("word 1", "no such word"),
        (_, "NAME") => either("words", "no such name"),
        (_, "JSON") => "7".to_owned(),
        (_, "FORMAT") => "json".to_owned(),
        (_, "FILE") => "{new}".to_owned(),
        (_, option) if option.starts_with("--") => option.to_owned(),
        (verb, other) => panic!("teach this test what `{other}` of `millpond {verb}` may be"),
    }
}

impl Call {
    fn is_json(&self) -> bool {
        self.args.iter().any(|arg| arg == "--json")
    }

    fn run(&self, store: &Path) -> Output {
        let scratch = tempfile::tempdir().unwrap();
        let (new, lines) = (scratch.path().join("new"), scratch.path().join("lines"));
        fs::write(&lines, "{\"key\":\"word 1\",\"value\":7}\n").unwrap();
        let filled = self.args.iter().map(|arg| match &**arg {
            "{}" => store.to_owned(),
            "{new}" => new.clone(),
            "{lines}" => lines.clone(),
            other => PathBuf::from(other),
        });
        let mut command = command();
        command.arg(&self.verb).args(filled).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let id = child.id();
        let (ended, end) = channel();
        std::thread::spawn(move || ended.send(child.wait_with_output()));
        match end.recv_timeout(BOUND) {
            Ok(output) => output.unwrap(),
            Err(_) => panic!("{self:?} on {} did not end (process {id})", store.display()),
        }
    }

    /// Runs it and checks what holds whatever is wrong. Returns the exit code.
    fn check(&self, store: &Path, why: &str) -> i32 {
        let before = snapshot(store);
        let output = self.run(store);
        assert!(before == snapshot(store), "{self:?} changed a store with {why}");
        let err = String::from_utf8(output.stderr.clone()).unwrap();
        let context = || {
            let out = String::from_utf8_lossy(&output.stdout).into_owned();
            format!("{self:?}, {why}: {:?}\n{out}\n{err}", output.status)
        };
        let code = output.status.code().unwrap_or_else(|| panic!("killed: {}", context()));
        assert!([0, 1, 2].contains(&code), "{}", context());
        assert!(!err.contains("panicked") && !err.contains("RUST_BACKTRACE"), "{}", context());
        let lines = err.lines().count();
        let (out, complains) = (!output.stdout.is_empty(), lines > 0);
        assert!(lines <= 1, "{}", context());
        match code {
            0 => assert!(!complains, "{}", context()),
            1 => assert!(out != complains, "either a report or a line: {}", context()),
            _ => assert!(!out && complains, "{}", context()),
        }
        if self.is_json() && out {
            let report: Value =
                serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", context()));
            // Verbs that write speak of what they have done, which is nothing.
            let found = if report["done"].is_null() { &report["sound"] } else { &Value::from(code == 0) };
            assert!(report["done"] != true, "{}", context());
            assert_eq!((found, &report["schema"]), (&(code == 0).into(), &1.into()), "{}", context());
        }
        code
    }
}

/// Runs `work` for every one of `all`, on a few threads.
fn for_all<T: Sync>(all: &[T], work: impl Fn(usize, &T) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some((at, one)) =
                    Some(next.fetch_add(1, Ordering::SeqCst)).and_then(|at| Some((at, all.get(at)?)))
                {
                    work(at, one);
                }
            });
        }
    });
}

/// The files of a store, relative to it.
fn files(store: &Path) -> Vec<PathBuf> {
    let all = snapshot(store);
    let files = all.into_iter().filter(|(_, (_, bytes))| bytes.is_some());
    files.map(|(path, _)| path.strip_prefix(store).unwrap().to_owned()).collect()
}

type Damage = Box<dyn Fn(&Path) + Sync + Send>;

/// Does each of `damages` to a copy of the store of its own and runs verbs there: `verify` always, and of the
/// others each in its turn. What `verify` says of each is returned.
fn on_damaged(damages: &[(String, Damage)]) -> BTreeMap<String, Vec<i32>> {
    let (verify, others): (Vec<Call>, Vec<Call>) =
        calls(true).into_iter().partition(|call| call.verb == "verify");
    let dir = tempfile::tempdir().unwrap();
    let verified = std::sync::Mutex::new(BTreeMap::<String, Vec<i32>>::new());
    for_all(damages, |at, (name, damage)| {
        let copy = dir.path().join(at.to_string());
        copy_dir(&stores().store, &copy);
        damage(&copy);
        let codes = verify.iter().map(|call| call.check(&copy, name)).collect();
        verified.lock().unwrap().insert(name.clone(), codes);
        for call in others.iter().skip(at % TURNS).step_by(TURNS) {
            call.check(&copy, name);
        }
        fs::remove_dir_all(&copy).unwrap();
    });
    verified.into_inner().unwrap()
}

fn damage(name: impl Into<String>, damage: impl Fn(&Path) + Sync + Send + 'static) -> (String, Damage) {
    (name.into(), Box::new(damage))
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

fn swap(a: &Path, b: &Path) {
    let (of_a, of_b) = (fs::read(a).unwrap(), fs::read(b).unwrap());
    fs::write(a, of_b).unwrap();
    fs::write(b, of_a).unwrap();
}

#[test]
fn a_sound_store_satisfies_every_verb() {
    let store = &stores().store;
    for dir in ["epochs", "log", "state"] {
        assert!(fs::read_dir(store.join(dir)).unwrap().count() >= 2, "{dir}");
    }
    for_all(&calls(true), |_, call| assert_eq!(call.check(store, "nothing wrong"), 0, "{call:?}"));
}

#[test]
fn what_is_no_store_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("file"), "text").unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir_all(at("foreign/log")).unwrap();
    fs::write(at("foreign/conf"), "segment_size: 524288").unwrap();
    fs::write(at("foreign/log/1.extent"), [0; 100]).unwrap();
    copy_dir(&stores().store, &at("newer"));
    let id = at("newer/millpond.id");
    let mut bytes = fs::read(&id).unwrap();
    // A checksum does not cover the version, so that it is sound as it is.
    bytes[4] += 1;
    fs::write(&id, bytes).unwrap();
    let names = ["absent", "file", "file/below", "empty", "foreign", "newer"];
    let calls = calls(true);
    for_all(&names, |_, name| {
        for call in &calls {
            assert_eq!(call.check(&at(name), name), 2, "{call:?} on {name}");
        }
    });
}

#[test]
fn what_is_not_in_the_store_is_refused() {
    // With nothing that could be absent there is nothing to refuse.
    let naming = |call: &&Call| call.args.iter().any(|arg| arg.contains("99") || arg.starts_with("no"));
    let calls = calls(false);
    let calls: Vec<&Call> = calls.iter().filter(naming).collect();
    assert!(calls.len() >= 10, "{calls:?}");
    for_all(&calls, |_, call| {
        assert_eq!(call.check(&stores().store, "what was asked for is not there"), 2, "{call:?}");
    });
    let absent: [&[&str]; 4] = [
        &["state", "{}", "totals", "--key", "no such word"],
        &["state", "{}", "totals", "--at", "77"],
        &["diff", "{}", "1", "2", "--operator", "nothing"],
        &["copy", "{}", "{new}", "--checkpoint", "77"],
    ];
    for words in absent {
        let args = words[1..].iter().map(|word| (*word).to_owned()).collect();
        let call = Call { verb: words[0].to_owned(), args };
        assert_eq!(call.check(&stores().store, "what was asked for is not there"), 2, "{call:?}");
    }
}

#[test]
fn a_missing_file_is_no_more_than_damage() {
    let damages: Vec<_> = files(&stores().store)
        .into_iter()
        .map(|file| {
            damage(format!("no {}", file.display()), move |store| fs::remove_file(store.join(&file)).unwrap())
        })
        .collect();
    let verified = on_damaged(&damages);
    for (name, codes) in &verified {
        let harmless = name.ends_with("lock") || name.contains("snap.") || name.contains("blobs");
        let expected = if harmless { 0 } else { 1 };
        // The epoch after it may stand in for the witness of one that was finished.
        let stands_in =
            name.ends_with("/witness") && name.contains("epochs/") && codes.iter().all(|code| *code == 0);
        assert!(stands_in || codes.iter().all(|code| *code == expected), "{name}: {codes:?}");
    }
}

#[test]
fn swapped_files_are_no_more_than_damage() {
    let numbers = |dir: &str, suffix: &str| -> Vec<String> {
        let names = fs::read_dir(stores().store.join(dir)).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(suffix)).collect();
        names.sort();
        names
    };
    let mut damages = Vec::new();
    for (dir, suffix) in [("state", ".segment"), ("log", ".extent")] {
        let names = numbers(dir, suffix);
        let (a, b) = (format!("{dir}/{}", names[0]), format!("{dir}/{}", names[1]));
        damages.push(damage(format!("{a} and {b} swapped"), move |store| {
            swap(&store.join(&a), &store.join(&b))
        }));
    }
    let epochs = numbers("epochs", "");
    let (a, b) = (format!("epochs/{}/db", epochs[0]), format!("epochs/{}/db", epochs[1]));
    damages.push(damage("the databases of two epochs swapped", move |store| {
        swap(&store.join(&a), &store.join(&b))
    }));
    let in_both = |name: &PathBuf| stores().store.join(name).exists();
    for name in files(&stores().other).into_iter().filter(in_both) {
        damages.push(damage(format!("{} of another store", name.display()), move |store| {
            fs::copy(stores().other.join(&name), store.join(&name)).map(drop).unwrap();
        }));
    }
    damages.push(damage("the epochs of another store", |store| {
        fs::remove_dir_all(store.join("epochs")).unwrap();
        copy_dir(&stores().other.join("epochs"), &store.join("epochs"));
    }));
    for (name, codes) in on_damaged(&damages) {
        let harmless = ["lock", "conf", "blobs", "snap", "witness"].iter().any(|part| name.contains(part));
        assert!(harmless || codes.iter().all(|code| *code > 0), "{name}: {codes:?}");
    }
}

/// Where frames begin, as far as their magic tells: the first, one in the middle and the last.
fn frames(bytes: &[u8], magic: &[u8]) -> Vec<usize> {
    let all: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(magic)).collect();
    let mut some: Vec<usize> = [0, all.len() / 2, all.len().saturating_sub(1)]
        .iter()
        .filter_map(|at| all.get(*at).copied())
        .collect();
    some.dedup();
    some
}

#[test]
fn truncated_and_flipped_bytes_are_no_more_than_damage() {
    let store = &stores().store;
    let magic = fs::read(store.join("millpond.id")).unwrap()[..4].to_owned();
    let mut damages = Vec::new();
    for file in files(store) {
        let bytes = fs::read(store.join(&file)).unwrap();
        let shown = file.display().to_string();
        let mut push = |what: String, change: Box<dyn Fn(&Path) + Sync + Send>| {
            let file = file.clone();
            damages.push(damage(format!("{what} of {shown}"), move |store| change(&store.join(&file))));
        };
        for length in [0, bytes.len() / 2, bytes.len().saturating_sub(1)] {
            let cut = move |path: &Path| {
                fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length as u64).unwrap();
            };
            if length < bytes.len() {
                push(format!("the end after {length} bytes"), Box::new(cut));
            }
        }
        for frame in frames(&bytes, &magic) {
            for (field, offset) in FIELDS {
                push(
                    format!("{field} of the frame at {frame}"),
                    Box::new(move |path| flip(path, frame + offset)),
                );
            }
        }
        for at in [bytes.len() / 3, bytes.len() * 2 / 3, bytes.len().wrapping_sub(1)] {
            if at < bytes.len() {
                push(format!("byte {at}"), Box::new(move |path| flip(path, at)));
            }
        }
    }
    for (name, codes) in on_damaged(&damages) {
        // Databases hold old pages and padding, which nobody reads.
        let covered = name.contains("state/") || name.contains("log/") || name.contains("millpond.id");
        assert!(!covered || codes.iter().all(|code| *code > 0), "{name}: {codes:?}");
    }
}

#[test]
fn a_key_is_found_beside_damage_to_other_key_groups() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("store");
    copy_dir(&stores().store, &copy);
    let all = ["state", "{}", "totals", "--json"];
    let call = |more: &[&str]| {
        let args = all[1..].iter().chain(more).map(|arg| (*arg).to_owned()).collect();
        Call { verb: all[0].to_owned(), args }
    };
    let key = call(&["--key", "word 1"]);
    let before = key.run(&copy).stdout;
    for segment in fs::read_dir(copy.join("state")).unwrap() {
        let path = segment.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        // Of another key group, as the last two lines prove.
        for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"word 2")) {
            flip(&path, at);
        }
    }
    assert_eq!(call(&[]).check(&copy, "damage to one key group"), 1);
    assert_eq!(key.check(&copy, "damage to another key group"), 0);
    assert_eq!(key.run(&copy).stdout, before);
    assert_eq!(call(&["--key", "word 2"]).check(&copy, "damage to its key group"), 1);
}

#[test]
fn without_permission_nothing_is_said_of_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("store");
    copy_dir(&stores().store, &copy);
    let id = copy.join("millpond.id");
    fs::set_permissions(&id, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::File::open(&id).is_ok() {
        eprintln!("not tested: this user may read everything");
        return;
    }
    for call in calls(true) {
        let output = call.run(&copy);
        assert_eq!(output.status.code(), Some(2), "{call:?}: {output:?}");
    }
}
