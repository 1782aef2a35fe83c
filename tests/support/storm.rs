//! Processes that are killed again and again.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(clippy::disallowed_methods, reason = "a process is killed in real time")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The choices of a test: xorshift64*.
pub struct Random(u64);

impl Random {
    pub fn seeded(test: &str) -> Self {
        let seed = match std::env::var("MILLPOND_KILL_SEED") {
            Ok(seed) => seed.parse().expect("MILLPOND_KILL_SEED is a number"),
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64 | 1,
        };
        eprintln!("{test}: MILLPOND_KILL_SEED={seed}");
        Random(seed.max(1))
    }

    /// One of its own for another thread.
    pub fn fork(&mut self) -> Self {
        Random(1 + self.below(u64::from(u32::MAX)))
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }

    pub fn time(&mut self, most_ms: u64) -> Duration {
        Duration::from_micros(self.below(most_ms * 1_000 + 1))
    }
}

/// How many kills were asked for.
pub fn rounds() -> Option<u64> {
    let asked = std::env::var("MILLPOND_KILL_ROUNDS").ok()?;
    Some(asked.parse().expect("MILLPOND_KILL_ROUNDS is a number"))
}

/// The example, where cargo puts it: beside the directory of this test. `None` when a feature that it needs is off.
pub fn example(name: &str) -> Option<PathBuf> {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(Path::parent).unwrap().join("examples").join(name);
    if path.is_file() {
        return Some(path);
    }
    assert!(
        name == "exactly_once_sqlite" && !cfg!(feature = "sqlite"),
        "{} is not there: `cargo test` builds it, `cargo test --test NAME` alone does not; run `cargo build --examples` \
         with the same features and profile first",
        path.display()
    );
    None
}

/// Waits for the end of a process, so long.
pub fn wait(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    const POLL: Duration = Duration::from_millis(5);
    let mut waited = Duration::ZERO;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        if waited >= patience {
            return None;
        }
        let pause = POLL.min(patience - waited);
        sleep(pause);
        waited += pause;
    }
}

/// SIGKILL for a process and those that it started, which are a group.
pub fn kill_group(child: &mut Child) -> ExitStatus {
    // It may have ended; its group has its number until it is waited for.
    let kill = format!("kill -KILL -{}", child.id());
    let _ = Command::new("sh").args(["-c", &kill]).status().unwrap();
    let status = child.wait().unwrap();
    wait_for_group(child.id());
    status
}

/// Waits until nothing of a group runs: what dies last may hold a lock on a store.
pub fn wait_for_group(group: u32) {
    let runs = |entry: std::fs::DirEntry| {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // After the name, which may have anything in it: state, parent, group.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        // Of a zombie other threads may still run, and they hold its files.
        let threads = || std::fs::read_dir(entry.path().join("task")).map_or(0, |tasks| tasks.count());
        let is_gone = || ["Z", "X"].contains(&fields[0]) && threads() <= 1;
        fields.get(2).is_some_and(|found| *found == group.to_string()) && !is_gone()
    };
    while std::fs::read_dir("/proc").unwrap().any(|entry| runs(entry.unwrap())) {
        sleep(Duration::from_millis(5));
    }
}

/// The end of a log, for a message.
pub fn end_of(log: &Path) -> String {
    let log = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let from = log.char_indices().rev().nth(4_000).map_or(0, |(at, _)| at);
    format!("the end of its log:\n{}", &log[from..])
}
