//! Every byte: each bit of a small store is flipped, and each of its files cut at each offset. The start must find
//! the store sound, or walk back and say so, or refuse with a typed error and leave it as it was; it never panics,
//! hangs, or goes on with another state.
//!
//! The same again for a start that looks at state only behind itself: then the job may also end with a typed error, and
//! the next start walks back and says so, or refuses.
//!
//! A bounded, fixed part runs by default; `MILLPOND_EVERY_BYTE=all` runs all of it, another number so many.
//! `MILLPOND_EVERY_BYTE_FROM` skips so many of them first.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]
#![allow(clippy::disallowed_methods, reason = "a start that hangs is noticed in real time")]
#![cfg(feature = "testkit")]

#[path = "power_loss/job.rs"]
mod job;
#[path = "every_byte/judge.rs"]
mod judge;
#[path = "support/lives.rs"]
mod lives;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::{Duration, Instant};

use job::{Life, Looks, Promises, Tell, Told};
use judge::{Files, Outcome, files_of, judge, put};
use millpond::StopMode;

/// A start that takes so long hangs.
const HUNG: Duration = Duration::from_secs(60);

/// So many of all cases run when nobody asks for another number.
const USUAL: usize = 1_600;

/// A long run says how far it is after so many cases.
const SHOWN_EVERY: usize = 5_000;

/// Two runs: two epochs, two checkpoints with a segment each, two extents, plans after the newest checkpoint and a
/// block that no batch has. Small, so that every bit can be tried.
fn sound_store() -> (Files, Promises) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let told = Arc::new(Mutex::new(Vec::<Told>::new()));
    let hears = told.clone();
    let tell: Tell = Arc::new(move |told| hears.lock().unwrap().push(told));
    let run = |rounds: &[&[u32]], waits: Option<u32>| {
        let life = Life::start(&store, tell.clone()).unwrap();
        for pushes in rounds {
            pushes.iter().for_each(|push| life.push(*push).unwrap());
            life.tick().unwrap();
        }
        waits.into_iter().for_each(|push| life.push(push).unwrap());
        life.stop(StopMode::Now).unwrap();
    };
    run(&[&[1, 2], &[4], &[5]], None);
    run(&[&[7]], Some(8));
    let told = told.lock().unwrap();
    (files_of(&store), Promises::of(&*told))
}

/// One damage.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Flipped { bit: usize },
    Cut { length: usize },
}

/// A file by its place among all, and what is done to it.
type Case = (usize, Damage);

fn all_cases(files: &Files) -> Vec<Case> {
    let mut cases = Vec::new();
    for (at, (_, bytes)) in files.iter().enumerate() {
        cases.extend((0..bytes.len() * 8).map(|bit| (at, Damage::Flipped { bit })));
        cases.extend((0..bytes.len()).map(|length| (at, Damage::Cut { length })));
    }
    cases
}

/// The cases to run: all, or some that are spread over all of them.
fn chosen(all: Vec<Case>) -> Vec<Case> {
    let number = |name: &str| std::env::var(name).ok().map(|value| value.parse::<usize>().expect(name));
    let count = match std::env::var("MILLPOND_EVERY_BYTE").as_deref() {
        Ok("all") => all.len(),
        Ok(count) => count.parse().expect("MILLPOND_EVERY_BYTE is a number or `all`"),
        Err(_) => USUAL,
    };
    let from = number("MILLPOND_EVERY_BYTE_FROM").unwrap_or(0);
    // A step without a common factor with 9 meets bits and cuts alike.
    let step = (all.len() / count.max(1)).max(1);
    let step = if step > 1 && step.is_multiple_of(3) { step - 1 } else { step };
    all.into_iter().skip(from).step_by(step).collect()
}

/// Panics of sled are caught where it is called; any other counts, in whichever test of this process.
static PANICS: LazyLock<Arc<AtomicUsize>> = LazyLock::new(|| {
    let count = Arc::new(AtomicUsize::new(0));
    let panics = count.clone();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let thread = std::thread::current();
        let in_sled = info.location().is_some_and(|place| place.file().contains("/sled-"));
        if !(in_sled || thread.name() == Some("millpond-catalog")) {
            panics.fetch_add(1, Ordering::SeqCst);
            usual(info);
        }
    }));
    count
});

/// What each worker is at, since when.
type Busy = Arc<Mutex<BTreeMap<usize, (Instant, String)>>>;

/// Ends the process, and says with what, when a worker hangs.
fn watch(busy: &Busy) {
    let busy = Arc::downgrade(busy);
    std::thread::spawn(move || {
        while let Some(busy) = busy.upgrade() {
            for (since, case) in busy.lock().unwrap().values() {
                if since.elapsed() > HUNG {
                    eprintln!("it hangs: {case}");
                    std::process::abort();
                }
            }
            drop(busy);
            std::thread::sleep(Duration::from_secs(1));
        }
    });
}

fn damage(files: &Files, (file, damage): Case) -> Files {
    let mut files = files.clone();
    let bytes = &mut files[file].1;
    match damage {
        Damage::Flipped { bit } => bytes[bit / 8] ^= 1 << (bit % 8),
        Damage::Cut { length } => bytes.truncate(length),
    }
    files
}

