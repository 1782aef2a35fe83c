//! What a job keeps says how it is laid out: the tool shows all of it without the job's code, and bytes of another
//! type are refused, whatever it is called.
#![cfg(all(feature = "tool", feature = "testkit"))]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/driven.rs"]
mod driven;
#[path = "support/tool.rs"]
mod tool;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use driven::{builder, tick};
use millpond::{
    ErrorKind, ManualClock, Queue, RunningContext, StateMatch, StateSpec, StopMode, StreamingContext,
};
use serde_json::{Value, json};
use tool::{report, snapshot};

#[millpond::data]
#[derive(Clone, Debug, PartialEq)]
enum Payment {
    Open,
    Card { number: String, cents: u64 },
    Parts(Vec<u32>),
}

#[millpond::data]
#[derive(Clone, Debug, PartialEq)]
struct Basket {
    items: BTreeMap<String, (u16, f64)>,
    payment: Payment,
    note: Option<Box<(String, char)>>,
    raw: Vec<u8>,
}

/// A type that contains itself needs its bounds left out.
mod tree {
    use millpond::rkyv;

    #[derive(
        Clone, Debug, PartialEq, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, millpond::Described,
    )]
    #[rkyv(crate = millpond::rkyv)]
    #[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source))]
    #[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
    #[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
    pub struct Tree {
        pub name: String,
        #[rkyv(omit_bounds)]
        pub children: Vec<Tree>,
    }
}

use tree::Tree;

/// The same name and width as another version of it, with other fields.
mod before {
    #[millpond::data]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Reading {
        pub celsius: f64,
        pub sensor: u64,
    }
}

mod after {
    #[millpond::data]
    #[derive(Clone, Debug, PartialEq)]
    pub struct Reading {
        pub sensor: u64,
        pub celsius: f64,
    }
}

fn value_of(store: &Path, operator: &str, key: &str) -> Value {
    report("state", store, &[operator, "--key", key])["entries"][0]["value"].clone()
}

#[test]
fn the_tool_shows_types_of_the_job() {
    let dir = tempfile::tempdir().unwrap();
    let clock = ManualClock::at(0);
    let context = builder(dir.path(), &clock).checkpoint_every_batches(1).build().unwrap();
    let (stream, queue): (_, Queue<(u64, Basket)>) = context.queue_stream("baskets");
    let last =
        stream.update_state_by_key("last", |new: &[Basket], old: Option<Basket>| new.last().cloned().or(old));
    last.print(1);
    stream
        .map(|(key, basket)| (key, Tree { name: format!("{:?}", basket.payment), children: vec![] }))
        .reduce_by_key(|a, b| Tree { name: "both".to_owned(), children: vec![a, b] })
        .update_state_by_key(StateSpec::named("trees").time_to_live(Duration::from_secs(60)), |new, old| {
            new.first().cloned().or(old)
        })
        .print(1);
    stream.window("recent", Duration::from_secs(3), Duration::from_secs(1)).print(1);
    let job = context.start().unwrap();
    let payment = Payment::Card { number: "1234 5678 9012".to_owned(), cents: 1 << 40 };
    let inner = Basket { items: BTreeMap::new(), payment: Payment::Open, note: None, raw: vec![255] };
    let items =
        BTreeMap::from([("apple".to_owned(), (3, 0.5)), ("a pear from far away".to_owned(), (1, 2.0))]);
    let basket =
        Basket { items, payment, note: Some(Box::new(("for Ann".to_owned(), 'x'))), raw: b"text".to_vec() };
    let parts = Basket { payment: Payment::Parts(vec![1, 2]), ..inner };
    queue.push([(7, parts), (7, basket)]).unwrap();
    tick(&job, &clock);
    job.stop(StopMode::Graceful).unwrap();
    let store = dir.path().join("store");
    assert_eq!(
        value_of(&store, "last", "7"),
        json!({
            "items": {"apple": [3, 0.5], "a pear from far away": [1, 2.0]},
            "payment": {"Card": {"number": "1234 5678 9012", "cents": 1u64 << 40}},
            "note": ["for Ann", "x"],
            "raw": "text",
        })
    );
    let tree = &value_of(&store, "trees", "7")["state"];
    assert_eq!((&tree["name"], &tree["children"][0]["name"]), (&json!("both"), &json!("Parts([1, 2])")));
    let recent = report("state", &store, &["recent"]);
    let record = &recent["entries"][0]["value"][0];
    assert_eq!((&record[0], &record[1]["payment"]), (&json!(7), &json!({"Parts": [1, 2]})), "{recent}");
    let block = report("block", &store, &["1"]);
    assert_eq!(block["first"][1]["value"][1]["raw"], "text", "{block}");
}

