//! The engine of stateful operators with timers: in each batch it visits the keys that have new values, and
//! those with a timer that is due; nothing else is read or written.
//!
//! An operator decides for one key at a time ([`KeyedOperator`]); what it decides is collected first and
//! applied when the whole stage has succeeded. The index of timers is made from the rows, so that a key's row
//! is all there is of it, and a key without a row leaves nothing behind.

mod node;
mod row;
mod snapshots;
mod timers;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use node::KeyedSetup;
pub(crate) use row::{RowParts, assemble};
pub(crate) use snapshots::Snapshots;

use crate::error::Result;
use crate::id::BatchTime;
use crate::record::Data;

/// Which time a timer goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum TimerDomain {
    /// Due once the watermark has reached it.
    Event = 0,
    /// Due in the first batch of that time or later.
    Processing = 1,
    /// The same, for the end of a key's time to live.
    Expiry = 2,
}

impl TimerDomain {
    fn of(byte: u8) -> Option<Self> {
        [TimerDomain::Event, TimerDomain::Processing, TimerDomain::Expiry].get(usize::from(byte)).copied()
    }
}

/// A time at which a key is visited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Timer {
    pub(crate) domain: TimerDomain,
    pub(crate) time_ms: u64,
}

/// How far time is in a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchClock {
    /// The batch's time.
    pub(crate) time_ms: u64,
    /// The watermark at the batch's begin: records before it are late.
    pub(crate) watermark_before: u64,
    /// The watermark with the batch's own records counted in: timers up to it are due.
    pub(crate) watermark: u64,
}

impl BatchClock {
    fn is_due(&self, timer: Timer) -> bool {
        let now = if timer.domain == TimerDomain::Event { self.watermark } else { self.time_ms };
        timer.time_ms <= now
    }

    /// The end of a time to live that begins in this batch.
    fn expiry(&self, time_to_live_ms: u64) -> Timer {
        Timer { domain: TimerDomain::Expiry, time_ms: self.time_ms.saturating_add(time_to_live_ms) }
    }
}

/// The watermark of a stream with event time, as of the batch in progress.
#[derive(Debug, Default)]
pub(crate) struct WatermarkCell {
    before: AtomicU64,
    now: AtomicU64,
}

impl WatermarkCell {
    /// Sets the watermark at a batch's begin, and with the batch counted in.
    pub(crate) fn set(&self, before: u64, now: u64) {
        self.before.store(before, Ordering::SeqCst);
        self.now.store(now, Ordering::SeqCst);
    }

    pub(crate) fn clock(&self, time: BatchTime) -> BatchClock {
        BatchClock {
            time_ms: time.0,
            watermark_before: self.before.load(Ordering::SeqCst),
            watermark: self.now.load(Ordering::SeqCst),
        }
    }
}

/// What an operator does with one key in one batch.
pub(crate) trait KeyedOperator<K, V, S, O>: Send + Sync + 'static {
    /// Decides about a key that has new values, or a timer that is due, or both.
    fn visit(&self, visit: &mut KeyVisit<'_, K, S>, values: &[V], out: &mut Vec<O>);

    /// Whether keys can have timers: then the index of timers is kept, and a start reads all of the state.
    fn has_timers(&self) -> bool;

    /// What is kept of a key, where its type is the operator's own affair: a checkpoint that was taken with
    /// anything else is refused.
    fn kept(&self) -> Option<String> {
        None
    }

    /// How long a key may go without values before it is forgotten without a word.
    fn time_to_live_ms(&self) -> Option<u64> {
        None
    }

    /// The timers of a row that the state begins with.
    fn first_timers(&self, _clock: &BatchClock) -> Vec<Timer> {
        Vec::new()
    }
}

/// A key that is visited: its state and timers, to be changed in place.
pub(crate) struct KeyVisit<'a, K, S> {
    pub(crate) key: &'a K,
    pub(crate) clock: BatchClock,
    /// `None` after the visit removes the state.
    pub(crate) state: Option<S>,
    /// The timers that are due, in order; they are gone unless they are set again.
    pub(crate) due: Vec<Timer>,
    /// The others, in order.
    timers: Vec<Timer>,
}

impl<'a, K, S: Data> KeyVisit<'a, K, S> {
    /// Takes a row apart. A key whose time to live is over comes without state and timers.
    fn of(
        key: &'a K,
        clock: BatchClock,
        row: Option<&[u8]>,
        buffer: &mut crate::record::DataBuffer,
    ) -> Result<Self> {
        let mut visit = KeyVisit { key, clock, state: None, due: Vec::new(), timers: Vec::new() };
        let Some(row) = row else { return Ok(visit) };
        let parts = RowParts::of(row)?;
        let is_over = |timer: Timer| timer.domain == TimerDomain::Expiry && clock.is_due(timer);
        if parts.timers().any(is_over) {
            return Ok(visit);
        }
        (visit.due, visit.timers) = parts.timers().partition(|timer| clock.is_due(*timer));
        visit.state = parts.state(buffer)?;
        Ok(visit)
    }

    /// Sets a timer; one that is set already stays.
    pub(crate) fn set_timer(&mut self, timer: Timer) {
        if let Err(place) = self.timers.binary_search(&timer) {
            self.timers.insert(place, timer);
        }
    }

    pub(crate) fn delete_timer(&mut self, timer: Timer) {
        if let Ok(place) = self.timers.binary_search(&timer) {
            self.timers.remove(place);
        }
    }

    /// After the visit of an operator whose keys have a time to live: whatever is left of a key has an end, which
    /// values put off.
    fn live_on(&mut self, time_to_live_ms: u64, has_values: bool) {
        let is_end = |timer: &Timer| timer.domain == TimerDomain::Expiry;
        let is_left = self.state.is_some() || !self.timers.iter().all(is_end);
        if has_values || !is_left || !self.timers.iter().any(is_end) {
            self.clear_timers(TimerDomain::Expiry);
            if is_left {
                self.set_timer(self.clock.expiry(time_to_live_ms));
            }
        }
    }

    /// Deletes every timer of a domain.
    pub(crate) fn clear_timers(&mut self, domain: TimerDomain) {
        self.timers.retain(|timer| timer.domain != domain);
    }
}
