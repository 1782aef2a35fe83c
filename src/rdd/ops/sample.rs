use crate::error::{Error, ErrorKind, Result};
use crate::rdd::draws::Draws;
use crate::rdd::{Rdd, Record};

/// The most that a record is drawn on average: beyond it a mistake is more likely than a wish.
const COPIES_MAX: f64 = 1_000_000.0;

impl<T: Record> Rdd<T> {
    /// Each record kept with probability `fraction` (0 to 1), without replacement: about that share of all.
    /// Which ones follows from the seed and each record's partition and position in it: the same in a
    /// replay, on any number of threads. Lazy, narrow.
    ///
    /// A fraction out of its range makes the action that computes it fail with [`ErrorKind::InvalidGraph`].
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// assert_eq!(lines.sample(1.0, 7).count()?, 2);
    /// assert_eq!(lines.sample(0.0, 7).count()?, 0);
    /// assert_eq!(lines.sample(0.5, 7).collect()?, lines.sample(0.5, 7).collect()?);
    /// # Ok(()) });
    /// ```
    pub fn sample(&self, fraction: f64, seed: u64) -> Rdd<T> {
        let fits = (0.0..=1.0).contains(&fraction);
        self.drawn("sample", seed, move |draws, position| {
            check(fits, || format!("the fraction of a sample must be in 0 to 1, {fraction} is not"))?;
            Ok(u64::from(draws.unit(position, 0) < fraction))
        })
    }

    /// Each record taken so many times as a draw from the Poisson distribution with mean `fraction` (0 to
    /// 1,000,000) says: a sample with replacement. Copies of a record stand next to each other. Otherwise as
    /// [`sample`](Rdd::sample). Drawing takes time in proportion to `fraction`.
    ///
    /// ```
    /// # millpond::doc::run_batch(["a", "b"], |lines| {
    /// let many = lines.sample_with_replacement(50.0, 7);
    /// assert!(many.count()? > 2);
    /// assert_eq!(many.distinct().count()?, 2);
    /// # Ok(()) });
    /// ```
    pub fn sample_with_replacement(&self, fraction: f64, seed: u64) -> Rdd<T> {
        let fits = (0.0..=COPIES_MAX).contains(&fraction);
        self.drawn("sample_with_replacement", seed, move |draws, position| {
            check(fits, || {
                format!("the fraction of a sample must be in 0 to {COPIES_MAX}, {fraction} is not")
            })?;
            Ok(draws.poisson(position, fraction))
        })
    }

    /// Each record as often as `copies` says.
    pub(super) fn drawn(
        &self,
        operation: &'static str,
        seed: u64,
        copies: impl Fn(Draws, u64) -> Result<u64> + Send + Sync + 'static,
    ) -> Rdd<T> {
        self.narrow(operation, move |task, partition, parent, out| {
            let draws = Draws::new(seed, partition);
            let mut position = 0;
            parent.compute(task, partition, &mut |chunk| {
                for record in chunk.drain(..) {
                    let copies = copies(draws, position)?;
                    position += 1;
                    (1..copies).for_each(|_| out.emit(record.clone()));
                    if copies > 0 {
                        out.emit(record);
                    }
                }
                out.check()
            })
        })
    }
}

pub(super) fn check(fits: bool, message: impl Fn() -> String) -> Result<()> {
    if fits { Ok(()) } else { Err(Error::new(ErrorKind::InvalidGraph, message())) }
}