fn reading_job<R: millpond::Data>(
    dir: &Path,
    clock: &std::sync::Arc<ManualClock>,
) -> (StreamingContext, Queue<R>) {
    let context = builder(dir, clock).checkpoint_every_batches(1).build().unwrap();
    let (stream, queue) = context.queue_stream::<R>("readings");
    let keyed = stream.map(|reading| (1u8, reading));
    keyed.update_state_by_key("last", |new: &[R], old| new.last().cloned().or(old)).count().print(1);
    (context, queue)
}

fn stopped(job: RunningContext) {
    job.stop(StopMode::Now).unwrap();
}

#[test]
fn state_of_other_fields_is_refused() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(0));
    let (context, queue) = reading_job::<before::Reading>(dir.path(), &clock);
    let job = context.start().unwrap();
    queue.push([before::Reading { celsius: 1.5, sensor: 7 }]).unwrap();
    tick(&job, &clock);
    job.stop(StopMode::Graceful).unwrap();
    let (context, _queue) = reading_job::<after::Reading>(dir.path(), &clock);
    let refused = context.start().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Incompatible);
    assert!(refused.to_string().contains("fields"), "{refused}");
    let (context, _queue) = reading_job::<before::Reading>(dir.path(), &clock);
    stopped(context.start().unwrap());
}

/// Told apart by their fields alone.
#[test]
fn a_type_migrates_to_one_of_its_name_and_width() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(0));
    let (context, queue) = reading_job::<before::Reading>(dir.path(), &clock);
    let job = context.start().unwrap();
    queue.push([before::Reading { celsius: 1.5, sensor: 7 }]).unwrap();
    job.stop(StopMode::Graceful).unwrap();
    for round in 0..2 {
        let context = builder(dir.path(), &clock).build().unwrap();
        let (stream, _queue) = context.queue_stream::<after::Reading>("readings");
        let migrate = |old: before::Reading| after::Reading { sensor: old.sensor, celsius: old.celsius };
        let spec = StateSpec::named("last").migrate_from(migrate);
        let keyed = stream.map(|reading| (1u8, reading));
        keyed.update_state_by_key(spec, |new: &[after::Reading], old| new.last().cloned().or(old)).print(1);
        let job = context.start().unwrap();
        assert_eq!(job.recovery().operators["last"] == StateMatch::Matched, round == 1);
        let last = job.state::<u8, after::Reading>("last").unwrap().get(&1).unwrap();
        assert_eq!(last, Some(after::Reading { sensor: 7, celsius: 1.5 }));
        tick(&job, &clock);
        job.stop(StopMode::Graceful).unwrap();
    }
    assert_eq!(value_of(&dir.path().join("store"), "last", "1"), json!({"sensor": 7, "celsius": 1.5}));
}

#[test]
fn blocks_of_another_type_are_refused() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::at(0));
    let (context, queue) = reading_job::<before::Reading>(dir.path(), &clock);
    let job = context.start().unwrap();
    // In a block, and in no batch yet.
    queue.push([before::Reading { celsius: 1.5, sensor: 7 }]).unwrap();
    stopped(job);
    let (context, _queue) = reading_job::<after::Reading>(dir.path(), &clock);
    let before = snapshot(dir.path());
    let refused = context.start().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Incompatible);
    assert!(refused.to_string().contains("another type"), "{refused}");
    assert!(before == snapshot(dir.path()), "a start that is refused changes nothing");
    let (context, _queue) = reading_job::<before::Reading>(dir.path(), &clock);
    let job = context.start().unwrap();
    tick(&job, &clock);
    let last = job.state::<u8, before::Reading>("last").unwrap().get(&1).unwrap();
    assert_eq!(last, Some(before::Reading { celsius: 1.5, sensor: 7 }));
    stopped(job);
}
