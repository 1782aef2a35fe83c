//! `millpond plan` asks real binaries: versions of a job, a job elsewhere, and programs that give no answer.
//! Whatever they do, the store stays as it is and nothing is started.
#![cfg(feature = "tool")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/tool.rs"]
mod tool;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use millpond::{ErrorKind, ManualClock, Result, StateSpec, StopMode, StreamingContext};
use serde_json::{Value, json};
use tool::{Outcome, snapshot};

/// What the binary in [`job_binary`] is to be, and where its store is.
const ROLE: &str = "MILLPOND_TEST_ROLE";
const STORE: &str = "MILLPOND_TEST_STORE";

/// A store after three batches, of which a checkpoint has two, with one block that waits.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        let bench = Bench { dir: tempfile::tempdir().unwrap() };
        let clock = ManualClock::at(0);
        let context = StreamingContext::builder("sales")
            .store(bench.store())
            .clock(clock.clone())
            .checkpoint_every_batches(2)
            .threads(2)
            .stop_on_signals(false)
            .build()
            .unwrap();
        let (orders, queue) = context.queue_stream::<(String, u64)>("orders");
        counts(&orders, "counts").for_each_rdd(|_, _| Ok(()));
        counts(&orders, "others").for_each_rdd(|_, _| Ok(()));
        let job = context.start().unwrap();
        for batch in 1..=3 {
            queue.push([("ada".to_owned(), batch), ("bob".to_owned(), batch)]).unwrap();
            clock.advance(1_000);
            while job.progress().batches < batch || job.progress().checkpoints < batch / 2 {
                assert!(!job.await_termination_or_timeout(std::time::Duration::from_millis(2)).unwrap());
            }
        }
        queue.push([("ada".to_owned(), 9)]).unwrap();
        job.stop(StopMode::Now).unwrap();
        bench
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Runs `millpond plan STORE MORE` on this test as the job's binary in the role of `role`.
    fn plan(&self, role: &str, more: &[&str]) -> Outcome {
        let this = std::env::current_exe().unwrap();
        let job = [this.to_str().unwrap(), "--exact", "job_binary", "--ignored", "--nocapture"];
        self.plan_of(role, more, &job)
    }

    /// Asks what touched a key.
    fn why(&self, role: &str, words: &[&str]) -> Outcome {
        let this = std::env::current_exe().unwrap();
        let job = [this.to_str().unwrap(), "--exact", "job_binary", "--ignored", "--nocapture"];
        self.ask("why", role, words, &job)
    }

    /// The same with any command. Nothing in the store may change, and nothing may be left behind.
    fn plan_of(&self, role: &str, more: &[&str], job: &[&str]) -> Outcome {
        self.ask("plan", role, more, job)
    }

    fn ask(&self, verb: &str, role: &str, more: &[&str], job: &[&str]) -> Outcome {
        let scratch = tempfile::tempdir().unwrap();
        let before = snapshot(&self.store());
        let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
            .arg(verb)
            .arg(self.store())
            .args(more)
            .arg("--")
            .args(job)
            .env(ROLE, role)
            .env(STORE, self.store())
            .env("TMPDIR", scratch.path())
            .current_dir(self.dir.path())
            .output()
            .unwrap();
        assert!(before == snapshot(&self.store()), "{role} changed the store");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0, "{role} left files behind");
        let code = output.status.code().unwrap();
        let outcome = Outcome { code, out: output.stdout, err: String::from_utf8(output.stderr).unwrap() };
        assert!(outcome.err.lines().count() <= 1 && !outcome.err.contains("panicked at"), "{outcome:?}");
        outcome
    }

    /// The report of a job that could be asked.
    fn report(&self, role: &str, code: i32) -> Value {
        let outcome = self.plan(role, &["--json"]);
        assert_eq!((outcome.code, &*outcome.err), (code, ""), "{role}: {}", outcome.text());
        let report: Value = serde_json::from_slice(&outcome.out).unwrap();
        assert_eq!((&report["sound"], &report["schema"]), (&(code == 0).into(), &1.into()));
        report
    }

    fn refused(&self, role: &str, more: &[&str], why: &str) {
        let outcome = self.plan(role, more);
        assert_eq!((outcome.code, outcome.text()), (2, ""), "{role}: {}", outcome.err);
        assert!(outcome.err.contains(why), "{role}: {}", outcome.err);
    }
}

type Orders = millpond::DStream<(String, u64)>;

