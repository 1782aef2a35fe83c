//! `millpond why`: from a key back to the batches, blocks and records that touched it, on stores of real jobs.
#![cfg(feature = "tool")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/tool.rs"]
mod tool;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use millpond::{Key, ManualClock, Queue, RunningContext, StopMode, StreamingContext};
use serde_json::{Value, json};
use tool::{copy_dir, millpond, report};

type Sale = (String, u64);

/// A key whose encoding is the job's own.
#[derive(Clone)]
struct Region(u8);

impl Key for Region {
    fn key_type() -> String {
        "shop::Region".to_owned()
    }

    fn encode_key(&self, out: &mut Vec<u8>) {
        out.push(self.0);
    }

    fn decode_key(bytes: &[u8]) -> Option<Self> {
        (bytes.len() == 1).then(|| Region(bytes[0]))
    }
}

struct Job {
    running: RunningContext,
    queue: Queue<Sale>,
    idle: Queue<u32>,
    clock: Arc<ManualClock>,
}

impl Job {
    /// A name that was sold 100 is forgotten.
    fn start(store: &Path) -> Job {
        let clock = ManualClock::at(0);
        let context = StreamingContext::builder("sales")
            .store(store)
            .clock(clock.clone())
            .checkpoint_every_batches(2)
            .checkpoints_retained(9)
            .threads(2)
            .stop_on_signals(false)
            .build()
            .unwrap();
        let (sales, queue) = context.queue_stream::<Sale>("sales");
        let (others, idle) = context.queue_stream::<u32>("others");
        let add = |new: &[u64], total: Option<u64>| {
            Some(total.unwrap_or(0) + new.iter().sum::<u64>()).filter(|total| *total < 100)
        };
        let _ = sales.update_state_by_key("totals", add);
        let _ = sales.map(|(name, n)| (Region(name.len() as u8), n)).update_state_by_key("regions", add);
        let _ = sales.map(|(_, n)| (n as u32, 0u64)).update_state_by_key("amounts", add);
        let _ = others.map(|n| (n, 1u64)).update_state_by_key("of others", add);
        Job { running: context.start().unwrap(), queue, idle, clock }
    }

    fn batch(&self, sales: &[(&str, u64)]) {
        let before = self.running.progress().batches;
        self.queue.push(sales.iter().map(|(name, n)| ((*name).to_owned(), *n))).unwrap();
        self.idle.push([7, 7]).unwrap();
        self.clock.advance(1_000);
        while self.running.progress().batches == before
            || self.running.progress().checkpoints < before.div_ceil(2)
        {
            assert!(!self.running.await_termination_or_timeout(Duration::from_millis(2)).unwrap());
        }
    }
}

/// Seven batches with a checkpoint after each second one.
fn killed_store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let job = Job::start(&dir.path().join("running"));
    job.batch(&[("ada", 1), ("bob", 2)]);
    job.batch(&[("cy", 3)]);
    job.batch(&[("bob", 20), ("adam", 1)]);
    job.batch(&[("cy", 0)]);
    job.batch(&[("bob", 90), ("cy", 1)]);
    job.batch(&[("dora", 5)]);
    job.batch(&[("ada", 4)]);
    let store = dir.path().join("store");
    copy_dir(&dir.path().join("running"), &store);
    job.running.stop(StopMode::Now).unwrap();
    (dir, store)
}

fn refused(store: &Path, args: &[&str], why: &str) {
    let outcome = millpond("why", store, args);
    assert_eq!((outcome.code, outcome.text()), (2, ""), "{args:?}: {}", outcome.err);
    assert!(outcome.err.contains(why), "{args:?}: {}", outcome.err);
}

/// What of a change is known: how, from which checkpoint, to which, its batches.
fn spans(found: &Value) -> Vec<Value> {
    let changes = found["changes"].as_array().unwrap().iter();
    changes.map(|c| json!([c["change"], c["from"], c["to"], c["first_batch"], c["last_batch"]])).collect()
}

/// The records of a change that mention the key: block, place, contents.
fn mentions(change: &Value) -> Vec<Value> {
    let inputs = change["batches"].as_array().unwrap().iter().flat_map(|b| b["inputs"].as_array().unwrap());
    let blocks = inputs.flat_map(|input| input["blocks"].as_array().unwrap());
    let found = blocks.flat_map(|block| block["first"].as_array().unwrap());
    found.map(|record| json!([record["record"], record["value"]])).collect()
}

