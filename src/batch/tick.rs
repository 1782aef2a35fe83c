//! When the next batch is due: a pure decision.

use crate::id::BatchTime;

/// What the clock says about the next batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    /// A batch of this time is due.
    Due(BatchTime),
    /// Nothing is due before this time.
    Wait(u64),
}

/// Batch times are multiples of the interval, each later than the one before. Times that passed while the
/// job was down or busy are not made up for: the next batch takes the latest of them and everything that
/// was received meanwhile.
pub(crate) fn next(last: BatchTime, interval_ms: u64, now_ms: u64) -> Tick {
    let latest = now_ms - now_ms % interval_ms;
    if latest > last.0 {
        return Tick::Due(BatchTime(latest));
    }
    Tick::Wait(last.0 - last.0 % interval_ms + interval_ms)
}

/// The batch time after `last` when time itself does not matter, as when a job drains before it stops.
pub(crate) fn following(last: BatchTime, interval_ms: u64, now_ms: u64) -> BatchTime {
    match next(last, interval_ms, now_ms) {
        Tick::Due(time) => time,
        Tick::Wait(time) => BatchTime(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_on_the_grid_and_missed_ones_are_skipped() {
        assert_eq!(next(BatchTime(1_000), 500, 1_499), Tick::Wait(1_500));
        assert_eq!(next(BatchTime(1_000), 500, 1_500), Tick::Due(BatchTime(1_500)));
        assert_eq!(next(BatchTime(1_000), 500, 9_777), Tick::Due(BatchTime(9_500)));
        // A clock that is behind the last batch waits for nothing but the next multiple.
        assert_eq!(next(BatchTime(1_000), 500, 20), Tick::Wait(1_500));
        // After the interval was changed, times go on rising on the new grid.
        assert_eq!(next(BatchTime(1_000), 300, 1_100), Tick::Wait(1_200));
        assert_eq!(next(BatchTime(1_000), 300, 1_201), Tick::Due(BatchTime(1_200)));
        assert_eq!(following(BatchTime(1_000), 500, 1_100), BatchTime(1_500));
    }
}