fn counts(orders: &Orders, state: impl Into<StateSpec>) -> millpond::DStream<(String, u64)> {
    orders.update_state_by_key(state.into(), |new, count: Option<u64>| {
        Some(count.unwrap_or(0) + new.len() as u64)
    })
}

fn context(name: &str, store: impl Into<PathBuf>) -> Result<(StreamingContext, Orders)> {
    let context = StreamingContext::builder(name).store(store).threads(3).build()?;
    let (orders, _) = context.queue_stream::<(String, u64)>("orders");
    Ok((context, orders))
}

fn goes_on(store: impl Into<PathBuf>) -> Result<()> {
    let (context, orders) = context("sales", store)?;
    counts(&orders, "counts").for_each_rdd(|_, _| Ok(()));
    counts(&orders, "others").for_each_rdd(|_, _| Ok(()));
    context.start()?.await_termination()
}

/// Renames one state and migrates it, drops one, adds one.
fn upgraded(store: &str) -> Result<()> {
    let (context, orders) = context("sales", store)?;
    let sales = StateSpec::named("sales").was("counts").migrate_from(|count: u64| (count, 0u64));
    orders.update_state_by_key(sales, |_, sales: Option<(u64, u64)>| sales).for_each_rdd(|_, _| Ok(()));
    counts(&orders, "more").for_each_rdd(|_, _| Ok(()));
    context.start()?.await_termination()
}

/// Changes a type and says nothing about it; the stream has another name too.
fn incompatible(store: &str) -> Result<()> {
    let context = StreamingContext::builder("sales").store(store).build()?;
    let (orders, _) = context.queue_stream::<(String, u64)>("sold");
    orders.update_state_by_key("counts", |_, state: Option<(u64, String)>| state).for_each_rdd(|_, _| Ok(()));
    counts(&orders, "others").for_each_rdd(|_, _| Ok(()));
    context.start()?.await_termination()
}

fn wait_for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

/// Programs that do not do what they are asked.
fn misbehave(role: &str, store: &str) -> Result<()> {
    match role {
        "hangs" => wait_for_ever(),
        "ends" => {
            eprintln!("no \u{1b}[31mconfiguration\n\n");
            std::process::exit(3);
        }
        "meddles" => {
            let asked = PathBuf::from(std::env::var_os("MILLPOND_QUESTION").unwrap());
            for (path, mode) in [(asked.clone(), 0o700), (asked.join("question"), 0o600)] {
                assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, mode);
            }
            fs::write(asked.join("answer"), b"MLPQ and no more").unwrap();
            Ok(())
        }
        "has no question" => {
            let asked = PathBuf::from(std::env::var_os("MILLPOND_QUESTION").unwrap());
            fs::remove_file(asked.join("question")).unwrap();
            let error = goes_on(store).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
            Ok(())
        }
        other => panic!("{other} is no role"),
    }
}

/// A job's binary, as far as the command can tell.
#[test]
#[ignore = "the other tests run it as a program"]
fn job_binary() -> Result<()> {
    let (Ok(role), Ok(store)) = (std::env::var(ROLE), std::env::var(STORE)) else { return Ok(()) };
    // What a job prints is not part of the report.
    println!("{{\"this\": \"is the job's\"}}");
    match &*role {
        "same" => goes_on(store),
        // The command runs it where the store is.
        "relative" => goes_on("./store"),
        "upgraded" => upgraded(&store),
        "incompatible" => incompatible(&store),
        "of another name" => context("purchases", store).and_then(|(context, orders)| {
            counts(&orders, "counts").for_each_rdd(|_, _| Ok(()));
            context.start()?.await_termination()
        }),
        "two of one name" => context("sales", store).and_then(|(context, orders)| {
            counts(&orders, "counts").for_each_rdd(|_, _| Ok(()));
            counts(&orders, "counts").for_each_rdd(|_, _| Ok(()));
            context.start()?.await_termination()
        }),
        "elsewhere" => goes_on(format!("{store}-of-another")),
        "several" => {
            // Another store is left alone, and the one that is asked about still answers.
            let elsewhere = format!("{store}-of-another");
            let error = goes_on(&elsewhere).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Stopped, "{error}");
            assert!(!Path::new(&elsewhere).exists());
            let error = goes_on(&store).unwrap_err();
            assert!(error.to_string().contains("has answered"), "{error}");
            Ok(())
        }
        "get or create" => {
            let builder = StreamingContext::builder("sales").store(store);
            let job = StreamingContext::get_or_create(builder, |context| {
                let (orders, _) = context.queue_stream::<(String, u64)>("orders");
                counts(&orders, "counts").for_each_rdd(|_, _| Ok(()));
                counts(&orders, "others").for_each_rdd(|_, _| Ok(()));
                Ok(())
            })?;
            job.await_termination()
        }
        "asks itself" => {
            let (context, orders) = context("sales", store)?;
            counts(&orders, "counts").for_each_rdd(|_, _| Ok(()));
            counts(&orders, "others").for_each_rdd(|_, _| Ok(()));
            assert!(context.plan()?.problems.is_empty());
            context.start()?.await_termination()
        }
        "answers and stays" => {
            goes_on(store).unwrap_err();
            wait_for_ever()
        }
        other => misbehave(other, &store),
    }
}

