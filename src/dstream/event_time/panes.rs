//! Tumbling and sliding windows, over panes: each value is kept once, whatever number of windows it is in.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use crate::dstream::event_time::arrivals::{Arrivals, taken_apart};
use crate::dstream::event_time::event_timer;
use crate::dstream::event_time::folds::Fold;
use crate::dstream::event_time::window::WindowOutput;
use crate::dstream::keyed::{KeyVisit, KeyedOperator, TimerDomain};
use crate::dstream::windows::pane_ms;
use crate::record::{Data, Key, Nested, WindowResult};

/// Where windows and their panes lie. Both are known by their ends, which unlike their starts are never before the
/// epoch: a window is of the panes with ends in `(end - size, end]`.
#[derive(Clone, Copy)]
pub(super) struct Panes {
    size_ms: u64,
    slide_ms: u64,
    width_ms: u64,
    offset_ms: u64,
    lateness_ms: u64,
}

/// The first time after `time_ms` that is `phase_ms` past a multiple of `step_ms`, be it beyond the last that there
/// is.
fn next_after(time_ms: u64, step_ms: u64, phase_ms: u128) -> u128 {
    let (time, step) = (u128::from(time_ms), u128::from(step_ms));
    time + step - (time + step - phase_ms % step) % step
}

impl Panes {
    pub(super) fn new(size_ms: u64, slide_ms: u64, offset_ms: u64, lateness_ms: u64) -> Self {
        // Those that cannot be are refused at the start, before anything divides by them.
        let (size_ms, slide_ms) = (size_ms.max(1), slide_ms.max(1));
        let width_ms = pane_ms(size_ms, slide_ms);
        Panes { size_ms, slide_ms, width_ms, offset_ms: offset_ms % slide_ms, lateness_ms }
    }

    /// Whether the time is in the pane.
    pub(super) fn has(&self, pane: u64, time_ms: u64) -> bool {
        (pane.saturating_sub(self.width_ms)..pane).contains(&time_ms)
    }

    /// The pane of a time, unless all windows of that are over.
    pub(super) fn open_pane_of(&self, time_ms: u64, watermark: u64) -> Option<u64> {
        self.pane_of(time_ms).filter(|pane| !self.is_over(self.last_window(*pane), watermark))
    }

    /// Whether nothing may be kept of a window any more.
    fn is_over(&self, window: u64, watermark: u64) -> bool {
        window.saturating_add(self.lateness_ms) <= watermark
    }

    /// The pane of a time, unless it is in no window that ends before time does.
    fn pane_of(&self, time_ms: u64) -> Option<u64> {
        let pane = u64::try_from(next_after(time_ms, self.width_ms, self.offset_ms.into())).ok()?;
        (self.last_window(pane) >= pane).then_some(pane)
    }

    fn next_window(&self, after_ms: u64) -> u128 {
        let phase = u128::from(self.offset_ms) + u128::from(self.size_ms % self.slide_ms);
        next_after(after_ms, self.slide_ms, phase)
    }

    /// The last window that the pane is in.
    fn last_window(&self, pane: u64) -> u64 {
        // The next one begins where the pane ends, or later, or does not end before time does.
        let beyond = self.next_window(pane.saturating_add(self.size_ms - self.width_ms));
        u64::try_from(beyond.saturating_sub(self.slide_ms.into())).unwrap_or(u64::MAX)
    }

    /// The windows that the pane is in and that end in `(after, until]`.
    fn windows_of(&self, pane: u64, after: u64, until: u64) -> impl Iterator<Item = u64> {
        let until = until.min(self.last_window(pane));
        let first = u64::try_from(self.next_window(after.max(pane.saturating_sub(1)))).ok();
        let next = |end: &u64| end.checked_add(self.slide_ms);
        std::iter::successors(first, next).take_while(move |end| *end <= until)
    }
}

/// What is kept of a key: up to which watermark its windows were emitted, its panes, and the revisions of windows
/// that were emitted and may be again.
type PaneState<P> = (u64, Vec<(u64, Nested<P>)>, Vec<(u64, u32)>);

pub(super) struct PaneOperator<F> {
    pub(super) panes: Panes,
    pub(super) fold: Arc<F>,
}

struct KeyPanes<P> {
    emitted_to: u64,
    parts: BTreeMap<u64, P>,
    revisions: BTreeMap<u64, u32>,
}

impl<P> KeyPanes<P> {
    fn of(state: Option<PaneState<P>>, watermark_before: u64) -> Self {
        let (emitted_to, parts, revisions) = state.unwrap_or((watermark_before, Vec::new(), Vec::new()));
        let parts = parts.into_iter().map(|(pane, part)| (pane, part.0)).collect();
        KeyPanes { emitted_to, parts, revisions: revisions.into_iter().collect() }
    }

    fn into_state(self) -> Option<PaneState<P>> {
        let parts: Vec<_> = self.parts.into_iter().map(|(pane, part)| (pane, Nested(part))).collect();
        (!parts.is_empty()).then(|| (self.emitted_to, parts, self.revisions.into_iter().collect()))
    }
}

impl<F> PaneOperator<F> {
    /// The windows that are complete, and were not emitted or have changed. `changed` says of each pane whether it
    /// is new: what is new changes no window that is over already.
    fn windows_to_emit<P>(
        &self,
        key: &KeyPanes<P>,
        changed: &BTreeMap<u64, bool>,
        before: u64,
        now: u64,
    ) -> BTreeSet<u64> {
        let over_to = before.saturating_sub(self.panes.lateness_ms);
        let mut windows = BTreeSet::new();
        for pane in key.parts.keys() {
            let after = match changed.get(pane) {
                None => key.emitted_to,
                Some(false) => key.emitted_to.min(over_to),
                Some(true) => over_to,
            };
            windows.extend(self.panes.windows_of(*pane, after, now));
        }
        windows
    }

