//! Settings: plain data with the unit in each name, checked in one place.

use std::path::PathBuf;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// State, and every shuffle, is split into this many key groups. Fixed for the life of the format:
/// partitions may change between runs because each owns a range of whole groups.
pub const KEY_GROUPS: usize = 256;

/// The most records in a second that a limit may say.
const RATE_MAX: u128 = 1 << 40;

/// How input is slowed down to what the job gets through: from the processing time, the delay and the records
/// of each batch, a PID controller derives for each stream the rate for the time after it.
///
/// The rate limits what is received and what is planned, never what a planned batch computes: a batch that is
/// replayed is the same with any rate. A start begins with [`initial_rate`](Backpressure::initial_rate) again.
///
/// ```
/// use millpond::{Backpressure, StreamingContext};
///
/// let slow_at_first = Backpressure { initial_rate: Some(10_000), ..Backpressure::default() };
/// let builder = StreamingContext::builder("orders").backpressure(slow_at_first);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Backpressure {
    /// Records per second of each stream until the first batches were measured. Default: no limit.
    pub initial_rate: Option<u64>,
    /// How strongly the difference between the rate and what was processed counts. Default 1.0.
    pub proportional: f64,
    /// How strongly what has piled up counts. Default 0.2.
    pub integral: f64,
    /// How strongly the change of that difference counts. Default 0.0.
    pub derivative: f64,
    /// The rate, in records per second, never goes below this. Default 100.
    pub rate_min: u64,
}

impl Default for Backpressure {
    fn default() -> Self {
        Backpressure { initial_rate: None, proportional: 1.0, integral: 0.2, derivative: 0.0, rate_min: 100 }
    }
}

impl Backpressure {
    fn validate_gains(&self) -> Result<()> {
        let gains = [
            ("proportional", self.proportional),
            ("integral", self.integral),
            ("derivative", self.derivative),
        ];
        let Some((name, gain)) = gains.into_iter().find(|(_, gain)| !(0.0..=1_000.0).contains(gain)) else {
            return Ok(());
        };
        let message = format!("backpressure.{name} is {gain}, it must be between 0 and 1000");
        Err(Error::new(ErrorKind::InvalidConfig, message))
    }
}

/// How a job runs. Every field may change between runs of one store except `name`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// The job's name; a store belongs to one job.
    pub name: String,
    /// The store directory. Default `millpond-store` under the current directory.
    pub store: PathBuf,
    /// The time between batches. Default 1 s; at least 1 ms.
    pub batch_interval: Duration,
    /// A checkpoint is taken after this many batches; one that is due while a large one is still being written, after
    /// that. Default 10.
    pub checkpoint_every_batches: u64,
    /// How many checkpoints are kept at least. Default 2, the least that survives damage to the newest.
    pub checkpoints_retained: usize,
    /// Compute threads. Default: the cores of the machine.
    pub threads: usize,
    /// Partitions of a shuffle and so of keyed state, 1 to 256. Default 16. Never derived from the
    /// threads, so that outputs do not depend on the machine.
    pub partitions: usize,
    /// A received block is cut at this size, which also bounds a line. Default 1 MiB.
    pub block_bytes_max: usize,
    /// Received blocks that wait for their batch or are in it hold at most this much memory; then
    /// receivers wait. Default 256 MiB.
    pub receive_buffer_bytes_max: usize,
    /// A received block is cut no later than this after its first byte. Default: a quarter of the
    /// batch interval, at most 200 ms.
    pub block_interval: Option<Duration>,
    /// At most this much is planned from each replayable source in one batch. Default 128 MiB.
    pub source_bytes_per_batch_max: u64,
    /// Each received stream takes at most this many records in a second; who sends more waits, nothing is
    /// dropped. Default: no limit.
    pub receiver_records_per_second_max: Option<u64>,
    /// Input is slowed down to what the job gets through. Default: it is not; what limits input then is
    /// memory (`receive_buffer_bytes_max`) and `source_bytes_per_batch_max`.
    pub backpressure: Option<Backpressure>,
    /// All keyed state together holds about this much memory, in bytes; what is beyond it stays in the store. Default: no
    /// limit. See [`ContextBuilder::state_memory_bytes_max`](crate::ContextBuilder::state_memory_bytes_max).
    pub state_memory_bytes_max: Option<u64>,
    /// A task is tried this often before its batch fails. Default 4.
    pub task_attempts_max: u32,
    /// A start may drop the state of operators that the job no longer has. Default false.
    pub allow_dropping_state: bool,
    /// A start fails with [`ErrorKind::Nondeterministic`] when a batch that it computes again changes the state in another
    /// way than it did before. Default false: it goes on with what the replay made, and says so in the log and in
    /// [`RecoveryReport::differences`](crate::RecoveryReport::differences).
    pub refuse_replay_differences: bool,
    /// State of up to so many bytes is checked entirely before the job starts, which takes about a millisecond for each
    /// 4 MiB of it. Of a larger one each page is checked when it is read, and the rest behind the start, at low priority; no
    /// checkpoint is taken before that has found everything sound. Damage that comes to light only then stops the job with
    /// [`ErrorKind::Corrupt`], before anything is done with it, and the next start goes back to a sound checkpoint. Nothing
    /// that was put out is wrong in either case. Default 4 MiB; with `u64::MAX` a start never has to be tried twice.
    pub verify_at_start_bytes: u64,
    /// SIGINT (Ctrl-C) and SIGTERM stop the job gracefully, a second one at once. Default true.
    pub stop_on_signals: bool,
}