#[test]
fn a_job_that_can_start_says_so() {
    let bench = Bench::new();
    for role in ["same", "relative", "several", "get or create", "asks itself", "answers and stays"] {
        let report = bench.report(role, 0);
        assert_eq!((&report["job"], &report["refused"]), (&"sales".into(), &Value::Null), "{role}");
        let plan = &report["plan"];
        assert_eq!((&plan["checkpoint"], &plan["batch"]), (&1.into(), &2.into()), "{role}");
        assert_eq!((&plan["replay"], &plan["problems"]), (&json!([3]), &json!([])), "{role}");
        let operators = plan["operators"].as_array().unwrap().iter();
        let outcomes: Vec<_> = operators.map(|o| (&o["operator"], &o["outcome"], &o["keys"])).collect();
        let matched = json!("matched");
        assert_eq!(
            outcomes,
            [(&json!("counts"), &matched, &json!(2)), (&json!("others"), &matched, &json!(2))],
            "{role}"
        );
        assert_eq!(
            plan["streams"],
            json!([{"stream": "`orders`", "outcome": "kept", "pending_blocks": 1, "replayed_batches": 1}])
        );
        let threads = json!({"setting": "threads", "before": "2", "now": "3"});
        assert_eq!(
            plan["settings"].as_array().unwrap().contains(&threads),
            role != "get or create",
            "{role}"
        );
    }
    let page = bench.plan("same", &[]);
    assert_eq!(page.code, 0);
    for part in
        ["the job can start", "at checkpoint 1, which is after batch 2", "1 batch again (3)", "matched"]
    {
        assert!(page.text().contains(part), "{part} is not in\n{}", page.text());
    }
}

#[test]
fn a_job_that_cannot_start_says_why_and_what_to_do() {
    let bench = Bench::new();
    let report = bench.report("upgraded", 1);
    let operators = report["plan"]["operators"].as_array().unwrap();
    assert_eq!(
        operators[0],
        json!({
            "operator": "sales", "outcome": "upgraded", "was": "counts", "migrated": true, "keys": 2,
            "stored": "utf8 -> u64", "asked": "utf8 -> (u64, u64)", "problem": null,
        })
    );
    assert_eq!((&operators[1]["operator"], &operators[1]["outcome"]), (&"more".into(), &"new".into()));
    assert_eq!((&operators[2]["operator"], &operators[2]["outcome"]), (&"others".into(), &"dropped".into()));
    assert!(operators[2]["problem"].as_str().unwrap().contains("or allow dropping state"));
    assert_eq!(report["plan"]["problems"], json!([operators[2]["problem"]]));
    let page = bench.plan("upgraded", &[]);
    assert_eq!(page.code, 1);
    for part in [
        "upgraded, was counts, migrated",
        "refused for 1 problem",
        "problem: the job has no operator `others`",
    ] {
        assert!(page.text().contains(part), "{part} is not in\n{}", page.text());
    }

    let report = bench.report("incompatible", 1);
    let plan = &report["plan"];
    assert_eq!(plan["operators"][0]["outcome"], "incompatible");
    assert!(plan["operators"][0]["problem"].as_str().unwrap().contains("migrate_from"));
    let streams: Vec<&Value> = plan["streams"].as_array().unwrap().iter().map(|s| &s["outcome"]).collect();
    assert_eq!(streams, ["new", "gone"]);
    assert_eq!(plan["problems"].as_array().unwrap().len(), 2);

    for (role, why) in [("of another name", "is the store of job `sales`"), ("two of one name", "counts")] {
        let report = bench.report(role, 1);
        assert_eq!(report["plan"], Value::Null);
        assert!(report["refused"].as_str().unwrap().contains(why), "{report}");
    }
    assert!(bench.plan("of another name", &[]).text().contains("would be refused: "));
}

