//! A sound store whose files are patched, cut, replaced and removed as the input says, then read as a start does.
//!
//! What comes out is the store's content or a typed error.
#![no_main]

#[path = "../support/mutations.rs"]
mod mutations;

use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use millpond::{ManualClock, Result, StopMode, StreamingContext};
use mutations::Files;

/// Two checkpoints, blocks and plans after them, and one block that waits.
fn sound_store() -> &'static Files {
    static FILES: OnceLock<Files> = OnceLock::new();
    FILES.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path().join("store");
        run_job(&root).expect("the job runs");
        mutations::collect(&root)
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

fuzz_target!(
    init: {
        mutations::abort_on_our_panics();
        sound_store();
    },
    |input: &[u8]| {
        let mut files = sound_store().clone();
        if mutations::apply(&mut files, input).count == 0 && !input.is_empty() {
            return;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        mutations::put_down(&files, dir.path());
        let read = millpond::fuzzing::read_store(dir.path());
        assert!(!input.is_empty() || read.is_ok(), "the sound store is read: {read:?}");
    }
);
