use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use proptest::prelude::*;

use super::*;
use crate::record::{Data, DataBuffer, Nested, Schema, Text};

fn value_type<T: Data>() -> ValueType {
    ValueType::of("T", Schema::of::<T>().text()).unwrap()
}

/// Through the text of its JSON and back; the real type reads what was written.
fn round_trip<T: Data + Debug + PartialEq>(value: &T) {
    let mut buffer = DataBuffer::default();
    value.encode(&mut buffer).unwrap();
    let value_type = value_type::<T>();
    let shown = value_type.decode(buffer.as_bytes()).unwrap();
    let shown: Value = serde_json::from_str(&shown.to_string()).unwrap();
    let written = value_type.encode(&shown).unwrap();
    assert_eq!(&T::decode(&written, &mut buffer).unwrap(), value, "{shown}");
    assert_eq!(value_type.decode(&written).unwrap(), shown);
}

#[crate::data]
#[derive(Clone, Debug, PartialEq)]
struct Order {
    customer: String,
    items: BTreeMap<String, (u32, Option<String>)>,
    kind: Kind,
    at: std::time::Duration,
    wide: (u128, i8, f64),
    tags: BTreeSet<(i16, String)>,
    days: BTreeMap<u16, Vec<String>>,
    raw: (Vec<u8>, Text),
}

#[crate::data]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Plain,
    Gift(Name),
    Split { parts: [u8; 2], rest: Option<Box<Name>> },
    Two(u64, i8),
    Outcome(Result<u16, Vec<String>>),
}

#[crate::data]
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name(String);

#[crate::data]
#[derive(Clone, Debug, PartialEq)]
struct Empty;

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z]{0,10}", any::<String>(), "x{60,140}"]
}

fn kind() -> impl Strategy<Value = Kind> {
    let name = || text().prop_map(Name);
    prop_oneof![
        Just(Kind::Plain),
        name().prop_map(Kind::Gift),
        (any::<[u8; 2]>(), prop::option::of(name()))
            .prop_map(|(parts, rest)| Kind::Split { parts, rest: rest.map(Box::new) }),
        any::<(u64, i8)>().prop_map(|(a, b)| Kind::Two(a, b)),
        prop::collection::vec(text(), 0..4).prop_map(|all| Kind::Outcome(Err(all))),
        any::<u16>().prop_map(|one| Kind::Outcome(Ok(one))),
    ]
}

fn order() -> impl Strategy<Value = Order> {
    let float =
        prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL | prop::num::f64::INFINITE;
    let item = (any::<u32>(), prop::option::of(text()));
    let at =
        (any::<u64>(), 0u32..1_000_000_000).prop_map(|(secs, nanos)| std::time::Duration::new(secs, nanos));
    (
        (text(), prop::collection::btree_map(text(), item, 0..60), kind(), at),
        (any::<u128>(), any::<i8>(), float),
        prop::collection::btree_set((any::<i16>(), text()), 0..20),
        prop::collection::btree_map(any::<u16>(), prop::collection::vec(text(), 0..3), 0..40),
        (any::<Vec<u8>>(), any::<Vec<u8>>()),
    )
        .prop_map(|((customer, items, kind, at), wide, tags, days, (bytes, line))| Order {
            customer,
            items,
            kind,
            at,
            wide,
            tags,
            days,
            raw: (bytes, Text::from(&line[..])),
        })
}