#[test]
fn what_gives_no_answer_is_named() {
    let bench = Bench::new();
    bench.refused("elsewhere", &[], "store-of-another, not on ");
    bench.refused("ends", &["--json"], "(exit status: 3): it is no millpond job, or did not come to its start; its last words: no [31mconfiguration");
    bench.refused("hangs", &["--timeout", "1"], "did not answer in 1 s and was killed");
    bench.refused("meddles", &[], "another version of millpond");
    bench.refused("has no question", &[], "it ended without an answer (exit status: 0)");
    let other = |job: &[&str], why: &str| {
        let outcome = bench.plan_of("", &[], job);
        assert_eq!((outcome.code, outcome.text()), (2, ""), "{outcome:?}");
        assert!(outcome.err.contains(why), "{outcome:?}");
    };
    other(&["true"], "(exit status: 0): it is no millpond job");
    other(&["/no/such/job"], "cannot run `/no/such/job`: No such file");
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_millpond")).args(args).output().unwrap();
    let missing = run(&["plan", bench.store().to_str().unwrap()]);
    assert_eq!((missing.status.code(), missing.stdout.len()), (Some(2), 0));
    // What is no store is not asked about.
    let asked = AtomicBool::new(false);
    for (dir, why) in [("absent", "does not exist"), ("empty", "is empty")] {
        let dir = bench.dir.path().join(dir);
        if why == "is empty" {
            fs::create_dir(&dir).unwrap();
        }
        let witness = bench.dir.path().join("witness");
        let outcome = run(&["plan", dir.to_str().unwrap(), "--", "touch", witness.to_str().unwrap()]);
        asked.fetch_or(witness.exists(), Ordering::Relaxed);
        let err = String::from_utf8(outcome.stderr).unwrap();
        assert!(outcome.status.code() == Some(2) && err.contains(why), "{err}");
    }
    assert!(!asked.into_inner());
}

#[test]
fn the_example_that_counts_words_can_be_asked() {
    let example =
        std::env::current_exe().unwrap().parent().and_then(Path::parent).unwrap().join("examples/word_count");
    assert!(example.is_file(), "`cargo build --example word_count` makes {}", example.display());
    let bench = Bench { dir: tempfile::tempdir().unwrap() };
    fs::write(bench.dir.path().join("words"), "to be or not to be\n").unwrap();
    let arguments = |store: &str| {
        ["--source", "file:words", "--idle-stop", "0.05", "--batch-ms", "10", "--quiet", "--store", store]
            .map(str::to_owned)
    };
    let run = Command::new(&example).args(arguments("store")).current_dir(bench.dir.path()).output().unwrap();
    assert!(run.status.success(), "{run:?}");
    let arguments = arguments("store");
    let job: Vec<&str> =
        std::iter::once(example.to_str().unwrap()).chain(arguments.iter().map(String::as_str)).collect();
    let outcome = bench.plan_of("", &["--json"], &job);
    assert_eq!((outcome.code, &*outcome.err), (0, ""));
    let report: Value = serde_json::from_slice(&outcome.out).unwrap();
    assert_eq!((outcome.code, &report["plan"]["operators"][0]["keys"]), (0, &4.into()), "{report}");
    assert_eq!(report["command"].as_array().unwrap().len(), 10);
}

#[test]
fn the_code_of_a_job_says_which_records_touched_a_key() {
    let bench = Bench::new();
    let outcome = bench.why("same", &["counts", "bob", "--json"]);
    assert_eq!((outcome.code, &*outcome.err), (0, ""), "{}", outcome.text());
    let report: Value = serde_json::from_slice(&outcome.out).unwrap();
    let replayed = &report["replayed"];
    assert_eq!((&replayed["from"], &replayed["batches"]), (&0.into(), &json!([1, 2, 3])));
    assert_eq!(replayed["causes_known"], true);
    let touches = replayed["touches"].as_array().unwrap();
    let values: Vec<Value> = touches.iter().map(|t| json!([t["batch"], t["before"], t["after"]])).collect();
    assert_eq!(values, [json!([1, null, 1]), json!([2, 1, 2]), json!([3, 2, 3])]);
    for (touch, batch) in touches.iter().zip(1..) {
        let [cause] = &touch["causes"].as_array().unwrap()[..] else { panic!("{touch}") };
        assert_eq!((&cause["block"], &cause["records"]), (&batch.into(), &json!([{"first": 2, "last": 2}])));
        assert_eq!(cause["first"][0]["value"], json!(["bob", batch]));
    }
    let page = bench.why("same", &["counts", "bob"]);
    let parts = ["3 batches computed again from the beginning: 3 touch the key", "[\"bob\",2]", "block 2"];
    for part in parts {
        assert!(page.text().contains(part), "{part} is not in\n{}", page.text());
    }
    for (role, words, why) in [
        ("same", ["counts", "zoe"], "no retained checkpoint has a key `zoe`"),
        ("same", ["sums", "bob"], "there is no operator `sums`"),
        ("incompatible", ["counts", "bob"], "cannot compute the retained batches again: "),
        ("of another name", ["counts", "bob"], "is the store of job `sales`"),
        ("elsewhere", ["counts", "bob"], "store-of-another, not on "),
        ("ends", ["counts", "bob"], "it ended without an answer"),
    ] {
        let outcome = bench.why(role, &words);
        assert_eq!((outcome.code, outcome.text()), (2, ""), "{role}: {outcome:?}");
        assert!(outcome.err.contains(why), "{role}: {}", outcome.err);
    }
}

