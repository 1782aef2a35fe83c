//! Reading back what `save_as_text_files` wrote.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// The lines of each batch under `PREFIX-TIME_MS.txt`, by its time in milliseconds.
pub fn read_batches(prefix: &Path) -> io::Result<BTreeMap<u64, Vec<String>>> {
    let name = prefix.file_name().unwrap_or_default().to_string_lossy();
    let mut batches = BTreeMap::new();
    for entry in fs::read_dir(prefix.parent().unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let found = entry.file_name().to_string_lossy().into_owned();
        let time = found.strip_prefix(&*name).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(".txt"));
        let Some(time) = time.and_then(|time| time.parse().ok()) else { continue };
        let mut parts: Vec<_> = fs::read_dir(entry.path())?.collect::<io::Result<_>>()?;
        parts.sort_by_key(|part| part.file_name());
        let mut lines = Vec::new();
        for part in parts.iter().filter(|part| part.file_name().to_string_lossy().starts_with("part-")) {
            lines.extend(fs::read_to_string(part.path())?.lines().map(str::to_owned));
        }
        batches.insert(time, lines);
    }
    Ok(batches)
}
