//! Whether what is shown of an archive is what is in it: for types of many shapes, as jobs declare them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use rkyv::bytecheck::CheckBytes;
use serde_json::{Value, json};

use crate::format::shown::schema::Type;
use crate::format::shown::value::archive_json;
use crate::record::{Data, DataBuffer, Described, Schema};

/// The layout is that of the archive, and so are the fields.
fn shows<T: Data>(value: &T, align: usize, expected: Value) {
    let text = Schema::of::<T>();
    let parsed = Type::parse(text.text()).unwrap_or_else(|| panic!("no schema: {}", text.text()));
    assert_eq!((parsed.size, parsed.align), (T::archived_width(), align), "{}", text.text());
    let mut buffer = DataBuffer::default();
    value.encode(&mut buffer).unwrap();
    assert_eq!(archive_json(&parsed, buffer.as_bytes()), Some(expected), "{}", text.text());
}

#[crate::data]
#[derive(Clone)]
struct Pair<A, B> {
    a: A,
    b: B,
}

#[crate::data]
#[derive(Clone)]
struct Fixed<T: Clone, const N: usize>
where
    T: Ord,
{
    cells: [u16; N],
    rest: T,
}

#[crate::data]
#[derive(Clone)]
enum Either<L, R> {
    Left(L),
    Right { right: R, more: Vec<R> },
}

#[test]
fn generic_types() {
    shows(&Pair { a: 7u8, b: "text".to_owned() }, 4, json!({"a": 7, "b": "text"}));
    let deep = Pair {
        a: vec![Pair { a: 1u8, b: Some(2u64) }, Pair { a: 3, b: None }],
        b: Pair { a: 1u128, b: Pair { a: (), b: true } },
    };
    let b = json!({"a": 1, "b": {"a": null, "b": true}});
    shows(&deep, 16, json!({"a": [{"a": 1, "b": 2}, {"a": 3, "b": null}], "b": b}));
    shows(&Fixed { cells: [1, 2, 3], rest: 9u64 }, 8, json!({"cells": [1, 2, 3], "rest": 9}));
    shows(&Fixed::<_, 0> { cells: [], rest: 9u8 }, 2, json!({"cells": [], "rest": 9}));
    let right = Either::<u8, Either<u64, u16>>::Right { right: Either::Left(5), more: vec![] };
    shows(&right, 8, json!({"Right": {"right": {"Left": 5}, "more": []}}));
    shows(&Either::<u8, u32>::Left(5), 4, json!({"Left": 5}));
}

#[crate::data]
#[derive(Clone)]
struct Keywords {
    r#type: u8,
    r#match: u64,
    weite: u16,
}

#[crate::data]
#[derive(Clone)]
struct Nothing();

#[crate::data]
#[derive(Clone)]
struct One(u64);

#[crate::data]
#[derive(Clone)]
struct Three(u8, One, Nothing);