#[test]
fn a_key_is_followed_through_checkpoints_batches_and_records() {
    let (_dir, store) = killed_store();
    let bob = report("why", &store, &["totals", "bob"]);
    assert_eq!(
        (&bob["key"], &bob["key_hex"], &bob["key_type"]),
        (&"bob".into(), &"626f62".into(), &"utf8".into())
    );
    let values: Vec<&Value> = bob["checkpoints"].as_array().unwrap().iter().map(|c| &c["value"]).collect();
    assert_eq!(values, [&json!(2), &json!(22), &Value::Null]);
    assert_eq!(
        spans(&bob),
        [
            json!(["written", null, 1, 1, 2]),
            json!(["changed", 1, 2, 3, 4]),
            json!(["removed", 2, 3, 5, 6]),
            json!(["unknown", 3, null, 7, 7])
        ]
    );
    let expected =
        [json!([[2, ["bob", 2]]]), json!([[1, ["bob", 20]]]), json!([[1, ["bob", 90]]]), json!([])];
    let found: Vec<Value> = bob["changes"].as_array().unwrap().iter().map(|c| json!(mentions(c))).collect();
    assert_eq!(found, expected);
    // The other stream has no part in it.
    let names = |found: &Value| {
        let batches = found["changes"][0]["batches"].as_array().unwrap().iter();
        let inputs = batches.flat_map(|batch| batch["inputs"].as_array().unwrap());
        inputs.map(|input| input["name"].clone()).collect::<Vec<_>>()
    };
    assert!(!names(&bob).is_empty() && names(&bob).iter().all(|name| name == "sales"));
    let seven = report("why", &store, &["of others", "7"]);
    assert!(!names(&seven).is_empty() && names(&seven).iter().all(|name| name == "others"));
    let limited = report("why", &store, &["of others", "7", "--limit", "1"]);
    assert_eq!((mentions(&seven["changes"][0]).len(), mentions(&limited["changes"][0]).len()), (4, 2));
    assert_eq!(limited["changes"][0]["batches"][0]["inputs"][0]["blocks"][0]["mentions"], 2);
}

#[test]
fn a_key_that_is_written_or_left_alone_is_told_apart() {
    let (_dir, store) = killed_store();
    // `cy` came to 3 in batch 2, had a new value that is the same in batch 4, and changed in batch 5.
    let cy = report("why", &store, &["totals", "cy"]);
    let kinds: Vec<Value> = spans(&cy).into_iter().map(|span| span[0].clone()).collect();
    assert_eq!(kinds, ["written", "unknown", "changed", "unknown"]);
    // `ada` is in no batch of checkpoints 2 and 3, and `adam` is another name.
    let ada = report("why", &store, &["totals", "ada"]);
    assert_eq!(spans(&ada), [json!(["written", null, 1, 1, 2]), json!(["unknown", 3, null, 7, 7])]);
    assert_eq!(mentions(&ada["changes"][1]), [json!([1, ["ada", 4]])]);
    // Keys of the job's own type are named by their bytes, and nothing can mention them.
    let regions = report("why", &store, &["regions", "0x04"]);
    assert_eq!((&regions["key"], &spans(&regions)[0]), (&Value::Null, &json!(["added", 1, 2, 3, 4])));
    assert_eq!(regions["changes"][0]["batches"][0]["inputs"][0]["blocks"][0]["mentions"], Value::Null);
    let amounts = report("why", &store, &["amounts", "90"]);
    assert_eq!(mentions(&amounts["changes"][0]), [json!([1, ["bob", 90]])]);
}

#[test]
fn it_is_shown_as_a_page() {
    let (_dir, store) = killed_store();
    let page = millpond("why", &store, &["totals", "bob"]);
    assert_eq!(page.code, 0);
    let parts = [
        "\"bob\", of type utf8",
        "base in 2.segment, by checkpoint 2",
        "changed in batches 3 to 4",
        "removed in batches 5 to 6",
        "in no checkpoint yet, perhaps written in batch 7",
        "[\"bob\",90]",
    ];
    for part in parts {
        assert!(page.text().contains(part), "{part} is not in\n{}", page.text());
    }
}

#[test]
fn what_is_not_there_or_cannot_be_named_is_refused() {
    let (dir, store) = killed_store();
    refused(&store, &["totals", "zoe"], "no retained checkpoint has a key `zoe` in `totals`");
    refused(&store, &["sums", "bob"], "there is no operator `sums` in checkpoint 3: it has totals");
    refused(
        &store,
        &["regions", "north"],
        "keys of type `shop::Region` are the job's own: give the bytes as 0x",
    );
    refused(&store, &["amounts", "many"], "`many` is no key of type u32");
    refused(&store, &["totals"], "required");
    refused(&dir.path().join("absent"), &["totals", "bob"], "does not exist");
}

#[test]
fn damage_is_reported_and_does_not_hide_the_rest() {
    let (_dir, store) = killed_store();
    let segment = store.join("state/2.segment");
    let mut bytes = fs::read(&segment).unwrap();
    bytes[200] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let outcome = millpond("why", &store, &["totals", "bob", "--json"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let found: Value = serde_json::from_slice(&outcome.out).unwrap();
    assert_eq!(found["sound"], false);
    // Checkpoints 2 and 3 need the segment; what is left is what the first one knows.
    assert_eq!(spans(&found), [json!(["written", null, 1, 1, 2]), json!(["unknown", 1, null, 3, 7])]);
    assert!(found["findings"][0]["place"].as_str().unwrap().contains("state/2.segment"));
    // A trimmed extent takes the records with it.
    let (_dir, store) = killed_store();
    fs::remove_file(store.join("log/1.extent")).unwrap();
    let outcome = millpond("why", &store, &["totals", "bob", "--json"]);
    let found: Value = serde_json::from_slice(&outcome.out).unwrap();
    assert!(outcome.code == 1 && mentions(&found["changes"][0]).is_empty(), "{outcome:?}");
    let block = &found["changes"][0]["batches"][0]["inputs"][0]["blocks"][0];
    assert!(block["unreadable"].is_string() && block["mentions"].is_null(), "{block}");
}
