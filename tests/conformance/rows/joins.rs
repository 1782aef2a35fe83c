//! Two streams, or two RDDs, brought together by key. Grouping what comes out shows the order within each key.

use std::collections::{BTreeMap, BTreeSet};

use crate::rows::pairs::grouped;
use crate::suite::{BY_HASH, Expected, Input, Row};

type Values = Vec<i64>;

/// Emits what `each` makes of the values of every key left and right, as pairs and as groups.
fn emit<R: Clone + std::fmt::Debug>(
    input: &Input,
    expected: &mut Expected,
    each: impl Fn(&Values, &Values) -> Vec<R>,
) {
    let mut groups = Vec::new();
    for (left, right) in input.left.iter().zip(&input.right) {
        let (left, right) = (grouped(left), grouped(right));
        let keys: BTreeSet<u16> = left.keys().chain(right.keys()).copied().collect();
        let of = |side: &BTreeMap<u16, Values>, key: &u16| side.get(key).cloned().unwrap_or_default();
        let mut made: BTreeMap<u16, Vec<R>> =
            keys.into_iter().map(|key| (key, each(&of(&left, &key), &of(&right, &key)))).collect();
        made.retain(|_, values| !values.is_empty());
        groups.push(made);
    }
    let pairs = |groups: &BTreeMap<u16, Vec<R>>| -> Vec<(u16, R)> {
        let each = |(key, values): (&u16, &Vec<R>)| {
            let key = *key;
            values.clone().into_iter().map(move |value| (key, value)).collect::<Vec<_>>()
        };
        groups.iter().flat_map(each).collect()
    };
    expected.emit(groups.iter().map(pairs));
    expected.emit(groups);
}

fn or_none(values: &Values) -> Vec<Option<i64>> {
    if values.is_empty() { vec![None] } else { values.iter().copied().map(Some).collect() }
}

fn cross<A: Clone, B: Clone>(left: &[A], right: &[B]) -> Vec<(A, B)> {
    left.iter().flat_map(|one| right.iter().map(move |other| (one.clone(), other.clone()))).collect()
}

/// A row for an operation of streams and the same of RDDs, whose sides come from shuffles or are partitioned.
macro_rules! joining {
    ($name:literal, |$left:ident, $right:ident| $joined:expr, $each:expr) => {
        Row {
            name: $name,
            covers: &[concat!("DStream::", $name), concat!("Rdd::", $name)],
            describe: |job| {
                let ($left, $right) = (&job.left, &job.right);
                let streams = $joined;
                job.emit(&streams, BY_HASH);
                job.emit(&streams.group_by_key(), BY_HASH);
                let rdds = job.left.transform_with(&job.right, |left, right, _| {
                    let ($left, $right) = (&left.partition_by_key(3), &right);
                    Ok($joined)
                });
                job.emit(&rdds, BY_HASH);
                job.emit(&rdds.transform(|rdd, _| Ok(rdd.group_by_key())), BY_HASH);
            },
            oracle: |input, expected| {
                emit(input, expected, $each);
                emit(input, expected, $each);
            },
        }
    };
}

pub const ROWS: &[Row] = &[
    joining!("cogroup", |left, right| left.cogroup(right), |left: &Values, right: &Values| {
        vec![(left.clone(), right.clone())]
    }),
    joining!(
        "left_outer_join",
        |left, right| left.left_outer_join(right),
        |left: &Values, right: &Values| { cross(left, &or_none(right)) }
    ),
    joining!(
        "right_outer_join",
        |left, right| left.right_outer_join(right),
        |left: &Values, right: &Values| { cross(&or_none(left), right) }
    ),
    joining!(
        "full_outer_join",
        |left, right| left.full_outer_join(right),
        |left: &Values, right: &Values| {
            match left.is_empty() && right.is_empty() {
                true => Vec::new(),
                false => cross(&or_none(left), &or_none(right)),
            }
        }
    ),
    Row {
        name: "rdd, subtract_by_key",
        covers: &["Rdd::subtract_by_key"],
        describe: |job| {
            let left = job.left.transform_with(&job.right, |left, right, _| Ok(left.subtract_by_key(&right)));
            job.emit(&left, BY_HASH);
            job.emit(&left.transform(|rdd, _| Ok(rdd.group_by_key())), BY_HASH);
        },
        oracle: |input, expected| {
            let left_only = |left: &Values, right: &Values| match right.is_empty() {
                true => left.clone(),
                false => Vec::new(),
            };
            emit(input, expected, left_only);
        },
    },
];
