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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dstream::event_time::folds::Reduce;
    use proptest::prelude::*;

    proptest! {
        /// Each record is put where it belongs by itself, in the order of partitions and places.
        #[test]
        fn what_arrives_is_in_its_pane_or_late_in_order(
            partitions in prop::collection::vec(prop::collection::vec(0u64..120, 1..12), 1..5),
            (slide, more, offset) in (1u64..20, 0u64..40, 0u64..30),
            (lateness_ms, watermark_before) in (0u64..20, 0u64..100),
        ) {
            let panes = Panes::new(slide + more, slide, offset, lateness_ms);
            let fold = Arc::new(Reduce(|a: String, b: String| a + &b));
            let arriving = Arriving { panes, fold, watermark_before };
            let (mut parts, mut late) = (BTreeMap::<u64, String>::new(), Vec::new());
            let mut combined = Vec::new();
            for (at, times) in partitions.iter().enumerate() {
                let record = |(place, time)| (time, format!("{at}.{place} "));
                let records: Vec<(u64, String)> = times.iter().copied().enumerate().map(record).collect();
                for (time, text) in &records {
                    match panes.open_pane_of(*time, watermark_before) {
                        Some(pane) => *parts.entry(pane).or_default() += text,
                        None => late.push((*time, text.clone())),
                    }
                }
                let mut values = records.into_iter().map(|(time, text)| (time, Nested(text)));
                let first = arriving.create(values.next().unwrap());
                combined.push(values.fold(first, |all, value| arriving.merge_value(all, value)));
            }
            let all = combined.into_iter().reduce(|a, b| arriving.merge_combined(a, b)).unwrap();
            let (found, found_late) = taken_apart(all);
            let found: Vec<_> = found.collect();
            prop_assert_eq!(found.len(), parts.len());
            prop_assert_eq!(found.into_iter().collect::<BTreeMap<_, _>>(), parts);
            let found_late: Vec<_> = found_late.into_iter().map(|(time, text)| (time, text.0)).collect();
            prop_assert_eq!(found_late, late);
        }
    }
}