fn try_one(files: &Files, promises: &Promises, dir: &Path, looks: Looks) -> Result<Outcome, String> {
    let store = dir.join("store");
    put(files, &store);
    let outcome = judge(&store, files, promises, looks);
    std::fs::remove_dir_all(&store).unwrap();
    outcome
}

/// `epochs/3/db` is `epochs/N/db`.
fn kind_of(path: &str) -> String {
    path.chars().map(|c| if c.is_ascii_digit() { 'N' } else { c }).collect()
}

/// The damage of a whole test, and what came of it.
struct Trial {
    files: Files,
    promises: Promises,
    /// How the start looks at state in the case of that number.
    looks: fn(usize) -> Looks,
    cases: Vec<Case>,
    next: AtomicUsize,
    outcomes: Mutex<BTreeMap<(String, String), usize>>,
    wrong: Mutex<Vec<String>>,
    busy: Busy,
}

impl Trial {
    fn work(&self, worker: usize) {
        let dir = tempfile::tempdir().unwrap();
        loop {
            let at = self.next.fetch_add(1, Ordering::SeqCst);
            let Some(case) = self.cases.get(at) else { break };
            if at > 0 && at.is_multiple_of(SHOWN_EVERY) {
                eprintln!("{at} of {} cases", self.cases.len());
            }
            let (path, looks) = (&self.files[case.0].0, (self.looks)(at));
            let shown = format!("{path}: {:?}, looks {looks:?}", case.1);
            self.busy.lock().unwrap().insert(worker, (Instant::now(), shown.clone()));
            let before = PANICS.load(Ordering::SeqCst);
            let outcome = try_one(&damage(&self.files, *case), &self.promises, dir.path(), looks);
            let panicked = PANICS.load(Ordering::SeqCst) > before;
            let what = if matches!(case.1, Damage::Cut { .. }) { "cut" } else { "flipped" };
            match outcome {
                Ok(outcome) if !panicked => {
                    let row = (format!("{} {what}", kind_of(path)), format!("{outcome:?}"));
                    *self.outcomes.lock().unwrap().entry(row).or_default() += 1;
                }
                outcome => {
                    let problem = outcome.err().unwrap_or_else(|| "something panicked".to_owned());
                    eprintln!("{shown}: {problem}");
                    self.wrong.lock().unwrap().push(format!("{shown}: {problem}"));
                }
            }
        }
        self.busy.lock().unwrap().remove(&worker);
    }

    /// Prints and returns how often each outcome was.
    fn judged(self, name: &str, count: usize) -> BTreeMap<(String, String), usize> {
        let bytes: usize = self.files.iter().map(|(_, bytes)| bytes.len()).sum();
        let (tried, files) = (self.cases.len(), self.files.len());
        let outcomes = self.outcomes.into_inner().unwrap();
        let mut text = format!("{name}: {tried} of {count} cases on {files} files of {bytes} bytes:\n");
        for ((what, outcome), count) in &outcomes {
            text += &format!("  {count:6} {what}: {outcome}\n");
        }
        eprint!("{text}");
        let wrong = self.wrong.into_inner().unwrap();
        let shown = wrong[..wrong.len().min(20)].join("\n");
        assert!(wrong.is_empty(), "{} cases went wrong:\n{shown}", wrong.len());
        outcomes
    }
}

/// Tries the damage. Returns how often each outcome was.
fn tried(name: &str, looks: fn(usize) -> Looks) -> BTreeMap<(String, String), usize> {
    let (files, promises) = sound_store();
    let dir = tempfile::tempdir().unwrap();
    for at in 0..2 {
        let outcome = try_one(&files, &promises, dir.path(), looks(at));
        assert_eq!(outcome, Ok(Outcome::Sound), "without any damage");
    }
    let all = all_cases(&files);
    let count = all.len();
    let trial = Trial {
        files,
        promises,
        looks,
        cases: chosen(all),
        next: AtomicUsize::new(0),
        outcomes: Mutex::default(),
        wrong: Mutex::default(),
        busy: Busy::default(),
    };
    watch(&trial.busy);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let trial = &trial;
            scope.spawn(move || trial.work(worker));
        }
    });
    trial.judged(name, count)
}

#[test]
fn whatever_bit_is_flipped_or_file_is_cut_the_start_is_sound_or_says_what_is_wrong() {
    tried("looked at by the start", |_| Looks::AtOnce);
}

/// By turns a thread beside the batches looks first, and whoever needs the state.
#[test]
fn damage_that_only_comes_to_light_behind_the_start_ends_the_job_and_the_next_start_walks_back_or_refuses() {
    let looks = |at: usize| if at.is_multiple_of(2) { Looks::Beside } else { Looks::WhenNeeded };
    let outcomes = tried("looked at behind the start", looks);
    let late: usize = outcomes
        .iter()
        .filter(|((_, outcome), _)| outcome.starts_with("Ended"))
        .map(|(_, count)| count)
        .sum();
    assert!(late > 0, "no damage was found behind a start");
}