/// A job whose state comes from a join, from one that forgets, and from another state.
fn joined(
    store: &Path,
) -> (StreamingContext, std::sync::Arc<ManualClock>, [millpond::Queue<(String, u64)>; 2]) {
    let clock = ManualClock::at(0);
    let builder = StreamingContext::builder("joined").store(store).clock(clock.clone());
    let context = builder.checkpoint_every_batches(100).threads(2).stop_on_signals(false).build().unwrap();
    let (left, lefts) = context.queue_stream::<(String, u64)>("left");
    let (right, rights) = context.queue_stream::<(String, u64)>("right");
    let pairs = left.left_outer_join(&right).map_values(|(left, right)| left + right.unwrap_or(0));
    counts(&pairs, "pairs").map(|(name, count)| (name.len() as u64, count)).for_each_rdd(|_, _| Ok(()));
    let soon = StateSpec::named("soon").time_to_live(std::time::Duration::from_secs(2));
    let recent = counts(&left, soon);
    counts(&recent, "of state").for_each_rdd(|_, _| Ok(()));
    (context, clock, [lefts, rights])
}

fn causes(history: &millpond::KeyHistory) -> Vec<String> {
    let places = history.touches.iter().map(|touch| {
        let places = touch.causes.iter().map(|cause| match &cause.place {
            millpond::CausePlace::Block { records, .. } => format!("{} {records:?}", cause.stream),
            other => format!("{other:?}"),
        });
        format!("{}: {}", touch.batch.0, places.collect::<Vec<_>>().join(", "))
    });
    places.collect()
}

#[test]
fn both_sides_of_a_join_and_time_itself_have_their_part() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let (context, clock, [lefts, rights]) = joined(&store);
    let job = context.start().unwrap();
    let batches = [
        (vec![("a", 1), ("b", 1), ("a", 2)], vec![("c", 1), ("a", 7)]),
        (vec![("b", 1)], vec![]),
        (vec![], vec![("a", 1)]),
        (vec![], vec![]),
    ];
    for ((left, right), batch) in batches.into_iter().zip(1..) {
        lefts.push(left.into_iter().map(|(name, n)| (name.to_owned(), n))).unwrap();
        rights.push(right.into_iter().map(|(name, n)| (name.to_owned(), n))).unwrap();
        clock.advance(1_000);
        while job.progress().batches < batch {
            assert!(!job.await_termination_or_timeout(std::time::Duration::from_millis(2)).unwrap());
        }
    }
    job.stop(StopMode::Graceful).unwrap();
    drop(job);
    let before = snapshot(&store);
    let why = |operator: &str| joined(&store).0.why(operator, &"a".to_owned()).unwrap();
    let pairs = why("pairs");
    assert!(pairs.causes_known);
    assert_eq!(causes(&pairs), ["1: left [0..1, 2..3], right [1..2]"]);
    // It is forgotten by time, and no input has a part in that.
    let soon = why("soon");
    let changes: Vec<bool> = soon.touches.iter().map(|touch| touch.after.is_some()).collect();
    assert_eq!(
        (changes, causes(&soon)),
        (vec![true, false], vec!["1: left [0..1, 2..3]".to_owned(), "3: ".to_owned()])
    );
    // What comes from other state is known by its batch.
    let of_state = why("of state");
    assert!(!of_state.causes_known && causes(&of_state)[0] == "1: ", "{of_state:?}");
    let error = joined(&store).0.why("nothing", &"a".to_owned()).unwrap_err();
    assert!(error.to_string().contains("no stateful operator `nothing`: it has pairs"), "{error}");
    assert!(before == snapshot(&store));
}