    /// When the key has to be looked at again.
    fn next_time<P>(&self, key: &KeyPanes<P>, now: u64) -> Option<u64> {
        let next = |pane: &u64| {
            let window = self.panes.windows_of(*pane, now, u64::MAX).next();
            window.unwrap_or_else(|| self.panes.last_window(*pane).saturating_add(self.panes.lateness_ms))
        };
        key.parts.keys().map(next).min()
    }
}

impl<K: Key, V: Data, F: Fold<V>>
    KeyedOperator<K, Arrivals<F::Part, V>, PaneState<F::Part>, WindowOutput<K, V, F::Value>>
    for PaneOperator<F>
{
    fn visit(
        &self,
        visit: &mut KeyVisit<'_, K, PaneState<F::Part>>,
        arrived: &[Arrivals<F::Part, V>],
        out: &mut Vec<WindowOutput<K, V, F::Value>>,
    ) {
        let (before, now) = (visit.clock.watermark_before, visit.clock.watermark);
        let mut key = KeyPanes::of(visit.state.take(), before);
        let mut changed = BTreeMap::new();
        for arrivals in arrived {
            let (parts, late) = taken_apart(arrivals.clone());
            for (pane, part) in parts {
                let earlier = key.parts.remove(&pane);
                changed.entry(pane).or_insert(earlier.is_none());
                let part = match earlier {
                    Some(earlier) => self.fold.merge(earlier, part),
                    None => part,
                };
                key.parts.insert(pane, part);
            }
            let late = late.into_iter();
            out.extend(late.map(|(time_ms, value)| WindowOutput::Late(time_ms, visit.key.clone(), value.0)));
        }
        for end_ms in self.windows_to_emit(&key, &changed, before, now) {
            let of_window = (Excluded(end_ms.saturating_sub(self.panes.size_ms)), Included(end_ms));
            let parts = key.parts.range(of_window).map(|(_, part)| part.clone());
            let Some(part) = parts.reduce(|earlier, later| self.fold.merge(earlier, later)) else { continue };
            let revision = key.revisions.get(&end_ms).map_or(0, |last| last.saturating_add(1));
            key.revisions.insert(end_ms, revision);
            let (value, start_ms) = (self.fold.finish(part), end_ms.saturating_sub(self.panes.size_ms));
            let result = WindowResult { key: visit.key.clone(), start_ms, end_ms, value, revision };
            out.push(WindowOutput::Result(result));
        }
        key.emitted_to = key.emitted_to.max(now);
        key.parts.retain(|pane, _| !self.panes.is_over(self.panes.last_window(*pane), now));
        key.revisions.retain(|window, _| !self.panes.is_over(*window, now));
        visit.clear_timers(TimerDomain::Event);
        if let Some(time_ms) = self.next_time(&key, now) {
            visit.set_timer(event_timer(time_ms));
        }
        visit.state = key.into_state();
    }

    fn has_timers(&self) -> bool {
        true
    }

    fn kept(&self) -> Option<String> {
        let Panes { size_ms, slide_ms, offset_ms, .. } = self.panes;
        let part = self.fold.part_type();
        Some(format!("{part} in windows of {size_ms} ms every {slide_ms} ms from {offset_ms} ms"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the definition: windows end at offset + size + n * slide.
        #[test]
        fn windows_are_where_they_are_said_to_be(
            time in 0u64..300, slide in 1u64..20, more in 0u64..40, offset in 0u64..50,
        ) {
            let size = slide + more;
            let panes = Panes::new(size, slide, offset, 0);
            let is_end = |end: i64| (end - (offset + size) as i64).rem_euclid(slide as i64) == 0;
            let expected: Vec<u64> = (time + 1..=time + size).filter(|end| is_end(*end as i64)).collect();
            let pane = panes.pane_of(time).unwrap();
            prop_assert_eq!(panes.windows_of(pane, 0, u64::MAX).collect::<Vec<_>>(), expected.clone());
            prop_assert_eq!(panes.last_window(pane), *expected.last().unwrap());
            for end in expected {
                prop_assert!(pane <= end && pane + size > end);
            }
        }
    }

    /// A record would be lost if it had a pane that is in no window.
    #[test]
    fn at_the_end_of_time_a_pane_is_in_a_window_or_there_is_none() {
        for (size, slide, offset) in
            [(10, 4, 3), (10, 10, 0), (1, 1, 0), (u64::MAX, u64::MAX / 2 + 9, u64::MAX / 2)]
        {
            let panes = Panes::new(size, slide, offset, 0);
            for time in [u64::MAX - 20, u64::MAX - 9, u64::MAX - 4, u64::MAX - 1, u64::MAX] {
                let of_time = |end: u64| time < end && end - size.min(end) <= time;
                let windows = |pane| panes.windows_of(pane, 0, u64::MAX).collect::<Vec<_>>();
                let found = panes.pane_of(time).map(windows);
                assert!(found.is_none_or(|ends| !ends.is_empty() && ends.into_iter().all(of_time)));
            }
            assert_eq!(panes.pane_of(u64::MAX), None);
        }
    }
}
