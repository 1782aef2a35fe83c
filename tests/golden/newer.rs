//! Stores of the next version of the format: every frame says so, and every checksum is right.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use millpond::{ErrorKind, FORMAT_VERSION};

use crate::jobs::{Job, KILLED_AFTER};
use crate::{Golden, second_reader, tool, tool_json};

const MAGIC: &[u8] = b"MLPD";
const HEADER_BYTES: usize = 24;

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize
}

/// Makes the frame that begins here one of the next version.
fn renew(frame: &mut [u8]) {
    frame[4..6].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    let end = HEADER_BYTES + u32_at(frame, 8);
    let mut crc = crc32fast::Hasher::new();
    [&frame[..12], &frame[16..end]].iter().for_each(|part| crc.update(part));
    frame[12..16].copy_from_slice(&crc.finalize().to_le_bytes());
}

/// Every frame of a file that is nothing but frames.
fn renew_frames(bytes: &mut [u8]) -> usize {
    let (mut at, mut frames) = (0, 0);
    while at + HEADER_BYTES <= bytes.len() {
        let end = at + HEADER_BYTES + u32_at(bytes, at + 8);
        renew(&mut bytes[at..end]);
        (at, frames) = (end, frames + 1);
    }
    frames
}

/// A number of the database's file and the place behind it, as the appendix of `checkpoint-format.md` has it.
fn number(bytes: &[u8], at: usize) -> (usize, usize) {
    let byte = |n: usize| usize::from(bytes[at + n]);
    match byte(0) {
        small @ 0..=240 => (small, at + 1),
        middle @ 241..=248 => (240 + 256 * (middle - 241) + byte(1), at + 2),
        249 => (2288 + 256 * byte(1) + byte(2), at + 3),
        large => ((1..=large - 247).rev().fold(0, |all, n| all << 8 | byte(n)), at + 1 + large - 247),
    }
}

/// The records in the messages of a database, each of which has a checksum of its own. Records in several parts are left
/// as they are.
fn renew_records(bytes: &mut [u8]) -> usize {
    let (mut at, mut frames) = (20, 0);
    while at + 5 < bytes.len() && bytes[at + 4] != 0 {
        let (length, after) = number(bytes, at + 5);
        let (_, after) = number(bytes, after);
        let (_, begin) = number(bytes, after);
        let (header, end) = (at + 4..begin, begin + length);
        let body = &mut bytes[begin..end];
        let begins: Vec<usize> =
            body.windows(4).enumerate().filter(|(_, four)| *four == MAGIC).map(|(at, _)| at).collect();
        for frame in begins {
            if frame + HEADER_BYTES + u32_at(body, frame + 8) <= body.len() {
                renew(&mut body[frame..]);
                frames += 1;
            }
        }
        let mut crc = crc32fast::Hasher::new();
        [&bytes[begin..end], &bytes[header]].iter().for_each(|part| crc.update(part));
        bytes[at..at + 4].copy_from_slice(&(!crc.finalize()).to_le_bytes());
        at = end;
    }
    frames
}

/// The files of a store that have frames, by what they are.
fn files(root: &Path) -> BTreeMap<&'static str, Vec<PathBuf>> {
    let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (path, (_, bytes)) in tool::snapshot(&root.join("store")) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let what = match (name, path.extension().and_then(|extension| extension.to_str())) {
            ("millpond.id", _) => "identity",
            ("db", _) => "database",
            ("witness", _) if path.parent().is_some_and(|dir| dir.ends_with("log")) => "witness of the log",
            ("witness", _) => "witness",
            (_, Some("extent")) => "extent",
            (_, Some("segment")) => "segment",
            _ => continue,
        };
        assert!(bytes.is_some());
        files.entry(what).or_default().push(path);
    }
    assert_eq!(files.len(), 6, "{files:?}");
    files
}

fn rewrite(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let frames = if path.ends_with("db") { renew_records(&mut bytes) } else { renew_frames(&mut bytes) };
    assert!(frames > 0, "{}", path.display());
    fs::write(path, bytes).unwrap();
}

fn is_refused(golden: &Golden, what: &str) {
    let before = tool::snapshot(&golden.root().join("store"));
    let outcome = tool_json(golden.root(), &["verify", "store"]);
    assert_eq!(outcome.code, 2, "{what}: {outcome:?}");
    assert!(outcome.err.contains("unsupported format version"), "{what}: {outcome:?}");
    assert_eq!(outcome.err.lines().count(), 1, "{outcome:?}");
    // The second reader does not look at the receive log.
    if !["extent", "witness of the log"].contains(&what) {
        second_reader::says_unsupported(golden.root());
    }
    let refused = Job::start(golden.root(), golden.describe, KILLED_AFTER, false).err();
    let refused = refused.unwrap_or_else(|| panic!("{what}: a start takes it"));
    assert_eq!(refused.kind(), ErrorKind::Incompatible, "{what}: {refused}");
    assert!(refused.chain().contains("unsupported format version"), "{what}: {refused}");
    let mut after = tool::snapshot(&golden.root().join("store"));
    let mut left = before;
    // A start may have made the file that it locks, and nothing else.
    for all in [&mut left, &mut after] {
        all.remove(&golden.root().join("store/lock"));
        all.remove(&golden.root().join("store"));
    }
    assert!(after == left, "{what}: a start that is refused changes nothing");
}

#[test]
fn a_store_of_the_next_version_is_unsupported_as_a_whole() {
    for golden in Golden::all() {
        files(golden.root()).values().flatten().for_each(|path| rewrite(path));
        is_refused(&golden, "all");
    }
}

#[test]
fn a_file_of_the_next_version_is_unsupported_not_damaged() {
    for what in ["identity", "database", "witness", "extent", "witness of the log", "segment"] {
        for golden in Golden::named("life") {
            rewrite(files(golden.root())[what].last().unwrap());
            is_refused(&golden, what);
        }
    }
}
