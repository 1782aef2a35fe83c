//! Every byte: each bit of a small store is flipped, and each of its files cut at each offset. The start must find
//! the store sound, or walk back and say so, or refuse with a typed error and leave it as it was; it never panics,
//! hangs, or goes on with another state.
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
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use job::{Life, Promises, Tell, Told};
use judge::{Files, Outcome, files_of, judge, put};
use millpond::StopMode;

/// A start that takes so long hangs.
const HUNG: Duration = Duration::from_secs(60);

/// So many of all cases run when nobody asks for another number.
const USUAL: usize = 1_600;

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

/// Panics of sled are caught where it is called; any other counts.
fn count_panics() -> Arc<AtomicUsize> {
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
}

/// What each worker is at, since when.
type Busy = Arc<Mutex<BTreeMap<usize, (Instant, String)>>>;

/// Ends the process, and says with what, when a worker hangs.
fn watch(busy: &Busy) {
    let busy = busy.clone();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            for (since, case) in busy.lock().unwrap().values() {
                if since.elapsed() > HUNG {
                    eprintln!("it hangs: {case}");
                    std::process::abort();
                }
            }
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

fn try_one(files: &Files, promises: &Promises, dir: &Path) -> Result<Outcome, String> {
    let store = dir.join("store");
    put(files, &store);
    let outcome = judge(&store, files, promises);
    std::fs::remove_dir_all(&store).unwrap();
    outcome
}

/// `epochs/3/db` is `epochs/N/db`.
fn kind_of(path: &str) -> String {
    path.chars().map(|c| if c.is_ascii_digit() { 'N' } else { c }).collect()
}

#[test]
fn whatever_bit_is_flipped_or_file_is_cut_the_start_is_sound_or_says_what_is_wrong() {
    let (files, promises) = sound_store();
    let panics = count_panics();
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(try_one(&files, &promises, dir.path()), Ok(Outcome::Sound), "without any damage");
    let all = all_cases(&files);
    let (bytes, count) = (files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>(), all.len());
    let cases = chosen(all);
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(BTreeMap::<(String, String), usize>::new());
    let wrong = Mutex::new(Vec::new());
    let busy = Busy::default();
    watch(&busy);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (files, promises, cases, next, outcomes) = (&files, &promises, &cases, &next, &outcomes);
            let (wrong, busy, panics) = (&wrong, &busy, &panics);
            scope.spawn(move || {
                let dir = tempfile::tempdir().unwrap();
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let path = &files[case.0].0;
                    let shown = format!("{path}: {:?}", case.1);
                    busy.lock().unwrap().insert(worker, (Instant::now(), shown.clone()));
                    let before = panics.load(Ordering::SeqCst);
                    let outcome = try_one(&damage(files, *case), promises, dir.path());
                    let what = if matches!(case.1, Damage::Cut { .. }) { "cut" } else { "flipped" };
                    let outcome = match outcome {
                        Ok(_) if panics.load(Ordering::SeqCst) > before => {
                            Err("something panicked".to_owned())
                        }
                        outcome => outcome,
                    };
                    match outcome {
                        Ok(outcome) => {
                            let row = (format!("{} {what}", kind_of(path)), format!("{outcome:?}"));
                            *outcomes.lock().unwrap().entry(row).or_default() += 1;
                        }
                        Err(problem) => wrong.lock().unwrap().push(format!("{shown}: {problem}")),
                    }
                }
                busy.lock().unwrap().remove(&worker);
            });
        }
    });
    eprintln!("{} of {count} cases on {} files of {bytes} bytes:", cases.len(), files.len());
    for ((what, outcome), count) in outcomes.into_inner().unwrap() {
        eprintln!("  {count:6} {what}: {outcome}");
    }
    let wrong = wrong.into_inner().unwrap();
    let shown = wrong[..wrong.len().min(20)].join("\n");
    assert!(wrong.is_empty(), "{} cases went wrong:\n{shown}", wrong.len());
}
