//! A sound store whose files are patched, cut, replaced and removed as the input says, then read as a start does.
//!
//! The input is a list of changes: a file, what to do with it, a place, and up to 255 bytes. What comes out is the
//! store's content or a typed error.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use millpond::{ManualClock, Result, StopMode, StreamingContext};

/// The files of a store, by their paths in it.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// Two checkpoints, blocks and plans after them, and one block that waits.
fn sound_store() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().join("store");
        run_job(&root).expect("the job runs");
        let mut files = Files::new();
        collect(&root, &root, &mut files);
        files.sort();
        files
    })
}

fn run_job(root: &Path) -> Result<()> {
    let clock = ManualClock::at(0);
    let builder = StreamingContext::builder("fuzz").store(root).clock(clock.clone()).threads(1).partitions(2);
    let context = builder.checkpoint_every_batches(2).stop_on_signals(false).build()?;
    let (keys, queue) = context.queue_stream::<String>("keys");
    let _totals = keys.map(|key| (key, 1u64)).update_state_by_key("totals", |new, total: Option<u64>| {
        let total = total.unwrap_or(0) + new.len() as u64;
        (total % 3 > 0).then_some(total)
    });
    let job = context.start()?;
    for batch in 1..=5 {
        queue.push((0..9 * batch).map(|key| format!("key {}", key % 40)))?;
        clock.advance(1_000);
        while job.progress().batches < batch {
            job.await_termination_or_timeout(Duration::from_millis(1))?;
        }
    }
    queue.push(["waits".to_owned()])?;
    job.stop(StopMode::Now)
}

fn collect(root: &Path, dir: &Path, files: &mut Files) {
    for entry in std::fs::read_dir(dir).expect("the store is readable") {
        let path = entry.expect("the store is readable").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(inner) = path.strip_prefix(root) {
            files.push((inner.to_owned(), std::fs::read(&path).expect("the store is readable")));
        }
    }
}

/// Applies one change from the front of `input`; returns what is left, `None` at the end.
fn change<'a>(files: &mut Files, input: &'a [u8]) -> Option<&'a [u8]> {
    let ([file, what, low, high, length], rest) = input.split_first_chunk::<5>()?;
    let (patch, rest) = rest.split_at(rest.len().min(usize::from(*length)));
    let count = files.len();
    let bytes = &mut files[usize::from(*file) % count].1;
    let place = usize::from(u16::from_le_bytes([*low, *high]));
    let at = place.min(bytes.len());
    let from_end = bytes.len() - at;
    match what % 6 {
        0 => overwrite(bytes, at, patch),
        1 => overwrite(bytes, from_end, patch),
        2 => bytes.truncate(at),
        3 => *bytes = patch.to_vec(),
        4 => bytes.splice(at..at, patch.iter().copied()).for_each(drop),
        _ => bytes.truncate(from_end),
    }
    if what & 0x80 != 0 {
        millpond::fuzzing::reseal(bytes);
    }
    Some(rest)
}

fn overwrite(bytes: &mut [u8], at: usize, patch: &[u8]) {
    let end = bytes.len().min(at + patch.len());
    bytes[at..end].copy_from_slice(&patch[..end - at]);
}

/// sled panics on damage, which is caught and reported as damage; any other panic is a finding.
fn abort_on_our_panics() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some("millpond-catalog") {
            report(panic);
        }
    }));
    sound_store();
}

fuzz_target!(init: abort_on_our_panics(), |input: &[u8]| {
    let mut files = sound_store().clone();
    let mut rest = input;
    while let Some(left) = change(&mut files, rest) {
        rest = left;
    }
    if rest.len() == input.len() && !input.is_empty() {
        return;
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    for (path, bytes) in &files {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(dir.path())).expect("a directory");
        std::fs::write(&path, bytes).expect("a file");
    }
    let read = millpond::fuzzing::read_store(dir.path());
    assert!(!input.is_empty() || read.is_ok(), "the sound store is read: {read:?}");
});
