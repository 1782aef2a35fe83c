//! How the values in a window become one.

use std::any::type_name;

use crate::rdd::Record;
use crate::record::{Data, Nested};

/// Folds the values of one key in one window.
pub(super) trait Fold<V>: Send + Sync + 'static {
    /// What is kept until the window is complete.
    type Part: Data;
    type Value: Record;

    /// What a part is called in a checkpoint.
    fn part_type(&self) -> String {
        type_name::<Self::Part>().to_owned()
    }

    fn first(&self, time_ms: u64, value: V) -> Self::Part;

    fn add(&self, part: Self::Part, time_ms: u64, value: V) -> Self::Part;

    /// Two parts of one window, the earlier one first.
    fn merge(&self, earlier: Self::Part, later: Self::Part) -> Self::Part;

    fn finish(&self, part: Self::Part) -> Self::Value;

    fn extend(&self, part: Option<Self::Part>, time_ms: u64, value: V) -> Self::Part {
        match part {
            Some(part) => self.add(part, time_ms, value),
            None => self.first(time_ms, value),
        }
    }
}

pub(super) struct Reduce<F>(pub(super) F);

impl<V: Data, F: Fn(V, V) -> V + Send + Sync + 'static> Fold<V> for Reduce<F> {
    type Part = V;
    type Value = V;

    fn first(&self, _: u64, value: V) -> V {
        value
    }

    fn add(&self, part: V, _: u64, value: V) -> V {
        (self.0)(part, value)
    }

    fn merge(&self, earlier: V, later: V) -> V {
        (self.0)(earlier, later)
    }

    fn finish(&self, part: V) -> V {
        part
    }
}

pub(super) struct Aggregate<A, F, M> {
    pub(super) zero: A,
    pub(super) add: F,
    pub(super) merge: M,
}

impl<V, A, F, M> Fold<V> for Aggregate<A, F, M>
where
    A: Data,
    F: Fn(A, V) -> A + Send + Sync + 'static,
    M: Fn(A, A) -> A + Send + Sync + 'static,
{
    type Part = A;
    type Value = A;

    fn first(&self, _: u64, value: V) -> A {
        (self.add)(self.zero.clone(), value)
    }

    fn add(&self, part: A, _: u64, value: V) -> A {
        (self.add)(part, value)
    }

    fn merge(&self, earlier: A, later: A) -> A {
        (self.merge)(earlier, later)
    }

    fn finish(&self, part: A) -> A {
        part
    }
}

pub(super) struct Collect;

impl<V: Data> Fold<V> for Collect {
    type Part = Vec<(u64, Nested<V>)>;
    type Value = Vec<V>;

    fn part_type(&self) -> String {
        format!("every {}", type_name::<V>())
    }

    fn first(&self, time_ms: u64, value: V) -> Self::Part {
        vec![(time_ms, Nested(value))]
    }

    fn add(&self, mut part: Self::Part, time_ms: u64, value: V) -> Self::Part {
        part.push((time_ms, Nested(value)));
        part
    }

    fn merge(&self, mut earlier: Self::Part, mut later: Self::Part) -> Self::Part {
        earlier.append(&mut later);
        earlier
    }

    fn finish(&self, mut part: Self::Part) -> Vec<V> {
        part.sort_by_key(|(time_ms, _)| *time_ms);
        part.into_iter().map(|(_, value)| value.0).collect()
    }
}

pub(super) struct Count;

impl<V: Data> Fold<V> for Count {
    type Part = u64;
    type Value = u64;

    fn first(&self, _: u64, _: V) -> u64 {
        1
    }

    fn add(&self, part: u64, _: u64, _: V) -> u64 {
        part + 1
    }

    fn merge(&self, earlier: u64, later: u64) -> u64 {
        earlier + later
    }

    fn finish(&self, part: u64) -> u64 {
        part
    }
}
