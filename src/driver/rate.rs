//! Backpressure: what each stream may bring in, derived from how its last batches went.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::{Backpressure, Settings};
use crate::id::StreamId;
use crate::source::Admission;
use crate::time::Clock;

/// What a record of a replayable source is taken to have until it was measured.
const UNITS_PER_RECORD: f64 = 100.0;

/// A batch as the controller sees it, for one stream.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchFigures {
    /// When it was done.
    pub(super) now_ms: u64,
    /// Records of the stream.
    pub(super) records: u64,
    /// How long the batch took.
    pub(super) processing_ms: u64,
    /// How long after it was due it began.
    pub(super) delay_ms: u64,
}

/// A PID controller of records per second, as Spark's `PIDRateEstimator`: its error is the rate in force less
/// the rate at which the batch was processed; what has piled up, which is the scheduling delay at that
/// processing rate, stands in for the error's sum, so that nothing has to be remembered over many batches.
#[derive(Clone, Debug)]
pub(super) struct PidEstimator {
    gains: Backpressure,
    interval_ms: f64,
    /// The rate, the error and the time of the last batch that counted; `None` before the first.
    last: Option<(f64, f64, u64)>,
}

impl PidEstimator {
    pub(super) fn new(gains: Backpressure, interval_ms: u64) -> Self {
        PidEstimator { gains, interval_ms: interval_ms as f64, last: None }
    }

    /// The records per second from here on; `None` when the batch says nothing: it was the first, it was empty,
    /// or it is not later than the one before.
    pub(super) fn update(&mut self, batch: BatchFigures) -> Option<f64> {
        if batch.records == 0 || batch.processing_ms == 0 {
            return None;
        }
        let processing_rate = batch.records as f64 * 1_000.0 / batch.processing_ms as f64;
        let Some((last_rate, last_error, last_ms)) = self.last else {
            self.last = Some((processing_rate, 0.0, batch.now_ms));
            return None;
        };
        if batch.now_ms <= last_ms {
            return None;
        }
        let error = last_rate - processing_rate;
        let piled_up = batch.delay_ms as f64 * processing_rate / self.interval_ms;
        let change = (error - last_error) * 1_000.0 / (batch.now_ms - last_ms) as f64;
        let gains = &self.gains;
        let correction = gains.proportional * error + gains.integral * piled_up + gains.derivative * change;
        let rate = (last_rate - correction).max(gains.rate_min as f64);
        self.last = Some((rate, error, batch.now_ms));
        Some(rate)
    }
}

/// How one stream is slowed down.
struct StreamRate {
    estimator: PidEstimator,
    /// Records per second, `None` without a limit.
    rate: Option<f64>,
    units_per_record: f64,
    /// Where a received stream comes in.
    admission: Option<Arc<Admission>>,
}

/// The rates of a job's streams. Without backpressure there is none, and nothing is measured.
pub(super) struct Rates {
    backpressure: Option<Backpressure>,
    receiver_records_per_second_max: Option<u64>,
    interval_ms: u64,
    streams: HashMap<StreamId, StreamRate>,
}

impl Rates {
    pub(super) fn new(settings: &Settings) -> Self {
        Rates {
            backpressure: settings.backpressure.clone(),
            receiver_records_per_second_max: settings.receiver_records_per_second_max,
            interval_ms: settings.batch_interval_ms(),
            streams: HashMap::new(),
        }
    }

    /// The admission of a received stream.
    pub(super) fn admission(&mut self, stream: StreamId, clock: &Arc<dyn Clock>) -> Arc<Admission> {
        let initial = self.backpressure.as_ref().and_then(|backpressure| backpressure.initial_rate);
        let admission = Admission::new(clock.clone(), self.receiver_records_per_second_max, initial);
        if let Some(rate) = self.stream(stream) {
            rate.admission = Some(admission.clone());
        }
        admission
    }

    /// At most this much may be planned of a replayable source, in its own unit, where `most` is the limit
    /// without backpressure.
    pub(super) fn limit(&mut self, stream: StreamId, most: u64) -> u64 {
        let interval_ms = self.interval_ms as f64;
        let Some(stream) = self.stream(stream) else { return most };
        let Some(rate) = stream.rate else { return most };
        let units = rate * interval_ms / 1_000.0 * stream.units_per_record;
        (units as u64).clamp(1, most)
    }

    /// Takes in what a batch had of a stream, `units` in the source's own unit.
    pub(super) fn update(&mut self, stream: StreamId, batch: BatchFigures, units: u64) {
        let Some(stream) = self.stream(stream) else { return };
        if batch.records > 0 {
            stream.units_per_record = units as f64 / batch.records as f64;
        }
        let Some(rate) = stream.estimator.update(batch) else { return };
        stream.rate = Some(rate);
        if let Some(admission) = &stream.admission {
            admission.set_rate((rate as u64).max(1));
        }
    }

