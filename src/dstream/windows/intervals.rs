//! Where partial aggregates of windows lie in time: the base intervals of Arasu and Widom, "Resource sharing in
//! continuous sliding-window aggregates" (2004).
//!
//! Time is cut into panes, the greatest common divisor of length and slide long, so that a window has only whole ones.
//! Two panes make an interval of level 1, two of these one of level 2, and so on. A window of `n` panes is at most
//! `2 log2(n)` intervals, one after the other.

use super::{Span, pane_ms};

/// `2^level` panes: those from number `index << level` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) level: u32,
    pub(super) index: u64,
}

impl Interval {
    /// The two halves, the earlier one first; a pane has none.
    pub(super) fn halves(self) -> Option<[Interval; 2]> {
        let level = self.level.checked_sub(1)?;
        Some([0, 1].map(|half| Interval { level, index: self.index << 1 | half }))
    }
}

/// The panes of a window's length and slide.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panes {
    span: Span,
    pane_ms: u64,
}

/// What is shared by so many windows is worth being merged for itself.
const SHARED_BY_MIN: u64 = 3;

impl Panes {
    pub(super) fn of(span: Span) -> Self {
        Panes { span, pane_ms: pane_ms(span.length_ms, span.slide_ms) }
    }

    /// The batches with times after the first and up to the second are in the interval.
    pub(super) fn times(self, interval: Interval) -> (u64, u64) {
        let at = |index: u64| {
            let time = (u128::from(index) * u128::from(self.pane_ms)) << interval.level;
            u64::try_from(time).unwrap_or(u64::MAX)
        };
        (at(interval.index), at(interval.index + 1))
    }

    /// The window that ends at `end_ms` as few intervals, in order.
    pub(super) fn cover(self, end_ms: u64) -> Vec<Interval> {
        let (mut next, end) = (self.span.before(end_ms) / self.pane_ms, end_ms / self.pane_ms);
        let mut cover = Vec::new();
        while next < end {
            let level = next.trailing_zeros().min((end - next).ilog2());
            cover.push(Interval { level, index: next >> level });
            next += 1 << level;
        }
        cover
    }

    /// Whether several windows have all of the interval. It follows from where that lies alone, so that the values of
    /// a window are merged in the same way wherever a job was started anew.
    pub(super) fn is_shared(self, interval: Interval) -> bool {
        let (after, until) = self.times(interval);
        let Span { length_ms, slide_ms } = self.span;
        let (first, last) = (until.div_ceil(slide_ms), after.saturating_add(length_ms) / slide_ms);
        (last + 1).saturating_sub(first) >= SHARED_BY_MIN
    }

    /// Whether a window that comes after the one that ends at `end_ms` has all of the interval.
    pub(super) fn is_needed_after(self, end_ms: u64, interval: Interval) -> bool {
        self.times(interval).0 >= self.span.before(end_ms.saturating_add(self.span.slide_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_window_is_a_few_intervals_without_gaps(
            length_ms in 1u64..400, slide_ms in 1u64..60, windows in 0u64..300,
        ) {
            let span = Span { length_ms, slide_ms };
            let (panes, end) = (Panes::of(span), windows * slide_ms);
            let cover = panes.cover(end);
            let mut at = span.before(end);
            for interval in &cover {
                let (after, until) = panes.times(*interval);
                prop_assert_eq!(after, at);
                at = until;
                if let Some([one, other]) = interval.halves() {
                    let (first, second) = (panes.times(one), panes.times(other));
                    prop_assert_eq!((first.0, first.1, second.1), (after, second.0, until));
                }
            }
            prop_assert_eq!(at, end.max(span.before(end)));
            let most = 2 * (length_ms / panes.pane_ms).ilog2() + 2;
            prop_assert!(cover.len() <= most as usize, "{cover:?}");
        }

        #[test]
        fn an_interval_is_shared_by_the_windows_that_have_it(
            length_ms in 1u64..60, slide_ms in 1u64..20, level in 0u32..5, index in 0u64..10, now in 0u64..40,
        ) {
            let span = Span { length_ms, slide_ms };
            let (panes, interval) = (Panes::of(span), Interval { level, index });
            let (after, until) = panes.times(interval);
            let ends = || (0..2_000).map(|n| n * slide_ms);
            let has = |end: &u64| after + length_ms >= *end && until <= *end;
            prop_assert_eq!(panes.is_shared(interval), ends().filter(has).count() as u64 >= SHARED_BY_MIN);
            let now = now * slide_ms;
            if until <= now {
                let needed = ends().filter(has).any(|end| end > now);
                prop_assert_eq!(panes.is_needed_after(now, interval), needed);
            }
        }
    }

    #[test]
    fn windows_as_long_as_all_time_are_covered() {
        let panes = Panes::of(Span { length_ms: u64::MAX, slide_ms: 5 });
        let cover = panes.cover(u64::MAX - 1);
        assert!(cover.len() < 130);
        assert!(cover.iter().all(|interval| panes.times(*interval).0 < u64::MAX));
    }
}
