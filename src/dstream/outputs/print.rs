use std::fmt::{Debug, Write as _};
use std::io::Write as _;

use crate::dstream::DStream;
use crate::rdd::Record;

impl<T: Record + Debug> DStream<T> {
    /// Prints the first `n` records of every batch to standard output, under a line with the batch's
    /// time. Closed output is no error.
    pub fn print(&self, n: usize) {
        self.add_output("print", move |rdd, info| {
            let records = rdd.take(n.saturating_add(1))?;
            let mut shown = format!("-- time: {} --\n", info.time);
            for record in records.iter().take(n) {
                writeln!(shown, "{record:?}")?;
            }
            if records.len() > n {
                shown.push_str("...\n");
            }
            match std::io::stdout().write_all(shown.as_bytes()) {
                Err(cause) if cause.kind() != std::io::ErrorKind::BrokenPipe => Err(cause.into()),
                _ => Ok(()),
            }
        });
    }
}
