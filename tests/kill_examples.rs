//! Kills the examples that check their own result with SIGKILL, again and again, then lets them end: each has to say
//! that its result is right. `word_count` has its own test, in `tests/kill.rs`.
//!
//! Half of the kills come at a random time. The others come at a system call that changes the disk, the n-th that a
//! thread makes, and need `strace`; without it they come at a random time, too.
//!
//! `MILLPOND_KILL_ROUNDS` is how many kills each example gets; `MILLPOND_KILL_SEED` repeats the choices of an earlier run
//! (not its timing, which is the machine's).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, also in its helpers")]
#![allow(clippy::disallowed_methods, reason = "a process is killed in real time")]
#![cfg(target_os = "linux")]

#[path = "support/storm.rs"]
mod storm;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use storm::{Random, example, kill_group, rounds, wait, wait_for_group};

/// Each reads what it was given, compares with plain code, and exits with a status that says whether it is right.
const EXAMPLES: [&str; 6] =
    ["sessions", "stream_join", "top_k_window", "exactly_once_sqlite", "dead_letters", "stateful_totals"];

/// What changes the disk, or makes a change durable.
const CALLS: [&str; 8] = ["write", "pwrite64", "fdatasync", "fsync", "rename", "unlink", "mkdir", "openat"];

/// After so long a run that should end by itself counts as hung.
const HUNG: Duration = Duration::from_secs(120);

struct Storm {
    name: &'static str,
    path: PathBuf,
    dir: tempfile::TempDir,
    random: Random,
    has_strace: bool,
    /// Kills at a random time, at a system call, and runs that were not killed because they had ended.
    kills: [u64; 3],
    checked: u64,
}

impl Storm {
    fn new(name: &'static str, random: Random, has_strace: bool) -> Option<Self> {
        let path = example(name)?;
        let dir = tempfile::tempdir().unwrap();
        Some(Storm { name, path, dir, random, has_strace, kills: [0; 3], checked: 0 })
    }

    /// Starts the example in its directory, under `strace` if it is to die at a system call.
    fn start(&self, at: Option<(&str, u64)>) -> Child {
        let mut command = match at {
            None => Command::new(&self.path),
            Some((call, number)) => {
                let mut command = Command::new("strace");
                let inject = format!("inject={call}:signal=KILL:when={number}");
                command.args(["-f", "-qq", "-e", &format!("trace={call}"), "-e", &inject, "-o", "/dev/null"]);
                command.arg(&self.path);
                command
            }
        };
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let output = log.try_clone().unwrap();
        command.current_dir(self.dir.path()).process_group(0);
        command.stdin(Stdio::null()).stdout(output).stderr(log).spawn().unwrap()
    }

    /// One run that is killed, if it does not end before.
    fn kill_once(&mut self) {
        let at_call = self.has_strace && self.random.below(2) == 0;
        let call = CALLS[self.random.below(CALLS.len() as u64) as usize];
        // Most calls come a few times per batch.
        let most = 1 << self.random.below(8);
        let number = 1 + self.random.below(most);
        let mut child = self.start(at_call.then_some((call, number)));
        let patience = if at_call { Duration::from_millis(2_500) } else { self.random.time(1_100) };
        let ended = wait(&mut child, patience);
        let status = ended.unwrap_or_else(|| kill_group(&mut child));
        wait_for_group(child.id());
        match status.code() {
            // Killed, by us or by what was injected.
            None => self.kills[usize::from(ended.is_some())] += 1,
            Some(137) if at_call => self.kills[1] += 1,
            Some(0) => self.kills[2] += 1,
            Some(_) => panic!("{} failed: {status}; {}", self.name, self.story()),
        }
        if status.success() {
            self.begin_anew();
        }
    }

    /// Lets the example come to its end, which checks its result.
    fn finish(&mut self) {
        let mut child = self.start(None);
        let status: Option<ExitStatus> = wait(&mut child, HUNG);
        let status = status.unwrap_or_else(|| {
            kill_group(&mut child);
            panic!("{} hangs; {}", self.name, self.story());
        });
        assert!(status.success(), "{} failed: {status}; {}", self.name, self.story());
        self.begin_anew();
    }

    fn begin_anew(&mut self) {
        self.checked += 1;
        fs::remove_dir_all(self.dir.path().join("millpond-demo")).unwrap();
    }

    fn story(&self) -> String {
        storm::end_of(&self.dir.path().join("log"))
    }
}

fn has_strace(dir: &Path) -> bool {
    // Being there is not enough: it must be allowed, too.
    let inject = ["-qq", "-e", "trace=none", "-o"];
    let tried = Command::new("strace").args(inject).arg(dir.join("trace")).arg("true").status();
    tried.is_ok_and(|status| status.success())
}

#[test]
fn the_examples_come_to_the_right_result_whenever_they_are_killed() {
    const KILLS: u64 = 6;
    let mut random = Random::seeded("examples");
    let dir = tempfile::tempdir().unwrap();
    let has_strace = has_strace(dir.path());
    let kills = rounds().unwrap_or(KILLS);
    let storms: Vec<Storm> =
        EXAMPLES.into_iter().filter_map(|name| Storm::new(name, random.fork(), has_strace)).collect();
    assert!(storms.len() + 1 >= EXAMPLES.len(), "only `exactly_once_sqlite` may be missing");
    // They sleep most of the time.
    std::thread::scope(|scope| {
        for mut storm in storms {
            scope.spawn(move || {
                for kill in 1..=kills {
                    storm.kill_once();
                    // So that a result is checked now and then, and the next store is a new one.
                    if kill % KILLS == 0 {
                        storm.finish();
                    }
                }
                if !kills.is_multiple_of(KILLS) {
                    storm.finish();
                }
                let [by_time, by_call, ended] = storm.kills;
                eprintln!(
                    "{}: {by_time} kills at a random time, {by_call} at a system call, {ended} runs ended before; \
                     {} results checked",
                    storm.name, storm.checked
                );
                assert!(by_time + by_call > 0, "{} was never killed", storm.name);
            });
        }
    });
}