proptest! {
    #![proptest_config(crate::cases::cases(200))]
    #[test]
    fn values_come_back_from_their_json(orders in prop::collection::vec(order(), 0..3), one in kind()) {
        round_trip(&orders);
        round_trip(&(one.clone(), Some(Box::new(one.clone()))));
        round_trip(&vec![(one, orders)]);
    }

    #[test]
    fn maps_of_any_size_come_back(
        map in prop::collection::btree_map(any::<u8>(), (any::<u64>(), any::<String>()), 0..300),
        set in prop::collection::btree_set(any::<i128>(), 0..100),
    ) {
        round_trip(&map);
        round_trip(&(1u8, set.clone(), map, 2u16));
        round_trip(&set.into_iter().map(|n| (n.to_string(), Nested((n as u32, n.to_string())))).collect::<BTreeMap<_, _>>());
    }

    #[test]
    fn plain_values_come_back(
        numbers in any::<(u8, i8, u16, i16, u32, i32, u64, i64)>(), wide in any::<(u128, i128, char, bool)>(),
        float in prop::num::f32::ANY.prop_filter("equal to itself", |float| !float.is_nan()),
        list in prop::collection::vec(any::<Option<(String, [u16; 3])>>(), 0..9),
    ) {
        round_trip(&numbers);
        round_trip(&wide);
        round_trip(&(float, Empty, ()));
        round_trip(&list);
    }

    /// Whatever JSON there is, it is refused or written as a value of the type.
    #[test]
    fn what_is_written_is_a_value_of_the_type(json in json()) {
        fn written<T: Data>(json: &Value) {
            if let Ok(bytes) = value_type::<T>().encode(json) {
                T::decode(&bytes, &mut DataBuffer::default()).unwrap();
            }
        }
        written::<Kind>(&json);
        written::<Order>(&json);
        written::<BTreeMap<String, Option<u8>>>(&json);
        written::<BTreeMap<u8, Vec<i8>>>(&json);
        written::<Vec<(String, Option<f32>)>>(&json);
        written::<(Option<char>, Vec<BTreeSet<bool>>)>(&json);
    }
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u8..4).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,12}|Plain".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("a|hex|Gift|Two|Split|Outcome|Ok|Err|parts|rest", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[test]
fn what_does_not_fit_is_named() {
    let wrong = |value_type: ValueType, json: &str, expected: &str| {
        let error = value_type.encode(&serde_json::from_str(json).unwrap()).unwrap_err();
        assert_eq!(error.kind(), crate::error::ErrorKind::InvalidConfig);
        assert_eq!(error.to_string(), expected);
    };
    wrong(value_type::<u8>(), "300", "expected a whole number of 8 bits without sign, found 300");
    wrong(value_type::<i8>(), "-129", "expected a whole number of 8 bits with sign, found -129");
    wrong(value_type::<u64>(), "1.5", "expected a whole number of 64 bits without sign, found 1.5");
    wrong(value_type::<f32>(), "1e300", "expected a number of 32 bits, found 1e+300");
    wrong(
        value_type::<Vec<(String, u8)>>(),
        r#"[["a",1],["b",-1]]"#,
        "at `[1][1]`: expected a whole number of 8 bits without sign, found -1",
    );
    wrong(
        value_type::<BTreeMap<String, Vec<bool>>>(),
        r#"{"x":[true,0]}"#,
        "at `[\"x\"][1]`: expected true or false, found 0",
    );
    wrong(value_type::<BTreeMap<u8, u8>>(), "[[1,2],[1,3]]", "the key 1 is there twice");
    wrong(
        value_type::<Kind>(),
        r#"{"Split":{"parts":[1]}}"#,
        "at `.Split.parts`: expected a list of 2, found [1]",
    );
    wrong(
        value_type::<Kind>(),
        r#"{"Split":{"parts":[1,2],"rset":null}}"#,
        "at `.Split`: expected no field `rset`, but parts, rest, found {\"parts\":[1,2],\"rset\":null}",
    );
    wrong(
        value_type::<Kind>(),
        r#"{"Split":{"parts":[1,2]}}"#,
        "at `.Split`: expected a field `rest`, found {\"parts\":[1,2]}",
    );
    wrong(
        value_type::<Kind>(),
        "\"Gift\"",
        r#"expected one of "Plain", {"Gift":..}, {"Split":..}, {"Two":..}, {"Outcome":..}, found "Gift""#,
    );
    wrong(
        value_type::<(Option<Option<u8>>,)>(),
        "[null]",
        "at `[0]`: null stands for two different values of this type, and is not written",
    );
    let opaque = ValueType::of("T", "list<opaque<4,4>>").unwrap();
    assert!(opaque.refusal().unwrap().contains("opaque"));
    assert!(opaque.encode(&serde_json::json!([1])).is_err());
    assert!(ValueType::of("chunk of u8", "chunk<u8>").unwrap().refusal().unwrap().contains("window"));
}

#[test]
fn timers_and_positions_come_back() {
    let timed = ValueType::of("u64 with timers", "u64").unwrap();
    for json in [
        r#"{"state":7,"timers":[]}"#,
        r#"{"state":null,"timers":[{"timer":"event time","at_ms":5},{"timer":"time to live","at_ms":9}]}"#,
        r#"{"state":7,"timers":[{"timer":"processing time","at_ms":1}]}"#,
    ] {
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(timed.decode(&timed.encode(&value).unwrap()).unwrap(), value);
    }
    for json in ["7", r#"{"state":null,"timers":[]}"#, r#"{"state":7}"#, r#"{"state":-7,"timers":[]}"#] {
        assert!(timed.encode(&serde_json::from_str(json).unwrap()).is_err(), "{json}");
    }
    let position = ValueType::of("position", "position").unwrap();
    let value = serde_json::json!({"offset": 1, "size": 2, "stamp": 3});
    assert_eq!(position.decode(&position.encode(&value).unwrap()).unwrap(), value);
    assert!(position.encode(&serde_json::json!({"offset": 1, "size": 2})).is_err());
}

#[test]
fn types_within_themselves_come_back() {
    let tree = ValueType::of("Tree", "struct Tree<16,4>{name:string,below:list<#0>}").unwrap();
    let value = serde_json::json!({"name": "a long name of a tree", "below": [
        {"name": "b", "below": []}, {"name": "c", "below": [{"name": "a very long name", "below": []}]},
    ]});
    assert_eq!(tree.decode(&tree.encode(&value).unwrap()).unwrap(), value);
    let deep = (0..200).fold(
        serde_json::json!({"name": "x", "below": []}),
        |inner, _| serde_json::json!({"name": "x", "below": [inner]}),
    );
    assert!(tree.encode(&deep).unwrap_err().to_string().contains("less deep"));
}
