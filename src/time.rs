//! Time is injected: the only module that reads the system's clocks.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Where a job's time comes from.
///
/// # Contract
/// `now_ms` never goes backwards within one process, whatever the machine's clock does.
/// `wait_until` returns no later than the deadline by this clock, and earlier when `wake` is notified.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> u64;

    /// Blocks until `deadline_ms`, or until `wake` was notified after `seen` was read from it.
    fn wait_until(&self, deadline_ms: u64, wake: &Arc<WakeUp>, seen: u64);
}

/// Wakes a thread that waits on a [`Clock`].
#[derive(Debug, Default)]
pub struct WakeUp {
    notified: Mutex<u64>,
    changed: Condvar,
}

impl WakeUp {
    /// A wake-up that nobody waits for yet.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// How often it was notified: read it before looking at what the notifier changes.
    pub fn seen(&self) -> u64 {
        *self.lock()
    }

    /// Wakes every waiter.
    pub fn notify(&self) {
        *self.lock() += 1;
        self.changed.notify_all();
    }

    /// Blocks until notified after `seen` was read, at most for `timeout` of real time.
    pub(crate) fn wait_for(&self, seen: u64, timeout: Duration) {
        self.wait(seen, Some(timeout));
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.notified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, seen: u64, timeout: Option<Duration>) {
        let guard = self.lock();
        let unchanged = |count: &mut u64| *count == seen;
        match timeout {
            Some(timeout) => drop(self.changed.wait_timeout_while(guard, timeout, unchanged)),
            None => drop(self.changed.wait_while(guard, unchanged)),
        }
    }
}

/// The machine's clock: anchored to the wall clock when it is made, then monotonic, so that a wall
/// clock that jumps while the job runs does not move its batches.
#[derive(Debug)]
pub struct SystemClock {
    anchor_ms: u64,
    started: Instant,
}

impl SystemClock {
    /// A clock that reads the wall clock once, now.
    #[allow(clippy::disallowed_methods, reason = "the clock is what reads the system's time")]
    pub fn new() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        SystemClock { anchor_ms: since_epoch.as_millis() as u64, started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        self.anchor_ms + self.started.elapsed().as_millis() as u64
    }

    fn wait_until(&self, deadline_ms: u64, wake: &Arc<WakeUp>, seen: u64) {
        let since_anchor = Duration::from_millis(deadline_ms.saturating_sub(self.anchor_ms));
        let left = since_anchor.saturating_sub(self.started.elapsed());
        if !left.is_zero() {
            wake.wait(seen, Some(left));
        }
    }
}

/// A clock that moves only when told to: batches run when a test says so, and never sleep.
///
/// ```
/// use millpond::{Clock, ManualClock};
///
/// let clock = ManualClock::at(1_000);
/// clock.advance(500);
/// assert_eq!(clock.now_ms(), 1_500);
/// ```
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<ManualState>,
}

#[derive(Debug)]
struct ManualState {
    now_ms: u64,
    waiting: Vec<Weak<WakeUp>>,
}

impl ManualClock {
    /// A clock that stands at `now_ms`.
    pub fn at(now_ms: u64) -> Arc<Self> {
        Arc::new(ManualClock { state: Mutex::new(ManualState { now_ms, waiting: Vec::new() }) })
    }

    /// Moves the clock forward and wakes whoever waits for the new time.
    pub fn advance(&self, by_ms: u64) {
        let waiting = {
            let mut state = self.lock();
            state.now_ms += by_ms;
            std::mem::take(&mut state.waiting)
        };
        for wake in waiting.iter().filter_map(Weak::upgrade) {
            wake.notify();
        }
    }

    fn lock(&self) -> MutexGuard<'_, ManualState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> u64 {
        self.lock().now_ms
    }

    fn wait_until(&self, deadline_ms: u64, wake: &Arc<WakeUp>, seen: u64) {
        {
            let mut state = self.lock();
            if state.now_ms >= deadline_ms {
                return;
            }
            state.waiting.push(Arc::downgrade(wake));
        }
        wake.wait(seen, None);
    }
}

/// Measures how long something took, for reports only: no decision depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "the one place that measures durations")]
    pub(crate) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_wakes_who_waits_when_it_is_advanced() {
        let clock = ManualClock::at(10);
        let wake = WakeUp::new();
        let seen = wake.seen();
        let waiter = {
            let (clock, wake) = (clock.clone(), wake.clone());
            std::thread::spawn(move || {
                let mut seen = seen;
                while clock.now_ms() < 20 {
                    clock.wait_until(20, &wake, seen);
                    seen = wake.seen();
                }
            })
        };
        clock.advance(5);
        clock.advance(5);
        waiter.join().unwrap();
    }

    #[test]
    fn a_notification_before_the_wait_is_not_lost() {
        let clock = ManualClock::at(0);
        let wake = WakeUp::new();
        let seen = wake.seen();
        wake.notify();
        clock.wait_until(1_000, &wake, seen);
        SystemClock::new().wait_until(u64::MAX / 4, &wake, seen);
    }
}