impl Settings {
    pub(crate) fn named(name: &str) -> Self {
        Settings {
            name: name.to_owned(),
            store: PathBuf::from("millpond-store"),
            batch_interval: Duration::from_secs(1),
            checkpoint_every_batches: 10,
            checkpoints_retained: 2,
            threads: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
            partitions: 16,
            block_bytes_max: 1 << 20,
            receive_buffer_bytes_max: 256 << 20,
            block_interval: None,
            source_bytes_per_batch_max: 128 << 20,
            receiver_records_per_second_max: None,
            backpressure: None,
            state_memory_bytes_max: None,
            task_attempts_max: 4,
            allow_dropping_state: false,
            refuse_replay_differences: false,
            verify_at_start_bytes: 4 << 20,
            stop_on_signals: true,
        }
    }

    /// The batch interval in milliseconds.
    pub fn batch_interval_ms(&self) -> u64 {
        self.batch_interval.as_millis() as u64
    }

    /// The time after which a block is cut although it is not full.
    pub fn block_interval(&self) -> Duration {
        self.block_interval.unwrap_or_else(|| (self.batch_interval / 4).min(Duration::from_millis(200)))
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`], naming the field, its value and the limit.
    pub fn validate(&self) -> Result<()> {
        let in_range = |field: &str, value: u128, least: u128, most: u128| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            let message = format!("{field} is {value}, it must be between {least} and {most}");
            Err(Error::new(ErrorKind::InvalidConfig, message))
        };
        in_range("length of the name in bytes", self.name.len() as u128, 1, 255)?;
        in_range("batch_interval in ms", self.batch_interval.as_millis(), 1, 86_400_000)?;
        in_range("checkpoint_every_batches", self.checkpoint_every_batches.into(), 1, 1_000_000)?;
        in_range("checkpoints_retained", self.checkpoints_retained as u128, 2, 1_000)?;
        in_range("threads", self.threads as u128, 1, 1_024)?;
        in_range("partitions", self.partitions as u128, 1, KEY_GROUPS as u128)?;
        in_range("block_bytes_max", self.block_bytes_max as u128, 1 << 10, 64 << 20)?;
        let least_buffer = 4 * self.block_bytes_max as u128;
        in_range("receive_buffer_bytes_max", self.receive_buffer_bytes_max as u128, least_buffer, 1 << 40)?;
        in_range("source_bytes_per_batch_max", self.source_bytes_per_batch_max.into(), 1, 1 << 40)?;
        if let Some(records) = self.receiver_records_per_second_max {
            in_range("receiver_records_per_second_max", records.into(), 1, RATE_MAX)?;
        }
        if let Some(backpressure) = &self.backpressure {
            in_range("backpressure.rate_min", backpressure.rate_min.into(), 1, RATE_MAX)?;
            if let Some(rate) = backpressure.initial_rate {
                in_range("backpressure.initial_rate", rate.into(), 1, RATE_MAX)?;
            }
            backpressure.validate_gains()?;
        }
        if let Some(bytes) = self.state_memory_bytes_max {
            in_range("state_memory_bytes_max", bytes.into(), 1 << 10, 1 << 50)?;
        }
        in_range("task_attempts_max", self.task_attempts_max.into(), 1, 100)?;
        in_range("block_interval in us", self.block_interval().as_micros(), 1, 60_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_out_of_range_is_named_with_its_limit() {
        let mut settings = Settings::named("job");
        settings.validate().unwrap();
        settings.checkpoints_retained = 1;
        let error = settings.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("checkpoints_retained is 1"), "{error}");
    }

    #[test]
    fn gains_and_rates_out_of_range_are_named() {
        let mut settings = Settings::named("job");
        for (backpressure, named) in [
            (Backpressure { integral: f64::NAN, ..Backpressure::default() }, "backpressure.integral is NaN"),
            (Backpressure { derivative: -0.1, ..Backpressure::default() }, "backpressure.derivative is -0.1"),
            (Backpressure { rate_min: 0, ..Backpressure::default() }, "backpressure.rate_min is 0"),
            (
                Backpressure { initial_rate: Some(0), ..Backpressure::default() },
                "backpressure.initial_rate is 0",
            ),
        ] {
            settings.backpressure = Some(backpressure);
            let error = settings.validate().unwrap_err();
            assert!(error.to_string().contains(named), "{error}");
        }
        settings.backpressure = Some(Backpressure::default());
        settings.validate().unwrap();
    }
}
