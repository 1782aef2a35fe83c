//! Random draws that are a function of where a record is.
//!
//! A replay, perhaps by a newer build, must draw what the first run drew, and tasks must not share a
//! generator whose state would follow their order. So a draw is a hash of its place: XXH3-64, whose values
//! are fixed by its specification, of (partition, position, number of the draw), seeded by the user's seed.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The draws for the records of one partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws {
    seed: u64,
    partition: u64,
}

impl Draws {
    pub(crate) fn new(seed: u64, partition: usize) -> Self {
        Draws { seed, partition: partition as u64 }
    }

    /// The `nth` draw for the record at `position`: 64 random bits.
    pub(crate) fn bits(self, position: u64, nth: u64) -> u64 {
        let mut place = [0; 24];
        place[0..8].copy_from_slice(&self.partition.to_le_bytes());
        place[8..16].copy_from_slice(&position.to_le_bytes());
        place[16..24].copy_from_slice(&nth.to_le_bytes());
        xxh3_64_with_seed(&place, self.seed)
    }

    /// The `nth` draw for the record at `position`: evenly distributed over 0 (included) to 1 (excluded).
    pub(crate) fn unit(self, position: u64, nth: u64) -> f64 {
        // The 53 bits that a double holds exactly.
        (self.bits(position, nth) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A draw from the Poisson distribution of this mean for the record at `position`, by multiplying
    /// even draws (Knuth, "The Art of Computer Programming", volume 2, section 3.4.1): a mean above 1 is
    /// drawn as the sum of draws of mean 1 and one of the rest, so that nothing underflows.
    pub(crate) fn poisson(self, position: u64, mean: f64) -> u64 {
        let whole = mean.floor();
        let rest = std::iter::once(exp_of_minus(mean - whole));
        let limits = std::iter::repeat_n(1.0 / std::f64::consts::E, whole as usize).chain(rest);
        let (mut events, mut nth) = (0, 0);
        for limit in limits {
            let mut product = 1.0;
            loop {
                product *= self.unit(position, nth);
                nth += 1;
                if product < limit || product == 0.0 {
                    break;
                }
                events += 1;
            }
        }
        events
    }
}

/// e to the power of `-x` for x in 0 to 1, by its series: additions and multiplications give the same
/// bits on every machine, which a mathematical library does not promise.
fn exp_of_minus(x: f64) -> f64 {
    let (mut term, mut sum) = (1.0, 1.0);
    for k in 1..=20 {
        term *= -x / f64::from(k);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A replay in a newer build must draw the same: these values may never change.
    #[test]
    fn draws_are_fixed() {
        assert_eq!(
            Draws::new(42, 3).bits(7, 1),
            xxh3_64_with_seed(&[3u64, 7, 1].map(u64::to_le_bytes).concat(), 42)
        );
        assert_eq!(Draws::new(0, 0).bits(0, 0), 0x743d_f94e_e4c7_8a2a);
    }

    #[test]
    fn draws_follow_their_distributions() {
        for (seed, mean) in [(1u64, 0.3), (2, 0.7), (3, 1.0), (u64::MAX, 3.3), (0, 12.0)] {
            let draws: Vec<f64> =
                (0..20_000).map(|position| Draws::new(seed, 5).poisson(position, mean) as f64).collect();
            let average = draws.iter().sum::<f64>() / 20_000.0;
            let variance = draws.iter().map(|draw| (draw - average).powi(2)).sum::<f64>() / 20_000.0;
            assert!((average / mean - 1.0).abs() < 0.1, "{average} for a mean of {mean}");
            assert!((variance / mean - 1.0).abs() < 0.1, "a variance of {variance} for a mean of {mean}");
        }
        assert!((0..1000).all(|position| Draws::new(1, 1).poisson(position, 0.0) == 0));
        assert!((exp_of_minus(0.5) - (-0.5f64).exp()).abs() < 1e-15);
        assert!((exp_of_minus(1.0) - (-1.0f64).exp()).abs() < 1e-15);
    }
}
