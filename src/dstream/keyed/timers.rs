//! When keys are due: an index over the timers in the rows of one key group, never stored.
//!
//! A key has one entry per time line at most, at its earliest timer or before: a timer that moves to later
//! leaves its entry where it is, and the key is entered anew when that comes up. So a timer that is pushed
//! ahead with every record costs nothing but its row.

use std::collections::BTreeSet;

use crate::dstream::keyed::row::RowParts;
use crate::dstream::keyed::{BatchClock, TimerDomain};
use crate::error::Result;
use crate::record::KeyTable;
use crate::state::KeyGroup;

/// No entry.
const NEVER: u64 = u64::MAX;

/// The numbers of keys by the time at which they are looked at.
#[derive(Debug, Default)]
struct DueQueue {
    by_time: BTreeSet<(u64, u32)>,
    /// The entry of each key, by its number.
    earliest: Vec<u64>,
}

impl DueQueue {
    fn schedule(&mut self, at: u32, due: u64) {
        // Looked at a moment early, a timer at the end of time is just not due yet.
        let (number, due) = (at as usize, due.min(NEVER - 1));
        if self.earliest.len() <= number {
            self.earliest.resize(number + 1, NEVER);
        }
        let before = self.earliest[number];
        if due < before {
            if before != NEVER {
                self.by_time.remove(&(before, at));
            }
            self.earliest[number] = due;
            self.by_time.insert((due, at));
        }
    }

    fn first(&self) -> u64 {
        self.by_time.first().map_or(NEVER, |(due, _)| *due)
    }

    fn due(&self, now: u64) -> impl Iterator<Item = u32> {
        self.by_time.range(..=(now, u32::MAX)).map(|(_, at)| *at)
    }

    /// Removes what is due, and returns it.
    fn take(&mut self, now: u64, taken: &mut Vec<u32>) {
        while let Some(&(due, at)) = self.by_time.first() {
            if due > now {
                return;
            }
            self.by_time.pop_first();
            self.earliest[at as usize] = NEVER;
            taken.push(at);
        }
    }
}

/// The timers of one key group.
#[derive(Debug, Default)]
pub(crate) struct GroupTimers {
    /// The numbering of the group's keys that the queues follow.
    numbering: Option<u64>,
    event: DueQueue,
    processing: DueQueue,
    /// Keys without an entry have no timer before these times, of event and of processing.
    beyond: [u64; 2],
}

/// The earliest timers of a row, of event and of processing.
fn earliest_of(row: &[u8]) -> Result<[u64; 2]> {
    let mut earliest = [NEVER; 2];
    for timer in RowParts::of(row)?.timers() {
        let earliest = &mut earliest[usize::from(timer.domain != TimerDomain::Event)];
        // As in the queues: at the end of time it is looked at a moment early.
        *earliest = timer.time_ms.min(NEVER - 1).min(*earliest);
    }
    Ok(earliest)
}

impl GroupTimers {
    /// Sees to it that whatever is due by `clock` has an entry for the group's present numbering. Reads the whole group
    /// only where something may be due that has none, and keeps it only if there is room.
    pub(crate) fn follow(&mut self, group: &mut KeyGroup, clock: &BatchClock) -> Result<()> {
        let numbering = Some(group.table().numbering());
        if self.numbering != numbering {
            let [event, processing] = self.beyond;
            let beyond = [event.min(self.event.first()), processing.min(self.processing.first())];
            *self = GroupTimers { numbering, beyond, ..GroupTimers::default() };
        }
        let now = [clock.watermark, clock.time_ms];
        let may_be_due =
            |times: [u64; 2]| times.iter().zip(now).any(|(time, now)| *time != NEVER && *time <= now);
        if !may_be_due(self.beyond) {
            return Ok(());
        }
        let mut beyond = [NEVER; 2];
        if group.load_if_it_fits()? {
            for at in group.table().live() {
                self.schedule(group, at)?;
            }
        } else {
            let mut due = KeyTable::default();
            group.for_each(|entry| {
                let earliest = earliest_of(entry.value.unwrap_or_default())?;
                if may_be_due(earliest) {
                    due.find_or_insert(entry.hash, entry.key);
                } else {
                    beyond = [beyond[0].min(earliest[0]), beyond[1].min(earliest[1])];
                }
                Ok(())
            })?;
            let mut numbers = Vec::with_capacity(due.len());
            group.touch_all(due.iter(), &mut numbers)?;
            numbers.into_iter().try_for_each(|at| self.schedule(group, at))?;
        }
        self.beyond = beyond;
        Ok(())
    }

    /// The numbers of the keys that may be due, in no order, some twice.
    pub(crate) fn due(&self, clock: &BatchClock) -> impl Iterator<Item = u32> {
        self.event.due(clock.watermark).chain(self.processing.due(clock.time_ms))
    }

    /// After a batch's changes were applied: what was due is entered for its next time, and so is what changed.
    pub(crate) fn advance(
        &mut self,
        group: &KeyGroup,
        clock: &BatchClock,
        changed: impl Iterator<Item = u32>,
    ) -> Result<()> {
        let mut again = Vec::new();
        self.event.take(clock.watermark, &mut again);
        self.processing.take(clock.time_ms, &mut again);
        again.into_iter().chain(changed).try_for_each(|at| self.schedule(group, at))
    }

    fn schedule(&mut self, group: &KeyGroup, at: u32) -> Result<()> {
        let Some(row) = group.table().value(at as usize) else { return Ok(()) };
        for timer in RowParts::of(row)?.timers() {
            match timer.domain {
                TimerDomain::Event => self.event.schedule(at, timer.time_ms),
                TimerDomain::Processing | TimerDomain::Expiry => self.processing.schedule(at, timer.time_ms),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_entry_however_often_its_timers_come() {
        let mut queue = DueQueue::default();
        let mut taken = Vec::new();
        for now in 0..1_000u64 {
            // A timer that comes soon, before one far ahead that is pushed further each time.
            queue.schedule(7, now + 500);
            queue.schedule(7, now);
            assert_eq!(queue.due(now).collect::<Vec<_>>(), [7]);
            taken.clear();
            queue.take(now, &mut taken);
            assert_eq!(taken, [7]);
            queue.schedule(7, now + 500);
            assert_eq!(queue.by_time.len(), 1, "at {now}");
        }
    }

    #[test]
    fn a_timer_at_the_end_of_time_is_entered() {
        let mut queue = DueQueue::default();
        queue.schedule(7, u64::MAX);
        queue.schedule(7, u64::MAX);
        assert_eq!(queue.due(u64::MAX).collect::<Vec<_>>(), [7]);
        assert_eq!(queue.due(u64::MAX - 2).count(), 0);
    }
}
