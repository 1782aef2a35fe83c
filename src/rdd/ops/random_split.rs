use crate::rdd::ops::sample::check;
use crate::rdd::{Rdd, Record};

impl<T: Record> Rdd<T> {
    /// One RDD per weight: each record is in exactly one of them, in that with probability weight by sum of
    /// all weights. Which one follows from the seed and the record's partition and position in it: the same
    /// in a replay, on any number of threads.
    ///
    /// Lazy, narrow: each part computes this RDD of its own, so [`persist`](Rdd::persist) what is costly to
    /// make. Weights that are negative, not finite or all 0 make the actions on the parts fail with
    /// [`ErrorKind::InvalidGraph`](crate::ErrorKind::InvalidGraph).
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b", "c"], |lines| {
    /// let parts = lines.random_split(&[3.0, 1.0], 7);
    /// assert_eq!(parts[0].count()? + parts[1].count()?, 3);
    /// # Ok(()) });
    /// ```
    pub fn random_split(&self, weights: &[f64], seed: u64) -> Vec<Rdd<T>> {
        let sum: f64 = weights.iter().sum();
        let fits = weights.iter().all(|weight| *weight >= 0.0) && sum.is_finite() && sum > 0.0;
        // Neighbours share the very number that divides them, so that no draw falls between or into both. The
        // last part of any weight takes the rest: a sum that is rounded may fall short of 1.
        let last = weights.iter().rposition(|weight| *weight > 0.0);
        let mut below = 0.0;
        let mut parts = Vec::with_capacity(weights.len());
        for (part, weight) in weights.iter().enumerate() {
            let start = below / sum;
            below += weight;
            let end = if last.is_some_and(|last| part >= last) { 1.0 } else { below / sum };
            let start = if last.is_some_and(|last| part > last) { 1.0 } else { start };
            parts.push(self.drawn("random_split", seed, move |draws, position| {
                check(fits, || "the weights of a split must be 0 or more, finite, and not all 0".to_owned())?;
                Ok(u64::from((start..end).contains(&draws.unit(position, 0))))
            }));
        }
        parts
    }
}
