//! When keys are due: an index over the timers in the rows of one key group, never stored.
//!
//! A key has one entry per time line at most in the usual case: a timer that moves to later leaves its entry
//! where it is, and the key is entered anew when that comes up. So a timer that is pushed ahead with every
//! record costs nothing but its row.

use std::collections::BTreeMap;

use crate::dstream::keyed::row::RowParts;
use crate::dstream::keyed::{BatchClock, TimerDomain};
use crate::error::Result;
use crate::state::KeyGroup;

/// No entry.
const NEVER: u64 = u64::MAX;

/// The numbers of keys by the time at which they are looked at.
#[derive(Debug, Default)]
struct DueQueue {
    by_time: BTreeMap<u64, Vec<u32>>,
    /// The earliest entry of each key, by its number.
    earliest: Vec<u64>,
}

impl DueQueue {
    fn schedule(&mut self, at: u32, due: u64) {
        let number = at as usize;
        if self.earliest.len() <= number {
            self.earliest.resize(number + 1, NEVER);
        }
        if due < self.earliest[number] {
            self.earliest[number] = due;
            self.by_time.entry(due).or_default().push(at);
        }
    }

    fn due(&self, now: u64) -> impl Iterator<Item = u32> {
        self.by_time.range(..=now).flat_map(|(_, keys)| keys.iter().copied())
    }

    /// Removes what is due, and returns it.
    fn take(&mut self, now: u64, taken: &mut Vec<u32>) {
        while let Some(entry) = self.by_time.first_entry() {
            if *entry.key() > now {
                return;
            }
            for at in entry.remove() {
                self.earliest[at as usize] = NEVER;
                taken.push(at);
            }
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
}

impl GroupTimers {
    /// Makes the index follow the group's present numbering, reading the whole group if it has to.
    pub(crate) fn follow(&mut self, group: &mut KeyGroup) -> Result<()> {
        if self.numbering == Some(group.table().numbering()) && group.is_loaded() {
            return Ok(());
        }
        group.load()?;
        *self = GroupTimers { numbering: Some(group.table().numbering()), ..GroupTimers::default() };
        for at in group.table().live() {
            self.schedule(group, at)?;
        }
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
