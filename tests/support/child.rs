//! A test that runs in a process of its own, so that it can be limited as a whole and its memory is its own.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Names the directory that a child works in; where it is not set, nobody asked for a child.
const VARIABLE: &str = "MILLPOND_TEST_CHILD";

/// Runs the ignored test `name` of this binary after `shell`, such as `umask 000` or `ulimit -n 40`.
pub fn run_child(name: &str, shell: &str, dir: &Path) -> Output {
    Command::new("sh")
        .args(["-c", &format!("{shell} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// As [`run_child`] for one that must come through.
pub fn run_child_through(name: &str, shell: &str, dir: &Path) -> String {
    let output = run_child(name, shell, dir);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{:?}: {out}\n{err}", output.status);
    out.into_owned()
}

/// The directory of this child; `None` in a process that is none.
pub fn child_dir() -> Option<PathBuf> {
    std::env::var_os(VARIABLE).map(PathBuf::from)
}

/// A figure of this process, such as `VmHWM`, the most memory that it ever had, in KiB.
pub fn status_kib(figure: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(figure)?.strip_prefix(':')).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// As [`run_child`], with mounts of its own, which `shell` makes; `None` where this user may not.
pub fn run_child_in_mounts(name: &str, shell: &str, dir: &Path) -> Option<String> {
    let may = Command::new("unshare").args(["-m", "sh", "-c", shell]).env(VARIABLE, dir).output();
    if !may.is_ok_and(|may| may.status.success()) {
        return None;
    }
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &format!("{shell} && exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env(VARIABLE, dir)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{told}");
    Some(told)
}
