//! How fast a received stream may come in: a token bucket in front of the receive log.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use crate::time::Clock;

/// What a stream that was silent may catch up on, and what a block may hold of it.
const BURST_MS: u64 = 100;

/// A clock is asked again after this at the latest: it may be one that is moved by hand.
const LOOK_AGAIN_MS: u64 = 10;

/// No limit.
const UNLIMITED: u64 = u64::MAX;

/// A token bucket that lends: what asks is let in as a whole once nothing is owed, and then owes what it took.
/// A pure function of its numbers, which are whole: a rate in records per second is one in thousandths of a
/// record per millisecond.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBucket {
    /// Thousandths of a record; negative when owed.
    tokens: i128,
    at_ms: u64,
}

impl TokenBucket {
    pub(crate) fn new(now_ms: u64) -> Self {
        TokenBucket { tokens: 0, at_ms: now_ms }
    }

    /// How many milliseconds to wait at `rate` records per second until something is let in.
    pub(crate) fn wait_ms(&mut self, rate: u64, now_ms: u64) -> u64 {
        let rate = i128::from(rate.max(1));
        let passed_ms = i128::from(now_ms.saturating_sub(self.at_ms));
        self.at_ms = self.at_ms.max(now_ms);
        self.tokens = (self.tokens + rate * passed_ms).min(rate * i128::from(BURST_MS));
        let owed = (-self.tokens).max(0);
        u64::try_from((owed + rate - 1) / rate).unwrap_or(u64::MAX)
    }

    /// Lets `records` in.
    pub(crate) fn take(&mut self, records: u64) {
        self.tokens -= i128::from(records) * 1_000;
    }
}

/// Lets the records of one stream in.
pub(crate) struct Admission {
    clock: Arc<dyn Clock>,
    most: u64,
    rate: AtomicU64,
    bucket: Mutex<TokenBucket>,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admission({} records/s)", self.rate.load(Ordering::Relaxed))
    }
}

impl Admission {
    /// At most `most` records per second, whatever the rate is set to.
    pub(crate) fn new(clock: Arc<dyn Clock>, most: Option<u64>, rate: Option<u64>) -> Arc<Self> {
        let most = most.unwrap_or(UNLIMITED);
        let bucket = Mutex::new(TokenBucket::new(clock.now_ms()));
        let rate = AtomicU64::new(rate.unwrap_or(UNLIMITED).min(most));
        Arc::new(Admission { clock, most, rate, bucket })
    }

    pub(crate) fn set_rate(&self, rate: u64) {
        self.rate.store(rate.min(self.most), Ordering::Relaxed);
    }

    /// The records per second, `None` without a limit: then there is nothing to count.
    pub(crate) fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Ordering::Relaxed)).filter(|rate| *rate != UNLIMITED)
    }

    /// How many records a block may hold, so that a full one does not let in seconds' worth at once.
    pub(crate) fn block_records_max(&self) -> usize {
        self.rate().map_or(usize::MAX, |rate| (rate.saturating_mul(BURST_MS) / 1_000).max(1) as usize)
    }

    /// Waits until `records` may come in. A job that stops takes at once what was read already.
    /// `still_there` is called while waiting.
    pub(super) async fn admit(
        &self,
        records: usize,
        stop: &mut watch::Receiver<bool>,
        still_there: impl Fn(),
    ) {
        while let Some(wait) = self.wait_to_admit(records as u64) {
            still_there();
            tokio::select! {
                // First: once the job has stopped its runtime may be gone, and a timer of it panics.
                biased;
                () = super::receiver::stopped(stop) => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Takes the records, or says when to ask again.
    fn wait_to_admit(&self, records: u64) -> Option<Duration> {
        let rate = self.rate()?;
        let mut bucket = self.lock();
        let wait_ms = bucket.wait_ms(rate, self.clock.now_ms());
        if wait_ms == 0 {
            bucket.take(records);
            return None;
        }
        Some(Duration::from_millis(wait_ms.min(LOOK_AGAIN_MS)))
    }

    fn lock(&self) -> MutexGuard<'_, TokenBucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::ManualClock;

    #[test]
    fn what_was_taken_is_waited_off_at_the_rate() {
        let mut bucket = TokenBucket::new(1_000);
        assert_eq!(bucket.wait_ms(10, 1_000), 0);
        bucket.take(25);
        assert_eq!(bucket.wait_ms(10, 1_000), 2_500);
        assert_eq!(bucket.wait_ms(10, 3_499), 1);
        assert_eq!(bucket.wait_ms(10, 3_500), 0);
        // A new rate holds for what is still owed; a clock that stands still gives nothing.
        bucket.take(10);
        assert_eq!((bucket.wait_ms(5, 3_500), bucket.wait_ms(20, 3_500)), (2_000, 500));
        assert_eq!(bucket.wait_ms(20, 0), 500);
        // Silence is worth a tenth of a second, not more.
        assert_eq!(bucket.wait_ms(20, 900_000), 0);
        bucket.take(3);
        assert_eq!(bucket.wait_ms(20, 900_000), 50);
    }

    #[test]
    fn a_rate_never_goes_over_the_most_and_bounds_a_block() {
        let clock = ManualClock::at(0);
        let admission = Admission::new(clock.clone(), Some(50), None);
        assert_eq!((admission.rate(), admission.block_records_max()), (Some(50), 5));
        admission.set_rate(1_000);
        assert_eq!(admission.rate(), Some(50));
        admission.set_rate(1);
        assert_eq!((admission.rate(), admission.block_records_max()), (Some(1), 1));
        let open = Admission::new(clock, None, None);
        assert_eq!((open.rate(), open.block_records_max()), (None, usize::MAX));
    }

    proptest! {
        /// Over any time, no more than the rate, the burst and one block; and who waits as told is let in.
        #[test]
        fn the_rate_is_kept_and_the_wait_is_no_longer_than_needed(
            rate in 1u64..5_000,
            steps in proptest::collection::vec((0u64..3_000, 1u64..400), 1..60),
        ) {
            let (mut bucket, mut now_ms, mut taken) = (TokenBucket::new(7), 7, 0);
            for (pause_ms, records) in steps {
                now_ms += pause_ms;
                let wait_ms = bucket.wait_ms(rate, now_ms);
                if wait_ms > 0 {
                    prop_assert!(bucket.wait_ms(rate, now_ms + wait_ms - 1) > 0);
                }
                now_ms += wait_ms;
                prop_assert_eq!(bucket.wait_ms(rate, now_ms), 0);
                prop_assert!(taken * 1_000 <= rate * (now_ms - 7 + BURST_MS));
                bucket.take(records);
                taken += records;
            }
        }
    }
}
