//! What a process takes of its machine, as Linux says it.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// What must follow live data.
#[derive(Clone, Copy, Debug, Default)]
pub struct Footprint {
    /// Of all files of the store.
    pub disk_bytes: u64,
    pub store_files: u64,
    /// Resident memory.
    pub memory_bytes: u64,
    pub open_files: u64,
    pub threads: u64,
    /// What the last start read.
    pub restart_bytes: u64,
}

impl Footprint {
    /// What this process takes now, with the store in `store`.
    pub fn now(store: &Path, restart_bytes: u64) -> io::Result<Self> {
        let mut footprint = Footprint { restart_bytes, ..Footprint::default() };
        footprint.add_files(store)?;
        let status = fs::read_to_string("/proc/self/status")?;
        footprint.memory_bytes = field(&status, "VmRSS:")? * 1024;
        footprint.threads = field(&status, "Threads:")?;
        footprint.open_files = fs::read_dir("/proc/self/fd")?.count() as u64;
        Ok(footprint)
    }

    fn add_files(&mut self, dir: &Path) -> io::Result<()> {
        let entries = match fs::read_dir(dir) {
            // Pruned while we look.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
                Ok(found) if found.is_dir() => self.add_files(&entry.path())?,
                Ok(found) => {
                    self.store_files += 1;
                    self.disk_bytes += found.len();
                }
            }
        }
        Ok(())
    }

    /// The largest of each.
    pub fn most(self, other: &Footprint) -> Self {
        Footprint {
            disk_bytes: self.disk_bytes.max(other.disk_bytes),
            store_files: self.store_files.max(other.store_files),
            memory_bytes: self.memory_bytes.max(other.memory_bytes),
            open_files: self.open_files.max(other.open_files),
            threads: self.threads.max(other.threads),
            restart_bytes: self.restart_bytes.max(other.restart_bytes),
        }
    }

    /// What has grown since `before` by more than what lies in the nature of it: the shape of checkpoints and of the
    /// allocator's heap.
    pub fn growth_since(&self, before: &Footprint) -> Vec<String> {
        let bounds = [
            ("bytes on the disk", self.disk_bytes, before.disk_bytes + before.disk_bytes / 4 + (256 << 10)),
            ("files in the store", self.store_files, before.store_files + 6),
            ("bytes of memory", self.memory_bytes, before.memory_bytes + before.memory_bytes / 4 + (8 << 20)),
            ("open files", self.open_files, before.open_files + 8),
            ("threads", self.threads, before.threads + 4),
            ("bytes read by a start", self.restart_bytes, before.restart_bytes * 3 / 2 + (256 << 10)),
        ];
        let grown = bounds.into_iter().filter(|(_, now, bound)| now > bound);
        grown.map(|(what, now, bound)| format!("{now} {what}, more than {bound}")).collect()
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kib = |bytes: u64| bytes >> 10;
        write!(
            f,
            "store {} KiB in {} files, memory {} KiB, {} open files, {} threads, the start read {} KiB",
            kib(self.disk_bytes),
            self.store_files,
            kib(self.memory_bytes),
            self.open_files,
            self.threads,
            kib(self.restart_bytes)
        )
    }
}

/// What this process has read until now.
pub fn bytes_read() -> io::Result<u64> {
    field(&fs::read_to_string("/proc/self/io")?, "rchar:")
}

/// A number of a file in `/proc`.
fn field(text: &str, name: &str) -> io::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|line| line.split_ascii_whitespace().next()?.parse().ok());
    number.ok_or_else(|| io::Error::other(format!("there is no {name} in /proc")))
}
