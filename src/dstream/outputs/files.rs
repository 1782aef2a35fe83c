//! Outputs that are a directory per batch.

use std::path::{Path, PathBuf};

use crate::dstream::DStream;
use crate::error::Result;
use crate::id::BatchTime;
use crate::rdd::{Rdd, Record};

/// Where a file output puts its batches.
struct Place {
    prefix: PathBuf,
    /// With its dot, or empty.
    suffix: String,
}

impl Place {
    fn new(prefix: PathBuf, suffix: &str) -> Self {
        let suffix = if suffix.is_empty() { String::new() } else { format!(".{suffix}") };
        Place { prefix, suffix }
    }

    fn of(&self, time: &str) -> PathBuf {
        let mut name = self.prefix.file_name().unwrap_or_default().to_os_string();
        name.push(format!("-{time}{}", self.suffix));
        self.prefix.with_file_name(name)
    }

    fn of_batch(&self, time: BatchTime) -> PathBuf {
        self.of(&time.0.to_string())
    }
}

impl<T: Record> DStream<T> {
    /// Saves each batch to its directory.
    pub(super) fn add_file_output(
        &self,
        operation: &'static str,
        prefix: PathBuf,
        suffix: &str,
        save: impl Fn(&Rdd<T>, &Path) -> Result<()> + Send + Sync + 'static,
    ) {
        let place = Place::new(prefix, suffix);
        self.graph.claim_place(&place.of("TIME").display().to_string(), suffix.contains('/'));
        self.add_output(operation, move |rdd, info| Ok(save(&rdd, &place.of_batch(info.time))?));
    }
}
