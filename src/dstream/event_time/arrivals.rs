//! What the records of a key come to before they travel: one part for each pane, and those that are late.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dstream::event_time::folds::Fold;
use crate::dstream::event_time::panes::Panes;
use crate::rdd::shuffle::Aggregator;
use crate::record::{Data, Nested};

/// What arrived for a key: the pane of its first record with what is in it, and where there is more, the rest. Most
/// keys of a batch have one pane, and nothing is allocated for them.
pub(super) type Arrivals<P, V> = (Option<(u64, Nested<P>)>, Option<Box<Rest<P, V>>>);

/// The parts of other panes, and the records that are late for all of their windows, in their order.
pub(super) type Rest<P, V> = (BTreeMap<u64, Nested<P>>, Vec<(u64, Nested<V>)>);

/// Folds records as they arrive. Whether one is late is decided for each by itself.
pub(super) struct Arriving<F> {
    pub(super) panes: Panes,
    pub(super) fold: Arc<F>,
    pub(super) watermark_before: u64,
}

impl<F> Arriving<F> {
    /// Makes of what `pane` has, if it has anything, what it has then.
    fn put<P: Data, V: Data>(arrivals: &mut Arrivals<P, V>, pane: u64, part: impl FnOnce(Option<P>) -> P) {
        let (first, rest) = arrivals;
        match first {
            Some((of, _)) if *of != pane => {
                let parts = &mut rest.get_or_insert_default().0;
                let before = parts.remove(&pane).map(|before| before.0);
                parts.insert(pane, Nested(part(before)));
            }
            _ => {
                let before = first.take().map(|(_, before)| before.0);
                *first = Some((pane, Nested(part(before))));
            }
        }
    }
}

impl<V: Data, F: Fold<V>> Aggregator<(u64, Nested<V>)> for Arriving<F> {
    type Combined = Arrivals<F::Part, V>;

    fn create(&self, value: (u64, Nested<V>)) -> Self::Combined {
        self.merge_value((None, None), value)
    }

    #[inline]
    fn merge_value(
        &self,
        mut arrivals: Self::Combined,
        (time_ms, value): (u64, Nested<V>),
    ) -> Self::Combined {
        let same = arrivals.0.as_ref().map(|(pane, _)| *pane).filter(|pane| self.panes.has(*pane, time_ms));
        match same.or_else(|| self.panes.open_pane_of(time_ms, self.watermark_before)) {
            Some(pane) => {
                Self::put(&mut arrivals, pane, |part| self.fold.extend(part, time_ms, value.0));
            }
            None => arrivals.1.get_or_insert_default().1.push((time_ms, value)),
        }
        arrivals
    }

    fn merge_combined(&self, mut lower: Self::Combined, higher: Self::Combined) -> Self::Combined {
        let (parts, mut late) = taken_apart(higher);
        for (pane, part) in parts {
            Self::put(&mut lower, pane, |earlier| match earlier {
                Some(earlier) => self.fold.merge(earlier, part),
                None => part,
            });
        }
        if !late.is_empty() {
            lower.1.get_or_insert_default().1.append(&mut late);
        }
        lower
    }
}

/// The parts of panes, each pane once, and the records that are late.
pub(super) fn taken_apart<P, V>(
    (first, rest): Arrivals<P, V>,
) -> (impl Iterator<Item = (u64, P)>, Vec<(u64, Nested<V>)>) {
    let (others, late) = rest.map(|rest| *rest).unwrap_or_default();
    (first.into_iter().chain(others).map(|(pane, part)| (pane, part.0)), late)
}
