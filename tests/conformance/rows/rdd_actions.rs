//! Actions: what comes back from an RDD.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use crate::rows::pairs::grouped;
use crate::suite::{Order, Pair, Row};

fn values(batch: &[Pair]) -> Vec<i64> {
    batch.iter().map(|(_, value)| *value).collect()
}

/// The first of those that `better` prefers to all before them.
fn extreme(batch: &[Pair], better: impl Fn(&Pair, &Pair) -> bool) -> Option<Pair> {
    batch.iter().copied().reduce(|best, next| if better(&next, &best) { next } else { best })
}

/// The first three by this key; equal ones in their order.
fn three_by<K: Ord>(batch: &[Pair], key: impl Fn(&Pair) -> K) -> Vec<Pair> {
    let mut sorted = batch.to_vec();
    sorted.sort_by_key(key);
    sorted.truncate(3);
    sorted
}

pub const ROWS: &[Row] = &[
    Row {
        // Merged by what does not commute: the order shows.
        name: "rdd, aggregates",
        covers: &["Rdd::aggregate", "Rdd::fold", "Rdd::sum"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                let add = |mut list: Vec<i64>, (_, value): Pair| {
                    list.push(value);
                    list
                };
                let aggregated = rdd.aggregate(Vec::new(), add, |one, other| [one, other].concat())?;
                let lists = rdd.map(|(_, value)| vec![value]);
                let folded = lists.fold(Vec::new(), |one, other| [one, other].concat())?;
                Ok(vec![(aggregated, folded, rdd.values().sum()?)])
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| {
                let list = values(batch);
                [(list.clone(), list.clone(), list.iter().sum::<i64>())]
            }));
        },
    },
    Row {
        name: "rdd, first and is_empty",
        covers: &["Rdd::first", "Rdd::is_empty"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                let late = rdd.filter(|(key, _)| *key > 5);
                Ok(vec![(rdd.first()?, rdd.is_empty()?, late.first()?, late.is_empty()?)])
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| {
                let late = batch.iter().find(|(key, _)| *key > 5);
                [(batch.first(), batch.is_empty(), late, late.is_none())]
            }));
        },
    },
    Row {
        // Of records that compare equal by key the first, told by what the key leaves out.
        name: "rdd, extremes",
        covers: &["Rdd::max", "Rdd::min", "Rdd::max_by", "Rdd::min_by"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                Ok(vec![rdd.max()?, rdd.min()?, rdd.max_by(|(_, v)| *v)?, rdd.min_by(|(_, v)| *v)?])
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| {
                [
                    extreme(batch, |next, best| next > best),
                    extreme(batch, |next, best| next < best),
                    extreme(batch, |next, best| next.1 > best.1),
                    extreme(batch, |next, best| next.1 < best.1),
                ]
            }));
        },
    },
    Row {
        name: "rdd, the least and the most",
        covers: &["Rdd::take_ordered", "Rdd::take_ordered_by", "Rdd::top", "Rdd::top_by"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                Ok(vec![
                    rdd.take_ordered(3)?,
                    rdd.take_ordered_by(3, |(_, value)| *value)?,
                    rdd.top(3)?,
                    rdd.top_by(3, |(_, value)| *value)?,
                    rdd.top(0)?,
                ])
            });
        },
        oracle: |input, expected| {
            use std::cmp::Reverse;
            expected.emit(input.left.iter().map(|batch| {
                [
                    three_by(batch, |record| *record),
                    three_by(batch, |record| record.1),
                    three_by(batch, |record| Reverse(*record)),
                    three_by(batch, |record| Reverse(record.1)),
                    Vec::new(),
                ]
            }));
        },
    },
    Row {
        name: "rdd, counts",
        covers: &["Rdd::count_by_value", "Rdd::count_by_key"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| rdd.map(|(key, _)| format!("{key}")).count_by_value());
            job.act(&job.left, Order::Exact, |rdd| {
                let by_key = rdd.partition_by_key(4).count_by_key()?;
                Ok(vec![rdd.count_by_key()?, by_key])
            });
        },
        oracle: |input, expected| {
            let counts = |batch: &[Pair]| -> BTreeMap<u16, usize> {
                grouped(batch).into_iter().map(|(key, values)| (key, values.len())).collect()
            };
            expected.emit(input.left.iter().map(|batch| {
                let named = counts(batch).into_iter().map(|(key, count)| (key.to_string(), count));
                named.collect::<BTreeMap<_, _>>()
            }));
            expected.emit(input.left.iter().map(|batch| [counts(batch), counts(batch)]));
        },
    },
    Row {
        name: "rdd, pairs as a map",
        covers: &["Rdd::collect_as_map", "Rdd::lookup"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                let partitioned = rdd.partition_by_key(6);
                Ok(vec![(rdd.collect_as_map()?, rdd.lookup(&7)?, partitioned.lookup(&7)?)])
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| {
                let last: BTreeMap<u16, i64> = batch.iter().copied().collect();
                let seven = grouped(batch).remove(&7).unwrap_or_default();
                [(last, seven.clone(), seven)]
            }));
        },
    },
    Row {
        // A task that is tried again calls it again, so that only a set can be told.
        name: "rdd, for_each",
        covers: &["Rdd::for_each"],
        describe: |job| {
            job.act(&job.left, Order::Exact, |rdd| {
                let seen = Mutex::new(BTreeSet::new());
                rdd.for_each(|record| {
                    seen.lock().unwrap().insert(record);
                    Ok(())
                })?;
                Ok(seen.into_inner().unwrap().into_iter().collect())
            });
        },
        oracle: |input, expected| {
            expected.emit(input.left.iter().map(|batch| batch.iter().collect::<BTreeSet<_>>()));
        },
    },
];
