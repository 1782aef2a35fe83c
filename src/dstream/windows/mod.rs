//! Windows: operations over the batches of the last minutes, and reading them from outside.
//!
//! A window of a length and a slide ends at every multiple of the slide since the epoch; the one that ends
//! at time `t` holds the batches with times in `(t - length, t]`. What windows hold is state
//! ([`store::WindowStore`]): each batch's records are kept once, in chunks, from the batch they came in until
//! no window needs them any more. Reductions with an inverse also keep one aggregate per key
//! ([`inverse`]), and read of each batch only when it enters and when it leaves. Those without one merge partial
//! aggregates of several batches ([`merged`]).

mod chunks;
mod count_by_value_and_window;
mod count_by_window;
mod group_by_key_and_window;
mod intervals;
mod inverse;
mod merged;
mod pairs;
mod reduce_by_key_and_window;
mod reduce_by_window;
mod remember;
mod store;
mod window;

use std::time::Duration;

pub use remember::Remembered;

use crate::dstream::DStream;
use crate::rdd::Record;

/// The length and the slide of a window, both more than zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    length_ms: u64,
    slide_ms: u64,
}

impl Span {
    /// The end of the first window that a batch of this time can be in.
    fn end_from(self, time_ms: u64) -> u64 {
        time_ms.div_ceil(self.slide_ms).saturating_mul(self.slide_ms)
    }

    /// The end of the last window that ended at this time or before.
    fn end_until(self, time_ms: u64) -> u64 {
        time_ms - time_ms % self.slide_ms
    }

    fn is_end(self, time_ms: u64) -> bool {
        time_ms.is_multiple_of(self.slide_ms)
    }

    /// Batches of this time and before are not in the window that ends at `end_ms`.
    fn before(self, end_ms: u64) -> u64 {
        end_ms.saturating_sub(self.length_ms)
    }
}

impl<T: Record> DStream<T> {
    /// Checks the durations of the window called `name`. What is wrong with them is noted for the start.
    fn span(&self, operation: &str, name: &str, length: Duration, slide: Duration) -> Span {
        let step_ms = self.slide_or_interval_ms();
        let checked = |what: &str, duration: Duration| {
            let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            let whole = Duration::from_millis(ms) == duration;
            if ms > 0 && whole && ms.is_multiple_of(step_ms) {
                return ms;
            }
            self.graph.add_problem(format!(
                "the {what} of {operation} `{name}` is {duration:?}, and its input comes every {step_ms} ms: use \
                 a multiple of that, more than zero"
            ));
            step_ms
        };
        Span { length_ms: checked("length", length), slide_ms: checked("slide", slide) }
    }
}

/// How long the panes are that windows of this length and slide have whole: the greatest common divisor of both.
pub(in crate::dstream) fn pane_ms(length_ms: u64, slide_ms: u64) -> u64 {
    if slide_ms == 0 { length_ms } else { pane_ms(slide_ms, length_ms % slide_ms) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_end_at_multiples_of_the_slide(time in 0u64..10_000, slide_ms in 1u64..50, length_ms in 1u64..200) {
            let span = Span { length_ms, slide_ms };
            let ends: Vec<u64> = (0..400 * slide_ms).filter(|end| span.is_end(*end)).collect();
            prop_assert!(ends.iter().all(|end| end % slide_ms == 0));
            if time < 300 * slide_ms {
                prop_assert_eq!(ends.iter().find(|end| **end >= time).copied(), Some(span.end_from(time)));
                prop_assert_eq!(ends.iter().rfind(|end| **end <= time).copied(), Some(span.end_until(time)));
            }
        }
    }

    #[test]
    fn times_at_the_end_of_all_time_do_not_overflow() {
        let span = Span { length_ms: u64::MAX, slide_ms: u64::MAX - 1 };
        assert_eq!((span.end_from(u64::MAX), span.before(7)), (u64::MAX, 0));
    }
}
