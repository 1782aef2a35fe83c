//! Every verb of the tool on the stores of `tests/fixtures`, changed as the input says. What is shown of the state of a
//! checkpoint is what it was, unless checksums were forged.
#![no_main]

#[path = "../support/mutations.rs"]
mod mutations;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use millpond::ErrorKind;
use millpond::inspect::{self, EntryReport, StateQuery};
use mutations::{Files, apply, collect, put_down};

type States = BTreeMap<(u64, String), Vec<EntryReport>>;

struct Fixture {
    files: Files,
    states: States,
}

fn fixtures() -> &'static [Fixture] {
    static FIXTURES: OnceLock<Vec<Fixture>> = OnceLock::new();
    FIXTURES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let versions =
            std::fs::read_dir(root).expect("the fixtures").map(|version| version.expect("a version").path());
        let versions = versions.collect::<std::collections::BTreeSet<_>>().into_iter();
        let jobs =
            versions.flat_map(|version| ["life", "upgrade"].map(|job| version.join(job).join("store")));
        jobs.map(|store| {
            let files = collect(&store);
            let mut states = States::new();
            look(&store, &mut |at, operator, entries| drop(states.insert((at, operator), entries)));
            assert!(states.len() > 4);
            Fixture { files, states }
        })
        .collect()
    })
}

/// Every verb; `state` is told the entries of each operator at each checkpoint that could be read.
fn look(dir: &Path, state: &mut dyn FnMut(u64, String, Vec<EntryReport>)) {
    let summary = sane(inspect::inspect(dir));
    sane(inspect::verify(dir));
    sane(inspect::growth(dir));
    sane(inspect::lineage(dir));
    for block in sane(inspect::blocks(dir, None)).iter().flat_map(|report| &report.blocks) {
        sane(inspect::block(dir, block.block));
        sane(inspect::block_bytes(dir, block.block));
    }
    for batch in sane(inspect::batches(dir, Some(3))).iter().flat_map(|report| &report.batches) {
        sane(inspect::batch(dir, batch.batch));
    }
    let listed = sane(inspect::checkpoints(dir));
    let numbers: Vec<u64> =
        listed.iter().flat_map(|report| &report.checkpoints).map(|one| one.checkpoint).collect();
    if let [first, .., last] = numbers[..] {
        sane(inspect::diff(dir, first, last, None, 3));
    }
    let mut names: Vec<String> =
        summary.iter().flat_map(|report| &report.operators).map(|operator| operator.name.clone()).collect();
    names.truncate(4);
    for number in numbers {
        sane(inspect::checkpoint(dir, number));
        for name in &names {
            let query = StateQuery { key: None, prefix: None, limit: 1_000, at: Some(number) };
            if let Some(report) = sane(inspect::state(dir, name, &query)) {
                state(number, name.clone(), report.entries);
            }
        }
    }
}

/// What is wrong with a store is told in one line, and in no other way than by what it is.
fn sane<T>(report: millpond::Result<T>) -> Option<T> {
    let error = match report {
        Ok(report) => return Some(report),
        Err(error) => error,
    };
    let kinds = [ErrorKind::Corrupt, ErrorKind::Incompatible, ErrorKind::InvalidConfig, ErrorKind::Io];
    assert!(kinds.contains(&error.kind()), "{error:?}");
    assert!(error.chain().len() < 10_000, "{error}");
    None
}

fuzz_target!(
    init: {
        mutations::abort_on_our_panics();
        fixtures();
    },
    |input: &[u8]| {
        let Some((which, input)) = input.split_first() else { return };
        let fixture = &fixtures()[usize::from(*which) % fixtures().len()];
        let mut files = fixture.files.clone();
        let changes = apply(&mut files, input);
        if changes.count == 0 {
            return;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        put_down(&files, dir.path());
        look(dir.path(), &mut |at, operator, entries| {
            let key = (at, operator);
            assert!(changes.resealed || fixture.states.get(&key) == Some(&entries), "{key:?} is another: {entries:?}");
        });
    }
);
