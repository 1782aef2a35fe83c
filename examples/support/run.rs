//! How the examples say where they begin, and how they come to their end.

use std::error::Error;
use std::time::Duration;

use millpond::{RecoveryReport, RunningContext, StopMode};

/// What the start found.
pub fn tell(recovery: &RecoveryReport) {
    if recovery.fresh {
        println!("a new store");
        return;
    }
    let from = match recovery.checkpoint {
        Some((checkpoint, batch)) => format!("{checkpoint} ({batch})"),
        None => "the beginning".to_owned(),
    };
    println!(
        "recovered from {from}: {} batches computed again, {} of them emitted again",
        recovery.replayed.len(),
        recovery.emitted.len()
    );
}

/// Calls `look` twice a second until the sources have nothing more, and stops the job. `false` when somebody
/// else (Ctrl-C) has stopped it before.
pub fn run_to_end(
    job: &RunningContext,
    mut look: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<bool, Box<dyn Error>> {
    while job.progress().idle < Duration::from_millis(300) {
        look()?;
        if job.await_termination_or_timeout(Duration::from_millis(500))? {
            println!("stopped; start me again to go on");
            return Ok(false);
        }
    }
    job.stop(StopMode::Graceful)?;
    Ok(true)
}
