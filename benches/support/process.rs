//! What this process has used, from `/proc`.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::fs::read_to_string;
use std::io::{Error, Result};

/// How `/proc` counts CPU time on every architecture that Linux runs Rust on.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time, memory and writes.
pub struct Usage {
    /// In user and kernel mode, of all threads.
    pub cpu_seconds: f64,
    /// The most memory that was resident at any time.
    pub peak_rss_bytes: u64,
    /// The memory that is resident.
    pub rss_bytes: u64,
    /// What was written to files on a disk.
    pub written_bytes: u64,
    /// What was read from files, also from the system's cache.
    pub read_bytes: u64,
}

/// The usage up to now.
pub fn usage_of_this_process() -> Result<Usage> {
    let stat = read_to_string("/proc/self/stat")?;
    // The second field is the name in parentheses, which may hold anything; user and system time are the
    // 14th and the 15th.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Option<Vec<u64>> =
        after_name.split_whitespace().skip(11).take(2).map(|field| field.parse().ok()).collect();
    let ticks = ticks.filter(|ticks| ticks.len() == 2);
    let ticks: u64 = ticks.ok_or_else(|| Error::other("/proc/self/stat is not as expected"))?.iter().sum();
    Ok(Usage {
        cpu_seconds: ticks as f64 / TICKS_PER_SECOND,
        peak_rss_bytes: named_number("/proc/self/status", "VmHWM:")? << 10,
        rss_bytes: named_number("/proc/self/status", "VmRSS:")? << 10,
        written_bytes: named_number("/proc/self/io", "write_bytes:")?,
        read_bytes: named_number("/proc/self/io", "rchar:")?,
    })
}

/// The number in the line of a file that begins with `name`.
fn named_number(file: &str, name: &str) -> Result<u64> {
    let text = read_to_string(file)?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let number = rest.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok());
    number.ok_or_else(|| Error::other(format!("{file} has no {name}")))
}
