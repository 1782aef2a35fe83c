//! A listener that reports how the last batches went.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::{BatchCompleted, StreamingListener};

/// What is reported of the sorted values, in percent.
const QUANTILES: [usize; 7] = [0, 5, 25, 50, 75, 95, 100];

/// Reports, after each batch, quantiles of the total delay and the processing time of the last `n` batches, at
/// the level `info` of the crate `tracing`. Replayed and failed batches do not count.
///
/// Keeps two durations for each of `n` batches.
///
/// ```
/// use std::sync::Arc;
/// use millpond::{StatsListener, StreamingContext};
///
/// let builder = StreamingContext::builder("orders").listener(Arc::new(StatsListener::new(10)));
/// ```
#[derive(Debug)]
pub struct StatsListener {
    batches: usize,
    last: Mutex<VecDeque<(Duration, Duration)>>,
}

impl StatsListener {
    /// Reports over the last `batches`, at least one.
    pub fn new(batches: usize) -> Self {
        StatsListener { batches: batches.max(1), last: Mutex::default() }
    }

    /// Takes a batch in, and returns the quantiles of total delay and processing time over the last ones.
    fn quantiles_with(&self, batch: &BatchCompleted) -> [[Duration; 7]; 2] {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.push_back((batch.total_delay, batch.processing_time));
        if last.len() > self.batches {
            last.pop_front();
        }
        let (delays, times) = last.iter().copied().unzip();
        [quantiles(delays), quantiles(times)]
    }
}

impl Default for StatsListener {
    /// Over the last 10 batches.
    fn default() -> Self {
        StatsListener::new(10)
    }
}

impl StreamingListener for StatsListener {
    fn batch_completed(&self, event: &BatchCompleted) {
        if event.replayed || event.error.is_some() {
            return;
        }
        let [total_delay, processing_time] = self.quantiles_with(event);
        tracing::info!(
            batches = self.batches,
            percent = ?QUANTILES,
            ?total_delay,
            ?processing_time,
            "the last batches"
        );
    }
}

/// The values at [`QUANTILES`], by nearest rank.
fn quantiles(mut values: Vec<Duration>) -> [Duration; 7] {
    values.sort_unstable();
    QUANTILES.map(|percent| {
        let rank = (values.len() * percent).div_ceil(100).max(1);
        values.get(rank - 1).copied().unwrap_or_default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{BatchId, BatchTime};

    fn millis(values: [Duration; 7]) -> [u128; 7] {
        values.map(|value| value.as_millis())
    }

    #[test]
    fn quantiles_are_values_that_were_there() {
        let values = (1..=100).rev().map(Duration::from_millis).collect();
        assert_eq!(millis(quantiles(values)), [1, 5, 25, 50, 75, 95, 100]);
        assert_eq!(millis(quantiles(vec![Duration::from_millis(7)])), [7; 7]);
    }

    #[test]
    fn only_the_last_batches_count() {
        let stats = StatsListener::new(2);
        let batch = |ms| BatchCompleted {
            batch: BatchId(ms),
            time: BatchTime(ms),
            bytes: 0,
            records: 0,
            streams: Vec::new(),
            scheduling_delay: Duration::from_millis(1),
            processing_time: Duration::from_millis(ms),
            total_delay: Duration::from_millis(ms + 1),
            replayed: false,
            error: None,
        };
        stats.quantiles_with(&batch(90));
        stats.quantiles_with(&batch(20));
        let [delays, times] = stats.quantiles_with(&batch(30)).map(millis);
        assert_eq!((delays[0], delays[6], times[0], times[6]), (21, 31, 20, 30));
    }
}