    fn stream(&mut self, stream: StreamId) -> Option<&mut StreamRate> {
        let backpressure = self.backpressure.as_ref()?;
        let interval_ms = self.interval_ms;
        Some(self.streams.entry(stream).or_insert_with(|| StreamRate {
            estimator: PidEstimator::new(backpressure.clone(), interval_ms),
            rate: backpressure.initial_rate.map(|rate| rate as f64),
            units_per_record: UNITS_PER_RECORD,
            admission: None,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::ManualClock;

    /// With the gains of Spark's tests: the error only.
    fn estimator(proportional: f64, integral: f64, derivative: f64, rate_min: u64) -> PidEstimator {
        let gains = Backpressure { initial_rate: None, proportional, integral, derivative, rate_min };
        PidEstimator::new(gains, 20)
    }

    fn batch(now_ms: u64, records: u64, processing_ms: u64, delay_ms: u64) -> BatchFigures {
        BatchFigures { now_ms, records, processing_ms, delay_ms }
    }

    /// PIDRateEstimatorSuite: the first bound, and that of a batch without records or time, is none.
    #[test]
    fn a_batch_that_says_nothing_gives_no_rate() {
        let mut pid = estimator(1.0, 0.0, 0.0, 10);
        assert_eq!(pid.update(batch(0, 10, 10, 0)), None);
        assert_eq!(pid.update(batch(10, 0, 10, 10)), None);
        assert_eq!(pid.update(batch(20, 10, 0, 0)), None);
        assert_eq!(pid.update(batch(0, 10, 10, 0)), None, "not later than the first");
        assert_eq!(pid.update(batch(30, 10, 10, 0)), Some(1_000.0));
    }

    /// PIDRateEstimatorSuite: the published rate is never below the minimum.
    #[test]
    fn the_rate_stays_at_the_minimum() {
        let mut pid = estimator(1.0, 1.0, 0.0, 10);
        let rates: Vec<_> = (0..50).map(|at| pid.update(batch(at * 20, 5, 20, at * 20))).collect();
        assert_eq!(rates[0], None);
        assert!(rates[2..].iter().all(|rate| *rate == Some(10.0)), "{rates:?}");
    }

    /// PIDRateEstimatorSuite: with no backlog the rate follows the processing rate.
    #[test]
    fn the_rate_follows_the_processing_rate() {
        let mut pid = estimator(1.0, 0.0, 0.0, 10);
        for at in 0..50u64 {
            let speed = (at + 1) * 100;
            let rate = pid.update(batch(at * 20, speed, 20, 0));
            assert_eq!(rate, (at > 0).then_some(speed as f64 * 50.0));
        }
    }

    /// PIDRateEstimatorSuite: a backlog lowers the rate below the processing rate.
    #[test]
    fn a_backlog_lowers_the_rate_and_the_derivative_damps_it() {
        let mut pid = estimator(1.0, 0.01, 0.0, 1);
        pid.update(batch(0, 20, 20, 0));
        // Processed at 1,000 per second, one interval late.
        assert_eq!(pid.update(batch(20, 20, 20, 20)), Some(990.0));
        let mut damped = estimator(1.0, 0.01, 0.01, 1);
        damped.update(batch(0, 20, 20, 0));
        // The error went from 0 to 500 within 20 ms: 25,000 per second.
        assert_eq!(damped.update(batch(20, 10, 20, 20)), Some(1_000.0 - 500.0 - 5.0 - 250.0));
    }

    #[test]
    fn rates_begin_at_the_initial_one_and_reach_both_kinds_of_streams() {
        let clock: Arc<dyn Clock> = ManualClock::at(0);
        let mut settings = Settings::named("job");
        settings.receiver_records_per_second_max = Some(500);
        let mut off = Rates::new(&settings);
        assert_eq!(off.admission(StreamId(1), &clock).rate(), Some(500));
        off.update(StreamId(1), batch(10, 1, 1_000, 0), 1);
        assert_eq!(off.limit(StreamId(2), 7_777), 7_777);
        let initial_rate = Some(200);
        settings.backpressure = Some(Backpressure { initial_rate, rate_min: 10, ..Backpressure::default() });
        let mut rates = Rates::new(&settings);
        let admission = rates.admission(StreamId(1), &clock);
        assert_eq!((admission.rate(), rates.limit(StreamId(2), 1 << 30)), (Some(200), 20_000));
        for now_ms in [1_000, 2_000] {
            rates.update(StreamId(1), batch(now_ms, 100, 2_000, 0), 999);
            rates.update(StreamId(2), batch(now_ms, 100, 2_000, 0), 2_000);
        }
        assert_eq!(admission.rate(), Some(50));
        // 50 records in a batch of one second, of 20 bytes each.
        assert_eq!((rates.limit(StreamId(2), 1 << 30), rates.limit(StreamId(2), 9)), (1_000, 9));
    }

    proptest! {
        #[test]
        fn a_rate_is_finite_and_not_below_the_minimum(
            batches in proptest::collection::vec((0u64..1 << 40, 0u64..1 << 40, 0u64..1 << 30, 0u64..1 << 30), 1..50),
            (proportional, integral, derivative) in (0.0..1_000.0, 0.0..1_000.0, 0.0..1_000.0),
            rate_min in 1u64..1 << 40,
        ) {
            let mut pid = estimator(proportional, integral, derivative, rate_min);
            for (now_ms, records, processing_ms, delay_ms) in batches {
                if let Some(rate) = pid.update(batch(now_ms, records, processing_ms, delay_ms)) {
                    prop_assert!(rate.is_finite() && rate >= rate_min as f64);
                }
            }
        }
    }
}
