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
                clock.advance(0);
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

    /// The same with any command. Nothing in the store may change, and nothing may be left behind.
    fn plan_of(&self, role: &str, more: &[&str], job: &[&str]) -> Outcome {
        let scratch = tempfile::tempdir().unwrap();
        let before = snapshot(&self.store());
        let output = Command::new(env!("CARGO_BIN_EXE_millpond"))
            .arg("plan")
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
    let report: Value = serde_json::from_slice(&outcome.out).unwrap();
    assert_eq!((outcome.code, &report["plan"]["operators"][0]["keys"]), (0, &4.into()), "{report}");
    assert_eq!(report["command"].as_array().unwrap().len(), 10);
}
