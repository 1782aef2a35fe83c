//! What this process has used, from `/proc`.

use std::fs::read_to_string;
use std::io::{Error, Result};

/// How `/proc` counts CPU time on every architecture that Linux runs Rust on.
const TICKS_PER_SECOND: f64 = 100.0;

/// CPU time and memory.
pub struct Usage {
    /// In user and kernel mode, of all threads.
    pub cpu_seconds: f64,
    /// The most memory that was resident at any time.
    pub peak_rss_bytes: u64,
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

    let status = read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kibibytes: Option<u64> = peak.and_then(|peak| peak.trim().strip_suffix(" kB")?.parse().ok());
    let kibibytes = kibibytes.ok_or_else(|| Error::other("/proc/self/status has no VmHWM"))?;
    Ok(Usage { cpu_seconds: ticks as f64 / TICKS_PER_SECOND, peak_rss_bytes: kibibytes << 10 })
}
