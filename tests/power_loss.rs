//! Power loss: what a job did to its disk is recorded call by call, and at every moment of it the disk is put into
//! the states that a power cut may leave: what was not synced is missing, there in part, torn, or there while what
//! came before it is not. Each is opened by the real start and judged by what the job had told the world by then.
//!
//! `MILLPOND_POWER_STATES` is how many states each test tries (`all` for every one, pairs included), and
//! `MILLPOND_POWER_SEED` repeats the choices of an earlier run. Recording needs `strace`; without it the tests say so
//! and pass, or fail if `MILLPOND_NEEDS_STRACE` is set.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]
#![allow(clippy::disallowed_methods, reason = "a seed is drawn from the real time")]
#![cfg(all(feature = "testkit", target_os = "linux"))]

#[path = "power_loss/disk.rs"]
mod disk;
#[path = "power_loss/explore.rs"]
mod explore;
#[path = "power_loss/job.rs"]
mod job;
#[path = "support/lives.rs"]
mod lives;
#[path = "power_loss/states.rs"]
mod states;
#[path = "power_loss/trace.rs"]
mod trace;

use std::collections::BTreeSet;
use std::path::Path;

use disk::{Disk, Image, Rules};
use explore::{Exploration, Scene, seed};
use states::{Random, Recording, image_of, materialise};

/// What the recorded processes are told by: where, what, and how long.
const PROCESS: [&str; 4] =
    ["MILLPOND_POWER_STORE", "MILLPOND_POWER_TOLD", "MILLPOND_POWER_LIFE", "MILLPOND_POWER_ROUNDS"];

#[test]
#[ignore = "the process that is recorded: other tests start it"]
fn recorded_process() {
    let set = PROCESS.map(|name| std::env::var(name).ok());
    if let [Some(store), Some(told), Some(life), Some(rounds)] = set {
        job::live(Path::new(&store), Path::new(&told), life.parse().unwrap(), rounds.parse().unwrap());
    }
}

/// Records lives of the job, one process each, on a disk with `image` on it.
fn record(image: &Image, lives: &[(u32, u32)]) -> Recording {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().canonicalize().unwrap();
    let (root, told) = (dir.join("disk"), dir.join("told"));
    std::fs::create_dir_all(&root).unwrap();
    materialise(image, &root);
    let exe = std::env::current_exe().unwrap();
    let command = [exe.to_str().unwrap(), "--ignored", "--exact", "recorded_process", "--test-threads=1"];
    let mut calls = Vec::new();
    for (life, rounds) in lives {
        let values = [root.join("store"), told.clone(), life.to_string().into(), rounds.to_string().into()];
        let values = values.map(|value| value.to_str().unwrap().to_owned());
        let set: Vec<(&str, String)> = PROCESS.into_iter().zip(values).collect();
        trace::record(&dir.join("trace"), &command, &set, &mut calls);
    }
    let recording = Recording::new(&root, &told, calls);
    // The model is right about what it was shown.
    let (end, _) = recording.play(Disk::with(image, Rules::Posix), &|_, _| false, &mut |_| {});
    let (model, real) = (end.after(&vec![disk::Kept::Whole; end.pending.len()]), image_of(&root));
    let differ: Vec<_> =
        model.keys().chain(real.keys()).filter(|path| model.get(*path) != real.get(*path)).collect();
    assert!(differ.is_empty(), "the model has other bytes than the disk: {differ:?}");
    std::fs::remove_dir_all(dir).unwrap();
    recording
}

/// A new store and a process that dies in an output, one that is stopped with a block that waits, two that die
/// right after their start, and one that stops gracefully. Each with its number and the batches that it runs.
const LIVES: [(u32, u32); 5] = [(1, 5), (2, 4), (4, 0), (5, 0), (3, 3)];

#[test]
fn nothing_promised_is_lost_whenever_power_is() {
    if !trace::can_record() {
        return;
    }
    let recording = record(&Image::new(), &LIVES);
    for rules in [Rules::Posix, Rules::Journal] {
        let scene = Scene::new(&recording, Image::new(), Vec::new(), rules);
        let tally = Exploration::bounded(&scene, if rules == Rules::Posix { 400 } else { 120 }).run();
        tally.print(&format!("power loss, {rules:?}"));
        tally.assert_sound();
    }
}

#[test]
fn nothing_promised_is_lost_when_power_is_lost_in_a_recovery_too() {
    if !trace::can_record() {
        return;
    }
    let recording = record(&Image::new(), &LIVES);
    let scene = Scene::new(&recording, Image::new(), Vec::new(), Rules::Posix);
    let mut random = Random(seed() | 1);
    let rounds = explore::asked().map_or(3, |states| (states / 400).clamp(3, 60));
    for round in 0..rounds {
        let (image, told) = Exploration::bounded(&scene, usize::MAX).pick(&mut random);
        let again = record(&image, &[(7 + 3 * round as u32 % 9, 1)]);
        let scene = Scene::new(&again, image, told, Rules::Posix);
        let tally = Exploration::bounded(&scene, 60).run();
        tally.print(&format!("power loss in recovery {round}"));
        tally.assert_sound();
    }
}

/// What shows that these tests can fail: the model leaves out all syncs of one kind, and the promises must break. For
/// most it is enough that the disk loses all that was not synced. `MILLPOND_POWER_SYNCS=each` leaves out every single
/// sync instead, and tells which are noticed.
#[test]
fn a_sync_that_is_left_out_is_noticed() {
    if !trace::can_record() {
        return;
    }
    let recording = record(&Image::new(), &LIVES);
    let each = std::env::var("MILLPOND_POWER_SYNCS").is_ok_and(|asked| asked == "each");
    let (mut noticed, mut unnoticed) = (0, Vec::new());
    let mut leave_out = |name: String, ignores: Box<explore::Ignores>| {
        let mut scene = Scene::new(&recording, Image::new(), Vec::new(), Rules::Posix);
        scene.ignores = ignores;
        let mut tally = Exploration::of_all_lost(&scene).until_broken().run();
        if tally.is_sound() && !each {
            tally = Exploration::bounded(&scene, 600).until_broken().run();
        }
        eprintln!("{name} left out: {}", tally.verdict());
        if tally.is_sound() {
            unnoticed.push(name);
        } else {
            noticed += 1;
        }
    };
    let roles = recording.syncs();
    if each {
        for (number, role) in roles.into_iter().enumerate() {
            leave_out(format!("sync {number}, of {role},"), Box::new(move |_, at| at == number));
        }
        eprintln!("{noticed} noticed, {} not", unnoticed.len());
        return;
    }
    // sled alone reads `conf`, and it is asked only where a database is damaged.
    let kinds: BTreeSet<String> = roles.into_iter().filter(|role| !role.ends_with("/conf")).collect();
    for kind in kinds {
        let left_out = kind.clone();
        leave_out(kind, Box::new(move |role, _| role == left_out));
    }
    assert!(noticed > 10, "only {noticed} kinds of syncs: the recording is not what it should be");
    assert!(unnoticed.is_empty(), "left out and not noticed: {unnoticed:?}");
}