#[test]
fn names_and_tuple_structures() {
    let keywords = Keywords { r#type: 1, r#match: 2, weite: 3 };
    shows(&keywords, 8, json!({"type": 1, "match": 2, "weite": 3}));
    shows(&Three(1, One(2), Nothing()), 8, json!([1, 2, {}]));
    shows(&vec![Nothing(), Nothing()], 4, json!([{}, {}]));
    shows(&(Some(Nothing()), Some(()), Some([0u64; 0])), 8, json!([{}, null, []]));
    shows(&Some(Some(None::<u8>)), 1, json!(null));
    shows(&(1u8, 2u16, 3u8, 4u128, 5u8), 16, json!([1, 2, 3, 4, 5]));
    shows(&[(1u8, 2u32), (3, 4)], 4, json!([[1, 2], [3, 4]]));
}

#[crate::data]
#[derive(Clone)]
enum Wide {
    A,
    B(u8),
    C(u8, u16),
    D { wide: u128 },
    E(Duration, bool),
    F([u8; 33]),
}

#[crate::data]
#[derive(Clone)]
enum Numbered {
    Seven = 7,
    Eight,
    One = 1,
    Two,
}

#[crate::data]
#[derive(Clone)]
#[repr(u8)]
enum NumberedFields {
    Nine(u32) = 9,
    Zero { at: u64 } = 0,
}

#[test]
fn enums() {
    shows(&Wide::A, 16, json!("A"));
    shows(&Wide::B(1), 16, json!({"B": 1}));
    shows(&Wide::C(1, 2), 16, json!({"C": [1, 2]}));
    shows(&Wide::D { wide: 3 }, 16, json!({"D": {"wide": 3}}));
    shows(
        &Wide::E(Duration::from_millis(1_001), true),
        16,
        json!({"E": [{"secs": 1, "nanos": 1_000_000}, true]}),
    );
    shows(&Wide::F([9; 33]), 16, json!({"F": vec![9; 33]}));
    shows(&vec![Ok::<u64, u8>(1), Err(2)], 4, json!([{"Ok": 1}, {"Err": 2}]));
}

/// The archive has the numbers that the declaration gives.
#[test]
fn enums_with_numbers() {
    let all = vec![Numbered::Seven, Numbered::Eight, Numbered::One, Numbered::Two];
    shows(&all, 4, json!(["Seven", "Eight", "One", "Two"]));
    shows(&NumberedFields::Nine(5), 8, json!({"Nine": 5}));
    shows(&NumberedFields::Zero { at: 5 }, 8, json!({"Zero": {"at": 5}}));
    assert_eq!(Schema::of::<Numbered>().text(), "enum Numbered<1,1>{Seven=7{},Eight{},One=1{},Two{}}");
}

macro_rules! many {
    ($($first:ident)* : $($last:ident)*) => {
        #[crate::data]
        #[derive(Clone, Debug)]
        enum Many { $($first,)* $($last(u64),)* }
    };
}

many!(A0 A1 A2 A3 A4 A5 A6 A7 A8 A9 B0 B1 B2 B3 B4 B5 B6 B7 B8 B9 C0 C1 C2 C3 C4 C5 C6 C7 C8 C9
      D0 D1 D2 D3 D4 D5 D6 D7 D8 D9 E0 E1 E2 E3 E4 E5 E6 E7 E8 E9 F0 F1 F2 F3 F4 F5 F6 F7 F8 F9
      G0 G1 G2 G3 G4 G5 G6 G7 G8 G9 H0 H1 H2 H3 H4 H5 H6 H7 H8 H9 I0 I1 I2 I3 I4 I5 I6 I7 I8 I9
      J0 J1 J2 J3 J4 J5 J6 J7 J8 J9 K0 K1 K2 K3 K4 K5 K6 K7 K8 K9 L0 L1 L2 L3 L4 L5 L6 L7 L8 L9
      M0 M1 M2 M3 M4 M5 M6 M7 : N0 N1);

#[test]
fn an_enum_of_many_variants() {
    shows(&Many::A0, 8, json!("A0"));
    shows(&Many::M7, 8, json!("M7"));
    shows(&Many::N1(1 << 40), 8, json!({"N1": 1u64 << 40}));
}

#[crate::data]
#[derive(Clone)]
struct Wrapped {
    first: u8,
    #[rkyv(with = rkyv::with::AsBox)]
    boxed: u64,
    #[rkyv(with = rkyv::with::Niche)]
    niche: Option<Box<u8>>,
    #[rkyv(with = rkyv::with::AsVec)]
    #[allow(clippy::disallowed_types, reason = "that is what is to be wrapped")]
    map: std::collections::HashMap<u8, u8>,
    last: u16,
}

/// What is wrapped is bytes, and what is beside it is where it is.
#[test]
fn wrapped_fields() {
    let wrapped = Wrapped { first: 1, boxed: 2, niche: None, map: Default::default(), last: 3 };
    let schema = Type::parse(Schema::of::<Wrapped>().text()).unwrap();
    assert_eq!(schema.size, Wrapped::archived_width());
    let mut buffer = DataBuffer::default();
    wrapped.encode(&mut buffer).unwrap();
    let shown = archive_json(&schema, buffer.as_bytes()).unwrap();
    assert_eq!((&shown["first"], &shown["last"]), (&json!(1), &json!(3)));
    assert_eq!(shown["boxed"]["hex"].as_str().map(str::len), Some(8));
}

/// Types that contain themselves.
macro_rules! recursive {
    ($item:item) => {
        #[derive(Clone, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, crate::Described)]
        #[rkyv(serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source))]
        #[rkyv(deserialize_bounds(__D::Error: rkyv::rancor::Source))]
        #[rkyv(bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)))]
        $item
    };
}

recursive! {
    struct Node {
        name: String,
        #[rkyv(omit_bounds)]
        next: Result<Option<Box<Node>>, u64>,
        #[rkyv(omit_bounds)]
        weighed: Vec<(u8, Node)>,
        #[rkyv(omit_bounds)]
        named: BTreeMap<String, (u64, Option<Node>)>,
    }
}

recursive! {
    enum Term {
        Number(u64),
        Sum(#[rkyv(omit_bounds)] Box<Term>, #[rkyv(omit_bounds)] Box<Term>),
        Call { #[rkyv(omit_bounds)] arguments: Vec<[Term; 2]>, #[rkyv(omit_bounds)] of: Option<Box<Site>> },
    }
}

recursive! {
    struct Site {
        line: u32,
        #[rkyv(omit_bounds)]
        term: Result<Box<Term>, Box<Site>>,
    }
}

fn node(name: &str) -> Node {
    Node { name: name.to_owned(), next: Err(7), weighed: vec![], named: BTreeMap::new() }
}

#[test]
fn types_that_contain_themselves() {
    let leaf = |name: &str| json!({"name": name, "next": {"Err": 7}, "weighed": [], "named": {}});
    let mut root = node("root");
    root.next = Ok(Some(Box::new(node("next"))));
    root.weighed = vec![(1, node("one")), (2, node("two"))];
    root.named = (0..12).map(|n| (n.to_string(), (n, (n % 2 == 0).then(|| node("named"))))).collect();
    let named: BTreeMap<String, Value> = (0..12u64)
        .map(|n| (n.to_string(), json!([n, if n % 2 == 0 { leaf("named") } else { Value::Null }])))
        .collect();
    let expected = json!({
        "name": "root", "next": {"Ok": leaf("next")}, "weighed": [[1, leaf("one")], [2, leaf("two")]], "named": named,
    });
    shows(&root, 8, expected);
    let call = Term::Call {
        arguments: vec![[Term::Number(1), Term::Sum(Box::new(Term::Number(2)), Box::new(Term::Number(3)))]],
        of: Some(Box::new(Site {
            line: 4,
            term: Err(Box::new(Site { line: 5, term: Ok(Box::new(Term::Number(6))) })),
        })),
    };
    let arguments = json!([[{"Number": 1}, {"Sum": [{"Number": 2}, {"Number": 3}]}]]);
    let of = json!({"line": 4, "term": {"Err": {"line": 5, "term": {"Ok": {"Number": 6}}}}});
    shows(&call, 8, json!({"Call": {"arguments": arguments, "of": of}}));
}

#[test]
fn collections() {
    let deque: VecDeque<(u8, char)> = VecDeque::from([(1, 'x'), (2, 'y')]);
    shows(&deque, 4, json!([[1, "x"], [2, "y"]]));
    let wide: BTreeMap<u128, ()> = (0..7).map(|n| (n, ())).collect();
    shows(&wide, 4, (0..7).map(|n| json!([n, null])).collect());
    let small: BTreeMap<u8, Option<u64>> = (0..30).map(|n| (n, (n % 3 > 0).then_some(n.into()))).collect();
    shows(&small, 4, (0..30u8).map(|n| json!([n, (n % 3 > 0).then_some(n)])).collect());
    let bytes: BTreeSet<(u8, u8, u8)> = (0..40).map(|n| (n, 1, 2)).collect();
    shows(&bytes, 4, (0..40).map(|n| json!([n, 1, 2])).collect());
    let lists: BTreeMap<Vec<u16>, BTreeMap<bool, String>> =
        BTreeMap::from([(vec![1, 2], BTreeMap::from([(true, "yes, it is so".to_owned())]))]);
    shows(&lists, 4, json!([[[1, 2], [[true, "yes, it is so"]]]]));
}

/// Bounds that name the archive must not get in the way of the derive.
#[derive(Clone, rkyv::Archive, rkyv::Serialize, rkyv::Deserialize, crate::Described)]
#[rkyv(derive(Debug), compare(PartialEq))]
struct Bounded<T: rkyv::Archive>
where
    T::Archived:
        for<'a> CheckBytes<rkyv::api::high::HighValidator<'a, rkyv::rancor::Error>> + std::fmt::Debug,
{
    value: T,
    #[millpond(opaque)]
    secret: u64,
}

#[test]
fn bounds_and_opaque_fields() {
    fn of<T: Described>() -> Schema {
        Schema::of::<T>()
    }
    assert_eq!(of::<Bounded<u8>>().text(), "struct Bounded<16,8>{value:u8,secret:opaque<8,8>}");
}
