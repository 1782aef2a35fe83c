//! Stores in memory, changed as a fuzz input says, and put back on the disk.
//!
//! The input is a list of changes: a file, what to do with it, a place, and up to 255 bytes.

use std::path::{Path, PathBuf};

/// The files of a store, by their paths in it.
pub type Files = Vec<(PathBuf, Vec<u8>)>;

/// Where sled's messages begin.
const LOG_BEGINS: usize = 20;
const MAGIC: &[u8] = b"MLPD";

/// Adds the files below `dir`, in order.
pub fn collect(root: &Path) -> Files {
    let mut files = Files::new();
    collect_below(root, root, &mut files);
    files.sort();
    files
}

fn collect_below(root: &Path, dir: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(dir).expect("the store is readable") {
        let path = entry.expect("the store is readable").path();
        if path.is_dir() {
            collect_below(root, &path, files);
        } else if let Ok(inner) = path.strip_prefix(root) {
            files.push((inner.to_owned(), std::fs::read(&path).expect("the store is readable")));
        }
    }
}

pub fn put_down(files: &Files, root: &Path) {
    for (path, bytes) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(root)).expect("a directory");
        std::fs::write(&path, bytes).expect("a file");
    }
}

/// What an input did to a store.
#[derive(Clone, Copy, Default)]
pub struct Changes {
    pub count: usize,
    /// Checksums were made right again: what was changed is believed.
    pub resealed: bool,
}

pub fn apply(files: &mut Files, mut input: &[u8]) -> Changes {
    let mut changes = Changes::default();
    while let Some(rest) = change(files, input, &mut changes.resealed) {
        input = rest;
        changes.count += 1;
    }
    changes
}

/// Applies one change from the front of `input`; returns what is left, `None` at the end.
fn change<'a>(files: &mut Files, input: &'a [u8], resealed: &mut bool) -> Option<&'a [u8]> {
    let ([file, what, low, high, length], rest) = input.split_first_chunk::<5>()?;
    let (patch, rest) = rest.split_at(rest.len().min(usize::from(*length)));
    let count = files.len();
    let other = files[usize::from(*low) % count].1.clone();
    let (path, bytes) = &mut files[usize::from(*file) % count];
    let place = usize::from(u16::from_le_bytes([*low, *high]));
    let at = place.min(bytes.len());
    let from_end = bytes.len() - at;
    match what % 8 {
        0 | 7 => overwrite(bytes, at, patch),
        1 => overwrite(bytes, from_end, patch),
        2 => bytes.truncate(at),
        3 => *bytes = patch.to_vec(),
        4 => bytes.splice(at..at, patch.iter().copied()).for_each(drop),
        5 => *bytes = other,
        _ => bytes.truncate(from_end),
    }
    if what & 0x80 != 0 {
        *resealed = true;
        if path.ends_with("db") {
            reseal_database(bytes);
        } else {
            millpond::fuzzing::reseal(bytes);
        }
    }
    Some(rest)
}

fn overwrite(bytes: &mut [u8], at: usize, patch: &[u8]) {
    let end = bytes.len().min(at + patch.len());
    bytes[at..end].copy_from_slice(&patch[..end - at]);
}

/// A number of sled's and the place behind it.
fn number(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    let byte = |n: usize| bytes.get(at + n).map(|byte| usize::from(*byte));
    Some(match byte(0)? {
        small @ 0..=240 => (small, at + 1),
        middle @ 241..=248 => (240 + 256 * (middle - 241) + byte(1)?, at + 2),
        249 => (2288 + 256 * byte(1)? + byte(2)?, at + 3),
        large => {
            let digits = large - 247;
            let number =
                (1..=digits).rev().try_fold(0, |all: usize, n| Some(all.wrapping_shl(8) | byte(n)?))?;
            (number, at + 1 + digits)
        }
    })
}

/// Corrects the checksums of the records in a database that lie in one message, and those of the messages, from the first
/// on as far as they follow each other.
fn reseal_database(bytes: &mut [u8]) {
    let mut at = LOG_BEGINS;
    while bytes.get(at + 4).is_some_and(|kind| *kind != 0) {
        let Some((length, after)) = number(bytes, at + 5) else { return };
        let Some((_, after)) = number(bytes, after) else { return };
        let Some((_, begin)) = number(bytes, after) else { return };
        let Some(end) = begin.checked_add(length).filter(|end| *end <= bytes.len()) else { return };
        let body = &mut bytes[begin..end];
        let frames: Vec<usize> =
            body.windows(4).enumerate().filter(|(_, four)| *four == MAGIC).map(|(at, _)| at).collect();
        frames.into_iter().for_each(|frame| millpond::fuzzing::reseal(&mut body[frame..]));
        let mut crc = crc32fast::Hasher::new();
        crc.update(&bytes[begin..end]);
        crc.update(&bytes[at + 4..begin]);
        bytes[at..at + 4].copy_from_slice(&(!crc.finalize()).to_le_bytes());
        at = end;
    }
}

/// sled panics on damage, which is caught and reported as damage; any other panic is a finding.
pub fn abort_on_our_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some("millpond-catalog") {
            report(panic);
        }
    }));
}
